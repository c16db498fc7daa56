"""Folders for the files of one process: removed at its end, or where it was killed, by the next one of the kind."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bpilib.system.files import open_in_place
from bpilib.system.lock import try_lock

_LOCK = "lock"
_SECONDS = 3600  # after which a folder without a lock is no longer one that is just being made


@contextlib.contextmanager
def scratch_folder(prefix: str, parent: str | Path | None = None) -> Iterator[Path]:
    """A new folder that only this user may enter, until the end of the context.

    Args:
        prefix: begins its name. Folders of this user that begin so and that no process holds any more are removed.
        parent: made where missing; None: where the system has temporary files (TMPDIR).
    """
    place = Path(tempfile.gettempdir() if parent is None else parent)
    place.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(place, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))  # mode 700
        held = hold(folder)
        if (folder / _LOCK).exists():  # else another process has removed it, before it was held
            break
        held.close()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.close()


def hold(folder: Path) -> IO:
    """Until what is returned is closed, or the process ends, nobody takes the folder for abandoned.

    On a file system without locks nothing is ever taken for abandoned.
    """
    file = open_in_place(folder / _LOCK, "ab")
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _remove_abandoned(place: Path, prefix: str) -> None:
    for folder in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError, ValueError):  # somebody else removes it, too; its lock is a link
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            if (folder / _LOCK).exists():
                with open_in_place(folder / _LOCK, "ab") as lock:
                    if try_lock(lock, fcntl.LOCK_EX):
                        shutil.rmtree(folder)
            elif time.time() - folder.stat().st_mtime > _SECONDS:
                shutil.rmtree(folder)
