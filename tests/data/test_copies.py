"""Copies of training clips among test clips: planted ones are found, near misses are not, and the work is bounded."""

import json
import warnings

import numpy as np
import pytest
from making import NO_UCLA, synthetic_store, ucla_store, ucla_zip

from bpilib.data import SkeletonStore, copies, synthetic
from bpilib.data.copies import Copy, digest, find_benchmark_copies, find_copies, fingerprint, main, summarise_copies
from bpilib.data.store import Clip, StoreWriter
from bpilib.skeleton import NTU, UCLA


def seen(label=1, subject=1, episode=0, view=2):
    """A synthetic clip as a camera's tracker has it, (L, 20, 3)."""
    rng = np.random.default_rng((label, subject, episode, view))
    return synthetic.observe(synthetic.perform(label, subject, episode), view, rng).astype(np.float32)


LONG = [seen(label, subject) for label in (1, 2, 9, 10) for subject in (1, 2, 3)]
BASE = [clip for clip in LONG if len(clip) >= 30][:6]


def write(folder, train, test, skeleton=UCLA, benchmarks=("split",)):
    """A store of clips (L, V, 3) or (L, M, V, 3) named train0, …, test0, …"""
    clips = [clip[:, None] if clip.ndim == 3 else clip for clip in (*train, *test)]
    persons = max(clip.shape[1] for clip in clips)
    names = [f"train{i}" for i in range(len(train))] + [f"test{i}" for i in range(len(test))]
    with StoreWriter(folder / "store", "test", skeleton, ["act"], persons) as writer:
        for name, clip in zip(names, clips):
            writer.add(Clip(name, np.pad(clip, ((0, 0), (0, persons - clip.shape[1]), (0, 0), (0, 0))), 0))
        parts = {"train": np.arange(len(train)), "test": np.arange(len(train), len(names))}
        return writer.finish(dict.fromkeys(benchmarks, parts), {})


def found(store, **given):
    return find_copies(store, store.split("split", "test"), store.split("split", "train"), progress=False, **given)


def noisy(clip, metres):
    return clip + np.random.default_rng(0).normal(0, metres, clip.shape).astype(np.float32)


def empty_ends(clip):
    return np.pad(clip, ((3, 5), (0, 0), (0, 0)))


def minus_zero(clip):
    """A joint at the origin, written as -0."""
    return np.where(clip == 0, np.float32(-0.0), clip)


PLANTED = {
    "equal": (lambda x: x.copy(), "equal", 0),
    "with empty ends": (empty_ends, "equal", 0),
    "moved": (lambda x: x + np.float32([0.3, -1, 2]), "near", 1e-5),
    "in millimetres": (lambda x: x * np.float32(1000), "near", 1e-2),
    "scaled and moved": (lambda x: 0.7 * x + np.float32(1), "near", 1e-5),
    "rounded to float16": (lambda x: x.astype(np.float16).astype(np.float32), "near", 2e-3),
    "with a noise of 1 mm": (lambda x: noisy(x, 0.001), "near", 3e-3),
    "with trimmed ends": (lambda x: x[4:-3], "part", 0),
    "a run of 12 frames": (lambda x: x[9:21], "part", 0),
    "trimmed, moved, rounded": (lambda x: (x[2:-5] + 1).astype(np.float16).astype(np.float32), "part", 2e-3),
    "a run among other frames": (lambda x: np.concatenate([seen(4, 5)[:20], x[5:25], seen(4, 6)[:20]]), "part", 0),
    "each frame about its centre": (lambda x: x - x.mean(1, keepdims=True), "near", 1e-5),
}


@pytest.mark.parametrize("plant", PLANTED)
def test_planted_copies_are_found(tmp_path, plant):
    change, kind, most = PLANTED[plant]
    store = write(tmp_path, BASE, [change(clip) for clip in BASE])
    result = found(store)
    assert [(c.test, c.train, c.kind) for c in result] == [(f"test{i}", f"train{i}", kind) for i in range(len(BASE))]
    assert max(c.distance for c in result) <= most
    shared = {"a run of 12 frames": 12, "a run among other frames": 20}.get(plant)
    lengths = [shared or min(len(clip), len(change(clip))) for clip in BASE]
    assert [c.frames for c in result] == lengths


@pytest.mark.parametrize(
    "change",
    [lambda x: x * np.float32([-1, 1, 1]), lambda x: x[::2], lambda x: x[::-1], lambda x: noisy(x, 0.03),
     lambda x: x @ np.float32([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]),
     lambda x: np.concatenate([seen(4, 5)[:20], x[9:20], seen(4, 6)[:20]])],
    ids=["mirrored", "every second frame", "backwards", "3 cm of noise", "turned", "11 frames of a longer clip"],
)  # fmt: skip
def test_what_is_no_copy_by_definition_is_not_reported(tmp_path, change):
    assert found(write(tmp_path, BASE, [change(clip) for clip in BASE])) == []


def test_the_same_person_doing_the_same_again_is_no_copy(tmp_path):
    takes = [[seen(label, subject, episode) for label in range(1, 11) for subject in (1, 2)] for episode in (0, 1)]
    assert found(write(tmp_path, *takes)) == []


def test_other_views_of_a_performance_are_no_copies(tmp_path):
    store = synthetic_store(tmp_path, subjects=2)
    assert find_benchmark_copies(store, "xview") == []


def standing(seed, frames=60, sway=0.0):
    """One pose of one person with a tracker's noise of 4 mm, and the body's slow sway."""
    rng = np.random.default_rng(seed)
    drift = sway * np.sin(np.arange(frames) / rng.uniform(8, 15) + rng.uniform(0, 6))[:, None, None] * [1, 0, 0.4]
    height = BASE[0][:1, :, 1:2] - BASE[0][:1, :, 1:2].min()
    return (BASE[0][:1] + drift * height + rng.normal(0, 0.004, (frames, 20, 3))).astype(np.float32)


@pytest.mark.parametrize("sway", [0, 0.01, 0.03])
def test_people_who_stand_still_are_no_copies_of_one_another(tmp_path, sway):
    store = write(tmp_path, [standing(i, sway=sway) for i in range(8)], [standing(99 + i, sway=sway) for i in range(8)])
    assert found(store) == []


def test_someone_who_stands_still_is_found_where_it_is_the_same_recording(tmp_path):
    still = standing(1)
    result = found(write(tmp_path, [standing(0), still], [still, still[5:] + 1]))
    assert [(c.test, c.train, c.kind) for c in result] == [("test0", "train1", "equal"), ("test1", "train1", "part")]


def test_frozen_poses_and_empty_clips_are_no_copies(tmp_path):
    frozen, nobody = np.repeat(BASE[0][:1], 40, 0), np.zeros((30, 20, 3), np.float32)
    assert found(write(tmp_path, [frozen, nobody], [frozen[:30], frozen[3:] + 1, nobody, nobody[:20]])) == []
    half = np.concatenate([frozen, BASE[1]])  # a frozen tracker, then somebody else's movement
    assert found(write(tmp_path / "half", [np.concatenate([frozen, BASE[2]])], [half])) == []


def test_clips_that_are_too_short_for_anything_but_equality(tmp_path):
    assert found(write(tmp_path, BASE, [BASE[0][:4]])) == []
    store = write(tmp_path / "equal", [*BASE, BASE[0][7:8]], [BASE[0][7:8]])
    assert found(store) == [Copy("test0", "train6", "equal", 0.0, 1)]


def test_a_tracker_s_nonsense_is_looked_through_without_a_warning(tmp_path):
    wild = BASE[0].copy()
    wild[5:40:3, 4] = 3e38
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (result,) = found(write(tmp_path, [wild, BASE[1]], [wild[1:], BASE[2]]))
        assert result[:3] == ("test0", "train0", "part")
        assert [c.kind for c in found(write(tmp_path / "equal", [wild], [wild]))] == ["equal"]


def test_of_several_the_one_that_shares_most_is_named(tmp_path):
    clip = BASE[0]
    store = write(tmp_path, [clip[:15], clip[2:26] + 1, clip[:13]], [clip])
    assert [(c.train, c.kind, c.frames) for c in found(store)] == [("train1", "part", 24)]


# --- two persons


def as_ntu(clip):
    """A clip of 25 joints made of one of 20."""
    return np.concatenate([clip, (clip[:, :5] + clip[:, 5:10]) / 2], 1)


def test_a_person_is_found_in_either_place_beside_whoever(tmp_path):
    a, b, c = (as_ntu(clip)[:30] for clip in BASE[:3])
    nobody = np.zeros_like(a)
    train = [np.stack([a, nobody], 1), np.stack([b, c], 1)]
    test = [np.stack([nobody, a], 1), np.stack([c, b], 1), np.stack([nobody, b[3:].repeat(2, 0)[:30]], 1),
            np.stack([as_ntu(BASE[3])[:30], c + 1], 1)]  # fmt: skip
    result = found(write(tmp_path, train, test, NTU))
    expected = [("test0", "train0", "equal"), ("test1", "train1", "equal"), ("test3", "train1", "near")]
    assert [(c.test, c.train, c.kind) for c in result] == expected


def test_digests_are_those_of_what_is_there():
    clip = np.stack([BASE[0][:20], np.zeros_like(BASE[0][:20])], 1)
    clip[4, 0, 3] = 0
    same = [clip[:, ::-1], clip[:, :1], np.pad(clip, ((2, 1), (0, 0), (0, 0), (0, 0))), np.where(clip == 0, -0.0, clip),
            np.where(clip == 0, np.nan, clip)]  # fmt: skip
    assert {digest(other) for other in same} == {digest(clip)} and digest(clip) is not None
    moved = clip.copy()
    moved[0, 0, 0, 0] = np.nextafter(moved[0, 0, 0, 0], np.float32(9))
    late = np.stack([clip[:, 0], np.pad(clip[:-1, 0], ((1, 0), (0, 0), (0, 0)))], 1)
    assert len({digest(clip), digest(moved), digest(clip[:-1]), digest(late)}) == 4
    assert digest(np.zeros_like(clip)) is None


def test_negative_zeros_in_a_store(tmp_path):
    clip = BASE[0].copy()
    clip[:, 5] = 0
    (result,) = found(write(tmp_path, [clip], [minus_zero(clip)]))
    assert result.kind == "equal"


# --- bounds


def test_chunks_are_whole_clips_of_bounded_size():
    lengths = np.random.default_rng(0).integers(1, 300, 500)
    lengths[77] = 3 * copies.CHUNK
    offsets = np.r_[0, lengths.cumsum()]
    chunks = list(copies._iterate_chunks(offsets))
    assert [first for first, _ in chunks] == [0, *(last for _, last in chunks[:-1])] and chunks[-1][1] == 500
    for first, last in chunks:
        assert offsets[last] - offsets[first] <= copies.CHUNK or last - first == 1
    assert len(chunks) < 2 * offsets[-1] / copies.CHUNK + 2


def test_the_result_is_the_same_read_in_pieces(tmp_path, monkeypatch):
    store = write(tmp_path, BASE, [clip[3:] for clip in BASE])
    whole, prints = found(store), fingerprint(store, False)
    monkeypatch.setattr(copies, "CHUNK", 50)
    monkeypatch.setattr(copies, "BATCH", 64)
    again = fingerprint(store, False)
    assert found(store) == whole and again.digests == prints.digests
    assert again.places.tolist() == prints.places.tolist()


def test_a_crowd_of_equal_poses_costs_no_more_than_its_bound(tmp_path, monkeypatch):
    """40 clips that repeat one movement over and over: 1.4 million pairs of equal windows."""
    loop = np.tile(BASE[0][:10], (5, 1, 1))
    rng = np.random.default_rng(0)
    clips = [loop + rng.normal(0, 1, 3).astype(np.float32) for _ in range(40)]
    store, batches = write(tmp_path, clips[:20], clips[20:]), []
    close = copies._keep_close

    def counted(store, joined):
        def each():
            for pairs in joined:
                batches.append(len(pairs))
                yield pairs

        return close(store, each())

    monkeypatch.setattr(copies, "_keep_close", counted)
    monkeypatch.setattr(copies, "BATCH", 1600)
    result = found(store)
    windows = 20 * (len(loop) - copies.SPAN)
    assert 0 < sum(batches) <= copies.CROWD * windows and max(batches) <= 2 * 1600
    assert {c.test for c in result} == {f"test{i}" for i in range(20)}


# --- what is kept


def test_copies_are_looked_for_once(tmp_path, monkeypatch):
    store = write(tmp_path, BASE, [*BASE[:2], seen(5)], benchmarks=("split", "other"))
    result = find_benchmark_copies(store, "split", progress=False)
    assert [c.test for c in result] == ["test0", "test1"]
    kept = json.loads((store.path / "copies.json").read_text())
    assert set(kept["benchmarks"]) == {"split", "other"}
    with monkeypatch.context() as patch:
        patch.setattr(copies, "fingerprint", None)
        again = SkeletonStore.open(store.path)
        assert find_benchmark_copies(again, "split") == find_benchmark_copies(again, "other") == result
    again.verify()


@pytest.mark.parametrize("damage", [
    b"", b"{", b"[]", b"null", b"{}", b'{"format": "bpilib copies", "version": 1, "sha256": {}, "benchmarks": {}}',
    "version", "sha256", "benchmarks", "rows",
])  # fmt: skip
def test_what_does_not_belong_to_the_store_is_looked_for_again(tmp_path, damage):
    store = write(tmp_path, BASE, BASE[:2])
    result = find_benchmark_copies(store, "split", progress=False)
    path = store.path / "copies.json"
    right = json.loads(path.read_text())
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        wrong = {"version": 0, "sha256": {**right["sha256"], "poses.npy": "0"}, "benchmarks": {}}
        changed = {damage: wrong[damage]} if damage in wrong else {"benchmarks": {"split": [["only a name"]]}}
        path.write_text(json.dumps(right | changed))
    assert find_benchmark_copies(store, "split", progress=False) == result
    assert json.loads(path.read_text()) == right


def test_a_store_that_can_not_be_written_is_looked_through_each_time(tmp_path, monkeypatch):
    store = write(tmp_path, BASE, BASE[:1])

    def refuse(*_):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(copies, "write_atomically", refuse)
    with pytest.warns(UserWarning, match=r"copies\.json can't be written .*searched again each time"):
        assert len(find_benchmark_copies(store, "split", progress=False)) == 1
    assert not (store.path / "copies.json").exists()


def test_an_unknown_benchmark_is_refused_and_nothing_written(tmp_path):
    store = write(tmp_path, BASE, BASE)
    with pytest.raises(ValueError, match="no split 'xview/test'"):
        find_benchmark_copies(store, "xview")
    assert not (store.path / "copies.json").exists()


def test_what_is_said_of_them(tmp_path, capsys):
    assert summarise_copies([], 3) == "no test clip is a copy of a training clip"
    store = write(tmp_path, BASE, [BASE[0], BASE[1] + 1, seen(5), seen(6)])
    main([str(store.path)])
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "split: 2 of the 4 test clips (50.0 %) are copies of training clips (1 equal, 1 near)"
    assert rest[0] == f"test0 = train0  equal, {len(BASE[0])} frames, 0.000 mm" and len(rest) == 2


# --- NW-UCLA


@pytest.fixture(scope="module")
def ucla(tmp_path_factory):
    if ucla_zip() is None:
        pytest.skip(NO_UCLA)
    return SkeletonStore.open(ucla_store(tmp_path_factory.mktemp("ucla")))


def test_nw_ucla_has_95_copies_and_no_other(ucla):
    test, train = (ucla.split("xview", part) for part in ("test", "train"))
    result = find_copies(ucla, test, train, progress=False)
    names = [str(ucla.names[i]) for i in test if str(ucla.names[i]).startswith(("a02", "a03"))]
    assert [(c.test, c.train) for c in result] == [(name, name[:-1] + "2") for name in names]
    assert sum(name.startswith("a02") for name in names) == 50 and len(names) == 95
    for copy in result:
        i, j = (int(np.flatnonzero(ucla.names == name)[0]) for name in copy[:2])
        assert copy.kind == "equal" and copy.distance == 0 and copy.frames == ucla.lengths[i]
        assert ucla.sample(i).tobytes() == ucla.sample(j).tobytes()


def test_nw_ucla_has_no_copies_across_subjects_but_two_views_of_one_subject_share_recordings(ucla):
    prints, train = fingerprint(ucla, False), ucla.split("xview", "train")
    for subject in np.unique(ucla.subjects):
        mine = ucla.subjects[train] == subject
        assert find_copies(ucla, train[mine], train[~mine], prints) == []
    views = [train[ucla.cameras[train] == view] for view in (1, 2)]
    shared = find_copies(ucla, *views, prints) + find_copies(ucla, *views[::-1], prints)
    assert len(shared) == 19 and {c.test[:7] for c in shared} == {"a08_s01", "a09_s01"}
    for c in shared:
        i, j = (ucla.sample(int(np.flatnonzero(ucla.names == name)[0])) for name in c[:2])
        frames = {frame.tobytes() for frame in j}
        assert c.kind == "part" and sum(frame.tobytes() in frames for frame in i) >= c.frames
