"""Reads tables and lists written by hand or by a spreadsheet, whatever their separator, encoding and capitals.

Excel saves CSV with the list separator of its country (a semicolon in most of Europe), in the country's old encoding
unless "CSV UTF-8" is chosen, and "Unicode text" as UTF-16 with tabs.
"""

import contextlib
import csv
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SEPARATORS = (",", ";", "\t", "|")
MOST_COLUMNS = 100
NEARLY_ALL = 0.8  # of the classes but the first
CONTROL = frozenset(range(32)) - {9, 10, 13}  # bytes that no text has
BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


def read_text(path: Path) -> str:
    """A text file in UTF-8, UTF-16, or, where it is neither, in Windows' encoding of western Europe, with a warning.

    Raises:
        ValueError: bytes that are no text in any of them.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in BOMS.items() if content.startswith(mark)), None)
    if encoding is None and content[:1024].count(0) * 4 > len(content[:1024]):  # every second byte of ASCII
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        return content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is None and not {*content} & CONTROL:
            with contextlib.suppress(UnicodeDecodeError):
                text = content.decode("cp1252")
                odd = next(line.strip() for line in text.splitlines() if not line.isascii())
                warnings.warn(
                    f"{path} is not in UTF-8, read in Windows' western encoding: {odd[:80]!r}. If that looks odd, save "
                    "it as 'CSV UTF-8'",
                    stacklevel=2,
                )
                return text
        raise ValueError(f"not a text in UTF-8 or UTF-16 ({error}): save it as 'CSV UTF-8'") from error


def read_rows(path: Path, needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table with a header: (line, row) of each row, names in lower case, cells stripped.

    Surplus cells of a row are under the key None; missing ones are None.

    Raises:
        ValueError: not a text, one of the needed columns is missing with every separator, or two have one name.
        csv.Error: not a table.
    """
    text = read_text(path)
    lines = text.splitlines()
    head = 1 if lines and lines[0].lower().startswith("sep=") else 0  # Excel's own hint
    first = lines[head] if len(lines) > head else ""
    for mark in SEPARATORS:  # each row would take as many entries
        if first.count(mark) >= MOST_COLUMNS:
            raise ValueError(f"{first.count(mark) + 1} columns, more than the {MOST_COLUMNS} it may have")
    columns = {mark: {cell.strip().strip('"').lower() for cell in first.split(mark)} for mark in SEPARATORS}
    mark = max(SEPARATORS, key=lambda mark: len(columns[mark] & {*needed}))
    if missing := {*needed} - columns[mark]:
        raise ValueError(f"no column {', '.join(sorted(missing))} in its first line, {first[:80]!r}")
    reader = csv.reader(text.splitlines(keepends=True)[head:], delimiter=mark, skipinitialspace=True)
    header = [cell.strip().lower() for cell in next(reader)]
    if twice := [name for name, times in Counter(header).items() if name and times > 1]:
        raise ValueError(f"column {', '.join(twice)} twice in its first line, {first[:80]!r}: rename one of them")
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        row: dict = dict(zip(header, [*cells, *[None] * (len(header) - len(cells))]))
        if len(cells) > len(header):
            row[None] = cells[len(header) :]
        yield reader.line_num + head, row


def read_names(path: Path) -> list[str]:
    """The lines of a file, without blank ones, accents in one form (`compose`)."""
    return [compose(line.strip()) for line in read_text(path).splitlines() if line.strip()]


def compose(text: str) -> str:
    """An "ä" as one character, whether it was written as one or, as on a Mac, as two (Unicode's NFC)."""
    return unicodedata.normalize("NFC", text)


def parse_whole(text: str) -> str:
    """A number as it is meant: "1.0", as tables with empty cells are saved, is "1"; other texts as they are."""
    match = re.fullmatch(r"(\d{1,9})\.0+", text)
    return match[1] if match else text


def normalise_name(name: str) -> str:
    """Normalise a class name: capitals, blanks, underscores, hyphens and forms of accents make no difference."""
    return compose(" ".join(name.casefold().replace("_", " ").replace("-", " ").split()))


def detect_base(
    labels: Iterable[int], names: Sequence[str], told: Iterable[int | None] = (), *, published: bool = False
) -> tuple[int, str]:
    """Detect whether numeric labels count classes from 0 or from 1; a label that is no class either way has no say.

    Args:
        labels: one a clip.
        names: the class names.
        told: the class of each clip, from 0, where its name tells it: labels that mostly agree count from 0.
        published: the classes are those of a published data set, of which the clips may be a small part: that none is
            of the first class is said only if nearly all others have clips.

    Returns:
        0 or 1, and a sentence for the user, "" if there is no doubt.
    """
    labels = list(labels)
    clips, count = Counter(labels), len(names)
    ahead = Counter(label - name for label, name in zip(labels, told) if name is not None)
    within = {label for label in clips if 0 < label <= count}
    if ahead[0] > ahead[1] or not within or 0 < clips[0] >= clips[count]:
        return 0, ""
    if clips[0]:
        return 0, (
            f"labels run from 0 to {count}, one more than class names: counted from 0, {names[0]!r} is 0, and {count} "
            f"is left out; of 0 there are fewer clips ({clips[0]} to {clips[count]}): if it is a slip, take them out"
        )
    low, high = min(within), max(within)
    if high == count:
        return 1, f"labels run from {low} to {high}, as many as class names: counted from 1, {names[0]!r} is 1"
    if published and len(within) < NEARLY_ALL * (count - 1):
        return 0, ""
    return 0, (
        f"labels run from {low} to {high} of {count} class names: counted from 0, so that no clip is {names[0]!r}; "
        "if they count from 1, subtract 1, or write names"
    )


def shift_label(label: int, base: int, count: int) -> int:
    """A label, counted from `base`, as the number of its class from 0.

    Raises:
        ValueError: none of `count` classes counted from 1; from 0, the store's writer checks it.
    """
    if base and not base <= label < base + count:
        raise ValueError(f"label {label} outside {base}...{base + count - 1}")
    return label - base
