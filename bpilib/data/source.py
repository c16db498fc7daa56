"""What a store was made from: the number, size and content of its raw files, compared when it is prepared again."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from bpilib.errors import MissingInputError
from bpilib.system.files import hash_file

BLOCK = 1 << 20  # bytes that are read at once


class Source:
    """Raw files and how they are read.

    Args:
        files: that are opened, in a fixed order.
        root: the folder that they are named from; None: their names alone count, so that they may be moved.
        tracker: whose joints they have.
        names: a file with the class names that are read beside them; None, or where it is not there: they are known.

    Raises:
        MissingInputError: one of the files is missing.
    """

    def __init__(
        self, files: Sequence[Path], root: Path | None = None, tracker: str | None = None, names: Path | None = None
    ):
        for path in files:
            if not path.is_file():
                raise MissingInputError(f"no raw data at {path}")
        self.files, self.root, self.tracker = list(files), root, tracker
        self.names = names if names and names.is_file() else None

    def describe(self) -> dict[str, object]:
        """For a manifest: names, number, bytes, SHA-256 of names and content, and the tracker."""
        return self._count() | {
            "name": ", ".join(path.name for path in self.files[:2]),
            "sha256": self._digest(),
            "tracker": self.tracker,
            **({"classes": hash_file(self.names)} if self.names else {}),
        }

    def differs(self, saved: Mapping[str, object]) -> str:
        """What differs from what `describe` returned; "" if nothing does. What a manifest does not have is left out."""
        for key, value in self._count().items():
            if saved.get(key, value) != value:
                return f"{key}: {saved[key]} then, {value} now"
        if saved.get("tracker") != self.tracker:
            return f"tracker: {saved.get('tracker')} then, {self.tracker} now"
        if self.names and "classes" in saved and saved["classes"] != hash_file(self.names):
            return f"{self.names.name} was changed"
        return "their content was changed" if "sha256" in saved and saved["sha256"] != self._digest() else ""

    def _count(self) -> dict[str, object]:
        return {"files": len(self.files), "bytes": sum(path.stat().st_size for path in self.files)}

    def _name(self, path: Path) -> bytes:
        name = path.relative_to(self.root).as_posix() if self.root else path.name
        return name.encode("utf-8", "surrogateescape")

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(self._name(path) + b"\0")
            try:
                with path.open("rb") as file:
                    while block := file.read(BLOCK):
                        digest.update(block)
            except OSError as error:  # it was left out as well
                digest.update(f"\0{error.errno}".encode())
        return digest.hexdigest()
