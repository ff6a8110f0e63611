"""What a killed process or a bad disk has left in a store, found and removed."""

from pathlib import Path

from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.io.atomic import writing
from dynaprop.pipeline.io.paths import StoragePath, matching
from dynaprop.pipeline.store.layout import damage, open_array, open_group, refuse_other_versions, rows_of_arrays


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
    refuse_other_versions(path)
    damaged: list[StoragePath] = []
    try:
        shard_rows = open_group(path, read_only=True)[1]["shard_rows"]
        if rows_of_arrays(path, witnesses=2) not in (None, shard_rows):
            raise damage(path / "zarr.json")  # one word against that of all arrays
    except InfrastructureError:
        raise
    except DynapropError:
        shard_rows = rows_of_arrays(path)
        damaged += [path / "zarr.json"] if (path / "zarr.json").exists() else []
    for metadata in matching(path, "*/zarr.json"):
        try:
            open_array(metadata.parent, shard_rows=shard_rows, read_only=True)
        except InfrastructureError:
            raise
        except DynapropError:
            damaged.append(metadata)
    with writing(root):
        for metadata in damaged:
            metadata.unlink()
    return damaged
