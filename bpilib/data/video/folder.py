"""A folder of films with a clips.csv to a folder of clips with one, as `prepare` takes it with tracker mediapipe."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from bpilib.data.formats import clip_folder
from bpilib.data.importer import CLASS_NAMES_FILE, check_on_error
from bpilib.data.video.clips import cut
from bpilib.data.video.film import KINDS, find_film
from bpilib.data.video.landmarks import Landmarks, Wanted, track_films
from bpilib.errors import MissingInputError
from bpilib.system.files import write_atomically

EVENTS = "events.csv"
COLUMNS = ("name", "label", "subject", "split", "camera", "setup")


def has_films(folder: str | Path) -> bool:
    """Whether a clips.csv in the folder names films."""
    folder = Path(folder)
    if not (folder / clip_folder.LIST).is_file():
        return False
    return any(_film_of(folder, row) is not None for _, row in clip_folder.read_list(folder / clip_folder.LIST))


def _film_of(folder: Path, row: dict[str, str]) -> Path | None:
    """The film that a row names, if it names one; a name that leads out of the folder names none."""
    try:
        clip_folder.locate_clip(folder, row["name"] or "")
    except ValueError:
        return None
    return find_film(folder, row["name"])


def write_clips(
    folder: str | Path,
    out: str | Path,
    model: Path,
    people: int = 1,
    mirrored: bool = False,
    processes: int | None = None,
    progress: bool = True,
    on_error: str = "skip",
) -> pd.DataFrame:
    """Follow the films of a folder, and write clips.csv and a .npy for each clip; the same films, the same bytes.

    A film with a long gap, or where another person comes in, becomes several clips of the same label: name_1, name_2.
    Rows that name recorded landmarks (.npy) are taken over as they are. What is in `out` from before and is not needed
    any more is removed.

    Args:
        folder: clips.csv (name, label, subject, split), the films, and maybe classes.txt.
        out: folder of the clips, of this function alone; landmarks are kept in it, so that a film is followed once.
        model: of `landmarks.find_model`.
        people, mirrored, processes, progress: of `track_films`.
        on_error: "skip" leaves a film out, says why, and goes on; "raise" raises.

    Returns:
        a row a film: film, frames, seconds, found (share of the frames with a pose), clips, notes. All that happened,
        with frame numbers, is in events.csv in `out`.

    Raises:
        MissingInputError: no clips.csv.
        ValueError: a clips.csv that is something else; no film could be used; with on_error="raise" any trouble.
    """
    check_on_error(on_error)
    folder, out = Path(folder), Path(out)
    if not (folder / clip_folder.LIST).is_file():
        raise MissingInputError(f"no {clip_folder.LIST} in {folder}: expected name,label,subject,split of each film")
    listed = [row for _, row in clip_folder.read_list(folder / clip_folder.LIST)]
    rows = {(row["name"] or "").strip(): row for row in listed}
    if len(rows) < len(listed):
        raise ValueError(f"{folder / clip_folder.LIST}: {len(listed) - len(rows)} names come a second time")
    films = {name: film for name, row in rows.items() if (film := _film_of(folder, row)) is not None}
    wanted = {name: Wanted(film, out / "landmarks" / f"{name}.npz") for name, film in films.items()}
    found = track_films(wanted, model, people, mirrored, processes, progress)
    written, report, events = [], [], []
    for name, row in rows.items():
        stem = str(Path(name).with_suffix("")) if name in films and films[name].name == Path(name).name else name
        if name not in films and not name.lower().endswith(KINDS):
            written += _take_over(folder, out, name, row)
            continue
        try:
            landmarks = found[name] if name in films else MissingInputError(f"no film {name} in {folder}")
            if isinstance(landmarks, Exception):
                raise landmarks
            pieces, happened = cut(landmarks, people, name)
        except (ValueError, OSError) as error:
            if on_error == "raise":
                raise
            report.append((films[name].name if name in films else name, 0, 0.0, 0.0, 0, str(error)))
            continue
        for number, piece in enumerate(pieces, 1):
            clip = stem if len(pieces) == 1 else f"{stem}_{number}"
            content = io.BytesIO()
            np.save(content, piece.poses)
            write_atomically(out / f"{clip}.npy", content.getvalue())
            written.append({**row, "name": clip})
        events += [(films[name].name, *event) for event in happened]
        report.append(_line(films[name].name, landmarks, len(pieces), happened))
    if not written:
        first = report[0][-1] if report else f"{folder / clip_folder.LIST} names no film that is there"
        raise ValueError(f"{folder}: expected films that can be followed, got none of {len(rows)}; the first: {first}")
    _write_list(out, written)
    _write_csv(out / EVENTS, ("film", "first", "last", "what", "done"), events)
    if (folder / CLASS_NAMES_FILE).is_file():
        shutil.copyfile(folder / CLASS_NAMES_FILE, out / CLASS_NAMES_FILE)
    columns = ["film", "frames", "seconds", "found", "clips", "notes"]
    return pd.DataFrame(report, columns=columns)


def _take_over(folder: Path, out: Path, name: str, row: dict[str, str]) -> list[dict[str, str]]:
    """Recorded landmarks as they are; a row of a file that is not there stays, so that `prepare` says so."""
    source = clip_folder.locate_clip(folder, name.removesuffix(".npy"))
    if source.is_file():
        write_atomically(out / source.relative_to(folder), source.read_bytes())
    return [dict(row)]


def _line(film: str, landmarks: Landmarks, clips: int, happened: list) -> tuple:
    there = float(np.isfinite(landmarks.image[:, :, 0, 0]).any(1).mean())
    notes = "; ".join(f"frames {e.first}–{e.last}: {e.what}: {e.done}" for e in happened[:3])
    notes += f"; and {len(happened) - 3} more" if len(happened) > 3 else ""
    return film, int(landmarks.counts[1]), float(landmarks.seconds[-1]), there, clips, notes


def _write_list(out: Path, rows: list[dict[str, str]]) -> None:
    """clips.csv; clips that it does not name are those of films that are gone."""
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    _write_csv(out / clip_folder.LIST, columns, [[row.get(column) or "" for column in columns] for row in rows])
    named = {(row["name"] or "").removesuffix(".npy") for row in rows}
    for path in out.rglob("*.npy"):
        if path.relative_to(out).with_suffix("").as_posix() not in named:
            path.unlink()


def _write_csv(path: Path, columns, rows) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(path, text.getvalue())
