"""Identity: what tells whether a video is still the one that was read. It is lean, as decode children use it.

Size and two times are looked at always, the bytes only where one of these differs: a file's status change time is set
by whatever writes to it, and by nobody at will, as its modification time is.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import xxhash

from dynaprop.pipeline.machine import usable_cores
from dynaprop.pipeline.video.frame_folder import FrameFolder, is_picture_file, picture_numbers

UNKNOWN = -1  # time that earlier versions did not note
_WHOLE = "xxh3:"  # what the hash of all bytes begins with; earlier versions noted 32 digits of size, head and tail
_CHUNK = 2**20
_TICK = 20_000_000  # ns: clocks of file systems are coarser than writes are fast

Stamp = tuple[int, int, int]
"""Bytes, modification time and status change time in ns."""
Hashing = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Told how many bytes will be read, gives what is told how many have been since."""


@dataclass(frozen=True)
class FileIdentity:
    """What a file, or a folder of pictures, was when it was read."""

    size: int
    mtime_ns: int
    content: str
    """Hash of all bytes, of a folder those of the pictures that are used; by an earlier version of size, head and tail;
    empty where it is not known."""
    ctime_ns: int = UNKNOWN
    """Of the last change of status, which every write is."""

    @property
    def stamp(self) -> Stamp:
        """Size and times: while they are the same, the content is not looked at."""
        return self.size, self.mtime_ns, self.ctime_ns

    @property
    def is_whole(self) -> bool:
        """Whether the hash is of all bytes."""
        return is_whole(self.content)

    def is_of(self, stamp: Stamp) -> bool:
        """Whether size and times alone say that nothing has changed; the second time only where it was noted."""
        return self.stamp == stamp if self.is_whole or self.ctime_ns != UNKNOWN else self.stamp[:2] == stamp[:2]


def is_whole(content: str) -> bool:
    """Whether a hash is of all bytes, not one of an earlier version's."""
    return content.startswith(_WHOLE)


NOTHING = FileIdentity(-1, -1, "")
"""Of what cannot be read, or is not there."""


@dataclass(frozen=True)
class Source:
    """Where the frames of a video come from."""

    path: Path
    folder: FrameFolder | None = None
    """How the pictures are named, where the path is a folder of them."""
    used: Iterable[int] = field(default=(), compare=False)
    """Indices of the pictures of a folder that clips show: those that count."""

    def stamp(self) -> Stamp:
        """Size and times as they are now; those of ``NOTHING`` where they cannot be seen."""
        try:
            return file_stamp(self.path) if self.folder is None else folder_stamp(self.path, self._names())
        except OSError:
            return NOTHING.stamp

    def identity(self, on_bytes: Callable[[int], None] | None = None) -> FileIdentity:
        """Read all that counts; ``NOTHING`` where that cannot be.

        Args:
            on_bytes: called with the number of bytes after each piece.
        """
        try:
            if self.folder is None:
                return file_identity(self.path, on_bytes)
            return folder_identity(self.path, self.folder, self.used, on_bytes)
        except OSError:
            return NOTHING

    def is_still(self, known: FileIdentity) -> bool:
        """Whether this is what it was; its bytes are read only where size or times do not say so."""
        stamp = self.stamp()
        return known.is_of(stamp) or (could_be(known, stamp) and self.identity().content == known.content)

    def _names(self) -> list[str]:
        assert self.folder is not None
        return [self.folder.name(self.folder.first + int(index)) for index in self.used]


def could_be(known: FileIdentity, stamp: Stamp) -> bool:
    """Whether bytes may be the same although times differ: of so many, and known to the last one."""
    return known.is_whole and known.size == stamp[0]


def file_stamp(path: str | Path) -> Stamp:
    """Size and times of a file; raises OSError."""
    status = os.stat(path)  # noqa: PTH116
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def folder_stamp(path: str | Path, names: Iterable[str]) -> Stamp:
    """Bytes of some pictures of a folder, and the sums of their and the folder's times, modulo 2^63; raises OSError.

    Sums, since the newest time would hide that a picture was replaced by an older one. Pictures that are missing add
    nothing.
    """
    status = os.stat(path)  # noqa: PTH116
    size, mtime, ctime = 0, status.st_mtime_ns, status.st_ctime_ns
    for name in names:
        try:
            status = os.stat(f"{path}/{name}")  # noqa: PTH116
        except FileNotFoundError:
            continue
        size, mtime, ctime = size + status.st_size, mtime + status.st_mtime_ns, ctime + status.st_ctime_ns
    return size, mtime % 2**63, ctime % 2**63


class ContentHash:
    """XXH3 (128 bits) of all bytes of a file, as fast as memory, against accidents: a context manager.

    It may follow somebody who reads the file: what he has just read is in memory, so that the disk is read once.

    Args:
        path: the file; it is opened when the first byte is wanted.
        on_bytes: called with the number of bytes after each piece.
    """

    def __init__(self, path: str | Path, on_bytes: Callable[[int], None] | None = None) -> None:
        self._path = path
        self._on_bytes = on_bytes
        self._digest = xxhash.xxh3_128()
        self._file: int | None = None
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._file is not None:
            os.close(self._file)

    def follow(self, position: int) -> None:
        """Take in what lies before a position, in whole pieces; raises OSError."""
        while self._read + _CHUNK <= position and self._take():
            pass

    def finish(self) -> str:
        """Take in the rest; the hash. Raises OSError."""
        while self._take():
            pass
        return f"{_WHOLE}{self._digest.hexdigest()}"

    def _take(self) -> int:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDONLY)
        piece = os.read(self._file, _CHUNK)
        self._digest.update(piece)
        self._read += len(piece)
        if piece and self._on_bytes:
            self._on_bytes(len(piece))
        return len(piece)


def file_identity(path: str | Path, on_bytes: Callable[[int], None] | None = None) -> FileIdentity:
    """Identify a file by all of its bytes; the hash is empty where it changed meanwhile. Raises OSError.

    Args:
        path: the file.
        on_bytes: called with the number of bytes after each piece.
    """
    stamp = settled(lambda: file_stamp(path))
    with ContentHash(path, on_bytes) as content:
        digest = content.finish()
    return _identity(stamp, digest if file_stamp(path) == stamp else "")


def folder_identity(
    path: str | Path, frames: FrameFolder, used: Iterable[int], on_bytes: Callable[[int], None] | None = None
) -> FileIdentity:
    """Identify a folder of pictures by their numbers, from one listing, and by all bytes of those that are used.

    Args:
        path: the folder.
        frames: how its pictures are named.
        used: indices of the pictures that are used.
        on_bytes: called with the number of bytes after each picture.

    Returns:
        The identity: stamp as of ``folder_stamp``, the hash empty where the folder changed meanwhile.

    Raises:
        OSError: it cannot be read.
    """
    names = [frames.name(frames.first + int(index)) for index in used]
    stamp = settled(lambda: folder_stamp(path, names))
    digest = xxhash.xxh3_128(" ".join(map(str, picture_numbers(path, frames))).encode())
    for name in names:
        picture = Path(path, name)
        data = picture.read_bytes() if picture.exists() and is_picture_file(path, name) else b""
        digest.update(f" {len(data)} ".encode())
        digest.update(data)
        if on_bytes:
            on_bytes(len(data))
    same = folder_stamp(path, names) == stamp
    return _identity(stamp, f"{_WHOLE}{digest.hexdigest()}" if same else "")


def settled(stamp_of: Callable[[], Stamp]) -> Stamp:
    """A stamp that any later write changes: one that was set this very moment is waited for."""
    stamp = stamp_of()
    if 0 <= time.time_ns() - stamp[2] < _TICK:
        time.sleep(_TICK / 1e9)
    return stamp_of()


def identify_all(sources: Sequence[tuple[Source, Stamp]], *, hashing: Hashing | None = None) -> Iterator[FileIdentity]:
    """Read all bytes of some sources, several at a time; identities in order, ``NOTHING`` for what cannot be read.

    Args:
        sources: files and folders, with their stamps.
        hashing: shows how far it is.
    """
    if not sources:
        return
    total = sum(stamp[0] for _, stamp in sources)
    with hashing(total) if hashing else nullcontext() as on_bytes, ThreadPoolExecutor(usable_cores()) as threads:
        yield from threads.map(lambda one: one[0].identity(on_bytes), sources)


def _identity(stamp: Stamp, content: str) -> FileIdentity:
    return FileIdentity(stamp[0], stamp[1], content, stamp[2])
