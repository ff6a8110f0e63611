"""What exists and what is cached: the table of `dynaprop datasets`, and its garbage collection."""

from contextlib import suppress

from rich.table import Table

from dynaprop.flows.terminal.printing import answer, print_table
from dynaprop.flows.terminal.progress import say
from dynaprop.flows.terminal.remedies import as_shown
from dynaprop.pipeline.annotations.video_files import passed_over
from dynaprop.pipeline.catalog.catalog import Catalog
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract.summary import failed_videos, partial_videos
from dynaprop.pipeline.io.local_lock import lock_record
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.store.feature_store import FeatureStore, list_stores
from dynaprop.pipeline.store.names import locate_backbone


def print_datasets(catalog: Catalog, home: StoragePath, *, failed: bool = False) -> None:
    """Print every dataset of the catalog and every store, with cached keys, videos, clips, failures and absences.

    Stores that cannot be read are named below the table, and so are files that look like videos and are none.

    Args:
        catalog: the catalog.
        home: folder of ``stores/``.
        failed: name every failed and every partial video, too, with the reason.
    """
    table = Table()
    for name in (
        "dataset",
        "videos on disk",
        "clip grid",
        "cached features",
        "shards",
        "videos",
        "clips",
        "failed",
        "partial",
        "absent",
    ):
        table.add_column(name, overflow="fold")
    stores = list_stores(home / "stores")
    known = {store.parent.name for store in stores}
    damaged: list[str] = []
    for name, spec in catalog.datasets.items():
        there = "yes" if spec.root.is_dir() else "generated on first use" if spec.generate else f"no ({spec.root})"
        damaged += _add(table, name, there, [store for store in stores if store.parent.name == name])
    for name in sorted(known - set(catalog.datasets)):
        there = "transcoded copies" if catalog.copies_named(name) else "not in the catalog"
        damaged += _add(table, name, there, [store for store in stores if store.parent.name == name])
    print_table(table)
    for name, spec in catalog.datasets.items():
        if line := _passed_over(spec):
            say(f"{name}: {line}")
    for line in damaged:
        say(line)
    for root in stores if failed else ():
        with suppress(DynapropError):  # named above
            _print_failures(FeatureStore.existing(root))


def collect_garbage(catalog: Catalog, home: StoragePath) -> None:
    """Delete the features of keys that no backbone of the catalog makes.

    A backbone whose weights cannot be found here keeps all keys of its model and size.

    Raises:
        DynapropError: a store is in use, cannot be written to, or cannot be read, after all others were dealt with.
    """
    named: set[str] = set()
    kept: set[tuple[str, int]] = set()
    for backbone in catalog.backbones.values():
        try:
            named.add(locate_backbone(backbone)[0].name)
        except DynapropError:
            kept.add((backbone.model, backbone.size))
    removed = 0
    failures = []
    for root in list_stores(home / "stores"):
        try:
            store = FeatureStore.existing(root)
            unnamed = [
                key
                for key, attributes in store.keys().items()
                if key not in named and (attributes["model"], attributes["size"]) not in kept
            ]
            if not unnamed:
                continue
            with StoreLock(lock_record(root), name=str(root), wait=None):
                for key in unnamed:
                    store.remove(key)
                    removed += 1
                    say(f"deleted {root}: {key}")
        except DynapropError as error:
            failures.append(as_shown(error))
    say(f"{removed} feature keys deleted")
    if failures:
        raise DynapropError("; ".join(failures))


def _passed_over(spec: DatasetSpec) -> str:
    """One line about the files below a root that look like videos and are none, where videos are searched for."""
    if spec.annotations.format == "list" or not spec.root.is_dir():
        return ""
    try:
        return passed_over(spec.root, has_frames=getattr(spec.annotations, "fps", None) is not None)
    except DynapropError as error:
        return as_shown(error)


def _add(table: Table, name: str, there: str, stores: list[StoragePath]) -> list[str]:
    """Add a dataset's stores; what is wrong with those that cannot be read."""
    damaged = []
    if not stores:
        table.add_row(name, there)
    for root in stores:
        try:
            _add_store(table, name, there, FeatureStore.existing(root))
        except DynapropError as error:
            table.add_row(name, there, root.name, "not readable")
            damaged.append(as_shown(error))
        name = there = ""
    return damaged


def _print_failures(store: FeatureStore) -> None:
    keys = list(store.keys())
    for status, videos in (("failed", failed_videos(store, keys)), ("partial", partial_videos(store, keys))):
        for video, error in sorted(videos.items()):
            answer(f"{store.dataset}, {status}: {video}: {error}")


def _add_store(table: Table, name: str, there: str, store: FeatureStore) -> None:
    manifest = store.manifest()
    keys = store.keys()
    kinds: dict[str, int] = {}
    for error in failed_videos(store, list(keys)).values():
        kinds[error.kind] = kinds.get(error.kind, 0) + 1
    failed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "0"
    partial = str(len(partial_videos(store, list(keys))))
    needed = set(manifest.shards())
    absent = len(manifest.absent())
    videos, clips = len(manifest.current()) - absent, int(manifest.current()["n_clips"].sum())
    for key in keys or {"": {}}:
        done = f"{len(store.ledger(key).published() & needed)}/{len(needed)}" if key else ""
        table.add_row(name, there, store.root.name, key, done, str(videos), str(clips), failed, partial, str(absent))
        name = there = ""
