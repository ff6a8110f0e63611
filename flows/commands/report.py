"""`dynaprop report`: from run folders to a page."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from dynaprop.flows.terminal.progress import say, say_once, steps
from dynaprop.heads.report.page import make_report, write_report
from dynaprop.heads.report.timeline import Picture
from dynaprop.heads.runs.collected import sources_of
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.names import dataset_of, named_run
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.copies.dataset import locate_copies
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.frames.thumbnails import video_thumbnails
from dynaprop.pipeline.io.paths import StoragePath, is_folder, storage_path
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.store.names import store_path
from dynaprop.pipeline.workspace import files_home, home

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
        spec, folder = named_run(name, entries, on_note=say_once)
        if spec is not None:
            datasets[spec.name] = spec
        folders.append(folder)
    for dataset in filter(None, map(dataset_of, folders)):
        if (copies := entries.copies_named(dataset)) is not None:
            datasets[dataset] = locate_copies(copies, files_home())
    place = _expanded(output) if output else folders[0]
    for folder in folders:
        RunFolder(folder, on_note=say).refresh()
    while True:
        before = [sources_of(folder) for folder in folders]
        page = _write(folders, place, datasets=datasets, videos=videos, command=command)
        if before == [sources_of(folder) for folder in folders]:
            return page
        say("report: results came in while it was written, so it is made again")


def _write(
    folders: Sequence[StoragePath],
    place: StoragePath,
    *,
    datasets: Mapping[str, DatasetSpec],
    videos: Sequence[str],
    command: str,
) -> StoragePath:
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
        return write_report(made, place)


def _expanded(output: str) -> StoragePath:
    place = storage_path(output)
    return place.expanduser() if isinstance(place, Path) else place


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
