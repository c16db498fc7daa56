"""One process at a time works in a directory, on all machines that share it; the OS releases the lock at its end."""

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

from bpilib.system.files import open_in_place

LOCK = "run.lock"
PATIENCE = 2.0  # seconds in which a process that ends may still hold the lock
VANISHING = 10.0  # more seconds, in which those who hold it one after the other may remove its file
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def try_lock(file: IO, kind: int) -> bool:
    """Lock an open file, LOCK_EX or LOCK_SH; whether it worked. OSError where the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def lock_run(folder: str | Path, group: str = "") -> Iterator[None]:
    """Work alone in a run directory, or as one of a group; its run.lock says who does, and is removed at the end.

    Args:
        folder: made where missing.
        group: the same for all processes that work in it together; "" for one alone.

    Raises:
        ValueError: another process works in it; says which, where and since when. Or its lock file is a link. Nothing
            was changed then.
        OSError: the folder can't be made, written or locked; says what to do.
    """
    folder = Path(folder)
    try:
        with _held(folder / LOCK, folder, group, "outputs", "tag to start another run beside it"):
            yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # if nothing came of it


def lock_of_store(folder: str | Path) -> Path:
    """The file <folder>.lock beside a folder of data."""
    return Path(folder).with_name(f"{Path(folder).name}.lock")


@contextlib.contextmanager
def lock_store(folder: str | Path, parameter: str, patience: float | None = None) -> Iterator[None]:
    """Work alone in a folder of data; the lock is the file `lock_of_store`, removed at the end.

    Args:
        folder: of raw clips or a store.
        parameter: that names the folder, for messages.
        patience: seconds to wait for a process that ends; None: PATIENCE.

    Raises:
        ValueError, OSError: as `lock_run`.
    """
    folder = Path(folder)
    other = f"{parameter} to work in another place"
    with _held(lock_of_store(folder), folder, "", parameter, other, patience):
        yield


@contextlib.contextmanager
def _held(
    path: Path, folder: Path, group: str, parameter: str, other: str, patience: float | None = None
) -> Iterator[None]:
    """Hold the lock at `path`; remove it at the end, if nobody else of the group holds it."""
    end = time.monotonic() + (PATIENCE if patience is None else patience)
    while (file := _take(path, group, parameter)) is None:
        if time.monotonic() > end:
            try:
                holder = _holder(path)
            except FileNotFoundError as error:  # nobody does any more
                if time.monotonic() > end + VANISHING:
                    how = f"set the parameter {parameter} to a folder that stays"
                    raise OSError(error.errno, f"can't keep {path}, its folder is gone each time: {how}") from error
            else:
                raise ValueError(
                    f"{folder} is in use by {holder}: wait for it, or end it there, or set the parameter {other}. "
                    "Nothing was changed"
                )
        time.sleep(0.1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _is_last(file):
                path.unlink()
        file.close()


def _is_last(file: IO) -> bool:
    """Whether nobody else of the group holds a lock; where there are no locks, nobody is known to."""
    try:
        return try_lock(file, fcntl.LOCK_EX)
    except OSError as error:
        return error.errno in _NO_LOCKS


def _holder(path: Path) -> str:
    """Who holds the lock, as its file says; FileNotFoundError: nobody does any more."""
    try:
        return path.read_text(errors="replace").partition("\n")[0] or "another process"
    except PermissionError:
        return f"a process of {_owner(path)}"


def _owner(path: Path) -> str:
    try:
        return f"the user {path.owner()}"
    except (KeyError, OSError):  # known on another machine alone
        return f"the user number {path.stat().st_uid}"


def _take(path: Path, group: str, parameter: str) -> IO | None:
    """The locked file, or None if another process holds it, or has just removed it.

    Raises:
        ValueError: the file is a link.
        OSError: as `lock_run`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open_in_place(path, "a+")
        except FileNotFoundError:  # whoever held it has just removed it with its folder
            return None
    except OSError as error:
        if isinstance(error, PermissionError) and path.exists():
            _remove_abandoned(path, parameter)
            return None
        how = f"set the parameter {parameter} to a folder that can be written"
        raise OSError(error.errno, f"can't write in {path.parent} ({error.strerror}): {how}") from error
    try:
        if try_lock(file, fcntl.LOCK_EX):
            if not _is_at(file, path):
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
            with contextlib.suppress(OSError):
                if not os.fstat(file.fileno()).st_size:  # nobody has ever held it
                    path.unlink()
            file.close()
            raise _lock_error(path, parameter, error) from error
        what = f"{path.parent} has no locks ({error.strerror}): make sure that nothing else works in it meanwhile"
        warnings.warn(what, stacklevel=6)
        return file
    file.close()
    return None


def _is_at(file: IO, path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _remove_abandoned(path: Path, parameter: str) -> None:
    """Remove the lock file of another user's process, which can't be written here, if that process has ended.

    Raises:
        OSError: it can't be read, locked or removed.
    """
    try:
        with open(path) as file:
            if try_lock(file, fcntl.LOCK_EX):
                path.unlink()
    except FileNotFoundError:
        pass
    except PermissionError as error:
        raise OSError(
            error.errno,
            f"{path} belongs to {_owner(path)}, and can't be read or removed here ({error.strerror}): if no process of "
            f"theirs works there, ask them to remove it, or set the parameter {parameter} to another folder",
        ) from error
    except OSError as error:
        raise _lock_error(path, parameter, error) from error


def _lock_error(path: Path, parameter: str, error: OSError) -> OSError:
    """What the file system did not do, and what to do about it."""
    return OSError(
        error.errno,
        f"can't lock {path} ({error.strerror}), so other processes could work there at the same time: the file system "
        "refuses locks or has lost its server. Try again, mount it with locks, or set the parameter "
        f"{parameter} to a folder on another disk",
    )
