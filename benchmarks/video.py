"""Films of people whose truth is known: how fast they are followed, how far off the joints are, whether memory grows.

`python benchmarks/video.py FOLDER --model pose_landmarker_full.task` renders films into FOLDER (once) and prints the
figures of docs/video.md. FOLDER/films is a data set for notebook 10 (`raw`).
"""

import argparse
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from bpilib.data.trackers import to_ntu
from bpilib.data.video.clips import cut
from bpilib.data.video.film import open_film, opencv
from bpilib.data.video.folder import write_clips
from bpilib.data.video.landmarks import Landmarks, Wanted, find_model, track_films
from bpilib.skeleton import NTU

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import rendered_people

LIMBS = [NTU.joints.index(f"{side} {name}") for side in ("left", "right")
         for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")]  # fmt: skip
HIPS = NTU.joints.index("base of spine")


def peak_memory(wanted: Wanted, model: Path) -> tuple[float, float]:
    """Follow a film; megabytes of the process that does, when MediaPipe has just begun (10 s) and at most."""
    own, sizes = psutil.Process(), []
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(track_films, {"film": wanted}, model, progress=False)
        begin = time.perf_counter()
        while not done.done():
            time.sleep(0.2)
            found = [child.memory_info().rss / 1e6 for child in own.children(recursive=True) if child.is_running()]
            sizes.append((time.perf_counter() - begin, max(found, default=0)))
    early = max(size for at, size in sizes if at < 10 or at < sizes[-1][0] / 10)
    return early, max(size for _, size in sizes)


def plain_rate(film: Path, model: Path, most: int = 120) -> float:
    """Frames a second of processor time of MediaPipe alone, on frames that are in memory already, in this process."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    opencv().setNumThreads(1)
    frames = [image for number, _, image in open_film(film).read() if number < most]
    options = vision.PoseLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)), running_mode=vision.RunningMode.VIDEO
    )
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        start = time.process_time()
        for number, image in enumerate(frames):
            frame = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            landmarker.detect_for_video(frame, number * 33)
        return len(frames) / (time.process_time() - start)


def errors(films: Path, clips: Path) -> tuple[float, float]:
    """Metres from the truth of the limbs' joints around the hips, mean over the films, and if it were mirrored."""
    found, mirrored = [], []
    for path in sorted(films.glob("*_00.mp4")):
        action, subject, _ = path.stem.rsplit("_", 2)
        label = 1 + [name.replace(" ", "_") for name in rendered_people.synthetic.CLASSES].index(action)
        truth = to_ntu(rendered_people.acted(label, int(subject)), "kinect_v1")[:, 0]
        landmarks = Landmarks.load(clips / "landmarks" / f"{path.stem}.npz")
        if landmarks is None:
            continue
        pieces, _ = cut(landmarks)
        for piece in pieces:
            mine = to_ntu(piece.poses, "mediapipe")[:, 0]
            mine, true = (p - p[:, [HIPS]] for p in (mine, truth[piece.frames]))
            found.append(np.linalg.norm(mine - true, axis=-1)[:, LIMBS].mean())
            mirrored.append(np.linalg.norm(mine * [-1, 1, 1] - true, axis=-1)[:, LIMBS].mean())
    return float(np.mean(found)), float(np.mean(mirrored))


def processes_time() -> float:
    """Seconds of processor time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--subjects", type=int, default=12)
    parser.add_argument("--test", type=int, default=4, help="of them the last so many are the test split")
    given = parser.parse_args()
    model, films = find_model(given.model), given.folder / "films"
    subjects = range(1, given.subjects + 1)
    if not (films / "clips.csv").exists():
        start = time.perf_counter()
        rendered_people.write_data_set(films, subjects, subjects[-given.test :], most=60)
        print(f"rendered in {time.perf_counter() - start:.0f} s", flush=True)
    start, used = time.perf_counter(), processes_time()
    report = write_clips(films, given.folder / "clips", model, progress=False)
    taken, frames = time.perf_counter() - start, report["frames"].sum()
    print(f"{len(report)} films, {frames:,} frames, {report['clips'].sum()} clips: {taken:.0f} s, with start-up")
    if processes_time() > used:
        print(f"{frames / (processes_time() - used):.1f} frames a second of processor time, with start-up")
    print(f"a pose in {np.average(report['found'], weights=report['frames']):.2%} of the frames")
    print("limb joints {:.3f} m from the truth, mirrored {:.3f} m".format(*errors(films, given.folder / "clips")))
    long = given.folder / "long.mp4"
    if not long.exists():
        clips = [rendered_people.acted(label, subjects[-1]) for label in range(1, 11)]
        rendered_people.write_film(long, (rendered_people.draw([pose]) for clip in clips * 2 for pose in clip[:90]))
    out, count = given.folder / "long.npz", open_film(long).frames
    alone = plain_rate(long, model)
    out.unlink(missing_ok=True)
    start, used = time.perf_counter(), processes_time()
    early, peak = peak_memory(Wanted(long, out), model)
    rate = count / (processes_time() - used)
    print(f"{count} frames in one process: {count / (time.perf_counter() - start):.1f} a second")
    print(f"{rate:.1f} a second of processor time, with start-up; MediaPipe alone {alone:.1f}")
    print(f"its memory: {early:.0f} MB at its beginning, {peak:.0f} MB at most")


if __name__ == "__main__":
    main()
