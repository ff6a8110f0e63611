"""One folder in the place of another: whoever looks sees the old one or the new one, and a kill leaves one of them.

Linux exchanges two names in one step. Where the file system cannot (NFS), the old folder is moved aside first, and who
finds nothing in its place waits for the new one, or brings the old one back if its process is dead.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dynaprop.pipeline.io.leftovers import leftovers_of, name_beside

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h
_PATIENCE = 5.0  # seconds for a live process between its two renames
_POLL_EVERY = 0.01  # seconds


def swap_in(new: Path, place: Path) -> None:
    """Put a folder under a name at once; what was there is afterwards gone, or under the new folder's former name.

    Args:
        new: a whole folder, on the same file system.
        place: where nothing, an empty folder or the folder to replace is.

    Raises:
        OSError: the system refuses; then what was there is there.
    """
    try:
        new.rename(place)  # over an empty folder, too
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(new, place):
            _replace_in_two_steps(new, place)


def bring_back(place: Path, *, is_whole: Callable[[Path], bool]) -> None:
    """Where nothing is under a name: bring back the folder that a killed process was about to replace.

    Args:
        place: the name.
        is_whole: whether a folder is one that was under the name.
    """
    until = time.monotonic() + _PATIENCE
    while not os.path.lexists(place):
        found = [one for one in leftovers_of(place, suffix="old") if one.is_dir() and is_whole(one)]
        if not found:
            return
        if time.monotonic() > until or not _is_locked(found[0]):
            with suppress(OSError):  # another one was faster
                found[0].rename(place)
                return
        time.sleep(_POLL_EVERY)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names; False where the system cannot."""
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if exchange(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _replace_in_two_steps(new: Path, place: Path) -> None:
    old = name_beside(place, suffix="old")
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # without locks others wait for a while
            fcntl.flock(handle, fcntl.LOCK_EX)
        place.rename(old)
        try:
            new.rename(place)
        except OSError:
            with suppress(OSError):  # another process has brought it back meanwhile
                old.rename(place)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        os.close(handle)


def _is_locked(folder: Path) -> bool:
    """Whether a live process is about to replace it; True, too, where there is no telling."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True  # gone meanwhile
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
