"""Files that are whole or absent: what a crash leaves behind is never half of a result."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.io.leftovers import as_known, temporary_file
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.io.reaching import reaching

_MAKE_ROOM = "; make room, then the same command goes on; what was finished is kept"
_UNLOCK = "; make it writable, or set DYNAPROP_HOME to a folder that is"
_MOVE = "; a file is in the way of a folder: move it away"
_ADVICE = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: _MAKE_ROOM,
    errno.EROFS: _UNLOCK,
    errno.EACCES: _UNLOCK,
    errno.EPERM: _UNLOCK,
    errno.EISDIR: "; a folder is in the way of a file: move it away",
    errno.ENOTDIR: _MOVE,
    errno.EEXIST: _MOVE,
}
# What network file systems say while their server is away; a broken disk says EIO, too, and goes on saying it.
_PASSING = (
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
)


@contextmanager
def writing(path: StoragePath) -> Iterator[None]:
    """Say what could not be written and what to do about it.

    Raises:
        DynapropError: the system refused: the disk is full, read-only or broken.
        InfrastructureError: a network disk or an object store is away.
    """
    try:
        with reaching(path):
            yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        kind = InfrastructureError if error.errno in _PASSING else DynapropError
        place = as_known(os.fsdecode(error.filename) if isinstance(error.filename, bytes | str) else str(path))
        raise kind(f"{place} cannot be written: {reason}{_ADVICE.get(error.errno or 0, '')}") from error


@contextmanager
def reading(path: StoragePath, *passed: type[Exception]) -> Iterator[None]:
    """Say that a place could not be asked, which tells nothing of what is there; a disk's other errors pass.

    Args:
        path: the place.
        passed: as of ``reaching``.

    Raises:
        InfrastructureError: a network disk or an object store is away. It is no OSError, so that nobody takes it for
            absence or damage.
    """
    try:
        with reaching(path, *passed):
            yield
    except OSError as error:
        if error.errno not in _PASSING:
            raise
        reason = f"{os.strerror(error.errno)}; when it can be, the same command goes on"
        raise InfrastructureError(f"{error.filename or path} cannot be read: {reason}") from error


@contextmanager
def published(path: StoragePath) -> Iterator[Path]:
    """Give a temporary path to write to; afterwards it is durable and appears under its name at once, or not at all.

    On a disk by fsync and rename, in an object store by one put of what was written beside us.

    Raises:
        DynapropError, InfrastructureError: as of ``writing``.
    """
    folder = path.parent if isinstance(path, Path) else Path(tempfile.gettempdir())
    with writing(path if isinstance(path, Path) else folder):  # what fails in between is not the store's fault
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_file(folder, path.name) as temporary:
            yield temporary
            if isinstance(path, Path):
                sync(temporary)
                temporary.replace(path)
                sync(folder)
            else:
                with writing(path):
                    path.upload(temporary)


def sync(path: StoragePath) -> None:
    """Flush a file or folder to the disk; what an object store has confirmed is durable."""
    if not isinstance(path, Path):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_folder(path: StoragePath) -> None:
    """Delete a folder, or nothing where there is none; raises OSError, or as ``ObjectPath`` does."""
    if not isinstance(path, Path):
        path.remove_all()
    elif path.exists():
        shutil.rmtree(path)


def file_state(path: StoragePath) -> tuple[int, int, int]:
    """What changes when a file is replaced: inode, bytes and modification time; of an object bytes and version."""
    if isinstance(path, Path):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    found = path.stat()
    return 0, found.st_size, found.version
