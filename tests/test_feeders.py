"""Batches: equal to the published pipelines in test mode, distributed as published in train mode."""

import logging
import math
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from plain_pipelines import PLAIN, chances, plain_place, turn_matrices
from scipy.stats import chisquare, hypergeom

from bpilib import feeders
from bpilib.data import SkeletonStore
from bpilib.feeders import PREPARATION, Feeder, counted_frames, prepare_clip, source_frames
from bpilib.ops import counter_rng, feeder_kernels
from bpilib.skeleton import MODALITIES, NTU, UCLA

EVERY_MODALITY = pytest.mark.parametrize("modality", MODALITIES)
TRAIN = pytest.mark.parametrize("train", [True, False], ids=["train", "test"])


def feed(store, positions=None, **options):
    feeder = Feeder(store, np.arange(len(store)), **options)
    return feeder.batch(range(len(feeder)) if positions is None else positions)[0].numpy()


# Small stores.


def ntu_case(seed, frames, bodies):
    """The goldens' input, as a stored clip (L, M, V, 3)."""
    x = np.random.RandomState(seed).standard_normal((3, frames, 25, 2)).astype(np.float32)
    if bodies == 1:
        x[..., 1] = 0
    return x.transpose(1, 3, 2, 0)


def noise(skeleton, frames, seed):
    return np.random.RandomState(seed).standard_normal((frames, skeleton.persons, skeleton.num_joints, 3))


LENGTHS = (1, 2, 5, 40, 64, 65, 83, 130, 300, 5000)


@pytest.fixture(scope="module", params=[NTU, UCLA], ids=lambda s: s.name)
def store(request, make_store):
    """Clips of many lengths, noise, label i % 3."""
    clips = [noise(request.param, frames, seed) for seed, frames in enumerate(LENGTHS)]
    return make_store(request.param, clips, [i % 3 for i in range(len(clips))])


@pytest.fixture(scope="module")
def short_store(store, make_store):
    """The same without the longest."""
    clips = [store.sample(i) for i in range(len(store) - 1)]
    return make_store(store.skeleton, clips, store.labels[:-1].tolist())


@pytest.fixture(scope="module", params=[NTU, UCLA], ids=lambda s: s.name)
def still_store(request, make_store):
    """Clips in which nobody moves."""
    return make_store(request.param, [noise(request.param, 1, n).repeat(n, 0) for n in (1, 3, 70, 200)])


@pytest.fixture(scope="module")
def ntu_frames(make_store):
    """make(lengths): clips whose joint 1 lies at (t + 1, 0, 0) in frame t, whatever the rotation then makes of it."""

    def make(*lengths):
        clips = [np.zeros((length, 1, 25, 3)) for length in lengths]
        for clip in clips:
            clip[:, 0, 0, 0] = np.arange(len(clip)) + 1
        return make_store(NTU, clips)

    return make


@pytest.fixture(scope="module")
def ucla_frames(make_store):
    """make(lengths): clips where joint 1 lies at the centre, 2 a step from it, 3 t such steps, the others around."""

    def make(*lengths):
        clips = [np.zeros((length, 20, 3)) for length in lengths]
        for clip in clips:
            clip[:, 2] = (0.3, 0.5, 0.7)
            clip[:, 3] = clip[:, 2] * np.arange(len(clip))[:, None]
            clip[:, 4:7] = 3 * np.eye(3)
            clip[:, 7:10] = -3 * np.eye(3)
        return make_store(UCLA, clips)

    return make


def ucla_frame_numbers(x):
    """(N, 3, T, V, 1) of `ucla_frames` to the frame numbers drawn (N, T): the steps of joint 3 along the way to 2."""
    x = x[..., 0].astype(np.float64)
    step, way = x[..., 2] - x[..., 0], x[..., 3] - x[..., 0]  # (N, 3, T)
    numbers = (way * step).sum(1) / (step * step).sum(1)
    assert np.abs(numbers - numbers.round()).max() < 1e-2
    return numbers.round().astype(int)


# Test mode.


@pytest.mark.parametrize("key", ["joint_83_seed1_bodies2", "joint_motion_31_seed2_bodies1"])
def test_ntu_equals_the_published_test_pipeline(key, golden, make_store):
    modality, frames, seed, bodies = re.fullmatch(r"(\w+)_(\d+)_seed(\d)_bodies(\d)", key).groups()
    x = feed(make_store(NTU, [ntu_case(int(seed), int(frames), int(bodies))]), modality=modality)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0], golden("ntu_feeder")[key], rtol=0, atol=1e-5)


@pytest.mark.parametrize("key", ["joint_a05_s04_e02_v03", "joint_motion_a12_s09_e04_v03"])
def test_ucla_equals_the_published_test_pipeline(key, golden, make_store):
    modality, name = re.fullmatch(r"(\w+)_(a\d+_s\d+_e\d+_v\d+)", key).groups()
    x = feed(make_store(UCLA, [golden("ucla_clips")[name]]), modality=modality)
    np.testing.assert_allclose(x[0], golden("ucla_feeder")[key], rtol=0, atol=1e-5)


LINSPACE_WINDOWS = (1, 2, 13, 52, 64, 100)


def test_ucla_takes_the_frames_of_linspace_at_every_length(make_store):
    lengths = [*range(1, 301), 1000, 5000]
    clips = [np.zeros((length, 20, 3)) for length in lengths]
    for clip in clips:
        clip[:, 5] = np.arange(len(clip))[:, None]
    store = make_store(UCLA, clips)
    for window in LINSPACE_WINDOWS:
        x = feed(store, window=window)[:, 0, :, 5, 0].astype(np.float64)
        for length, row in zip(lengths, x):
            expected = np.linspace(0, length - 1, window).astype(int)
            frames = (row + 1) / 2 * (length - 1) if length > 1 else np.zeros(window)
            np.testing.assert_allclose(frames, expected, atol=5e-3)
            assert source_frames(UCLA, length, window).tolist() == expected.tolist()


def test_a_reciprocal_would_take_other_frames():
    """What must not come back: 1 / (T - 1) rounded, then multiplied, is off at lengths as common as these."""
    for length in (10, 19, 37, 73):
        wrong = (np.arange(52) * ((length - 1) * (1 / 51))).astype(int)
        wrong[-1] = length - 1
        assert (wrong != source_frames(UCLA, length)).any()


def test_ntu_interpolates_as_torch_does_at_every_length(make_store):
    lengths = list(range(1, 301, 7))
    store = make_store(NTU, [noise(NTU, length, length)[:, :1, :] for length in lengths], persons=1)
    x = feed(store)
    for i, length in enumerate(lengths):
        bias = int((1 - 0.95) * length / 2)
        crop = torch.from_numpy(store.sample(i)[bias : length - bias].copy()).flatten(1)  # (l, VC)
        wide = torch.nn.functional.interpolate(crop.T[None], size=64, mode="linear", align_corners=False)[0]
        expected = wide.view(25, 3, 64).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(x[i, ..., 0], expected, rtol=0, atol=1e-5)


# Both modes against the plain version.


@EVERY_MODALITY
@TRAIN
def test_equals_the_plain_version_sample_by_sample(short_store, modality, train):
    skeleton = short_store.skeleton
    feeder = Feeder(short_store, np.arange(len(short_store)), modality, train=train, seed=11, repeats=2)
    feeder.epoch = 3
    positions = [*range(len(short_store)), 10, 16, 3]
    x, y = feeder.batch(positions)
    assert x.shape == (len(positions), 3, skeleton.window, skeleton.num_joints, skeleton.persons)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    for i, position in enumerate(positions):
        row = position % len(short_store)
        chance = chances(skeleton, 11, 3, position) if train else None
        expected = PLAIN[skeleton.name](short_store.sample(row), modality, chance=chance)
        np.testing.assert_allclose(x[i], expected, rtol=0, atol=3e-5)
        assert y[i] == short_store.labels[row]


@TRAIN
@pytest.mark.parametrize("window", [1, 2, 16, 100])
def test_other_windows_equal_the_plain_version(short_store, window, train):
    skeleton, modality = short_store.skeleton, "joint_motion"
    x = feed(short_store, modality=modality, window=window, train=train, seed=2)
    assert x.shape[2] == window
    for i in (0, 1, 4, 7):
        chance = chances(skeleton, 2, 0, i) if train else None
        expected = PLAIN[skeleton.name](short_store.sample(i), modality, window, chance)
        np.testing.assert_allclose(x[i], expected, rtol=0, atol=3e-5)


@TRAIN
def test_long_clips_equal_the_plain_version(store, train):
    position = LENGTHS.index(5000)
    x = feed(store, [position], train=train, seed=1)[0]
    chance = chances(store.skeleton, 1, 0, position) if train else None
    expected = PLAIN[store.skeleton.name](store.sample(position), "joint", chance=chance)
    np.testing.assert_allclose(x, expected, rtol=0, atol=3e-5)


@EVERY_MODALITY
@TRAIN
def test_clips_of_one_frame(store, modality, train):
    x = feed(store, [0], modality=modality, train=train)
    assert np.isfinite(x).all()
    np.testing.assert_allclose(x, x[:, :, :1].repeat(x.shape[2], 2), atol=1e-6)
    assert x.any() == (not modality.endswith("motion"))


# What does not change.


@TRAIN
@pytest.mark.parametrize("modality", ["joint_motion", "bone_motion"])
def test_a_still_clip_has_no_motion(still_store, modality, train):
    assert np.abs(feed(still_store, modality=modality, train=train)).max() < 1e-6


@EVERY_MODALITY
@TRAIN
def test_motion_ends_at_rest_and_the_roots_bone_is_zero(short_store, modality, train):
    x = feed(short_store, modality=modality, train=train)
    if modality.endswith("motion"):
        assert not x[:, :, -1].any()
        assert x[-1, :, :-1].any()
    if modality.startswith("bone"):
        assert not x[..., short_store.skeleton.root, :].any()
        others = np.delete(x, short_store.skeleton.root, 3)
        assert others.any((0, 1, 2, 4)).all()


@TRAIN
def test_streams_are_made_of_one_another(short_store, train):
    parents = short_store.skeleton.parents
    joint, bone, joint_motion, bone_motion = (feed(short_store, modality=m, train=train, seed=4) for m in MODALITIES)
    np.testing.assert_allclose(bone, joint - joint[..., parents, :], atol=1e-6)
    np.testing.assert_allclose(joint_motion[:, :, :-1], joint[:, :, 1:] - joint[:, :, :-1], atol=1e-6)
    np.testing.assert_allclose(bone_motion, joint_motion - joint_motion[..., parents, :], atol=1e-5)


def test_the_rotation_keeps_ntus_bone_lengths(make_store):
    clip = noise(NTU, 64, 5)  # 64 frames: the crop is the clip and nothing is interpolated
    x = feed(make_store(NTU, [clip] * 8), modality="bone", train=True)
    child, parent = np.array(NTU.bones).T
    lengths = np.linalg.norm(clip[:, :, child] - clip[:, :, parent], axis=-1)  # (T, M, bones)
    ours = np.linalg.norm(x[:, :, :, child], axis=1).transpose(0, 1, 3, 2)
    np.testing.assert_allclose(ours, np.broadcast_to(lengths, ours.shape), atol=1e-5)
    turned = np.abs(x[1:] - x[:-1]).max((1, 2, 3, 4))
    assert turned.min() > 0.01  # each sample has its own


def test_one_rotation_for_all_frames_and_both_persons(make_store):
    pose = np.zeros((1, 2, 25, 3))
    pose[0, :, :3] = np.eye(3)
    x = feed(make_store(NTU, [pose.repeat(100, 0)] * 5), train=True)
    np.testing.assert_allclose(x, x[:, :, :1, :, :1] + np.zeros_like(x), atol=1e-6)


def test_an_absent_second_person_stays_absent(make_store):
    store = make_store(NTU, [ntu_case(3, 90, 1)])
    for modality in MODALITIES:
        x = feed(store, modality=modality, train=True)
        assert not x[..., 1].any()
        assert x[..., 0].any()


@TRAIN
def test_the_store_is_left_as_it_is(short_store, train):
    before = short_store.poses.copy()
    feed(short_store, train=train, modality="bone_motion")
    assert np.array_equal(short_store.poses, before)


# Frames that are all zero.


@TRAIN
def test_empty_frames_count_off_the_end_of_an_ntu_clip(make_store, train):
    clip = noise(NTU, 120, 1)
    clip[100:] = 0
    inside = noise(NTU, 120, 2)
    inside[[3, 40, 41, 77]] = 0
    store = make_store(NTU, [clip, inside, clip[:100], inside[:116]])
    assert store.valid_frames.tolist() == [100, 116, 100, 112]
    x = feed(store, [0, 1], train=train)
    for i in range(2):
        chance = chances(NTU, 0, 0, i) if train else None
        # The first `valid` frames of what is stored, as published: an empty frame inside stays in and cuts the end.
        expected = PLAIN["ntu"](store.sample(i), "joint", chance=chance)
        np.testing.assert_allclose(x[i], expected, rtol=0, atol=3e-5)
    if not train:
        np.testing.assert_array_equal(x[0], feed(store, [2])[0])


@TRAIN
def test_a_clip_of_nothing_but_empty_frames_is_zero(make_store, train):
    store = make_store(NTU, [np.zeros((30, 2, 25, 3)), noise(NTU, 30, 0)])
    x = feed(store, train=train)
    assert not x[0].any()
    assert x[1].any()


def test_a_frame_counts_by_its_sum_as_published(make_store):
    clip = np.zeros((10, 2, 25, 3))
    clip[:, 0, 0], clip[:, 0, 1] = 1, -1
    clip[7:] = 0
    assert make_store(NTU, [clip]).valid_frames.tolist() == [0]


@TRAIN
def test_a_ucla_clip_that_is_flat_in_an_axis_stays_finite(make_store, train):
    flat = noise(UCLA, 60, 0)
    flat[..., 2] = 1.5
    point = np.full((3, 1, 20, 3), 0.7)
    x = feed(make_store(UCLA, [flat, point]), train=train)
    assert np.isfinite(x).all()
    assert np.abs(x).max() <= 1 + 1e-6
    assert not x[1].any()
    if not train:
        assert not x[0, 2].any()
        np.testing.assert_allclose([x[0, :2].min(), x[0, :2].max()], [-1, 1], atol=0.1)


# NTU's distributions.


def crops(store, samples, epochs=1):
    """Start and length of the crops drawn from the one clip of a store of `ntu_frames`."""
    found = []
    for epoch in range(epochs):
        feeder = Feeder(store, np.zeros(samples, int), train=True, seed=0)
        feeder.epoch = epoch
        x = feeder.batch(range(samples))[0][:, :, :, 0, 0].double().norm(dim=1).numpy() - 1  # source frames (N, T)
        length = (x[:, 60] - x[:, 3]) / 57 * 64
        start = x[:, 32] - (32.5 * length / 64 - 0.5)
        for number in (length, start):
            assert np.abs(number - number.round()).max() < 0.02
        found.append((start.round().astype(int), length.round().astype(int)))
    return np.concatenate(found, 1)


def test_crop_lengths_and_starts_are_even(ntu_frames):
    start, length = crops(ntu_frames(200), 2000, epochs=3)
    counts = np.bincount(length, minlength=201)
    assert counts[100:200].sum() == len(length)  # floor(200 p), p in [0.5, 1)
    assert chisquare(counts[100:200]).pvalue > 1e-3
    assert start.min() == 0
    assert (start + length).max() == 200
    assert (start + length <= 200).all()
    # The start, spread within its own cell, is even over 0 ... 1 whatever the length.
    place = (start + np.random.RandomState(0).uniform(size=len(start))) / (200 - length + 1)
    assert chisquare(np.histogram(place, 20, (0, 1))[0]).pvalue > 1e-3
    assert abs(np.corrcoef(place, length)[0, 1]) < 0.05


def test_crops_of_short_clips_are_sixty_four_frames_at_least(ntu_frames):
    start, length = crops(ntu_frames(80), 2000)
    counts = np.bincount(length, minlength=81)
    assert counts[64:80].sum() == 2000
    # floor(80 p) of 64 and less: p < 65/80, of every other length: 1/80 of the half.
    expected = np.array([2 * (65 / 80 - 0.5)] + [2 / 80] * 15) * 2000
    assert chisquare(counts[64:80], expected).pvalue > 1e-3
    assert set(start[length == 64]) == set(range(17))


@pytest.mark.parametrize("frames", [64, 63, 20])
def test_clips_up_to_sixty_four_frames_are_taken_whole(ntu_frames, frames):
    x = feed(ntu_frames(frames), train=True, seed=5)[0, :, :, 0, 0]
    source = np.clip((np.arange(64) + 0.5) * frames / 64 - 0.5, 0, frames - 1)
    np.testing.assert_allclose(np.linalg.norm(x, axis=0), source + 1, atol=1e-4)


def test_rotation_angles_are_even_within_their_bounds(make_store):
    pose = np.zeros((1, 1, 25, 3))
    pose[0, 0, :3] = np.eye(3)
    feeder = Feeder(make_store(NTU, [pose]), np.zeros(4000, int), train=True, window=1)
    turn = feeder.batch(range(4000))[0][:, :, 0, :3, 0].double().numpy()  # columns: where the axes go
    about_y = np.arcsin(turn[:, 2, 0])
    about_x = np.arctan2(-turn[:, 2, 1], turn[:, 2, 2])
    about_z = np.arctan2(-turn[:, 1, 0], turn[:, 0, 0])
    for angle in (about_x, about_y, about_z):
        assert np.abs(angle).max() < 0.3 + 1e-6
        assert np.abs(angle).max() > 0.299
        assert chisquare(np.histogram(angle, 40, (-0.3, 0.3))[0]).pvalue > 1e-3
    correlations = np.corrcoef([about_x, about_y, about_z]) - np.eye(3)
    assert np.abs(correlations).max() < 0.05


# NW-UCLA's distributions.


def test_turns_are_whole_degrees_of_sixty_either_way(make_store):
    pose = np.zeros((1, 20, 3))
    pose[0, 2:5] = np.eye(3)  # joints 1 and 2 (the centre) at the origin, the axes at joints 3 to 5
    pose[0, 5:8] = -np.eye(3)
    feeder = Feeder(make_store(UCLA, [pose]), np.zeros(12_100, int), train=True, window=1)
    x = feeder.batch(range(12_100))[0][:, :, 0, :, 0].double().numpy()  # (N, 3, V)
    # Each axis is stretched by the normalisation, so its image is known up to length: a column of Ry Rx.
    columns = x[:, :, 2:5] - x[:, :, :1]
    columns /= np.linalg.norm(columns, axis=2, keepdims=True)
    about_y = np.degrees(np.arctan2(columns[:, 0, 2], columns[:, 0, 0]))
    about_x = np.degrees(np.arctan2(columns[:, 2, 1], columns[:, 1, 1]))
    for angle in (about_x, about_y):
        assert np.abs(angle - angle.round()).max() < 1e-3
        counts = np.bincount(angle.round().astype(int) + 60)
        assert len(counts) == 121
        assert chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(about_x, about_y)[0, 1]) < 0.03
    for i in range(0, 12_100, 1000):
        expected_x, expected_y, _ = turn_matrices(math.radians(about_x[i]), math.radians(about_y[i]), 0)
        np.testing.assert_allclose(columns[i].T, expected_y @ expected_x, atol=1e-5)


@pytest.mark.parametrize("frames", [2, 3])
def test_frames_are_drawn_out_of_a_hundred_copies_each(ucla_frames, frames):
    samples = 3000
    feeder = Feeder(ucla_frames(frames), np.zeros(samples, int), train=True, seed=1)
    chosen = ucla_frame_numbers(feeder.batch(range(samples))[0].numpy())
    assert chosen.shape == (samples, 52)
    assert (np.diff(chosen) >= 0).all()
    law = hypergeom(100 * frames, 100, 52)
    for frame in range(frames):
        times = (chosen == frame).sum(1)
        assert times.mean() == pytest.approx(law.mean(), abs=4 * law.std() / math.sqrt(samples))
        assert times.var() == pytest.approx(law.var(), rel=0.12)  # with replacement it is at least 20 % more
        values = np.arange(law.ppf(0.02), law.ppf(0.98) + 1)
        counts = [(times < values[0]).sum(), *((times == v).sum() for v in values), (times > values[-1]).sum()]
        expected = np.array([law.cdf(values[0] - 1), *law.pmf(values), law.sf(values[-1])]) * samples
        assert chisquare(counts, expected).pvalue > 1e-3


def test_frames_of_a_long_clip_are_drawn_evenly(ucla_frames):
    feeder = Feeder(ucla_frames(150), np.zeros(600, int), train=True, seed=1)
    chosen = ucla_frame_numbers(feeder.batch(range(600))[0].numpy())
    assert (np.diff(chosen) >= 0).all()
    assert chisquare(np.bincount(chosen.ravel(), minlength=150)).pvalue > 1e-3
    repeated = (np.diff(chosen) == 0).any(1).mean()
    assert repeated > 0.99  # a frame may come twice: it has a hundred copies


def test_each_axis_spans_minus_one_to_one_over_the_whole_clip(make_store):
    # The extremes are in every frame (three pairs of joints far out), so whatever frames are drawn show them.
    clip = noise(UCLA, 80, 0)
    clip[:, 0, 4:7] = clip[:1, 0, 4:7] + 100 * np.eye(3)
    clip[:, 0, 7:10] = clip[:1, 0, 7:10] - 100 * np.eye(3)
    clip[:, 0, 10:14] = 60 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    x = feed(make_store(UCLA, [clip] * 20), train=True, seed=3)
    np.testing.assert_allclose(x.min((2, 3, 4)), -1, atol=1e-6)
    np.testing.assert_allclose(x.max((2, 3, 4)), 1, atol=1e-6)
    # In test mode a clip no longer than the window is shown whole.
    short = feed(make_store(UCLA, [noise(UCLA, 52, 1), noise(UCLA, 9, 2)]))
    np.testing.assert_allclose(short.min((2, 3, 4)), -1, atol=1e-6)
    np.testing.assert_allclose(short.max((2, 3, 4)), 1, atol=1e-6)


def test_the_span_is_the_clips_and_not_the_drawn_frames(make_store):
    clip = noise(UCLA, 5000, 0)
    clip[4321, 0, 3] = (50, 60, 70)  # one frame that is hardly ever drawn
    store = make_store(UCLA, [clip])
    feeder = Feeder(store, [0] * 10, train=True)
    x = feeder.batch(range(10))[0]
    spans = x.amax((2, 3, 4)) - x.amin((2, 3, 4))
    assert (spans.median() < 0.5).all()


# What a draw depends on.


@EVERY_MODALITY
def test_a_sample_depends_on_seed_epoch_and_position_alone(short_store, modality):
    count = len(short_store)
    feeder = Feeder(short_store, np.arange(count), modality, train=True, seed=7, repeats=3)
    feeder.epoch = 2
    every, labels = feeder.batch(range(len(feeder)))
    for positions in ([5], [26, 0, 13], np.random.RandomState(0).permutation(len(feeder))[:20], torch.tensor([4, 4])):
        x, y = feeder.batch(positions)
        np.testing.assert_allclose(x, every[np.asarray(positions)], rtol=0, atol=1e-6)
        assert torch.equal(y, labels[np.asarray(positions)])
    fresh = Feeder(short_store, np.arange(count), modality, train=True, seed=7, repeats=3)
    fresh.epoch = 2
    torch.manual_seed(1)
    assert torch.equal(fresh.batch(range(len(fresh)))[0], every)


def test_other_seeds_epochs_and_positions_give_other_samples(short_store):
    # A clip of one frame has nothing but its rotation to differ in, and only by whole degrees; leave it out.
    indices = np.arange(2, len(short_store))
    positions = np.arange(len(indices))

    def sample(seed, epoch, positions):
        feeder = Feeder(short_store, indices, train=True, seed=seed, repeats=2)
        feeder.epoch = epoch
        return feeder.batch(positions)[0]

    base = sample(0, 0, positions)
    for other in (sample(1, 0, positions), sample(0, 1, positions), sample(0, 0, positions + len(indices))):
        assert ((base - other).abs().amax((1, 2, 3, 4)) > 1e-3).all()


def test_test_mode_draws_nothing(short_store):
    options = {"train": False, "repeats": 2}
    feeder = Feeder(short_store, np.arange(len(short_store)), seed=1, **options)
    x = feeder.batch(range(len(feeder)))[0]
    half = len(short_store)
    np.testing.assert_allclose(x[:half], x[half:], rtol=0, atol=1e-6)
    other = Feeder(short_store, np.arange(half), seed=2, **options)
    other.epoch = 5
    assert torch.equal(other.batch(range(len(other)))[0], x)


# Order, labels, repeats, refusals.


@TRAIN
def test_repeats_and_order(short_store, train):
    indices = np.array([7, 2, 2, 0])
    feeder = Feeder(short_store, indices, train=train, repeats=5)
    assert len(feeder) == 20
    assert len(Feeder(short_store, indices)) == 4
    _, y = feeder.batch(range(20))
    assert y.dtype == torch.int64
    assert y.tolist() == short_store.labels[indices].tolist() * 5
    if not train:
        x = feeder.batch([0, 1, 2, 3, 5])[0].numpy()
        for row, clip in zip(x, [7, 2, 2, 0, 2]):
            np.testing.assert_allclose(row, feed(short_store, [clip])[0], atol=1e-6)


def test_window_is_the_skeletons_own_by_default(short_store):
    assert Feeder(short_store, [0]).window == short_store.skeleton.window
    assert Feeder(short_store, [0], window=20).window == 20


def test_an_epoch_is_a_feeders_attribute_and_starts_at_zero(short_store):
    assert Feeder(short_store, [0]).epoch == 0


def test_unknown_modalities_are_refused(short_store):
    with pytest.raises(ValueError, match=r"'motion'.*joint, bone, joint_motion, bone_motion"):
        Feeder(short_store, [0], "motion")


@pytest.mark.parametrize("indices", [[], [-1], [0, 9], [[0, 1]], 3], ids=str)
def test_indices_out_of_range_are_refused(short_store, indices):
    with pytest.raises(ValueError, match=r"indices \(n,\) within 0\.\.\.8"):
        Feeder(short_store, indices)


def test_a_mask_is_not_taken_for_indices(short_store):
    with pytest.raises(ValueError, match="indices"):
        Feeder(short_store, np.arange(len(short_store)) > 4)


@pytest.mark.parametrize("window", [0, -1, 101])
def test_impossible_windows_are_refused(short_store, window):
    with pytest.raises(ValueError, match=f"1 to 100 frames, got {window}"):
        Feeder(short_store, [0], window=window)


@pytest.mark.parametrize("positions", [[6], [-1], [0, 1, 99]], ids=str)
def test_positions_out_of_range_are_refused(short_store, positions):
    feeder = Feeder(short_store, [0, 1, 2], repeats=2)
    with pytest.raises(IndexError, match=r"outside 0\.\.\.5"):
        feeder.batch(positions)


@TRAIN
def test_an_empty_batch_is_empty(short_store, train):
    skeleton = short_store.skeleton
    x, y = Feeder(short_store, [0, 1], train=train).batch([])
    assert x.shape == (0, 3, skeleton.window, skeleton.num_joints, skeleton.persons)
    assert y.shape == (0,)


# Batches made ahead.


@pytest.fixture
def pair(short_store):
    """A feeder whose batches are made ahead, and its like whose are not."""
    made = [Feeder(short_store, np.arange(len(short_store)), train=True, seed=3, repeats=4) for _ in range(2)]
    yield made
    made[0].close()


def assert_same(batch, other):
    assert batch[3:] == other[3:] == ((),) * len(batch[3:])  # no texts are prepared
    for tensor, its in zip(batch[:3], other[:3], strict=True):
        assert tensor.dtype == its.dtype and torch.equal(tensor, its)


def makings(feeder, monkeypatch):
    """The threads in which batches of a feeder are made from now on."""
    names, make = [], feeder._make

    def watched(*asked):
        names.append(threading.current_thread().name)
        return make(*asked)

    monkeypatch.setattr(feeder, "_make", watched)
    return names


def test_batches_made_ahead_are_those_made_when_asked_for(pair, monkeypatch):
    ahead, plain = pair
    names = makings(ahead, monkeypatch)
    order = np.random.RandomState(0).permutation(len(plain)).reshape(-1, 4)
    for epoch in range(2):  # as the trainer asks
        ahead.epoch = plain.epoch = epoch
        for number, positions in enumerate(order):
            if number + 1 < len(order):
                ahead.expect(order[number + 1])
            assert_same(ahead.take(positions), plain.take(positions))
    assert names.count("feeder_0") == 2 * (len(order) - 1)
    assert len(names) == 2 * len(order)  # none was made twice


def test_a_batch_of_another_epoch_seed_or_order_is_never_served(pair):
    ahead, plain = pair
    positions = np.array([3, 1, 2])
    ahead.expect(positions)
    ahead.epoch = plain.epoch = 1
    assert_same(ahead.take(positions), plain.take(positions))
    ahead.expect(positions)
    ahead.seed = plain.seed = 4
    assert_same(ahead.take(positions), plain.take(positions))
    ahead.expect(positions)
    assert_same(ahead.take(positions[::-1]), plain.take(positions[::-1]))


def test_positions_may_be_written_over_once_they_are_expected(pair):
    ahead, plain = pair
    positions = np.array([0, 1])
    gate = threading.Event()
    ahead.expect(np.array([], int))
    ahead._thread.submit(gate.wait, 60)
    ahead.expect(positions)
    positions += 5
    gate.set()
    assert_same(ahead.take([0, 1]), plain.take([0, 1]))
    assert_same(ahead.take(positions), plain.take([5, 6]))


def test_a_batch_is_served_once_and_those_never_asked_for_are_few(pair):
    ahead, plain = pair
    ahead.expect([0])
    first, second = ahead.take([0]), ahead.take([0])
    first.x.zero_()
    assert_same(second, plain.take([0]))
    for position in range(20):
        ahead.expect([position])
    assert len(ahead._coming) == feeders.AHEAD
    assert_same(ahead.take([19]), plain.take([19]))


def test_what_fails_in_the_thread_is_raised_where_the_batch_is_asked_for(pair, monkeypatch):
    ahead, plain = pair
    ahead.expect([10**6])
    with pytest.raises(IndexError, match="positions outside"):
        ahead.take([10**6])
    make = ahead._make
    monkeypatch.setattr(ahead, "_make", lambda *asked: 1 / 0)
    ahead.expect([1])
    monkeypatch.setattr(ahead, "_make", make)
    with pytest.raises(ZeroDivisionError):
        ahead.take([1])
    assert_same(ahead.take([1]), plain.take([1]))  # and is forgotten then
    ahead.expect([2])
    assert_same(ahead.take([2]), plain.take([2]))


def test_closing_ends_the_thread_and_another_may_begin(pair):
    ahead, plain = pair
    before = {*threading.enumerate()}
    for _ in range(2):
        ahead.expect([0, 1])
        begun = {*threading.enumerate()} - before
        assert len(begun) == 1
        ahead.close()
        assert not begun.pop().is_alive() and not ahead._coming
        assert_same(ahead.take([0, 1]), plain.take([0, 1]))
    ahead.close()


LEFT = """
import sys
import numpy as np
from bpilib.data.store import SkeletonStore
from bpilib.feeders import Feeder

feeder = Feeder(SkeletonStore.open(sys.argv[1]), np.arange(1), train=True)
feeder.expect([0])
feeder.take([0])
feeder.expect([0])
raise KeyboardInterrupt
"""


def test_an_interrupted_process_ends_though_its_feeder_was_not_closed(make_store):
    store = make_store(UCLA, [noise(UCLA, 60, 0)])
    command = [sys.executable, "-c", LEFT, str(store.path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert process.returncode and process.stderr.splitlines()[-1] == "KeyboardInterrupt", process.stderr


# All that a step takes.


def test_labels_and_draws_of_synonyms_come_with_the_clips(short_store):
    count = len(short_store)
    feeder = Feeder(short_store, np.arange(count), train=True, seed=6, repeats=3)
    feeder.epoch = 2
    positions = np.array([4, 20, 4, 11])
    x, labels, synonyms, texts = feeder.take(positions)
    assert texts == ()
    assert torch.equal(x, feeder.batch(positions)[0]) and torch.equal(labels, feeder.batch(positions)[1])
    assert labels.dtype == torch.int64 and labels.tolist() == short_store.labels[positions % count].tolist()
    assert synonyms.dtype == torch.float64
    assert synonyms.tolist() == counter_rng.uniform(6, 2, positions, counter_rng.SYNONYM, 1)[:, 0].tolist()


def test_batches_for_another_device_are_sent_there(short_store):
    here, there = (Feeder(short_store, [0, 1], train=True, device=device) for device in ("cpu", "meta"))
    for tensor, its in zip(there.take([1, 0])[:3], here.take([1, 0])[:3], strict=True):
        assert tensor.device.type == "meta"  # no GPU is needed for its copies
        assert (tensor.shape, tensor.dtype) == (its.shape, its.dtype)


def test_for_cuda_batches_are_made_in_pinned_memory_and_sent_without_waiting(short_store, monkeypatch):
    """By what PyTorch is asked for: whether a GPU then does it is for the next test."""
    pinned, waits = [], []
    empty, to = torch.empty, torch.Tensor.to

    def pretended_empty(*shape, pin_memory=False):
        pinned.append(pin_memory)
        return empty(*shape)

    def pretended_to(tensor, device, non_blocking=False):
        waits.append((str(device), not non_blocking))
        return to(tensor, "cpu")

    monkeypatch.setattr(torch, "empty", pretended_empty)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(True) or tensor)
    monkeypatch.setattr(torch.Tensor, "to", pretended_to)
    there = Feeder(short_store, [0, 1, 2], train=True, device="cuda:1").take([1, 0])
    assert pinned == [True] * 3 and waits == [("cuda:1", False)] * 3
    monkeypatch.undo()
    assert_same(there, Feeder(short_store, [0, 1, 2], train=True).take([1, 0]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@EVERY_MODALITY
@TRAIN
def test_a_gpu_is_fed_the_same_bits(short_store, modality, train):
    here, there = (
        Feeder(short_store, np.arange(len(short_store)), modality, train=train, device=device)
        for device in ("cpu", "cuda")
    )
    assert all(tensor.is_pinned() for tensor in there._make(*there._asked([0, 1])))
    for number in range(len(here)):
        there.expect([number, 0])
        batch = there.take([number, 0])
        assert batch.x.device.type == "cuda"
        assert_same([tensor.cpu() for tensor in batch], here.take([number, 0]))
    there.close()


# One clip, without a store.


@EVERY_MODALITY
def test_one_clip_is_prepared_as_the_test_pipeline_does(short_store, modality, monkeypatch):
    expected = feed(short_store, modality=modality)
    monkeypatch.setattr(SkeletonStore, "__init__", None)  # none is made up
    for number in range(len(short_store)):
        poses = short_store.sample(number)
        for given in (poses, np.asfortranarray(poses).astype(np.float64), np.flip(poses, 0).copy()[::-1]):
            found = prepare_clip(given, short_store.skeleton, poses.shape[1], modality)
            assert found.dtype == np.float32 and found.shape == expected[:1].shape
            assert np.array_equal(found[0], expected[number])


def test_a_clip_s_persons_are_made_those_of_the_network():
    clip = ntu_case(2, 70, 2)
    one = np.concatenate([clip[:, :1], np.zeros_like(clip[:, :1])], 1)
    assert np.array_equal(prepare_clip(clip[:, :1], NTU, 2), prepare_clip(one, NTU, 2))
    still = np.ones((70, 1, 25, 3), np.float32)
    assert np.array_equal(prepare_clip(np.concatenate([still, clip], 1), NTU, 2), prepare_clip(clip, NTU, 2))


@pytest.mark.parametrize("shape", [(0, 2, 25, 3), (9, 2, 20, 3), (9, 25, 3), (9, 2, 25, 2)], ids=str)
def test_what_is_no_clip_of_the_skeleton_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected poses \(L, M, 25, 3\).*got .*not of the ntu skeleton"):
        prepare_clip(np.ones(shape), NTU, 2)


def test_a_clip_of_an_impossible_modality_window_or_number_is_refused():
    clip = np.ones((5, 1, 20, 3))
    with pytest.raises(ValueError, match="unknown modality 'motion'"):
        prepare_clip(clip, UCLA, 1, "motion")
    with pytest.raises(ValueError, match="1 to 100 frames, got 101"):
        prepare_clip(clip, UCLA, 1, window=101)
    with pytest.raises(ValueError, match="not finite"):
        prepare_clip(clip * np.inf, UCLA, 1)


def test_a_kernel_is_compiled_for_one_kind_of_arguments(short_store):
    """A second would cost every user its compilation."""
    for modality in MODALITIES:
        feed(short_store, modality=modality, train=True)
        read_only = short_store.sample(3).astype(np.float64)
        read_only.flags.writeable = False
        prepare_clip(read_only, short_store.skeleton, 1, modality)
    kernel = feeder_kernels.ntu if short_store.skeleton is NTU else feeder_kernels.ucla
    assert len(kernel.signatures) == 1


@pytest.mark.parametrize("kept", [True, False])
def test_a_first_call_says_that_it_compiles(short_store, kept, monkeypatch, caplog):
    monkeypatch.setattr(feeders, "is_compiled", lambda kernel: kept)
    with caplog.at_level(logging.INFO, logger="bpilib.feeders"):
        feed(short_store, [0])
    assert ("compiling the feeder once (about" in caplog.text) == (not kept)


# Which frames: by the page's words.


def plain_places(skeleton, length, window):
    """Where test mode looks, one frame at a time."""
    if skeleton is UCLA:
        return np.linspace(0, length - 1, window).astype(int).astype(float)
    bias = int((1 - 0.95) * length / 2)
    left = length - 2 * bias
    return np.array([bias + plain_place(i, left, window) for i in range(window)])


@pytest.mark.parametrize("skeleton", [NTU, UCLA], ids=lambda s: s.name)
def test_source_frames_are_those_of_the_page_at_every_length(skeleton):
    for length in range(1, 301):
        for window in (None, 1, 2, 17, 100):
            found = source_frames(skeleton, length, window)
            expected = plain_places(skeleton, length, window or skeleton.window)
            assert found.dtype == np.float64
            assert found.tolist() == expected.tolist()
            assert (np.diff(found) >= 0).all() and 0 <= found[0] <= found[-1] <= length - 1


@pytest.mark.parametrize("skeleton", [NTU, UCLA], ids=lambda s: s.name)
def test_steps_are_about_the_middle_of_their_frames(skeleton):
    for length in (1, 7, 64, 201):
        frames = source_frames(skeleton, length, 64)
        for steps in (16, 32):
            each = frames.reshape(steps, -1)
            middle = each.shape[1] // 2
            np.testing.assert_allclose(
                source_frames(skeleton, length, 64, steps), each[:, middle - 1 : middle + 1].mean(1)
            )
        assert source_frames(skeleton, length, 64, 64).tolist() == frames.tolist()


def test_the_frames_counted_are_those_of_the_pipeline(make_store):
    clip = noise(NTU, 12, 0)
    clip[9:] = 0
    assert counted_frames(make_store(NTU, [clip, 0 * clip])).tolist() == [9, 1]
    assert counted_frames(make_store(UCLA, [noise(UCLA, 12, 0), np.zeros((4, 20, 3))])).tolist() == [12, 4]


def formula(kind, pattern):
    """What a regular expression finds in the words for a pipeline, as a function of its letters."""
    (found,) = re.findall(pattern, " ".join(PREPARATION[kind]))
    source = re.sub(r"(?<=[\d)]) (?=[a-zA-Z])", " * ", found).replace("linspace", "np.linspace")
    return lambda **letters: np.asarray(eval(source, {"np": np, "int": np.int64}, letters))


def test_the_words_for_the_test_pipelines_give_its_frames():
    frames = formula("ucla", r"take the frames int\((linspace\(.*\))\)")
    cut = formula("ntu", r"leave (int\(.*?\)) frames out")
    place = formula("ntu", r"frame i of T is at (.*) in 0 \.\.\. l - 1")
    for length in range(1, 301):
        assert frames(L=length, T=52).astype(int).tolist() == source_frames(UCLA, length).tolist()
        start = cut(L=length)
        left = length - 2 * start
        expected = start + place(i=np.arange(64), l=left, T=64).clip(0, left - 1)
        np.testing.assert_allclose(source_frames(NTU, length), expected, rtol=1e-6, atol=1e-5)
