"""Places behind a URL: what stores and runs need of ``pathlib.Path``, on the objects of an object store.

Such a store has no folders, no rename and no fsync, but a put replaces an object whole or not at all, so that one put
publishes what a rename publishes on a disk. Nothing is cached here: two processes see what the other has written.
"""

import errno
import hashlib
import io
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from dynaprop.pipeline.errors import DynapropError, InfrastructureError, UsageError, did_you_mean
from dynaprop.pipeline.machine import usable_cores

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z0-9+.:-]*)?://", re.IGNORECASE)
# What follows ://. No bucket has a colon in its name, and a password may have a slash, as Amazon's have.
_PASSWORD = re.compile(r"/*[^/@]*:.*@", re.DOTALL)
_S3 = ("s3", "s3a")
# A put is all or nothing there; of what else fsspec knows (ftp, sftp, smb, ...) readers could meet the half of a file.
_PROTOCOLS = (*_S3, "gs", "gcs", "az", "abfs", "abfss", "memory")
_PACKAGES = {"s3fs": "'dynaprop[s3]'", "gcsfs": "gcsfs", "adlfs": "adlfs"}
_CONNECTIONS = 32
_READERS = 16  # objects that are read side by side: they wait for the network, not for a core

# What tells one version of an object from the next, the best first.
_VERSIONS = ("ETag", "etag", "generation", "LastModified", "last_modified", "mtime", "modified", "updated", "created")
# Not the store's: wrong arguments and data.
_MISTAKES = (TypeError, AttributeError, LookupError, ArithmeticError, pa.ArrowException)
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")


class StoreUnavailable(InfrastructureError):
    """A store does not answer, or refuses: nothing is known about what is in it, and trying again may help."""


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
        return _system(self.protocol, os.getpid())

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


Item = TypeVar("Item")
Result = TypeVar("Result")

StoragePath = Path | ObjectPath
"""A folder or file of a disk, or a place in an object store."""


def storage_path(text: str) -> StoragePath:
    """Read a path, or a URL; ``file://`` is a path.

    Raises:
        UsageError: a URL of another kind, or one that is none, or that holds a password.
    """
    if not _URL.match(text):
        return Path(text)
    protocol, _, rest = text.partition("://")
    protocol = protocol.lower()
    try:
        parts = urlsplit(text)
    except ValueError:
        raise UsageError("a URL of a store makes no sense; write it as s3://bucket/folder") from None
    if _PASSWORD.match(rest):  # it would stand in messages, tables and process lists
        raise UsageError(
            f"the {protocol}:// URL of a store holds a password; give credentials as its own tools take them"
        )
    if protocol in ("file", "local"):
        return Path(unquote(parts.path)) if not parts.netloc else Path(unquote(f"/{parts.netloc}{parts.path}"))
    shown = f"{protocol}://{_without_secrets(rest)}"
    if protocol not in _PROTOCOLS:
        known = [*_PROTOCOLS, "file"]
        hint = did_you_mean(protocol, known)
        raise UsageError(f"{shown}: stores can lie on a disk and in object stores, not on {protocol}://{hint}")
    if parts.query or parts.fragment:
        raise UsageError(f"{shown}: the URL of a store ends with its folder, without ? and #")
    try:
        path = ObjectPath(protocol, tuple(part for part in rest.split("/") if part))
    except ValueError:
        raise UsageError(f"{shown}: the URL of a store has no . and .. in it") from None
    if not path.parts:
        raise UsageError(f"{shown}: name a bucket, as in {protocol}://bucket/folder")
    return path


def _without_secrets(rest: str) -> str:
    """What follows a URL's ://, without user, query and fragment: tokens are handed around in them."""
    return re.sub("^/*[^/]*@", "", re.split("[?#]", rest)[0])


def children(place: StoragePath) -> list[StoragePath]:
    """What lies directly below a place; FileNotFoundError where there is no such folder, but not of an object store."""
    return [*place.iterdir()]


def matching(place: StoragePath, pattern: str) -> list[StoragePath]:
    """What lies below a place by a pattern, in order."""
    return sorted(place.glob(pattern), key=lambda path: path.parts)


def side_by_side(place: StoragePath, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Call a function that reads files of a place for every item, several at a time; results in order.

    After an error or an interrupt, what has not begun does not begin.
    """
    threads = ThreadPoolExecutor(usable_cores() if isinstance(place, Path) else _READERS)
    try:
        yield from threads.map(function, items)
    finally:
        threads.shutdown(cancel_futures=True)


@contextmanager
def reaching(place: StoragePath, *passed: type[Exception]) -> Iterator[None]:
    """Say in one line why a place could not be asked; files of a disk raise what they raise.

    Args:
        place: the place.
        passed: exceptions that mean something else, besides ``FileNotFoundError``.

    Raises:
        StoreUnavailable: there was no answer, or a refusal. It is no OSError, so that nobody takes it for damage.
    """
    try:
        yield
    except Exception as error:  # of a kind that each file system has for itself
        if isinstance(place, Path) or isinstance(error, (FileNotFoundError, DynapropError, *_MISTAKES, *passed)):
            raise
        if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise  # of a file of this machine
        raise StoreUnavailable(f"{place}: {_reason(error)}") from error


def error_code(error: Exception) -> str:
    """S3's own name of an error that s3fs has translated; empty of others."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _reason(error: Exception) -> str:
    text = re.sub(r"//[^/@\s]*@", "//", str(error)) or type(error).__name__  # an endpoint may hold a password
    text = re.sub(r"(//[^?\s'\"]*)\?[^\s'\"]*", r"\1", text)  # and a request a signature
    text = " ".join(text.split()).rstrip(".")
    if isinstance(error, PermissionError) or "redential" in type(error).__name__:
        return f"the store refuses: {text}; check the credentials and what they allow"
    return f"the store does not answer as it should: {text}; when it does, the same command goes on"


def forget_connections() -> None:
    """Connect anew, with what the environment says now about endpoint and credentials."""
    _system.cache_clear()


@lru_cache
def _system(protocol: str, _process: int) -> Any:
    """fsspec's own cache has one a thread, each with its connections."""
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if protocol in _S3:  # with one stream an object, none is asked for its size before it is read
        options |= {"max_concurrency": 1, "config_kwargs": {"max_pool_connections": _CONNECTIONS}}
    try:
        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        package = next((name for name in _PACKAGES if name in str(error)), None)
        advice = f"; run: pip install {_PACKAGES[package]}" if package else ""
        raise UsageError(f"{protocol}:// cannot be read here: {error}{advice}") from None


def _status(entry: dict[str, Any]) -> ObjectStatus:
    version = next((entry[name] for name in _VERSIONS if entry.get(name)), None)
    time = next((entry[name] for name in _TIMES if entry.get(name)), 0.0)
    seconds = time.timestamp() if isinstance(time, datetime) else float(time) if isinstance(time, int | float) else 0.0
    digest = hashlib.sha256(str(version).strip('"').encode()).digest()
    return ObjectStatus(int(entry["size"] or 0), seconds, int.from_bytes(digest[:8], "big") >> 1)
