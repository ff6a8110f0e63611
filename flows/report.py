"""`dynaprop report`: from run folders to a page."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from flows.progress import say, steps
from flows.workspace import files_home, home
from heads.report.page import make_report, write_report
from heads.report.timeline import Picture
from pipeline.cached import store_path
from pipeline.catalog import load_catalog
from pipeline.copies import locate_copies
from pipeline.decode_pool import DecodePool
from pipeline.errors import DynapropError, UsageError
from pipeline.manifest import Manifest
from pipeline.object_path import StoragePath, storage_path
from pipeline.spec_types import is_folder
from pipeline.specs import DatasetSpec
from pipeline.thumbnails import video_thumbnails

_DEADLINE = 20.0  # seconds without a frame: the page can do without a picture


def report(
    runs: Sequence[str],
    *,
    videos: Sequence[str] = (),
    output: str | None = None,
    catalog: str | None = None,
    command: str,
) -> StoragePath:
    """Write the report of one or several runs; nothing is trained, and only thumbnails are decoded.

    Args:
        runs: names of runs below ``$DYNAPROP_HOME/runs``, datasets or folders of videos (their newest run with
            results), or folders of runs.
        videos: ids to show frame by frame; the most telling ones by default.
        output: page or folder; the first run's folder by default.
        catalog: path of the catalog file.
        command: what the user typed, for the page.

    Returns:
        The page's file.

    Raises:
        UsageError: no such run, or a video that was not scored.
        DynapropError: a run without results, damaged files, or an output that cannot be written.
    """
    entries = load_catalog(Path(catalog) if catalog else None)
    datasets = dict(entries.datasets)
    folders = []
    for name in runs:
        if name not in datasets and not _is_run(storage_path(name)):
            with suppress(UsageError):  # then it is no folder, nor are these copies of anything
                spec = locate_copies(entries.dataset_or_folder(name), files_home())
                datasets[spec.name] = spec
                name = spec.name
        folders.append(find_run(name, home() / "runs", list(datasets)))
    for dataset in filter(None, map(_dataset_of, folders)):
        if (copies := entries.copies_named(dataset)) is not None:
            datasets[dataset] = locate_copies(copies, files_home())
    with steps("report", 1, "tables") as progress:

        def on_table(total: int) -> None:
            progress.total = total
            progress.advance()

        made = make_report(
            folders,
            metrics={name: spec.metric for name, spec in datasets.items()},
            pictures=lambda dataset, ids: _pictures(ids, datasets.get(dataset)),
            videos=videos,
            command=command,
            written=datetime.now().astimezone(),
            on_table=on_table,
        )
        return write_report(made, _expanded(output) if output else folders[0])


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
    if of_dataset := [folder / run for run in names if _dataset_of(folder / run) == name]:
        return _with_results(max(of_dataset, key=_age))
    if name in datasets:
        raise DynapropError(f"no run of {name!r} in {folder}; `dynaprop sweep` makes one")
    if _is_run(place := storage_path(name)):
        return _with_results(place)
    close = get_close_matches(name, [*names, *datasets], n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UsageError(f"no run {name!r}{hint}: name a run in {folder}, a dataset, or a run's folder")


def _expanded(output: str) -> StoragePath:
    place = storage_path(output)
    return place.expanduser() if isinstance(place, Path) else place


def _is_run(path: StoragePath) -> bool:
    return (path / "run.json").exists() or (path / "results.parquet").exists()


def _with_results(run: StoragePath) -> StoragePath:
    if not (run / "results.parquet").exists():
        raise DynapropError(f"{run} holds no results yet; `dynaprop sweep` writes them")
    return run


def _age(run: StoragePath) -> float:
    """When results were last written; 0 for a run without any."""
    results = run / "results.parquet"
    return results.stat().st_mtime if results.exists() else 0.0


def _dataset_of(run: StoragePath) -> str | None:
    """The run's dataset by its own account: the folder's name does not tell where that name ends."""
    try:
        return str(json.loads((run / "run.json").read_text())["dataset"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _pictures(ids: Sequence[str], dataset: DatasetSpec | None) -> Mapping[str, Sequence[Picture]]:
    """Thumbnails of the videos that are still where the dataset says."""
    if dataset is None or not is_folder(dataset.root):
        return {}
    manifest = store_path(dataset, home()) / "manifest.parquet"
    if not manifest.exists():
        return {}
    say(f"report: thumbnails of {len(ids)} videos")
    with DecodePool(workers=1, deadline=_DEADLINE) as pool:
        known = Manifest.load(manifest, shard_rows=dataset.shard_rows)
        found = video_thumbnails(known, ids, root=dataset.root, pool=pool)
    return {video: [(one.timestamp, one.jpeg) for one in pictures] for video, pictures in found.items()}
