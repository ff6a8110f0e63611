"""The ledger: what was really written. Readers trust nothing else.

One parquet file a feature key and shard, published after the shard's features were written and read back; a shard
without its file does not exist, whatever lies in the array.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.atomic import file_state, reading, remove_folder, sync, writing
from dynaprop.pipeline.io.parquet import publish_parquet, read_parquet
from dynaprop.pipeline.io.paths import StoragePath, children
from dynaprop.pipeline.io.side_by_side import side_by_side
from dynaprop.pipeline.store.ledger_index import LedgerIndex, State

OUTCOME = ("video_id", "shard", "row", "status", "error_kind", "error_detail")
_REQUIRED = (*OUTCOME, "n_clips", "timestamps", "checksum")
_FILE = re.compile(r"\d{6,}\.parquet")
_STATUS = ("ok", "partial", "failed")

USABLE = ("ok", "partial")  # status of the videos that have features


@dataclass(frozen=True)
class LedgerRow:
    """The outcome of one video in one shard."""

    video_id: str
    size: int
    mtime_ns: int
    content: str
    status: str
    """``ok``; ``partial`` where clips, or a part of the file, are missing; ``failed``."""
    error_kind: str | None
    """Why it is not ``ok``."""
    error_detail: str | None
    shard: int
    row: int
    n_clips: int
    """Clips that are stored, one after another from ``row`` on; of a failed video those that were planned."""
    n_missing: int
    """Clips that were planned, and whose frames cannot be had."""
    timestamps: np.ndarray
    """[n_clips] seconds since the first frame."""
    timestamps_source: str
    """``measured``, or ``estimated`` from index and average rate."""
    checksum: str | None
    """Of the video's rows as stored (little-endian fp16), see ``checksum``; None if failed."""
    decoder: str
    attempts: int
    seconds: float
    """Decoding time."""
    width: int = 0
    height: int = 0
    """Of the frames as they are shown, upright and in square pixels; 0 where an earlier version wrote the row."""
    note: str | None = None
    """Which of several video streams was read, and why."""


_COLUMNS = tuple(LedgerRow.__annotations__)
_EMPTY = pd.DataFrame({name: pd.Series(dtype="int64" if name in ("shard", "row") else "object") for name in _COLUMNS})


class Ledger:
    """All published shards of one feature key.

    Args:
        folder: ``ledger/<key>`` of a store.
    """

    def __init__(self, folder: StoragePath) -> None:
        self.folder = folder
        self._index = LedgerIndex(folder.with_name(f"{folder.name}.parquet"))
        self._remembered: tuple[object, pd.DataFrame] | None = None

    def published(self) -> set[int]:
        """Numbers of the shards that are done.

        Raises:
            DynapropError: there is no telling.
        """
        return set(self._files())

    def has(self, shard: int, videos: pd.DataFrame) -> bool:
        """Whether a shard is done with these videos, rows of a manifest, in it; raises as ``read_shard`` does."""
        try:
            rows = self.read_shard(shard)
        except _Absent:
            return False
        return set(zip(videos["video_id"], videos["row"], strict=True)) <= set(
            zip(rows["video_id"], rows["row"], strict=True)
        )

    def publish(self, shard: int, rows: list[LedgerRow]) -> None:
        """Publish a shard atomically; call it only when its features are safely stored.

        Raises:
            DynapropError: it cannot be written.
        """
        with writing(self._path(shard)):
            publish_parquet(self._path(shard), pd.DataFrame([asdict(row) for row in rows]))

    def withdraw(self, shard: int) -> None:
        """Make a shard undone, so that the next extraction writes it again."""
        with writing(self._path(shard)):
            self._path(shard).unlink(missing_ok=True)
            if self.folder.exists():
                sync(self.folder)

    def read_shard(self, shard: int) -> pd.DataFrame:
        """The rows of one published shard.

        Raises:
            DynapropError: the file is damaged.
            InfrastructureError: a network disk or an object store is away.
        """
        return self._read([shard], None)

    def read(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of all published shards, shard by shard; raises as ``read_shard`` does.

        Args:
            columns: those to read besides ``OUTCOME``; all by default.
        """
        return self._read_all(self._state(), None if columns is None else (*OUTCOME, *columns))

    def outcomes(self) -> pd.DataFrame:
        """How each video of the published shards ended, columns ``OUTCOME`` alone; remembered until a file changes.

        Raises as ``read_shard`` does.
        """
        state = self._state()
        if self._remembered is None or self._remembered[0] != state:
            self._remembered = state, self._read_all(state, OUTCOME)
        return self._remembered[1]

    def index(self) -> None:
        """Bring the index up to date, which makes ``read`` and ``outcomes`` fast; only for who holds the store's lock.

        Raises as ``read_shard`` does, or where it cannot be written.
        """
        state = self._state()
        if len(state) > 1 and not self._index.is_of(state):
            self._index.write(state, self._joined([shard for shard, _, _ in state], None)[0])

    def remove(self) -> None:
        """Delete all files; raises OSError."""
        remove_folder(self.folder)
        self._index.path.unlink(missing_ok=True)

    def _state(self) -> State:
        """What changes when a file is replaced."""
        return [(shard, *_size_and_time(path)) for shard, path in sorted(self._files().items())]

    def _files(self) -> dict[int, StoragePath]:
        """The files by shard; those of an object store know from the listing what else is asked of them."""
        try:
            with reading(self.folder):
                paths = children(self.folder)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DynapropError(f"{self.folder} cannot be read: {error.strerror}; move it away") from None
        return {int(path.stem): path for path in paths if _FILE.fullmatch(path.name)}

    def _read_all(self, state: State, columns: Sequence[str] | None) -> pd.DataFrame:
        indexed = self._index.read(state, columns) if len(state) > 1 else None
        return self._read([shard for shard, _, _ in state], columns) if indexed is None else indexed.to_pandas()

    def _read(self, shards: Sequence[int], columns: Sequence[str] | None) -> pd.DataFrame:
        if not shards:
            return _EMPTY[list(columns or _COLUMNS)]
        return self._joined(shards, columns)[1]

    def _joined(self, shards: Sequence[int], columns: Sequence[str] | None) -> tuple[pa.Table, pd.DataFrame]:
        """The rows of some files, checked, as both."""
        tables = list(side_by_side(self.folder, lambda shard: self._table(shard, columns), shards))
        try:
            table = pa.concat_tables(
                [table.replace_schema_metadata() for table in tables], promote_options="permissive"
            )
            rows = table.to_pandas()
            sensible = _makes_sense(rows, np.repeat(shards, [len(table) for table in tables]))
        except (pa.ArrowException, ValueError, TypeError):
            sensible = False
        if not sensible:
            for shard in shards if len(shards) > 1 else ():
                self._joined([shard], columns)  # raises for the first that is bad by itself
            raise DynapropError(f"{self._path(shards[0])} makes no sense", remedy="repair")
        return table, rows

    def _table(self, shard: int, columns: Sequence[str] | None) -> pa.Table:
        path = self._path(shard)
        try:
            table = read_parquet(path, required=_REQUIRED, columns=columns)
        except FileNotFoundError:
            raise _Absent(f"{path} is gone; give the same command again") from None
        except ValueError:
            raise DynapropError(f"{path} is damaged", remedy="repair") from None
        except OSError as error:
            raise DynapropError(f"{path} cannot be read: {error.strerror}") from None
        if columns is None and "n_missing" not in table.column_names:  # the first ledgers, which knew no partial videos
            place = table.column_names.index("n_clips") + 1
            table = table.add_column(place, "n_missing", pa.array(np.zeros(len(table), np.int64)))
        return table

    def _path(self, shard: int) -> StoragePath:
        return self.folder / f"{shard:06d}.parquet"


class _Absent(DynapropError):
    """A shard has no file."""


def _makes_sense(rows: pd.DataFrame, shards: np.ndarray) -> bool:
    """Whether rows have the right types, are about the shard of their file, and name no video twice in it."""
    counts = [name for name in ("shard", "row", "n_clips", "n_missing") if name in rows]
    if any(not pd.api.types.is_integer_dtype(rows[name]) for name in counts):
        return False
    if {"timestamps", "n_clips"} <= set(rows) and not all(
        isinstance(times, np.ndarray) and times.dtype.kind == "f" and len(times) == n_clips
        for times, n_clips in zip(rows["timestamps"], rows["n_clips"], strict=True)
    ):
        return False
    if "checksum" in rows and not _are_texts(rows.loc[rows["status"].isin(USABLE), "checksum"]):
        return False
    return bool(
        (rows["shard"] == shards).all()
        and (rows[counts] >= 0).all(axis=None)
        and rows["status"].isin(_STATUS).all()
        and _are_texts(rows["video_id"])
        and not rows.duplicated(["shard", "video_id"]).any()
    )


def _are_texts(values: pd.Series) -> bool:
    return all(isinstance(value, str) for value in values)


def _size_and_time(path: StoragePath) -> tuple[int, int]:
    try:
        with reading(path):
            return file_state(path)[1:]
    except OSError:  # withdrawn meanwhile: reading it says so
        return 0, 0
