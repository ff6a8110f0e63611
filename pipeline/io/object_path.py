"""Places behind a URL: what stores and runs need of ``pathlib.Path``, on the objects of an object store.

Such a store has no folders, no rename and no fsync, but a put replaces an object whole or not at all, so that one put
publishes what a rename publishes on a disk. Nothing is cached here: two processes see what the other has written.
"""

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.io.connections import file_system
from dynaprop.pipeline.io.reaching import error_code, reaching
from dynaprop.pipeline.io.side_by_side import side_by_side

# What tells one version of an object from the next, the best first.
_VERSIONS = ("ETag", "etag", "generation", "LastModified", "last_modified", "mtime", "modified", "updated", "created")
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")


@dataclass(frozen=True)
class ObjectStatus:
    """What a store says about an object."""

    st_size: int
    st_mtime: float
    """Seconds since the epoch."""
    version: int
    """Another one for other content: 63 bits of a digest of the ETag, or of the time where there is none."""


class ObjectPath:
    """An object, or what lies below it as in a folder; it may exist or not. Nothing leads upwards out of it.

    All that asks the store raises ``StoreUnavailable`` where that fails, and ``FileNotFoundError`` where there is
    nothing.

    Args:
        protocol: such as ``s3``.
        parts: bucket, then the parts of the key.
        status: as a listing told it, which spares asking again.
    """

    def __init__(self, protocol: str, parts: tuple[str, ...], *, status: ObjectStatus | None = None) -> None:
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{'/'.join(parts)!r} is no path of an object")
        self.protocol = protocol
        self.parts = parts
        self._status = status

    def __str__(self) -> str:
        return f"{self.protocol}://{'/'.join(self.parts)}"

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and (self.protocol, self.parts) == (other.protocol, other.parts)

    def __lt__(self, other: "ObjectPath") -> bool:
        return (self.protocol, self.parts) < (other.protocol, other.parts)

    def __hash__(self) -> int:
        return hash((self.protocol, self.parts))

    def __truediv__(self, below: str) -> "ObjectPath":
        return ObjectPath(self.protocol, (*self.parts, *below.split("/")))

    @property
    def name(self) -> str:
        return self.parts[-1] if self.parts else ""

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> "ObjectPath":
        return ObjectPath(self.protocol, self.parts[:-1])

    @property
    def parents(self) -> tuple["ObjectPath", ...]:
        return tuple(ObjectPath(self.protocol, self.parts[:end]) for end in range(len(self.parts) - 1, -1, -1))

    def with_name(self, name: str) -> "ObjectPath":
        return self.parent / name

    def with_suffix(self, suffix: str) -> "ObjectPath":
        return self.parent / f"{self.stem}{suffix}"

    def resolve(self) -> "ObjectPath":
        return self  # there are no links

    def stat(self) -> ObjectStatus:
        """What the listing said that the path is from, else what the store says now."""
        if self._status is not None:
            return self._status
        with reaching(self):
            return _status(self.system.info(str(self)))

    def exists(self) -> bool:
        """Whether there is an object, or one below."""
        return self._kind() is not None

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def iterdir(self) -> Iterator["ObjectPath"]:
        """What lies directly below, from one listing a thousand; nothing where there is nothing."""
        try:
            with reaching(self):
                entries = self.system.ls(str(self), detail=True)
        except FileNotFoundError:
            return
        for entry in entries:
            name = entry["name"].rstrip("/").rpartition("/")[2]
            is_below = len(entry["name"].strip("/").split("/")) > len(self.parts)  # else the mark of an empty folder
            if is_below and name not in ("", ".", ".."):
                status = _status(entry) if entry["type"] == "file" else None
                yield ObjectPath(self.protocol, (*self.parts, name), status=status)

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Objects below by a pattern whose parts are names, or have ``*`` in them; a listing for each part that has."""
        paths = [self]
        listed = False
        for part in pattern.split("/"):
            if listed := "*" in part:
                paths = [each for path in paths for each in path.iterdir() if fnmatchcase(each.name, part)]
            else:
                paths = [path / part for path in paths if path._status is None]  # below an object there is nothing
        yield from paths if listed else (path for path in paths if path.exists())

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The object, read whole in one request."""
        if mode != "rb":
            raise ValueError("an object is read whole and written whole")
        return io.BytesIO(self.read_bytes())

    def read_bytes(self) -> bytes:
        with reaching(self):
            return bytes(self.system.cat_file(str(self)))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def put(self, data: bytes, **options: Any) -> dict[str, Any]:
        """Write the object; returns what the store answers, and raises what fsspec raises.

        Args:
            data: its bytes.
            options: of fsspec's ``pipe_file``, and of S3's PutObject (``IfMatch``, ``IfNoneMatch``).
        """
        return self.system.pipe_file(str(self), data, **options) or {}

    def upload(self, file: Path) -> None:
        """Write the object from a local file; a large one in parts, which become the object at once."""
        with reaching(self):
            self.system.put_file(str(file), str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with reaching(self):
                self.system.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_all(self) -> None:
        """Delete whatever lies below."""

        def remove(name: str) -> None:
            with reaching(self), suppress(FileNotFoundError):
                self.system.rm_file(name)

        with reaching(self), suppress(FileNotFoundError):
            found = self.system.find(str(self), withdirs=True, detail=True)  # its recursive rm takes names for patterns
            deque(side_by_side(self, remove, [name for name in found if found[name]["type"] == "file"]), maxlen=0)
            if self.protocol == "memory":  # which alone has folders
                for folder in sorted([name for name in found if self.system.isdir(name)], reverse=True):
                    self.system.rmdir(folder)
                if self.system.isdir(str(self)):
                    self.system.rmdir(str(self))

    def check(self) -> None:
        """Make sure that the place can be asked at all: bucket, credentials, network.

        Raises:
            UsageError: the bucket does not exist.
            StoreUnavailable: nobody answers, or nobody lets us in.
        """
        if self.protocol == "memory":
            return
        try:
            with reaching(self):
                self.system.ls(str(self), detail=True)
        except FileNotFoundError as error:  # perhaps only of what will be written
            if error_code(error) == "NoSuchBucket":
                raise UsageError(f"{self}: there is no bucket {self.parts[0]!r} (or it is not ours to see)") from error

    @property
    def system(self) -> Any:
        """The file system of fsspec, one a process."""
        return file_system(self.protocol, os.getpid())

    @property
    def zarr_store(self) -> Any:
        """The place as a store of zarr."""
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
        from zarr.storage import FsspecStore

        # The same connections, from threads: those of an asynchronous one would be a second set, which nobody closes.
        system = AsyncFileSystemWrapper(self.system, asynchronous=True)
        return FsspecStore(fs=system, path=self.system._strip_protocol(str(self)))

    def _kind(self) -> str | None:
        """``file``, ``directory`` or None."""
        if self._status is not None:
            return "file"
        try:
            with reaching(self):
                return str(self.system.info(str(self))["type"])
        except FileNotFoundError:
            return None


def _status(entry: dict[str, Any]) -> ObjectStatus:
    version = next((entry[name] for name in _VERSIONS if entry.get(name)), None)
    time = next((entry[name] for name in _TIMES if entry.get(name)), 0.0)
    seconds = time.timestamp() if isinstance(time, datetime) else float(time) if isinstance(time, int | float) else 0.0
    digest = hashlib.sha256(str(version).strip('"').encode()).digest()
    return ObjectStatus(int(entry["size"] or 0), seconds, int.from_bytes(digest[:8], "big") >> 1)
