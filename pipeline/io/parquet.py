"""Parquet files that are whole or absent, with checksums."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dynaprop.pipeline.io.atomic import published, reading
from dynaprop.pipeline.io.paths import StoragePath

_ROWS = 2**17  # of a parquet file's groups


def publish_parquet(path: StoragePath, frame: pd.DataFrame) -> None:
    """Write a parquet file atomically, each page of it with a checksum."""
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    if any(isinstance(dtype, pd.ArrowDtype) for dtype in frame.dtypes):
        schema = schema.remove_metadata()  # pandas cannot read what it says there about lists
    with (
        published(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for first in range(0, max(1, len(frame)), _ROWS):  # a copy of the whole might not fit into memory
            part = frame.iloc[first : first + _ROWS]
            writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))


def read_parquet(path: StoragePath, *, required: Iterable[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file whose damage must not go unnoticed; files without checksums are read, too.

    Args:
        path: the file.
        required: columns that it has at least.
        columns: those to read; all by default.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
        InfrastructureError: see ``reading``.
    """
    with reading(path, ValueError), path.open("rb") as file:
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            names = set(parquet.schema_arrow.names)
            table = parquet.read(columns=columns)
        except Exception as error:  # damaged headers make pyarrow raise whatever comes
            if isinstance(error, OSError) and error.errno:  # of the disk; pyarrow's own have no number
                raise
            raise ValueError(f"{path}: {error}") from None
    if lacking := [name for name in required if name not in names]:
        raise ValueError(f"{path}: has no column {lacking[0]!r}")
    return table


def parquet_source(path: StoragePath) -> Path | io.BytesIO:
    """What pandas and pyarrow read a parquet file from; of an object store the whole object, in one request."""
    return path if isinstance(path, Path) else path.open("rb")
