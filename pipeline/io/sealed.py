"""Files that vouch for themselves: a checksum of all their bytes inside of them, looked at whenever they are read.

A parquet file has it among its footer's metadata, a json as one more key, so that both stay what any other program
reads, and a copy takes its checksum along. Files without one, those of earlier versions, are read as they are.
"""

import json
import mmap
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from dynaprop.pipeline.io.atomic import published, reading
from dynaprop.pipeline.io.paths import StoragePath

_MARK = "dynaprop-seal-xxh3-"
_OPEN = "0" * 32  # stands for the checksum while it is computed
_SEAL = re.compile(re.escape(_MARK).encode() + rb"([0-9a-f]{32})")
_KEYS = ("seal", "seal again")  # two: what damages one leaves the other, and with it the question
_END = 8  # bytes behind a footer: its length, and a magic word
_AT_LEAST = 2**16  # bytes of the end that are searched, even if the footer's length is damaged

_CHECKSUM = "checksum"
_KIND = "xxh3:"


class SealedTable:
    """A parquet file in the making, tables one below the other; sealed at the end of the block.

    Args:
        path: of the file.
        schema: of all tables.
        notes: kept beside the seal, see ``read_notes``.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, notes: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
        self._writer.add_key_value_metadata({**(notes or {}), **dict.fromkeys(_KEYS, _MARK + _OPEN)})

    def write(self, table: pa.Table) -> None:
        """Add rows; columns in any order."""
        schema = self._writer.schema
        self._writer.write_table(table.select(schema.names).cast(schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._writer.close()
        if failed is None:
            with self._path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
                places, digest = _seals(data)
                for start, end in places:
                    data[start:end] = digest


def read_sealed(
    path: StoragePath, *, columns: Sequence[str] | None = None, filters: Sequence[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """Read a parquet file, or of it what is asked for, after all of it has been checked.

    Args:
        path: the file.
        columns: those to read; all by default.
        filters: as pyarrow takes them.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
        MemoryError: there is not enough for it, which tells nothing of the file.
        InfrastructureError: a network disk or an object store is away.
    """
    with reading(path, ValueError):
        data = path.read_bytes()  # not mapped: a disk that goes away would kill the process
        sealed = _check(path, data)
        try:
            return pq.read_table(
                pa.BufferReader(data), columns=columns, filters=filters or None, page_checksum_verification=True
            )
        except Exception as error:  # damaged headers make pyarrow raise whatever comes, and ask for any memory
            if sealed and isinstance(error, MemoryError):
                raise
            raise ValueError(f"{path} is damaged: {error}") from None


def read_notes(path: StoragePath) -> dict[str, str]:
    """What is kept beside a parquet file's seal, after all of the file has been checked; raises as ``read_sealed``."""
    with reading(path, ValueError):
        data = path.read_bytes()  # not mapped: a disk that goes away would kill the process
        _check(path, data)
        try:
            notes = pq.read_metadata(pa.BufferReader(data)).metadata or {}
        except Exception as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    return {key.decode(): value.decode() for key, value in notes.items()}


def publish_sealed(path: StoragePath, frame: pd.DataFrame) -> None:
    """Write a parquet file atomically, with its checksum."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with published(path) as temporary, SealedTable(temporary, table.schema) as file:
        file.write(table)


def publish_record(path: StoragePath, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with its checksum as one key more."""
    with published(path) as temporary:
        write_record(temporary, value)


def write_record(path: Path, value: Mapping[str, Any]) -> None:
    """The same, to a path that nobody reads yet."""
    text = json.dumps({_CHECKSUM: _record_checksum(value), **value}, indent=2, sort_keys=True)
    path.write_text(f"{text}\n", encoding="utf-8")


def read_record(path: StoragePath) -> dict[str, Any]:
    """Read a JSON object, checked where it has a checksum, and without that.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or no object.
        InfrastructureError: a network disk or an object store is away.
    """
    with reading(path, ValueError):
        content = path.read_bytes()
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no record")
    found = value.pop(_CHECKSUM, None)
    renamed = any(isinstance(other, str) and other.startswith(_KIND) for other in value.values())
    if renamed or (found is not None and found != _record_checksum(value)):
        raise ValueError(f"{path} is damaged: its checksum is another one")
    return value


def _record_checksum(value: Mapping[str, Any]) -> str:
    content = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return _KIND + xxhash.xxh3_128_hexdigest(content.encode())


def _check(path: StoragePath, data: bytes | mmap.mmap) -> bool:
    """Raise ValueError where the checksum is another one; whether there is one."""
    places, digest = _seals(data)
    if any(data[start:end] != digest for start, end in places) or len(places) not in (0, len(_KEYS)):
        raise ValueError(f"{path} is damaged: its checksum is another one")
    return bool(places)


def _seals(data: bytes | mmap.mmap) -> tuple[list[tuple[int, int]], bytes]:
    """Where the checksum stands, and what it should be: that of all bytes, with zeros in these places."""
    footer = int.from_bytes(data[-_END : -_END // 2], "little")
    first = max(0, len(data) - max(footer + _END, _AT_LEAST))
    places = [match.span(1) for match in _SEAL.finditer(data, first)]
    digest = xxhash.xxh3_128()
    done = 0
    with memoryview(data) as view:
        for start, end in places:
            digest.update(view[done:start])
            digest.update(_OPEN.encode())
            done = end
        digest.update(view[done:])
    return places, digest.hexdigest().encode()
