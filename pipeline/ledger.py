"""The ledger: what was really written. Readers trust nothing else.

One parquet file a feature key and shard, published after the shard's features were written and read back; a shard
without its file does not exist, whatever lies in the array.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import DynapropError
from pipeline.files import publish_parquet, read_parquet, sync, writing

_READ = ("video_id", "status", "error_kind", "error_detail", "shard", "row", "n_clips", "timestamps", "checksum")

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
    """SHA-256 of the video's rows as stored (little-endian fp16), first 32 digits; None if failed."""
    decoder: str
    attempts: int
    seconds: float
    """Decoding time."""


class Ledger:
    """All published shards of one feature key.

    Args:
        folder: ``ledger/<key>`` of a store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def published(self) -> set[int]:
        """Numbers of the shards that are done."""
        return {int(path.stem) for path in self.folder.glob("[0-9]*.parquet")} if self.folder.exists() else set()

    def is_published(self, shard: int) -> bool:
        """Whether one shard is done."""
        return self._path(shard).exists()

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
        """
        try:
            rows = read_parquet(self._path(shard), columns=_READ)
        except (OSError, ValueError):
            raise DynapropError(f"{self._path(shard)} is damaged; run `dynaprop verify TARGET --repair`") from None
        if "n_missing" not in rows:  # the first ledgers, which knew no partial videos
            rows.insert(rows.columns.get_loc("n_clips") + 1, "n_missing", 0)
        return rows

    def read(self) -> pd.DataFrame:
        """The rows of all published shards, shard by shard; raises as ``read_shard`` does."""
        frames = [self.read_shard(shard) for shard in sorted(self.published())]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(LedgerRow.__annotations__))

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.parquet"
