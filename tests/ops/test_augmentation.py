"""Dropped axes and joints: how often, how many, and the same draws whatever the batch."""

import numpy as np
import pytest
from scipy.stats import binomtest

from bpilib.feeders import Feeder
from bpilib.ops.augmentation import PUBLISHED, Augmentation, drop
from bpilib.skeleton import NTU, UCLA

N, T, V = 2000, 52, 20


def dropped(axis_drop=0.0, joint_drop=0.0, positions=None, seed=3, epoch=1, shape=(3, T, V, 2)):
    """(N, 3, T, V) bool, what was set to 0 of clips of ones."""
    positions = np.arange(N) if positions is None else positions
    x = np.ones((len(positions), *shape), np.float32)
    drop(x, positions, seed, epoch, axis_drop, joint_drop)
    assert (x[..., :1] == x).all(), "all persons alike"
    return x[..., 0] == 0


def test_an_axis_is_dropped_as_often_as_asked_and_each_alike():
    gone = dropped(axis_drop=0.3)
    axes = gone.all((2, 3))  # (N, 3)
    assert (gone == axes[:, :, None, None]).all(), "an axis whole or not at all"
    assert set(axes.sum(1)) == {0, 1}
    assert binomtest(int(axes.any(1).sum()), N, 0.3).pvalue > 1e-4
    for count in axes.sum(0):
        assert binomtest(int(count), int(axes.sum()), 1 / 3).pvalue > 1e-4


def test_joints_are_dropped_for_a_stretch_of_time():
    gone = dropped(joint_drop=0.5)
    hit = gone.any((1, 2, 3))
    assert binomtest(int(hit.sum()), N, 0.5).pvalue > 1e-4
    counts, lengths, starts = [], [], []
    for clip in gone[hit]:
        assert (clip == clip[0]).all(), "all axes alike"
        joints, frames = np.flatnonzero(clip[0].any(0)), np.flatnonzero(clip[0].any(1))
        assert clip[0][np.ix_(frames, joints)].all() and np.ptp(frames) + 1 == len(frames)
        counts.append(len(joints))
        lengths.append(len(frames))
        starts.append(frames[0])
    assert (min(counts), max(counts)) == (4, 12) and (min(lengths), max(lengths)) == (13, 26)
    assert min(starts) == 0 and max(np.add(starts, lengths)) == T
    share = gone[hit].any((1, 2)).mean(0)  # of clips, by joint
    assert np.ptp(share) < 0.2, "no joint is spared"


def test_draws_depend_on_seed_epoch_and_position_alone():
    every = dropped(0.5, 0.5)
    some = np.array([1999, 3, 700])
    np.testing.assert_array_equal(dropped(0.5, 0.5, some), every[some])
    assert (dropped(0.5, 0.5, seed=4) != every).any() and (dropped(0.5, 0.5, epoch=2) != every).any()
    assert dropped(1.0, 1.0).any((2, 3)).all(1).sum() > 0.9 * N, "1 is always"


def test_a_feeder_drops_in_training_alone(make_store):
    clips = [np.random.RandomState(n).standard_normal((30, 1, 20, 3)) for n in range(6)]
    store = make_store(UCLA, clips, [0] * 6)
    for train in (False, True):
        plain = Feeder(store, np.arange(6), train=train, repeats=20)
        other = Feeder(store, np.arange(6), train=train, repeats=20, augmentation=Augmentation(axis_drop=0.5))
        a, b = (feeder.batch(range(len(feeder)))[0].numpy() for feeder in (plain, other))
        changed = (a != b).any((1, 2, 3, 4))
        assert changed.any() == train and not changed.all()
        np.testing.assert_array_equal(b[~changed], a[~changed])


def test_other_angles_turn_further_and_only_about_their_axis(make_store):
    pose = np.zeros((1, 1, 20, 3))
    pose[0, 0, 2:5], pose[0, 0, 5:8] = np.eye(3), -np.eye(3)
    store = make_store(UCLA, [pose], [0])
    feeder = Feeder(store, np.zeros(3000, int), train=True, window=1, augmentation=Augmentation(pitch=0, yaw=120))
    x = feeder.batch(range(3000))[0][:, :, 0, :, 0].double().numpy()
    columns = x[:, :, 2:5] - x[:, :, :1]
    np.testing.assert_allclose(columns[:, [0, 2, 1, 1], [1, 1, 0, 2]], 0, atol=1e-6)  # the y axis stays
    about_y = np.degrees(np.arctan2(columns[:, 0, 2] / columns[:, 0, 0].clip(1e-9), 1))
    assert np.abs(about_y).max() <= 90.001
    turned = np.sign(columns[:, 0, 0]) < 0  # beyond 90 degrees: a quarter of the draws
    assert binomtest(int(turned.sum()), 3000, 60 / 241).pvalue > 1e-4


@pytest.mark.parametrize("angle", [-30, 45])
def test_clips_to_be_evaluated_are_turned_about_y(make_store, angle):
    poses = np.random.RandomState(1).standard_normal((40, 1, 20, 3))
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    about_y = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])  # of column vectors
    feed = [Feeder(make_store(UCLA, [poses], [0]), [0], augmentation=Augmentation(turned=angle))]
    feed += [Feeder(make_store(UCLA, [poses @ turn], [0]), [0]) for turn in (about_y, about_y.T)]
    x, *turned = (feeder.batch([0])[0].numpy() for feeder in feed)
    distances = [np.abs(x - other).max() for other in turned]
    assert min(distances) < 1e-4 < 0.01 < max(distances)


def test_other_angles_are_refused_for_ntu(make_store):
    store = make_store(NTU, [np.random.RandomState(0).standard_normal((30, 2, 25, 3))], [0])
    for name in ("pitch", "yaw", "turned"):
        with pytest.raises(ValueError, match="NW-UCLA's pipeline"):
            Feeder(store, [0], augmentation=PUBLISHED._replace(**{name: 30}))
