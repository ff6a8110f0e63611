"""Which run a name means."""

import json
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches

from flows.workspace import files_home, home
from pipeline.catalog import Catalog
from pipeline.copies import locate_copies
from pipeline.errors import DynapropError, UsageError
from pipeline.object_path import StoragePath, storage_path
from pipeline.specs import DatasetSpec


def named_run(name: str, catalog: Catalog) -> tuple[DatasetSpec | None, StoragePath]:
    """The run that a name means, as `find_run` does, or that of a folder of videos or of transcoded copies.

    Returns:
        The folder's or the copies' dataset, where the name is theirs, and the run's folder.
    """
    spec = None
    if name not in catalog.datasets and not is_run(storage_path(name)):
        with suppress(UsageError):  # then it is no folder, nor are these copies of anything
            spec = locate_copies(catalog.dataset_or_folder(name), files_home())
    datasets = [*catalog.datasets, *([spec.name] if spec else [])]
    return spec, find_run(spec.name if spec else name, home() / "runs", datasets)


def find_run(name: str, folder: StoragePath, datasets: Sequence[str]) -> StoragePath:
    """The run that a name means: a folder in ``runs/``, a dataset's newest run with results, or a path.

    Args:
        name: as the user gave it.
        folder: ``$DYNAPROP_HOME/runs``.
        datasets: names of the known datasets.

    Raises:
        UsageError: it means nothing.
        DynapropError: the run, or every run of the dataset, is without results.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if name in names:
        return _with_results(folder / name)
    if of_dataset := [folder / run for run in names if dataset_of(folder / run) == name]:
        return _with_results(max(of_dataset, key=_age))
    if name in datasets:
        raise DynapropError(f"no run of {name!r} in {folder}; `dynaprop sweep` makes one")
    if is_run(place := storage_path(name)):
        return _with_results(place)
    close = get_close_matches(name, [*names, *datasets], n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UsageError(f"no run {name!r}{hint}: name a run in {folder}, a dataset, or a run's folder")


def is_run(path: StoragePath) -> bool:
    """Whether a folder is a run's."""
    return (path / "run.json").exists() or (path / "results.parquet").exists()


def _with_results(run: StoragePath) -> StoragePath:
    if not (run / "results.parquet").exists():
        raise DynapropError(f"{run} holds no results yet; `dynaprop sweep` writes them")
    return run


def _age(run: StoragePath) -> float:
    """When results were last written; 0 for a run without any."""
    results = run / "results.parquet"
    return results.stat().st_mtime if results.exists() else 0.0


def dataset_of(run: StoragePath) -> str | None:
    """The run's dataset by its own account: the folder's name does not tell where that name ends."""
    try:
        return str(json.loads((run / "run.json").read_text())["dataset"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
