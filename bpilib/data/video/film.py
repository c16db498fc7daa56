"""A film frame by frame: never more than one frame in memory, each with its time, and errors where OpenCV has none."""

import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from bpilib.errors import MissingInputError

KINDS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".3gp", ".wmv")
RATES = (1.0, 1000.0)  # frames a second that a file may say of itself; beyond, it is not believed
MAX_PIXELS = 1 << 26  # of a frame; 8K has 33 million
HOW = (
    'pip install -e ".[video]" (mediapipe 0.10.31 and OpenCV; there is no mediapipe for Linux on aarch64 and for macOS '
    "on Intel). Recorded landmarks, .npy files with tracker mediapipe, need neither"
)


def opencv() -> ModuleType:
    """OpenCV, silent; ValueError that says how to get it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's own words on a broken film; we have ours
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    try:
        import cv2
    except ImportError as error:
        raise ValueError(f"films need OpenCV, which is not here ({error}): {HOW}") from error
    return cv2


@dataclass(frozen=True)
class Film:
    """What a film says of itself.

    Attributes:
        path: the file.
        width, height: pixels, upright as the camera was held.
        fps: frames a second.
        frames: how many there are to come, as its header says; some say nothing (0), damaged ones too much.
    """

    path: Path
    width: int
    height: int
    fps: float
    frames: int

    def read(
        self, every: int = 1, mirrored: bool = False, wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, float, np.ndarray]]:
        """Frames one by one; those that are passed over are not converted.

        Args:
            every: take each n-th frame.
            mirrored: the film shows the world as a mirror does (many selfies): turn it round.
            wanted: numbers of the frames to take, from 0; None: all of them.

        Yields:
            number from 0, seconds since the film's first frame, (height, width, 3) uint8 RGB.
        """
        end = 1 << 40 if wanted is None else max(wanted, default=-1) + 1
        cv2 = opencv()
        capture = cv2.VideoCapture(str(self.path))
        try:
            begin, last = None, -1.0
            for number in range(end):
                if not _grab(capture, number, self.frames):
                    return
                now = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                begin = now if begin is None else begin
                # films of a varying rate say when each frame was taken; some say nothing
                last = now - begin if now - begin > last else last + 1 / self.fps
                if number % every or (wanted is not None and number not in wanted):
                    continue
                found, image = capture.retrieve()
                if found:
                    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    yield number, last, np.ascontiguousarray(image[:, ::-1]) if mirrored else image
        finally:
            capture.release()


def _grab(capture, number: int, frames: int) -> bool:
    """The next frame; in the middle of a film a few that cannot be decoded are passed over."""
    return any(capture.grab() for _ in range(10 if number + 10 < frames else 1))


def open_film(path: str | Path) -> Film:
    """A film whose first frame can be read.

    Raises:
        MissingInputError: no such file.
        ValueError: OpenCV is not here; no film, or a broken one; a frame rate that cannot be.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no film at {path}: expected a video file ({', '.join(KINDS)})")
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    try:
        found, image = capture.read() if capture.isOpened() else (False, None)
        if not found or image is None:
            raise ValueError(
                f"{path} ({path.stat().st_size:,} bytes) is no film, or a broken one: expected one that can be decoded "
                f"({', '.join(KINDS)}), but not even its first frame could be read; does another player show it? "
                "Copy it again, or convert it: ffmpeg -i film -c:v libx264 film.mp4"
            )
        height, width = image.shape[:2]
        if width * height > MAX_PIXELS:
            raise ValueError(f"{path}: frames of {width} × {height}, more than the {MAX_PIXELS:,} pixels they may have")
        fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not RATES[0] <= fps <= RATES[1]:  # NaN, too
            fps = _measured_rate(capture, cv2)
        if not RATES[0] <= fps <= RATES[1]:
            raise ValueError(
                f"{path}: no frame rate that could be ({fps:.3g} a second): write it into the file, "
                "e.g. ffmpeg -i film -r 30 film.mp4"
            )
        return Film(path, width, height, float(fps), int(frames) if math.isfinite(frames) and frames > 0 else 0)
    finally:
        capture.release()


def _measured_rate(capture, cv2: ModuleType) -> float:
    """Frames a second by the times of the next ones."""
    times = [capture.get(cv2.CAP_PROP_POS_MSEC) for _ in range(30) if capture.grab()]
    return 1000 * (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else math.nan


def find_film(folder: Path, name: str) -> Path | None:
    """The film of a name in a folder, with its ending or without; None: there is none.

    Raises:
        ValueError: several.
    """
    place = folder / name
    if place.suffix.lower() in KINDS and place.is_file():
        return place
    endings = sorted({ending for kind in KINDS for ending in (kind, kind.upper())})
    found = [path for ending in endings if (path := place.with_name(place.name + ending)).is_file()]
    found = [path for n, path in enumerate(found) if not any(path.samefile(other) for other in found[:n])]
    if len(found) > 1:
        raise ValueError(f"name {name!r}: expected one film, got {', '.join(path.name for path in found)}")
    return found[0] if found else None


def is_film(path: Path) -> bool:
    """Whether a file is called like a film."""
    return path.suffix.lower() in KINDS and path.is_file()
