"""Temporary files and folders beside what they become, and which of them a killed process has left.

A writer holds an flock on what it writes, which the kernel gives back however the writer ends. Who finds one without a
lock knows that it is dead, if it was made on this machine: some network file systems keep locks to one machine, or have
none, and versions before this one took none. Those of others count as dead when nothing has touched them for a day.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from dynaprop.pipeline.io.paths import StoragePath

DEAD_AFTER = 24 * 3600.0  # seconds without a change, where no lock can tell
_NO_LOCKS = "0" * 8  # in place of the machine, where the file system has no locks
_LONGEST = 200  # bytes of a name that are repeated; file systems take 255
_NAME = re.compile(r"\.(?P<of>.+)\.dynaprop-(?P<machine>[0-9a-f]{8})-[0-9a-f]{12}\.(partial|old)", re.DOTALL)
_EARLIER = re.compile(r"\.(?P<of>.+)\.[a-z0-9_]{8}\.(partial|old)", re.DOTALL)

_swept: set[Path] = set()


@contextmanager
def temporary_file(folder: Path, name: str) -> Iterator[Path]:
    """Give a new, empty file to write to, which is gone afterwards unless it was renamed.

    The first one of this process in a folder removes the folder's leftovers.

    Args:
        folder: where it is made; the folder exists.
        name: of what it becomes.

    Raises:
        OSError: it cannot be made.
    """
    with _temporary(folder, name, is_folder=False) as path:
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path, name: str) -> Iterator[Path]:
    """As ``temporary_file``, with a folder; what then lies under its temporary name is deleted."""
    with _temporary(folder, name, is_folder=True) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: StoragePath, *, below: bool = False, earlier: bool = False) -> list[Path]:
    """Delete temporary files and folders of writers that are dead, and never one that is being written.

    Args:
        folder: where they are looked for; nothing is done where there is none, or in an object store, which has none.
        below: whether all folders below are looked through, too.
        earlier: whether those of versions before this one go, too. Their names are those that other programs may give:
            only for folders that are dynaprop's alone.

    What was moved aside (``.old``) for something new that never came is put back.

    Returns:
        What was deleted or put back. What must not be deleted, or is gone already, is passed over.
    """
    if not isinstance(folder, Path):
        return []
    removed = []
    for path in list(_entries(folder, below=below)):
        named = _NAME.fullmatch(path.name)
        found = named or (_EARLIER.fullmatch(path.name) if earlier else None)
        locked_here = named is not None and named["machine"] == _machine()
        if found and _remove_dead(path, place=path.with_name(found["of"]), locked_here=locked_here):
            removed.append(path)
    return removed


def leftovers_of(path: Path, *, suffix: str) -> list[Path]:
    """What lies beside a place under temporary names of it, written by a live process or not; the newest first."""
    found = []
    for one in _entries(path.parent):
        match = _NAME.fullmatch(one.name) or _EARLIER.fullmatch(one.name)
        if match and one.suffix == f".{suffix}" and match["of"] == _short(path.name):
            found.append(one)
    return sorted(found, key=_changed, reverse=True)


def name_beside(path: Path, *, suffix: str) -> Path:
    """A temporary name of a place that nothing has, for what is moved there; who moves it holds a lock on it."""
    return path.with_name(_temporary_name(path.name, _machine(), suffix))


def as_known(path: str) -> str:
    """A path as its reader knows it: with the names of what temporary files and folders become."""
    parts = ((_NAME.fullmatch(part), part) for part in path.split("/"))
    return "/".join(found["of"] if found else part for found, part in parts)


@contextmanager
def _temporary(folder: Path, name: str, *, is_folder: bool) -> Iterator[Path]:
    place = folder.absolute()
    if place not in _swept:
        _swept.add(place)
        remove_leftovers(place)
    machine = _machine()
    while True:
        path = folder / _temporary_name(_short(name), machine, "partial")
        handle = _make(path, is_folder=is_folder)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                kept = os.path.samestat(os.fstat(handle), path.stat())
            except (BlockingIOError, FileNotFoundError):
                kept = False  # taken for a leftover before it was locked
            except OSError:
                kept = machine == _NO_LOCKS
                if not kept:
                    machine = _NO_LOCKS
                    path.rmdir() if is_folder else path.unlink()
            if kept:
                yield path
                return
        finally:
            os.close(handle)


def _temporary_name(name: str, machine: str, suffix: str) -> str:
    return f".{name}.dynaprop-{machine}-{secrets.token_hex(6)}.{suffix}"


def _make(path: Path, *, is_folder: bool) -> int:
    if not is_folder:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    path.mkdir()
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def _remove_dead(path: Path, *, place: Path, locked_here: bool) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # exclusive ones need a handle to write with on NFS
        except OSError as error:
            if locked_here or error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
        if not locked_here and time.time() - _changed(path) < DEAD_AFTER:
            return False
        if path.suffix == ".old" and not os.path.lexists(place):
            path.rename(place)
        else:
            shutil.rmtree(path) if stat.S_ISDIR(mode) else path.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _changed(path: Path) -> float:
    """When a file, or a folder with all below it, was last changed; the end of time where that cannot be told."""
    try:
        return max(path.lstat().st_mtime, *(one.lstat().st_mtime for one in path.rglob("*")), 0.0)
    except OSError:
        return float("inf")


def _entries(folder: Path, *, below: bool = False) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            yield Path(entry.path)
            if below and not _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path), below=True)


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST])


@lru_cache
def _machine() -> str:
    """What tells this machine from others, until it starts anew."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        text = socket.gethostname()
    return hashlib.sha256(text.encode()).hexdigest()[:8]
