"""How a store lies in zarr: its group and arrays, opened and checked."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.atomic import reading
from dynaprop.pipeline.io.paths import StoragePath

SCHEMA = 1

# What zarr raises for a zarr.json that it cannot read: its own errors are ValueErrors, others come from wrong types.
DAMAGED = (ValueError, TypeError, AttributeError, KeyError, RecursionError)


def zarr_store(path: StoragePath) -> Any:
    """A place as zarr takes it."""
    return path if isinstance(path, Path) else path.zarr_store


def open_group(path: StoragePath, *, read_only: bool) -> tuple[zarr.Group, dict[str, Any]]:
    """Open a store's group; its attributes have the right types."""
    try:
        with reading(path, *DAMAGED):
            group = zarr.open_group(zarr_store(path), mode="r" if read_only else "r+", zarr_format=3)
        attributes: dict[str, Any] = dict(group.attrs)
        types = {name: type(attributes[name]) for name in ("schema", "grid", "shard_rows")}
        if types != {"schema": int, "grid": dict, "shard_rows": int} or "dataset" not in attributes["grid"]:
            raise ValueError("wrong types")
        if attributes["shard_rows"] < 1:
            raise ValueError("no rows")
    except FileNotFoundError:
        raise DynapropError(f"{path.parent}: there is no store") from None
    except DAMAGED:
        raise damage(path / "zarr.json") from None
    return group, attributes


def open_array(path: StoragePath, *, shard_rows: int | None, read_only: bool) -> zarr.Array:
    """Open the array of a key, made as ``ensure_array`` makes it."""
    try:
        with reading(path, *DAMAGED):
            array = zarr.open_array(zarr_store(path), mode="r" if read_only else "r+", zarr_format=3)
        channels = array.shape[1]
        if (array.chunks, array.dtype) != ((shard_rows, channels), np.float16):
            raise ValueError("another layout")
        if array.metadata.dimension_names != ("row", f"channel_{channels}"):  # type: ignore[union-attr]
            raise ValueError("another width")
        if not {"model", "size", "precision"} <= set(array.attrs):
            raise ValueError("no key")
    except (*DAMAGED, FileNotFoundError):
        raise damage(path / "zarr.json") from None
    return array


def rows_of_arrays(path: StoragePath, *, witnesses: int = 1) -> int | None:
    """Rows of a chunk that at least so many arrays of a group agree on; None where they differ or are fewer."""
    rows = []
    for metadata in path.glob("*/zarr.json"):
        with contextlib.suppress(*DAMAGED):
            rows.append(int(json.loads(metadata.read_bytes())["chunk_grid"]["configuration"]["chunk_shape"][0]))
    return rows[0] if len(rows) >= witnesses and len(set(rows)) == 1 else None


def refuse_other_versions(path: StoragePath) -> None:
    """Raise where a group's zarr.json, whatever else it says, names another schema."""
    with contextlib.suppress(*DAMAGED, FileNotFoundError), reading(path, *DAMAGED):
        schema = json.loads((path / "zarr.json").read_bytes())["attributes"]["schema"]
        if isinstance(schema, int) and schema != SCHEMA:
            raise other_version(path.parent, schema)


def other_version(root: StoragePath, schema: int) -> DynapropError:
    age, advice = ("a newer", "update dynaprop, or ") if schema > SCHEMA else ("an older", "")
    return DynapropError(
        f"{root}: made by {age} dynaprop (schema {schema} of the store, this one knows {SCHEMA}); "
        f"{advice}move the folder away"
    )


def damage(path: StoragePath) -> DynapropError:
    return DynapropError(f"{path} is damaged", remedy="repair")
