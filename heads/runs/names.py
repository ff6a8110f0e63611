"""Which run a name means."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches

from dynaprop.heads.runs.folder import RunFolder, read_settings
from dynaprop.pipeline.catalog.catalog import Catalog
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.copies.dataset import locate_copies
from dynaprop.pipeline.errors import DynapropError, InfrastructureError, UsageError
from dynaprop.pipeline.io.paths import StoragePath, storage_path
from dynaprop.pipeline.printable import shell_line
from dynaprop.pipeline.workspace import files_home, home

OnNote = Callable[[str], None]


def ignore(_note: str) -> None:
    """Nobody is told."""


def named_run(
    name: str, catalog: Catalog, *, keeping: bool = False, on_note: OnNote = ignore
) -> tuple[DatasetSpec | None, StoragePath]:
    """The run that a name means, as `find_run` does, or that of a folder of videos or of transcoded copies.

    Args:
        name: as the user gave it.
        catalog: knows the datasets.
        keeping: see ``find_run``.
        on_note: the same.

    Returns:
        The folder's or the copies' dataset, where the name is theirs, and the run's folder.
    """
    spec = None
    if name not in catalog.datasets and not is_run(storage_path(name)):
        with suppress(UsageError):  # then it is no folder, nor are these copies of anything
            spec = locate_copies(catalog.dataset_or_folder(name), files_home())
    datasets = [*catalog.datasets, *([spec.name] if spec else [])]
    return spec, find_run(
        spec.name if spec else name, home() / "runs", datasets, shown=name, keeping=keeping, on_note=on_note
    )


def find_run(
    name: str,
    folder: StoragePath,
    datasets: Sequence[str],
    *,
    shown: str | None = None,
    keeping: bool = False,
    on_note: OnNote = ignore,
) -> StoragePath:
    """The run that a name means: a folder in ``runs/``, that of a dataset with the newest results, or a path.

    Args:
        name: of the run or dataset.
        folder: ``$DYNAPROP_HOME/runs``.
        datasets: names of the known datasets.
        shown: what the user wrote instead.
        keeping: whether of a dataset's runs only those count that have kept models.
        on_note: called with a line for people, which they need not read twice.

    Raises:
        UsageError: it means nothing.
        DynapropError: the run, or every run of the dataset, is without results.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if name in names:
        return _with_results(folder / name, on_note)
    of_dataset = [folder / run for run in names if _is_of(folder / run, name, on_note)]
    if keeping:
        of_dataset = [run for run in of_dataset if RunFolder(run).kept()]
    if of_dataset:
        return _with_results(max(of_dataset, key=_age), on_note)
    if name in datasets:
        what, command = ("run that has kept models", "train") if keeping else ("run", "sweep")
        shown = shown or name
        raise DynapropError(f"no {what} of {shown!r} in {folder}; `dynaprop {command} {shell_line(shown)}` makes one")
    if is_run(place := storage_path(name)):
        return _with_results(place, on_note)
    close = get_close_matches(name, [*names, *datasets], n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UsageError(f"no run {name!r}{hint}: name a run in {folder}, a dataset, or a run's folder")


def is_run(path: StoragePath) -> bool:
    """Whether a folder is a run's."""
    return (path / "run.json").exists() or (path / "results.parquet").exists()


def _with_results(run: StoragePath, on_note: OnNote) -> StoragePath:
    if not (run / "results.parquet").exists():
        RunFolder(run, on_note=on_note).refresh()  # a command may have been killed before it joined them
    if not (run / "results.parquet").exists():
        raise DynapropError(f"{run} holds no results yet; `dynaprop sweep` writes them")
    return run


def _age(run: StoragePath) -> float:
    """When something was last measured, whatever was asked for since; 0 for a run without results."""
    results = run / "results.parquet"
    if not results.exists():
        return 0.0
    return RunFolder(run).last_measured() or results.stat().st_mtime


def _is_of(run: StoragePath, dataset: str, on_note: OnNote) -> bool:
    """Whether a run is a dataset's; one that may be, but has a damaged account, is passed over and said."""
    named = dataset_of(run)
    if named is None and run.name.startswith(f"{dataset}-") and (run / "run.json").exists():
        on_note(f"{run} is passed over: its run.json is damaged; `dynaprop sweep` writes it anew")
    return named == dataset


def dataset_of(run: StoragePath) -> str | None:
    """The run's dataset by its own account: the folder's name does not tell where that name ends.

    None without such an account, or where it is damaged; raises InfrastructureError where it cannot be asked for.
    """
    try:
        return str(read_settings(run)["dataset"])
    except InfrastructureError:
        raise
    except (DynapropError, KeyError):
        return None
