"""Files that are whole or absent: what a crash leaves behind is never half of a result."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

_EDGE = 64 * 1024  # bytes of head and of tail that identify a video file


@dataclass(frozen=True)
class FileIdentity:
    """What tells one file's content from another's without reading all of it."""

    size: int
    mtime_ns: int
    content: str
    """SHA-256 of size, head and tail."""


def file_identity(path: Path) -> FileIdentity:
    """Identify a file by size, modification time and a hash of its head and tail (64 KiB each)."""
    status = path.stat()
    digest = hashlib.sha256(str(status.st_size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE))
        file.seek(max(0, status.st_size - _EDGE))
        digest.update(file.read(_EDGE))
    return FileIdentity(status.st_size, status.st_mtime_ns, digest.hexdigest()[:32])


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; afterwards it is durable and appears under its name at once, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    with published(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def publish_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a parquet file atomically."""
    with published(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")
