"""Which persons of a clip are kept, and that a single clip is made as the clips of its store were."""

import warnings

import numpy as np
import pytest
from bodies import acted, in_room

from bpilib.data import prepare
from bpilib.data.clip_file import read_clip
from bpilib.data.importer import fit_persons
from bpilib.skeleton import NTU


def frozen(place, frames):
    """A body that stands still at a place."""
    return np.repeat(in_room(acted(1)[0][:1], place), frames, 0)


def crowd(clip):
    """(L, 3, 25, 3) in a camera's coordinates: two people who stand still and are lost now and then, and the actor."""
    frames = len(clip)
    out = np.zeros((frames, 3, 25, 3), np.float32)
    out[: frames // 4, 0] = frozen((-1, 0.1, 3.0), frames // 4)
    out[frames // 2 : frames // 2 + 5, 1] = frozen((1, 0.1, 3.5), 5)
    out[:, 2] = in_room(clip, (0, 0.1, 2.0))
    return out


def store_of(folder, clips, dataset="mine", label="wave"):
    folder.mkdir()
    rows = [f"c{i},{label},1,train" for i in range(len(clips))]
    (folder / "clips.csv").write_text("\n".join(["name,label,subject,split", *rows]) + "\n")
    for i, clip in enumerate(clips):
        np.save(folder / f"c{i}.npy", clip)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare(dataset, folder, folder.parent / "store", progress=False)


def test_being_lost_is_no_movement():
    for clip in acted(12):
        poses, dropped = fit_persons(crowd(clip), 1)
        np.testing.assert_array_equal(poses[:, 0], in_room(clip, (0, 0.1, 2.0)).astype(np.float32))
        assert dropped == 2


def test_somebody_who_runs_by_does_not_oust_the_actor():
    actor = in_room(max(acted(12), key=len))
    passing = np.zeros_like(actor)
    passing[0], passing[1] = in_room(actor[:1], (-2, 0.1, 3))[0], in_room(actor[:1], (2, 0.1, 3))[0]
    poses, _ = fit_persons(np.stack([passing, actor], 1), 1)
    np.testing.assert_array_equal(poses[:, 0], actor.astype(np.float32))


def test_persons_who_are_all_there_are_chosen_as_published():
    poses = np.random.default_rng(0).standard_normal((20, 4, 25, 3)) * np.array([1, 3, 2, 0.5])[:, None, None]
    kept, dropped = fit_persons(poses, 2)
    np.testing.assert_array_equal(kept, poses[:, [1, 2]].astype(np.float32))
    assert dropped == 2


def test_a_clip_of_too_many_people_alone_is_the_one_of_the_store(tmp_path):
    clips = [crowd(clip) for clip in acted(12)]
    store = store_of(tmp_path / "raw", clips)
    about = {"skeleton": "ntu", "dataset": "mine"}
    for i in range(12):
        assert store.sample(i).any((2, 3)).all(0).any()  # the actor, who is there in all frames
        with pytest.warns(UserWarning, match="3 persons, 2 expected: kept those that move most"):
            alone = read_clip(tmp_path / "raw" / f"c{i}.npy", about)
        np.testing.assert_array_equal(alone, store.sample(i))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("width", [1, 2])
def test_ntu120_s_only_person_is_copied_however_many_the_array_could_hold(tmp_path, place, width):
    if place >= width:
        pytest.skip("no such place")
    clips = []
    for clip in acted(3):
        poses = np.zeros((len(clip), width, 25, 3), np.float32)
        poses[:, place] = in_room(clip)
        clips.append(poses)
    store = store_of(tmp_path / "raw", clips, "ntu120", label=0)
    about = {"skeleton": "ntu", "dataset": "ntu120"}
    for i, clip in enumerate(acted(3)):
        first, second = store.sample(i).transpose(1, 0, 2, 3)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, clip - clip[0, NTU.joints.index("middle of spine")], atol=1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_array_equal(read_clip(tmp_path / "raw" / f"c{i}.npy", about), store.sample(i))
