"""Class texts: name, synonyms and a description of each body part, read from YAML or from published text files."""

import difflib
import hashlib
import json
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bpilib.system.files import parse_yaml, write_atomically

PARTS = ("head", "hand", "arm", "hip", "leg", "foot")
# the descriptions each prompt joins after the class name, in the published order
PART_PROMPTS: dict[str, dict[str, tuple[str, ...]]] = {
    "bpi": {"torso": ("head", "hip"), "arm": ("hand", "arm"), "leg": ("leg", "foot")},
    "gap": {"head": ("head",), "hand": ("hand", "arm"), "hip": ("hip",), "foot": ("leg", "foot")},
}


@dataclass(frozen=True)
class Prompts:
    """The texts of K classes.

    Attributes:
        classes: K names, in label order.
        synonyms: for each class its synonyms, without the name.
        descriptions: for each class a text for every one of `PARTS`.
        source: the file they were read from, beside which their embeddings are; None: another origin.
    """

    classes: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    descriptions: tuple[dict[str, str], ...]
    source: Path | None = field(default=None, compare=False)

    def synonyms_of(self, i: int) -> tuple[str, ...]:
        """The texts of the global branch for class i: its name, then its synonyms."""
        return (self.classes[i], *self.synonyms[i])

    def part_prompts(self, model: str) -> dict[str, tuple[str, ...]]:
        """One prompt per part and class: the name and the descriptions of that part, joined by ", ".

        Args:
            model: "bpi" (torso, arm, leg) or "gap" (head, hand, hip, foot).

        Returns:
            part → K texts, in the published order.

        Raises:
            ValueError: a model without part prompts.
        """
        if model not in PART_PROMPTS:
            raise ValueError(f"model {model!r} has no part prompts: expected one of {', '.join(PART_PROMPTS)}")
        return {
            part: tuple(", ".join((n, *(d[w] for w in words))) for n, d in zip(self.classes, self.descriptions))
            for part, words in PART_PROMPTS[model].items()
        }

    def texts(self) -> tuple[str, ...]:
        """Every text that any model may ask for, class by class, each once."""
        parts = [texts for model in PART_PROMPTS for texts in self.part_prompts(model).values()]
        every = ((*self.synonyms_of(i), *(texts[i] for texts in parts)) for i in range(len(self.classes)))
        return tuple(dict.fromkeys(text for texts in every for text in texts))

    def digest(self) -> str:
        """SHA-256 (hex) that changes with any text or with their order."""
        return digest_texts(self.texts())

    def select(self, classes: Iterable[str]) -> "Prompts":
        """The same texts for these classes in this order; forms of accents (Unicode's NFC, NFD) make no difference.

        Raises:
            ValueError: classes without prompts; each is listed with the nearest names there are.
        """
        classes = tuple(classes)
        places = {unicodedata.normalize("NFC", name): i for i, name in enumerate(self.classes)}
        missing = [name for name in classes if unicodedata.normalize("NFC", name) not in places]
        if missing:
            lines = []
            for name in missing:
                near = difflib.get_close_matches(name, self.classes, 3, 0.5)
                lines.append(f"{name!r} (nearest: {', '.join(map(repr, near)) or 'none'})")
            raise ValueError(
                f"{self.source or 'the prompts'}: no prompts for {len(missing)} of {len(classes)} classes: "
                f"{', '.join(lines)}. Add an entry for each, or rename the class as the prompts do"
            )
        at = [places[unicodedata.normalize("NFC", name)] for name in classes]
        synonyms, descriptions = tuple(self.synonyms[i] for i in at), tuple(self.descriptions[i] for i in at)
        return Prompts(classes, synonyms, descriptions, self.source)


def digest_texts(texts: Sequence[str]) -> str:
    """SHA-256 (hex) of the texts as canonical JSON."""
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def load_prompts(path: str | Path, classes: Iterable[str] | None = None) -> Prompts:
    """Read a prompts file, YAML or as published.

    YAML has the keys dataset, classes and prompts, the last with one entry per class. A file that ends in .txt is a
    published one of parts; its synonyms are in <name>.synonyms.txt beside it (`load_published_prompts`).

    An entry has `name`, `synonyms` (at least one; none twice, in another class, or equal to a class name; case does
    not count) and a description for each of `PARTS`.

    Args:
        path: YAML or text file.
        classes: the classes wanted, in label order; None: the file's.

    Raises:
        ValueError: no such file, not that format, or a class in `classes` without prompts.
    """
    path = Path(path)
    if path.suffix == ".txt":
        return load_published_prompts(path, path.with_suffix(".synonyms.txt"), classes)
    try:
        content = parse_yaml(_read(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: expected YAML, but it can't be read: {error}") from error
    _check_keys(content, ("dataset", "classes", "prompts"), str(path))
    names, entries = content["classes"], content["prompts"]
    if not (isinstance(names, list) and names and all(map(_is_text, names))):
        raise ValueError(f"{path}: expected `classes` to be a list of class names, got {names!r}")
    if not isinstance(entries, list):
        raise ValueError(
            f"{path}: expected `prompts` to be a list with one entry per class, got {type(entries).__name__}"
        )
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        where = f"{path}: class {name!r}" if _is_text(name) else f"{path}: entry {number} of `prompts`"
        _check_keys(entry, ("name", "synonyms", *PARTS), where)
        for key in ("name", *PARTS):
            if not _is_text(entry[key]):
                raise ValueError(f"{where}: expected `{key}` to be a text, got {entry[key]!r}: write it (in quotes)")
        if not (isinstance(entry["synonyms"], list) and entry["synonyms"] and all(map(_is_text, entry["synonyms"]))):
            raise ValueError(f"{where}: expected `synonyms` to list at least 1 phrase, got {entry['synonyms']!r}")
    given = [entry["name"].strip() for entry in entries]
    names = [name.strip() for name in names]
    for list_, what in ((names, "`classes`"), (given, "`prompts`")):
        if twice := [name for name, count in Counter(list_).items() if count > 1]:
            raise ValueError(f"{path}: expected each class once in {what}, got {', '.join(map(repr, twice))} again")
    for wrong, has, lacks in (
        (set(names) - set(given), "classes", "prompts"),
        (set(given) - set(names), "prompts", "classes"),
    ):
        if wrong:
            raise ValueError(
                f"{path}: expected the same classes in `classes` and `prompts`, but "
                f"{', '.join(map(repr, sorted(wrong)))} is only in `{has}`: add it to `{lacks}` or remove it"
            )
    by_name = {entry["name"].strip(): entry for entry in entries}
    prompts = Prompts(
        tuple(names),
        tuple(tuple(text.strip() for text in by_name[name]["synonyms"]) for name in names),
        tuple({part: by_name[name][part].strip() for part in PARTS} for name in names),
        source=path,
    )
    if clashes := _find_clashes(prompts):
        raise ValueError(
            f"{path}: expected every synonym once and in one class, got {'; '.join(clashes)}: reword one of each"
        )
    return prompts if classes is None else prompts.select(classes)


def load_published_prompts(
    parts_txt: str | Path, synonyms_txt: str | Path, classes: Iterable[str] | None = None
) -> Prompts:
    """Read the published text files, one class a line.

    The published files have repeated and shared synonyms, and classes with different names in the two files. They are
    kept as they are, with the name in `parts_txt`, and listed in a warning.

    Args:
        parts_txt: lines `name; head …; hand …; arm …; hip …; leg …; foot …`.
        synonyms_txt: lines `name, synonym, synonym, …`, for the same classes in the same order.
        classes: the classes wanted, in label order; None: all.

    Raises:
        ValueError: a missing file, a line of another format, files of different length, an unknown class.
    """
    rows = [_split_fields(line, ";") for line in _read_lines(parts_txt)]
    lists = [[word for word in _split_fields(line, ",") if word] for line in _read_lines(synonyms_txt)]
    if not rows or len(rows) != len(lists):
        raise ValueError(
            f"expected one line per class in both files, got {len(rows)} in {parts_txt}, {len(lists)} in {synonyms_txt}"
        )
    for number, (row, words) in enumerate(zip(rows, lists), 1):
        if len(row) != 1 + len(PARTS) or not all(row):
            raise ValueError(
                f"{parts_txt}: class {number} ({row[0]!r}): expected 7 texts (name; {'; '.join(PARTS)}), "
                f"got {sum(map(bool, row))}: separate them by ';'"
            )
        if len(words) < 2:
            raise ValueError(
                f"{synonyms_txt}: class {number} ({rows[number - 1][0]!r}): expected name, synonym, …; got {words}"
            )
    prompts = Prompts(
        tuple(row[0] for row in rows),
        tuple(tuple(words[1:]) for words in lists),
        tuple(dict(zip(PARTS, row[1:])) for row in rows),
        source=Path(parts_txt),
    )
    faults = _find_clashes(prompts)
    faults += [
        f"{r[0]!r} is called {w[0]!r} in {synonyms_txt}"
        for r, w in zip(rows, lists)
        if r[0].casefold() != w[0].casefold()
    ]
    if faults:
        warnings.warn(f"{parts_txt}, {synonyms_txt}: kept as published: {'; '.join(faults)}", stacklevel=2)
    return prompts if classes is None else prompts.select(classes)


def _find_clashes(prompts: Prompts) -> list[str]:
    """Describe duplicate synonyms: within a class (or equal to its name), and between classes."""
    owners: dict[str, Counter] = {}
    for i, name in enumerate(prompts.classes):
        for text in prompts.synonyms_of(i):
            owners.setdefault(" ".join(text.casefold().split()), Counter())[name] += 1
    out = []
    for text, count in owners.items():
        out += [f"{text!r} {times} times in class {name!r}" for name, times in count.items() if times > 1]
        if len(count) > 1:
            out.append(f"{text!r} shared by classes {', '.join(map(repr, count))}")
    return out


def _check_keys(value: object, keys: tuple[str, ...], where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected the keys {', '.join(keys)}, got {type(value).__name__}")
    if missing := [key for key in keys if key not in value]:
        raise ValueError(
            f"{where}: missing {', '.join(missing)}: "
            f"expected the keys {', '.join(keys)}, got {', '.join(map(str, value))}"
        )
    if unknown := [str(key) for key in value if key not in keys]:
        raise ValueError(
            f"{where}: unknown key {', '.join(unknown)}: expected only {', '.join(keys)}; correct or remove it"
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected a text file of prompts, got {error}: give the path of an existing one"
        ) from error


def _read_lines(path: str | Path) -> list[str]:
    return [line for line in _read(Path(path)).splitlines() if line.strip()]


def _split_fields(line: str, separator: str) -> list[str]:
    """Texts between separators, stripped; an empty last one is dropped."""
    fields = [text.strip() for text in line.split(separator)]
    return fields if fields[-1] or len(fields) == 1 else fields[:-1]


def write_prompts(text: str, path: str | Path, classes: Iterable[str]) -> Prompts:
    """Check the text of a prompts file, and write it.

    Args:
        text: YAML as `bpilib.text.prompts.load_prompts` reads it.
        path: of the file; an existing one is replaced only if the text is valid.
        classes: of the data set, in label order; each must have its prompts.

    Raises:
        ValueError: not that format, or a class without prompts.
    """
    path = Path(path)

    def write(part: Path) -> None:
        part.write_text(text, encoding="utf-8")
        try:
            load_prompts(part, classes)
        except ValueError as error:
            raise ValueError(str(error).replace(str(part), "the prompts")) from None

    write_atomically(path, write)
    return load_prompts(path, classes)
