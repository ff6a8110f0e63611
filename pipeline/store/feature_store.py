"""The feature store: one folder a dataset and clip grid, with a zarr group, its manifest and its ledgers.

<root>/features.zarr      zarr v3 group; an array (row, channel) of fp16 for every feature key
<root>/manifest.parquet   which rows belong to which video
<root>/ledger/<key>/      a parquet file for every shard that is done
<root>/ledger/<key>.parquet   all of them in one, derived from them (`LedgerIndex`)

The root is a folder, or a place in an object store; zarr reads and writes both.
"""

import contextlib
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr

from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.io.atomic import file_state, reading, remove_folder, sync, writing
from dynaprop.pipeline.io.paths import StoragePath, matching
from dynaprop.pipeline.store.ledger import Ledger
from dynaprop.pipeline.store.manifest import Manifest

SCHEMA = 1

# What zarr raises for a zarr.json that it cannot read: its own errors are ValueErrors, others come from wrong types.
_DAMAGED = (ValueError, TypeError, AttributeError, KeyError, RecursionError)


def list_stores(folder: StoragePath) -> list[StoragePath]:
    """Root of every store below ``stores/``, by dataset and clip grid: ``<dataset>/<grid>``."""
    return [path.parents[1] for path in matching(folder, "*/*/features.zarr/zarr.json")]


class FeatureStore:
    """Frame features of one dataset on one clip grid.

    Args:
        root: the store's folder, or its place in an object store.
        grid: the rule that made the clip grid, kept in the group's attributes: ``dataset``, ``clip_seconds``,
            ``min_clips``, ``max_clips``.
        shard_rows: rows of a shard for a new store; an existing one keeps its own.
        read_only: write nothing; the store has to be there.

    Raises:
        DynapropError: the folder holds no store, or one of another version or grid, or one that is damaged.
    """

    def __init__(self, root: StoragePath, *, grid: dict[str, Any], shard_rows: int, read_only: bool = False) -> None:
        self.root = root
        self._read_only = read_only
        self._path = root / "features.zarr"
        with reading(root):
            if isinstance(root, Path) and root.is_file():
                raise DynapropError(f"{root} is a file where a store should be; move it away")
            is_new = not read_only and not (self._path / "zarr.json").exists()
        if is_new:
            rows = _rows_of_arrays(self._path) or shard_rows  # arrays whose group was lost are still good
            with writing(root):
                if isinstance(root, Path):
                    root.mkdir(parents=True, exist_ok=True)
                about = {"schema": SCHEMA, "grid": grid, "shard_rows": rows}
                zarr.create_group(_zarr_store(self._path), attributes=about)
                sync(self._path / "zarr.json")
                sync(self._path)
        self.group, attributes = _open_group(self._path, read_only=read_only)
        schema, found = attributes["schema"], attributes["grid"]
        if schema != SCHEMA:
            raise _other_version(root, schema)
        if found != grid:
            raise DynapropError(f"{root}: a store of another kind ({found}; expected {grid}); move it away")
        self.shard_rows: int = attributes["shard_rows"]
        self._widths: dict[str, int] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._manifest: tuple[object, Manifest] | None = None

    @classmethod
    def existing(cls, root: StoragePath, *, read_only: bool = True) -> Self:
        """Open a store by its folder alone, by default to read it; raises as the constructor does."""
        _, attributes = _open_group(root / "features.zarr", read_only=True)
        return cls(root, grid=attributes["grid"], shard_rows=attributes["shard_rows"], read_only=read_only)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.group.attrs["grid"]["dataset"])  # type: ignore[index,call-overload]

    @property
    def manifest_path(self) -> StoragePath:
        return self.root / "manifest.parquet"

    def manifest(self) -> Manifest:
        """The current manifest, read from disk where it has changed; it is not to be modified.

        Raises:
            DynapropError: it is damaged, or gone although there are features: nobody knows whose the rows are.
        """
        ledgers = self.root / "ledger"
        with reading(self.root):
            if not self.manifest_path.exists() and next(ledgers.glob("*/*.parquet"), None):
                raise DynapropError(
                    f"{self.manifest_path} is gone, and only it knows whose the features are; put it back, or delete "
                    f"the folder {self.root} and extract again"
                )
        try:
            state = file_state(self.manifest_path)
        except OSError:  # loading says what there is to say
            state = None
        if self._manifest is None or state is None or self._manifest[0] != state:
            self._manifest = state, Manifest.load(self.manifest_path, shard_rows=self.shard_rows)
        return self._manifest[1]

    def ledger(self, key: str) -> Ledger:
        """The ledger of one feature key."""
        return self._ledgers.setdefault(key, Ledger(self.root / "ledger" / key))

    def keys(self) -> dict[str, dict[str, Any]]:
        """Attributes of every array by the key's name: backbone, model, size, weights, ..., gmacs_per_frame.

        Raises:
            DynapropError: an array's zarr.json is damaged.
        """
        return {name: dict(self._array(name).attrs) for name in self._array_names()}

    def has_array(self, key: str) -> bool:
        """Whether the key has an array, damaged or not."""
        return key in self._array_names()

    def ensure_array(self, key: FeatureKey, *, channels: int, n_shards: int, attributes: dict[str, Any]) -> None:
        """Create the array of a key, or grow it to so many shards."""
        rows = n_shards * self.shard_rows
        names = self._array_names()
        changed = []
        with writing(self._path):
            for name in names:  # all of them: they share the dimension "row"
                array = self._array(name)
                if array.shape[0] < rows:
                    array.resize((rows, array.shape[1]))
                    changed.append(name)
            if key.name not in names:
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
                changed.append(key.name)
            for name in changed:  # zarr renames without it, and a power cut would leave an empty file
                sync(self._path / name / "zarr.json")
                sync(self._path / name)
            sync(self._path)

    def write_shard(self, key: str, shard: int, features: np.ndarray) -> None:
        """Write a shard whole, read it back and compare.

        Args:
            key: name of the feature key.
            shard: number of the shard.
            features: ``[shard_rows, channels]`` float16.

        Raises:
            DynapropError: it cannot be written.
            InfrastructureError: what is read back is not what was written: another process wrote, or the disk is bad.
        """
        # zarr does not remember this with the array: without it a shard of NaN alone would not be written.
        array = self._array(key).with_config({"write_empty_chunks": True})
        begin = shard * self.shard_rows
        chunk = self._chunk(key, shard)
        with writing(chunk):
            array[begin : begin + self.shard_rows] = features
            for path in (chunk, chunk.parent, chunk.parents[1]):
                sync(path)
        if not self.holds(key, shard, features):
            raise InfrastructureError(f"{chunk}: reads back differently from what was written; check the disk")

    def holds(self, key: str, shard: int, features: np.ndarray) -> bool:
        """Whether a shard's features, read anew, are these to the last bit."""
        return np.array_equal(self.read_shard(key, shard).view(np.uint16), features.view(np.uint16))

    def read_shard(self, key: str, shard: int) -> np.ndarray:
        """All rows of a shard, ``[shard_rows, channels]`` float16; whether they count is the ledger's word."""
        begin = shard * self.shard_rows
        with reading(self._path, ValueError):
            return np.asarray(self._array(key)[begin : begin + self.shard_rows])

    def map_shard(self, key: str, shard: int) -> np.ndarray:
        """``read_shard`` without a copy: the chunk's file is the raw rows, so it is mapped into memory, read-only.

        An object is read whole, in one request.

        Raises:
            OSError: the chunk does not exist.
            ValueError: it has another size than a shard.
        """
        shape = self.shard_rows, self.channels(key)
        path = self._chunk(key, shard)
        with reading(path):
            source = path if isinstance(path, Path) else path.read_bytes()
            size = source.stat().st_size if isinstance(source, Path) else len(source)
        if size != 2 * shape[0] * shape[1]:
            raise ValueError(f"{path} has {size} bytes, not {2 * shape[0] * shape[1]}")
        if not isinstance(source, Path):
            return np.frombuffer(source, "<f2").reshape(shape)
        try:
            return np.asarray(np.memmap(source, "<f2", mode="r", shape=shape))
        except OSError:  # some network file systems cannot map
            with reading(path):
                return np.fromfile(source, "<f2").reshape(shape)

    def channels(self, key: str) -> int:
        """Width of a key's features."""
        if key not in self._widths:
            self._widths[key] = self._array(key).shape[1]
        return self._widths[key]

    def has_chunk(self, key: str, shard: int) -> bool:
        """Whether the shard's chunk exists; a missing one would read as NaN without an error."""
        with reading(self._path):
            return self.has_array(key) and self._chunk(key, shard).exists()

    def chunk_sizes(self, key: str, shard: int) -> tuple[int, int]:
        """Bytes of a shard's chunk file, and what they should be; the chunk has to exist."""
        with reading(self._path):
            return self._chunk(key, shard).stat().st_size, self.shard_rows * self._array(key).shape[1] * 2

    def remove(self, key: str) -> None:
        """Delete a key's features and ledger, the ledger first.

        Raises:
            DynapropError: the store cannot be written to.
        """
        with writing(self.root):
            self.ledger(key).remove()
            remove_folder(self._path / key)

    def _chunk(self, key: str, shard: int) -> StoragePath:
        return self._path / key / "c" / str(shard) / "0"

    def _array_names(self) -> list[str]:
        with reading(self._path):
            return [path.parent.name for path in matching(self._path, "*/zarr.json")]

    def _array(self, key: str) -> zarr.Array:
        return _open_array(self._path / key, shard_rows=self.shard_rows, read_only=self._read_only)


def find_strays(root: StoragePath) -> list[Path]:
    """Temporary files in a store, which a killed process has left or a running one is writing; objects have none."""
    return sorted(root.rglob("*.partial")) if isinstance(root, Path) else []


def remove_strays(root: StoragePath) -> list[Path]:
    """Delete what a killed process has left; only for who holds the store's lock."""
    strays = find_strays(root)
    with writing(root):
        for path in strays:
            path.unlink(missing_ok=True)
    return strays


def remove_damaged_metadata(root: StoragePath) -> list[StoragePath]:
    """Delete each zarr.json of a store that cannot be read; only for who holds the lock.

    Nothing is lost with them: the group is created anew with the rows of its arrays, and an array by ``ensure_array``,
    around the chunks that are there.

    Raises:
        DynapropError: the store is another version's, whose descriptions only look damaged.
    """
    path = root / "features.zarr"
    _refuse_other_versions(path)
    damaged: list[StoragePath] = []
    try:
        shard_rows = _open_group(path, read_only=True)[1]["shard_rows"]
        if _rows_of_arrays(path, witnesses=2) not in (None, shard_rows):
            raise _damage(path / "zarr.json")  # one word against that of all arrays
    except InfrastructureError:
        raise
    except DynapropError:
        shard_rows = _rows_of_arrays(path)
        damaged += [path / "zarr.json"] if (path / "zarr.json").exists() else []
    for metadata in matching(path, "*/zarr.json"):
        try:
            _open_array(metadata.parent, shard_rows=shard_rows, read_only=True)
        except InfrastructureError:
            raise
        except DynapropError:
            damaged.append(metadata)
    with writing(root):
        for metadata in damaged:
            metadata.unlink()
    return damaged


def _zarr_store(path: StoragePath) -> Any:
    """A place as zarr takes it."""
    return path if isinstance(path, Path) else path.zarr_store


def _open_group(path: StoragePath, *, read_only: bool) -> tuple[zarr.Group, dict[str, Any]]:
    """Open a store's group; its attributes have the right types."""
    try:
        with reading(path, *_DAMAGED):
            group = zarr.open_group(_zarr_store(path), mode="r" if read_only else "r+", zarr_format=3)
        attributes: dict[str, Any] = dict(group.attrs)
        types = {name: type(attributes[name]) for name in ("schema", "grid", "shard_rows")}
        if types != {"schema": int, "grid": dict, "shard_rows": int} or "dataset" not in attributes["grid"]:
            raise ValueError("wrong types")
        if attributes["shard_rows"] < 1:
            raise ValueError("no rows")
    except FileNotFoundError:
        raise DynapropError(f"{path.parent}: there is no store") from None
    except _DAMAGED:
        raise _damage(path / "zarr.json") from None
    return group, attributes


def _open_array(path: StoragePath, *, shard_rows: int | None, read_only: bool) -> zarr.Array:
    """Open the array of a key, made as ``ensure_array`` makes it."""
    try:
        with reading(path, *_DAMAGED):
            array = zarr.open_array(_zarr_store(path), mode="r" if read_only else "r+", zarr_format=3)
        channels = array.shape[1]
        if (array.chunks, array.dtype) != ((shard_rows, channels), np.float16):
            raise ValueError("another layout")
        if array.metadata.dimension_names != ("row", f"channel_{channels}"):  # type: ignore[union-attr]
            raise ValueError("another width")
        if not {"model", "size", "precision"} <= set(array.attrs):
            raise ValueError("no key")
    except (*_DAMAGED, FileNotFoundError):
        raise _damage(path / "zarr.json") from None
    return array


def _rows_of_arrays(path: StoragePath, *, witnesses: int = 1) -> int | None:
    """Rows of a chunk that at least so many arrays of a group agree on; None where they differ or are fewer."""
    rows = []
    for metadata in path.glob("*/zarr.json"):
        with contextlib.suppress(*_DAMAGED):
            rows.append(int(json.loads(metadata.read_bytes())["chunk_grid"]["configuration"]["chunk_shape"][0]))
    return rows[0] if len(rows) >= witnesses and len(set(rows)) == 1 else None


def _refuse_other_versions(path: StoragePath) -> None:
    """Raise where a group's zarr.json, whatever else it says, names another schema."""
    with contextlib.suppress(*_DAMAGED, FileNotFoundError), reading(path, *_DAMAGED):
        schema = json.loads((path / "zarr.json").read_bytes())["attributes"]["schema"]
        if isinstance(schema, int) and schema != SCHEMA:
            raise _other_version(path.parent, schema)


def _other_version(root: StoragePath, schema: int) -> DynapropError:
    age, advice = ("a newer", "update dynaprop, or ") if schema > SCHEMA else ("an older", "")
    return DynapropError(
        f"{root}: made by {age} dynaprop (schema {schema} of the store, this one knows {SCHEMA}); "
        f"{advice}move the folder away"
    )


def _damage(path: StoragePath) -> DynapropError:
    return DynapropError(f"{path} is damaged", remedy="repair")
