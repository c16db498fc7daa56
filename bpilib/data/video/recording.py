"""A film, or recorded landmarks, as NTU's joints over time; cut into windows where it is long."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bpilib.data.store import mark_present
from bpilib.data.trackers import MAPPINGS, to_ntu
from bpilib.data.video.clips import cut
from bpilib.data.video.film import Film, open_film
from bpilib.data.video.landmarks import RATE, Landmarks, Wanted, track_films
from bpilib.data.video.tracking import Event
from bpilib.skeleton import NTU

LONGER = 1.5  # a stretch of so many windows is cut into them; a shorter one is a window by itself
STEP = 0.25  # from one window to the next, as a share of its length
SPINE = NTU.joints.index("middle of spine")


class Window(NamedTuple):
    """Frames `start` to `stop` (excluded) of a stretch; it begins and ends at these seconds of the film."""

    stretch: int
    start: int
    stop: int
    begin: float
    end: float


@dataclass
class Recording:
    """Stretches without a gap or a change of person, each of L frames at 30 a second; M and L differ between them.

    Attributes:
        name: of the file.
        poses: (L, M, V, 3) float32 each, metres, Kinect's axes; zeros for a person who is not there.
        seconds: (L,) float64 each, since the first frame.
        image: (L, M, V, 2) float32 each, pixels of the same joints; NaN for nobody. Empty without a film.
        frames: (L,) int64 each, the film's frame nearest to each, from 0.
        filled: (L,) bool each, where a person was interpolated. Empty without a film.
        film: the film, if there is one.
        mirrored: it is to be shown turned round.
        events: what happened on the way, with the film's frames.
        found: share of the frames looked at in which there is a pose.
    """

    name: str
    poses: list[np.ndarray]
    seconds: list[np.ndarray]
    image: list[np.ndarray] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    filled: list[np.ndarray] = field(default_factory=list)
    film: Film | None = None
    mirrored: bool = False
    events: list[Event] = field(default_factory=list)
    found: float = 1.0

    def windows(self, seconds: float) -> list[Window]:
        """Windows of so many seconds that overlap; a stretch shorter than that is one window by itself."""
        length, out = max(2, round(seconds * RATE)), []
        for s, times in enumerate(self.seconds):
            total, size = len(times), min(length, len(times))
            if total < LONGER * length:
                starts, size = [0], total
            else:
                count = int(np.ceil((total - size) / (STEP * size))) + 1
                starts = np.linspace(0, total - size, count).round().astype(int).tolist()
            out += [Window(s, a, a + size, float(times[a]), float(times[a + size - 1]) + 1 / RATE) for a in starts]
        return out

    def clips(self, windows: list[Window]) -> Iterator[np.ndarray]:
        """(L, M, V, 3) of each window, the first spine at the origin, as a store has clips."""
        for window in windows:
            poses = self.poses[window.stretch][window.start : window.stop]
            there = mark_present(poses)
            frame, person = np.argwhere(there)[0] if there.any() else (0, 0)
            yield np.where(there[..., None, None], poses - poses[frame, person, SPINE], 0).astype(np.float32)

    def pictures(self, numbers: set[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Number and (H, W, 3) uint8 RGB of frames of the film; the film is read once, a frame at a time."""
        if self.film is not None and numbers:
            for number, _, image in self.film.read(mirrored=self.mirrored, wanted=numbers):
                yield number, image

    def shown(
        self,
        windows: list[Window],
        encode: Callable[[np.ndarray], str],
        begin: float = 0.0,
        fps: float = 10.0,
        most: int = 240,
    ) -> list[dict[str, Any]]:
        """Moments for a player, each with the window whose middle is nearest.

        Args:
            windows: of `windows`.
            encode: a frame of the film to text.
            begin: seconds; what was before is not shown.
            fps: moments a second.
            most: moments, so that a long recording is shown in part.

        Returns:
            of each: pose (M, V, 3), second, number, filled, stretch, window, clip_frame (in the window); with a film
            over (M, V, 2) and jpeg.
        """
        middles = np.array([(window.begin + window.end) / 2 for window in windows])
        out: list[dict[str, Any]] = []
        for s, times in enumerate(self.seconds):
            own = np.array([w for w, window in enumerate(windows) if window.stretch == s])
            for row in np.arange(0, len(times) - 0.5, RATE / fps).round().astype(int):
                if len(out) < most and len(own) and times[row] >= begin:
                    window = int(own[np.abs(middles[own] - times[row]).argmin()])
                    out.append({
                        "pose": self.poses[s][row], "second": times[row], "number": int(self.frames[s][row]),
                        "filled": bool(self.filled and self.filled[s][row]), "stretch": s, "window": window,
                        "clip_frame": int(row - windows[window].start),
                    } | ({"over": self.image[s][row]} if self.image else {}))  # fmt: skip
        pictures = {number: encode(image) for number, image in self.pictures({one["number"] for one in out})}
        return [one | ({"jpeg": pictures[one["number"]]} if one["number"] in pictures else {}) for one in out]


def of_poses(name: str, stretches: list[np.ndarray]) -> Recording:
    """Clips (L, M, V, 3) of 30 frames a second, one after the other, as one recording without a film."""
    ends = np.cumsum([len(poses) for poses in stretches])
    frames = [np.arange(end - len(poses), end) for poses, end in zip(stretches, ends)]
    return Recording(name, stretches, [numbers / RATE for numbers in frames], frames=frames)


def of_film(
    path: str | Path, model: Path, kept: Path, people: int = 1, mirrored: bool = False, progress: bool = True
) -> Recording:
    """A film followed by MediaPipe, as NTU's joints.

    Args:
        path: the film.
        model: of `landmarks.find_model`.
        kept: the .npz that its landmarks are kept in; the same film is not followed twice.
        people: persons taken, 1 or 2.
        mirrored: it shows the world as a mirror does.
        progress: show a bar.

    Raises:
        MissingInputError, ValueError: as of `open_film`, `track_films` and `cut`.
    """
    path = Path(path)
    film = open_film(path)
    found = track_films({path.name: Wanted(path, kept)}, model, people, mirrored, progress=progress)[path.name]
    if isinstance(found, Exception):
        raise found
    return from_landmarks(found, film, people, mirrored)


def from_landmarks(found: Landmarks, film: Film, people: int, mirrored: bool = False) -> Recording:
    """Landmarks of a film as a recording."""
    pieces, events = cut(found, people, film.path.name)
    joints = MAPPINGS["mediapipe"].matrix()  # (25, 33); a mean of joints is the mean of their pixels, too
    return Recording(
        film.path.name,
        [to_ntu(piece.poses, "mediapipe") for piece in pieces],
        [piece.seconds for piece in pieces],
        [np.einsum("uv,lmvc->lmuc", joints, piece.image).astype(np.float32) for piece in pieces],
        [piece.frames for piece in pieces],
        [piece.filled for piece in pieces],
        film,
        mirrored,
        events,
        float(np.isfinite(found.image[:, :, 0, 0]).any(1).mean()),
    )
