"""The feature store: one folder a dataset and clip grid, with a zarr group, its manifest and its ledgers.

<root>/features.zarr      zarr v3 group; an array (row, channel) of fp16 for every feature key
<root>/manifest.parquet   which rows belong to which video
<root>/ledger/<key>/      a parquet file for every shard that is done
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
import zarr.errors

from pipeline.backbone import FeatureKey
from pipeline.errors import DynapropError
from pipeline.files import sync
from pipeline.ledger import Ledger
from pipeline.manifest import Manifest

SCHEMA = 1


def list_stores(folder: Path) -> list["FeatureStore"]:
    """Every store below ``stores/``, by dataset and clip grid."""
    return [FeatureStore.existing(path.parents[1]) for path in sorted(folder.glob("*/*/features.zarr/zarr.json"))]


class FeatureStore:
    """Frame features of one dataset on one clip grid.

    Args:
        root: the store's folder.
        grid: the rule that made the clip grid, kept in the group's attributes: ``dataset``, ``clip_seconds``,
            ``min_clips``, ``max_clips``.
        shard_rows: rows of a shard for a new store; an existing one keeps its own.

    Raises:
        DynapropError: the folder holds a store of another version or grid.
    """

    def __init__(self, root: Path, *, grid: dict[str, Any], shard_rows: int) -> None:
        self.root = root
        self._path = root / "features.zarr"
        expected = {"schema": SCHEMA, "grid": grid}
        if (self._path / "zarr.json").exists():
            self.group = zarr.open_group(self._path, mode="r+")
            found = {name: self.group.attrs.get(name) for name in expected}
            if found != expected:
                raise DynapropError(f"{root}: a store of another kind ({found}, expected {expected}); move it away")
        else:
            root.mkdir(parents=True, exist_ok=True)
            self.group = zarr.create_group(self._path, attributes={**expected, "shard_rows": shard_rows})
        self.shard_rows: int = int(self.group.attrs["shard_rows"])  # type: ignore[arg-type]

    @classmethod
    def existing(cls, root: Path) -> Self:
        """Open a store by its folder alone."""
        attributes = zarr.open_group(root / "features.zarr", mode="r").attrs
        return cls(root, grid=dict(attributes["grid"]), shard_rows=int(attributes["shard_rows"]))  # type: ignore[arg-type]

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.group.attrs["grid"]["dataset"])  # type: ignore[index,call-overload]

    @property
    def manifest_path(self) -> Path:
        return self.root / "manifest.parquet"

    def manifest(self) -> Manifest:
        """The current manifest, read from disk."""
        return Manifest.load(self.manifest_path, shard_rows=self.shard_rows)

    def ledger(self, key: str) -> Ledger:
        """The ledger of one feature key."""
        return Ledger(self.root / "ledger" / key)

    def keys(self) -> dict[str, dict[str, Any]]:
        """Attributes of every array by the key's name: backbone, model, size, weights, ..., gmacs_per_frame."""
        return {name: dict(array.attrs) for name, array in self.group.arrays()}

    def ensure_array(self, key: FeatureKey, *, channels: int, n_shards: int, attributes: dict[str, Any]) -> None:
        """Create the array of a key, or grow it to so many shards."""
        rows = n_shards * self.shard_rows
        for _, array in self.group.arrays():  # all of them: they share the dimension "row"
            if array.shape[0] < rows:
                array.resize((rows, array.shape[1]))
        if key.name in self.group:
            return
        self.group.create_array(
            key.name,
            shape=(rows, channels),
            chunks=(self.shard_rows, channels),  # a shard is one chunk, so its file is the raw rows
            dtype="float16",
            compressors=None,
            fill_value=float("nan"),
            dimension_names=("row", f"channel_{channels}"),
            attributes=attributes,
        )

    def write_shard(self, key: str, shard: int, features: np.ndarray) -> None:
        """Write a shard whole, read it back and compare.

        Args:
            key: name of the feature key.
            shard: number of the shard.
            features: ``[shard_rows, channels]`` float16.

        Raises:
            DynapropError: what is read back is not what was written.
        """
        # zarr does not remember this with the array: without it a shard of NaN alone would not be written.
        array = self._array(key).with_config({"write_empty_chunks": True})
        begin = shard * self.shard_rows
        array[begin : begin + self.shard_rows] = features
        chunk = self._path / key / "c" / str(shard) / "0"
        sync(chunk)
        sync(chunk.parent)
        if not np.array_equal(self.read_shard(key, shard).view(np.uint16), features.view(np.uint16)):
            raise DynapropError(f"{chunk}: reads back differently from what was written; check the disk")

    def read_shard(self, key: str, shard: int) -> np.ndarray:
        """All rows of a shard, ``[shard_rows, channels]`` float16; whether they count is the ledger's word."""
        begin = shard * self.shard_rows
        return np.asarray(self._array(key)[begin : begin + self.shard_rows])

    def has_chunk(self, key: str, shard: int) -> bool:
        """Whether the shard's chunk exists; a missing one would read as NaN without an error."""
        return key in self.group and (self._path / key / "c" / str(shard) / "0").exists()

    def remove(self, key: str) -> None:
        """Delete a key's features and ledger, the ledger first."""
        shutil.rmtree(self.ledger(key).folder, ignore_errors=True)
        del self.group[key]

    def _array(self, key: str) -> zarr.Array:
        array = self.group[key]
        assert isinstance(array, zarr.Array)
        return array


def checksum(features: np.ndarray) -> str:
    """SHA-256 (32 digits) of fp16 rows ``[n, channels]`` as they lie in the chunk."""
    return hashlib.sha256(np.ascontiguousarray(features.astype("<f2", copy=False)).tobytes()).hexdigest()[:32]
