"""The ledger's index: the rows of all its files in one, as opening thousands takes longer than reading their features.

It is derived, and counts only as long as it says of which files it was made and these are as they were then.
"""

import json
from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from dynaprop.pipeline.io.atomic import published, writing
from dynaprop.pipeline.io.parquet import parquet_source
from dynaprop.pipeline.io.paths import StoragePath

_STATE = b"ledger"  # key of the file's metadata

State = Sequence[tuple[int, int, int]]
"""Shard, bytes and modification time (ns; of an object its version) of every file of a ledger, in order."""


class LedgerIndex:
    """One parquet file beside a ledger's folder.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: StoragePath) -> None:
        self.path = path

    def read(self, state: State, columns: Sequence[str] | None) -> pa.Table | None:
        """The rows of all files, or None where the index is of other files, absent or damaged.

        Args:
            state: of the files as they are.
            columns: those to read; all by default.
        """
        with suppress(OSError, ValueError, pa.ArrowException), self.path.open("rb") as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            if (parquet.schema_arrow.metadata or {}).get(_STATE) == _encoded(state):
                return parquet.read(columns=columns)
        return None

    def write(self, state: State, rows: pa.Table) -> None:
        """Replace the index; raises DynapropError where it cannot be written."""
        rows = rows.replace_schema_metadata({_STATE: _encoded(state)})
        with writing(self.path), published(self.path) as temporary:
            pq.write_table(rows, temporary, compression="zstd", write_page_checksum=True)

    def is_of(self, state: State) -> bool:
        """Whether the index is of these files."""
        with suppress(OSError, ValueError, pa.ArrowException):
            return (pq.read_schema(parquet_source(self.path)).metadata or {}).get(_STATE) == _encoded(state)
        return False


def _encoded(state: State) -> bytes:
    return json.dumps([list(file) for file in state]).encode()
