"""Finds test clips that are copies of training clips: a network that has memorised those recognises them without merit.

    python -m bpilib.data.copies data/prepared/ucla

There are three kinds of copies:

    equal   bit for bit, apart from negative zeros, NaN (counted as zeros), empty frames at either end, absent persons,
            and the order of persons
    near    all frames of a person agree within 2 % of the body's size, after each frame is centred and the clip is
            scaled: a clip that was moved, scaled, rounded to float16, or has a little noise
    part    the same for a run of at least 12 frames anywhere in both clips (for a shorter clip: all of its frames, at
            least 5): trimmed ends, or two cuts of one recording

The distance is the root mean square over frames and joints; the body's size is the same of the joints about their
centre, about half a metre. The distance must also be at most a fifth of the joints' motion about their mean positions,
so people who stand still are copies of one another only if they are equal. On NW-UCLA all copies among the test clips
are equal, and 12 frames of any other test clip differ by at least 12 % of the body's size from any 12 of a training
clip.

Not found: mirrored or rotated clips (one performance seen by two cameras is two recordings), clips resampled in time,
copies in which some joints were replaced, and shorter runs.

Method: a window is two frames of one person, four apart. Its fingerprint is a hash of six random projections of each
frame, centred, scaled, and quantised in steps of 0.15 of the body's size. Each test window is compared with at most
`CROWD` training windows of the same fingerprint, and where two are close, their clips are compared frame by frame.
Noise of 1 % of the body's size changes the fingerprint of about every second window, and a run of 12 frames has eight.
Poses are read once in order, then again where fingerprints match; memory holds 16 bytes per frame and person, about
four times that while they are sorted.
"""

import argparse
import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from bpilib.data.store import SkeletonStore, mark_present
from bpilib.system.files import write_atomically

FILE_NAME = "copies.json"
FORMAT = {"format": "bpilib copies", "version": 1}  # the version counts changes of what a copy is
LIMIT = 0.02  # distance of copies, of the body's size
STILL = 0.2  # distance of copies, of the joints' motion
RUN = 12  # frames
SPAN = 4  # frames between the two frames of a window
PROJECTIONS = 6  # of a frame
STEP = 0.15  # of a projection, in body sizes
FROZEN = 0.002  # motion within a window, in body sizes, below which it is skipped
MOVED = 0.5  # relative difference of two windows' motions above which their clips are not compared
CROWD = 16  # training windows that a test window is compared with, at most
CHUNK = 8192  # frames read at once
BATCH = 16384  # pairs of windows compared at once


class Copy(NamedTuple):
    """A test clip and the training clip that it is a copy of (of several the one that shares most frames).

    Attributes:
        test, train: names of the clips.
        kind: "equal", "near" or "part".
        distance: metres, root mean square over the shared frames and joints after alignment; 0 for equal clips.
        frames: number of shared frames.
    """

    test: str
    train: str
    kind: str
    distance: float
    frames: int


class Fingerprints(NamedTuple):
    """Fingerprints of all clips of a store, as `find_copies` compares them.

    Attributes:
        digests: n, `digest` of each clip.
        hashes: (w,) uint64, of windows.
        places: (w,) int64, position of each window: its first frame in the store * M + person.
    """

    digests: list[bytes | None]
    hashes: np.ndarray
    places: np.ndarray


def digest(poses: np.ndarray) -> bytes | None:
    """Hash a clip (L, M, V, 3), the same for clips that are equal as defined above; None if nobody is in it."""
    poses = np.nan_to_num(np.asarray(poses, np.float32)) + np.float32(0)  # -0 + 0 is 0
    there = mark_present(poses)
    frames = np.flatnonzero(there.any(1))
    if not len(frames):
        return None
    tracks = poses[frames[0] : frames[-1] + 1, there.any(0)].swapaxes(0, 1)  # (M, L, V, 3)
    return b"".join(sorted(hashlib.blake2b(track.tobytes(), digest_size=16).digest() for track in tracks))


def hash_clips(store: SkeletonStore, clips: np.ndarray) -> np.ndarray:
    """Hash clips (n,) of a store to (n,) int64, also to compare them with another store's; 0 if nobody is in one."""
    hashes = np.zeros(len(clips), np.int64)
    for place in np.argsort(clips):  # as they lie on the disk
        if (whole := digest(store.sample(clips[place]))) is not None:
            short = hashlib.blake2b(whole, digest_size=hashes.itemsize).digest()
            hashes[place] = int.from_bytes(short, "little", signed=True)
    return hashes


@np.errstate(divide="ignore", over="ignore", invalid="ignore")  # of absent persons, and of huge coordinates
def fingerprint(store: SkeletonStore, progress: bool = True) -> Fingerprints:
    """Fingerprint all clips of a store, which is read once from its first frame to its last."""
    _, persons, joints, _ = store.poses.shape
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((3 * joints, PROJECTIONS)).astype(np.float32)
    shifts = rng.random(PROJECTIONS, np.float32)
    factors = rng.integers(0, 1 << 63, (2, PROJECTIONS), np.uint64) | np.uint64(1)
    digests: list[bytes | None] = []
    hashes, places = [], []
    look = {"desc": "look for copies", "unit": " frames", "delay": 2, "disable": not progress}
    with tqdm(total=int(store.offsets[-1]), **look) as bar:
        for first, last in _iterate_chunks(store.offsets):
            start, stop = store.offsets[first], store.offsets[last]
            poses = np.asarray(store.poses[start:stop])
            digests += map(digest, np.split(poses, store.offsets[first + 1 : last] - start))
            x, size = centre(poses)
            there = (size > 0) & np.isfinite(size)
            x = np.where(there, 1 / (size * np.sqrt(joints)), 0).astype(np.float32)[..., None] * x  # length 1
            steps = np.floor(x @ directions / STEP + shifts).astype(np.int64).astype(np.uint64)
            clip = np.repeat(np.arange(first, last), np.diff(store.offsets[first : last + 1]))
            moved = ((x[SPAN:] - x[:-SPAN]) ** 2).sum(-1) >= FROZEN**2  # (F - SPAN, M)
            good = there[SPAN:] & there[:-SPAN] & moved & (clip[SPAN:] == clip[:-SPAN])[:, None]
            frame, person = np.nonzero(good)
            two = steps[frame, person], steps[frame + SPAN, person]
            hashes.append((two[0] * factors[0] + two[1] * factors[1]).sum(1))
            places.append((frame + start) * persons + person)
            bar.update(int(stop - start))
    return Fingerprints(digests, np.concatenate(hashes), np.concatenate(places).astype(np.int64))


def _iterate_chunks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges (first, last + 1) of whole clips that have about CHUNK frames together."""
    first = 0
    while first < len(offsets) - 1:
        last = max(int(np.searchsorted(offsets, offsets[first] + CHUNK, "right")) - 1, first + 1)
        yield first, last
        first = last


def centre(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre poses (..., V, 3) at the mean of their joints: (..., 3V), and the bodies' sizes (...)."""
    x = poses - poses.mean(-2, keepdims=True)
    return x.reshape(*x.shape[:-2], -1), np.sqrt((x**2).sum((-2, -1)) / poses.shape[-2])


def find_copies(
    store: SkeletonStore, test: np.ndarray, train: np.ndarray, prints: Fingerprints | None = None, progress: bool = True
) -> list[Copy]:
    """Find the test clips that are copies of training clips, in the order of `test`.

    Args:
        store: of the clips.
        test, train: (n,) int64 clip indices, of a length each; a clip in both is a copy of itself.
        prints: fingerprints of the store, if they are known already.
        progress: show a bar.
    """
    prints = fingerprint(store, progress) if prints is None else prints
    first = {prints.digests[i]: i for i in reversed(train) if prints.digests[i] is not None}
    found: dict[int, Copy] = {}
    for i in test:
        if (j := first.get(prints.digests[i])) is not None:
            frames = int(store.sample(i).any((1, 2, 3)).sum())
            found[i] = Copy(str(store.names[i]), str(store.names[j]), "equal", 0.0, frames)
    left = np.setdiff1d(test, [*found])
    pairs = np.concatenate([np.empty((0, 2), np.int64), *_keep_close(store, _join(store, prints, left, train))])
    clips = [np.searchsorted(store.offsets, pairs[:, k] // store.persons, "right") - 1 for k in (0, 1)]
    tracks = np.column_stack([*clips, pairs % store.persons, (pairs[:, 1] - pairs[:, 0]) // store.persons])
    _, chosen = np.unique(tracks, axis=0, return_index=True)
    for k in chosen:
        if copy := _find_shared_run(store, *(int(clip[k]) for clip in clips), *map(int, pairs[k])):
            i = int(clips[0][k])
            if i not in found or (copy.frames, -copy.distance) > (found[i].frames, -found[i].distance):
                found[i] = copy
    return [found[i] for i in test if i in found]


def _join(store: SkeletonStore, prints: Fingerprints, test: np.ndarray, train: np.ndarray) -> Iterator[np.ndarray]:
    """Pair the windows of test and training clips that have the same hash: their places (n, 2), in batches."""
    clip = np.searchsorted(store.offsets, prints.places // store.persons, "right") - 1
    part = np.zeros((2, len(store)), bool)
    part[0, test], part[1, train] = True, True
    mine = np.flatnonzero(part[0, clip])
    theirs = np.flatnonzero(part[1, clip])
    theirs = theirs[np.argsort(prints.hashes[theirs], kind="stable")]
    hashes = prints.hashes[theirs]
    for some in np.array_split(mine, max(1, len(mine) * CROWD // BATCH)):
        low, high = (np.searchsorted(hashes, prints.hashes[some], side) for side in ("left", "right"))
        count = np.minimum(high - low, CROWD)
        if count.any():
            nth = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
            yield prints.places[np.column_stack([np.repeat(some, count), theirs[np.repeat(low, count) + nth]])]


def _keep_close(store: SkeletonStore, joined: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Keep the pairs of windows whose poses, centred and scaled, and whose motions are nearly the same."""
    flat = store.poses.reshape(-1, *store.poses.shape[2:])  # (F * M, V, 3)
    for pairs in joined:
        ours, theirs = (np.stack([flat[pairs[:, k] + step * store.persons] for step in (0, SPAN)], 1) for k in (0, 1))
        a, b = (centre(x)[0] for x in (ours, theirs))  # (n, 2, 3V)
        away = a - b * ((a * b).sum((1, 2)) / np.maximum((b**2).sum((1, 2)), 1e-12))[:, None, None]
        moved = [((x[:, 1] - x[:, 0]) ** 2).sum(1) for x in (away, a)]
        near = (away**2).sum((1, 2)) <= (2 * LIMIT) ** 2 * (a**2).sum((1, 2))
        yield pairs[near & (moved[0] <= MOVED**2 * moved[1])]


def _find_shared_run(store: SkeletonStore, i: int, j: int, place: int, other: int) -> Copy | None:
    """Find the longest run of frames that clips i and j share when two of their windows, at two places, are aligned."""
    persons = store.persons
    shift = (other - place) // persons  # from a frame of clip i to that of clip j
    a, b = (store.sample(k)[:, p % persons].astype(np.float64) for k, p in ((i, place), (j, other)))
    lengths = [int(np.ptp(np.flatnonzero(x.any((1, 2))))) + 1 for x in (a, b)]
    begin = max(store.offsets[i], store.offsets[j] - shift)
    end = min(store.offsets[i + 1], store.offsets[j + 1] - shift)
    a, size = centre(a[begin - store.offsets[i] : end - store.offsets[i]])
    b, _ = centre(b[begin + shift - store.offsets[j] : end + shift - store.offsets[j]])
    at = slice(place // persons - begin, place // persons - begin + SPAN + 1)
    joints = a.shape[1] // 3

    def scaled(frames: slice) -> float:
        return float((a[frames] * b[frames]).sum() / max((b[frames] ** 2).sum(), 1e-12))

    away = np.sqrt(((a - scaled(at) * b) ** 2).sum(1) / joints)
    ends = np.flatnonzero(np.diff(np.r_[0, (size > 0) & (away <= 2 * LIMIT * size), 0])).reshape(-1, 2)
    if not len(ends):
        return None
    run = slice(*ends[np.diff(ends)[:, 0].argmax()])
    frames = int(run.stop - run.start)
    distance = np.sqrt(((a[run] - scaled(run) * b[run]) ** 2).sum(1).mean() / joints)
    motion = np.sqrt(((a[run] - a[run].mean(0)) ** 2).sum(1).mean() / joints)
    whole = np.sqrt((size[run] ** 2).mean())
    if frames < min(RUN, *lengths) or distance > min(LIMIT * whole, STILL * motion) or motion < FROZEN * whole:
        return None
    kind = "near" if frames == lengths[0] == lengths[1] else "part"
    return Copy(str(store.names[i]), str(store.names[j]), kind, float(distance), frames)


def find_benchmark_copies(store: SkeletonStore, benchmark: str, progress: bool = True) -> list[Copy]:
    """Find the copies of a benchmark's training clips among its test clips.

    The search runs once for all benchmarks of a store; the result is kept in its copies.json, with the checksums of the
    clips.

    Raises:
        ValueError: no such benchmark.
    """
    store.split(benchmark, "test")
    path = store.path / FILE_NAME
    head = FORMAT | {"sha256": {name: store.manifest["sha256"][name] for name in ("poses.npy", "index.npz")}}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or unusable: search
        kept = json.loads(path.read_bytes())
        if all(kept[key] == value for key, value in head.items()):
            return [Copy(str(t), str(s), str(k), float(d), int(n)) for t, s, k, d, n in kept["benchmarks"][benchmark]]
    prints = fingerprint(store, progress)
    found = {
        name: find_copies(store, store.split(name, "test"), store.split(name, "train"), prints)
        for name in store.benchmarks
    }
    try:
        write_atomically(path, json.dumps(head | {"benchmarks": found}) + "\n")
    except OSError as error:
        warnings.warn(f"{path} can't be written ({error}): copies will be searched again each time", stacklevel=2)
    return found[benchmark]


def is_copy(names: np.ndarray, store: SkeletonStore, benchmark: str) -> np.ndarray:
    """(n,) bool: which of a benchmark's test clips, by their `names` (n,) str, are copies of its training clips."""
    return np.isin(names, np.array([copy.test for copy in find_benchmark_copies(store, benchmark)], names.dtype))


def summarise_copies(copies: list[Copy], clips: int) -> str:
    """Say in one sentence how many of a benchmark's test clips are copies.

    Args:
        copies: of the benchmark.
        clips: number of its test clips.
    """
    if not copies:
        return "no test clip is a copy of a training clip"
    kinds = [copy.kind for copy in copies]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("equal", "near", "part") if kind in kinds)
    share = f"{100 * len(copies) / clips:.1f} %"
    return f"{len(copies)} of the {clips:,} test clips ({share}) are copies of training clips ({counts})"


def main(arguments: list[str] | None = None) -> None:
    """Count and list the copies in a store."""
    parser = argparse.ArgumentParser(prog="python -m bpilib.data.copies", description=main.__doc__)
    parser.add_argument("store", help="its folder, such as data/prepared/ucla")
    store = SkeletonStore.open(parser.parse_args(arguments).store)
    for name in store.benchmarks:
        copies = find_benchmark_copies(store, name)
        print(f"{name}: {summarise_copies(copies, len(store.split(name, 'test')))}")
        for copy in copies:
            print(f"{copy.test} = {copy.train}  {copy.kind}, {copy.frames} frames, {1000 * copy.distance:.3f} mm")


if __name__ == "__main__":
    main()
