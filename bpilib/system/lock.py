"""Who works in a directory: one at a time, on all machines that share it; the system lets go however a process ends."""

import contextlib
import datetime
import errno
import fcntl
import os
import platform
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOCK = "run.lock"
PATIENCE = 2.0  # seconds in which whoever held it may still be ending
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def try_lock(file: IO, kind: int) -> bool:
    """Lock an open file, LOCK_EX or LOCK_SH; whether it worked. OSError where the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def hold(folder: str | Path, group: str = "", data: str = "") -> Iterator[None]:
    """Be the only one who works in a directory, or one of a group; its run.lock says who it is and goes at the end.

    Args:
        folder: made where missing.
        group: the same for the processes that work in it together; "" for one alone.
        data: the parameter that names it, where it holds data and no run: the lock is then <folder>.lock beside it.

    Raises:
        ValueError: another one is at work; says which process, where and since when. Nothing was touched then.
        OSError: the folder can't be written.
    """
    folder = Path(folder)
    path = folder.with_name(f"{folder.name}.lock") if data else folder / LOCK
    other = f"{data} to work in another place" if data else "tag to start another run beside it"
    end = time.monotonic() + PATIENCE
    while (file := _take(path, group, data or "outputs")) is None:
        if time.monotonic() > end:
            with contextlib.suppress(FileNotFoundError):
                who = path.read_text(errors="replace").partition("\n")[0]
                raise ValueError(
                    f"{folder} is in use by {who or 'another process'}: wait for it, or end it there, or set the "
                    f"parameter {other}. Nothing was changed"
                )
        time.sleep(0.1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if try_lock(file, fcntl.LOCK_EX):  # the last of its group
                path.unlink()
                if not data:
                    folder.rmdir()  # if nothing came of it
        file.close()


def _take(path: Path, group: str, parameter: str) -> IO | None:
    """The locked file, or None if another holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 (open, it is the lock)
    except FileNotFoundError:
        return None
    except OSError as error:
        how = f"set the parameter {parameter} to a folder that can be written"
        raise OSError(error.errno, f"can't write in {path.parent} ({error.strerror}): {how}") from error
    try:
        if try_lock(file, fcntl.LOCK_EX):
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.close()  # whoever held it before has just removed it
                return None
            file.truncate(0)
            since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            file.write(f"process {os.getpid()} on {platform.node()} since {since}\n{group}\n")
            file.flush()
            if not group or try_lock(file, fcntl.LOCK_SH):
                return file
        elif group and try_lock(file, fcntl.LOCK_SH):
            file.seek(0)
            if file.read().splitlines()[1:2] == [group]:
                return file
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            file.close()
            raise
        warnings.warn(f"{path.parent} has no locks ({error.strerror}): see to it yourself that nothing else works "
                      "in it at the same time", stacklevel=4)  # fmt: skip
        return file
    file.close()
    return None
