"""The ledger: what was really written. Readers trust nothing else.

One parquet file a feature key and shard, published after the shard's features were written and read back; a shard
without its file does not exist, whatever lies in the array.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import DynapropError
from pipeline.files import publish_parquet, read_parquet, sync, writing

_READ = ("video_id", "status", "error_kind", "error_detail", "shard", "row", "n_clips", "timestamps", "checksum")
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


class Ledger:
    """All published shards of one feature key.

    Args:
        folder: ``ledger/<key>`` of a store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def published(self) -> set[int]:
        """Numbers of the shards that are done.

        Raises:
            DynapropError: there is no telling.
        """
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise DynapropError(f"{self.folder} cannot be read: {error.strerror}; move it away") from None
        return {int(Path(name).stem) for name in names if _FILE.fullmatch(name)}

    def has(self, shard: int, videos: pd.DataFrame) -> bool:
        """Whether a shard is done with these videos, rows of a manifest, in it; raises as ``read_shard`` does."""
        if not self._path(shard).exists():
            return False
        rows = self.read_shard(shard)
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
        """
        try:
            rows = read_parquet(self._path(shard), columns=_READ)
        except (OSError, ValueError):
            raise DynapropError(f"{self._path(shard)} is damaged; run `dynaprop verify TARGET --repair`") from None
        if "n_missing" not in rows:  # the first ledgers, which knew no partial videos
            rows.insert(rows.columns.get_loc("n_clips") + 1, "n_missing", 0)
        if not _makes_sense(rows, shard):
            raise DynapropError(f"{self._path(shard)} makes no sense; run `dynaprop verify TARGET --repair`")
        return rows

    def read(self) -> pd.DataFrame:
        """The rows of all published shards, shard by shard; raises as ``read_shard`` does."""
        frames = [self.read_shard(shard) for shard in sorted(self.published())]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(LedgerRow.__annotations__))

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.parquet"


def _makes_sense(rows: pd.DataFrame, shard: int) -> bool:
    """Whether a ledger's rows have the right types, are about their shard, and name no video twice."""
    if any(not pd.api.types.is_integer_dtype(rows[name]) for name in ("shard", "row", "n_clips", "n_missing")):
        return False
    times = (
        isinstance(times, np.ndarray) and times.dtype.kind == "f" and len(times) == n_clips
        for times, n_clips in zip(rows["timestamps"], rows["n_clips"], strict=True)
    )
    return bool(
        (rows["shard"] == shard).all()
        and (rows[["row", "n_clips", "n_missing"]] >= 0).all(axis=None)
        and rows["status"].isin(_STATUS).all()
        and rows["video_id"].map(type).eq(str).all()
        and not rows["video_id"].duplicated().any()
        and all(times)
    )
