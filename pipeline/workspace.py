"""What every command starts from: catalog, dataset, recipe, the folder that all output goes to, and who is told."""

import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from dynaprop.pipeline.annotations import Annotations, read_annotations, require_videos
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.catalog import Catalog
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.catalog.recipes import RecipeSpec
from dynaprop.pipeline.copies.dataset import annotations_of_copies, load_copies, locate_copies
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.io.file_names import require_utf8_locale
from dynaprop.pipeline.io.paths import StoragePath, storage_path
from dynaprop.pipeline.printable import shell_line
from dynaprop.pipeline.progress import Reporter, Silence, reading_again
from dynaprop.pipeline.sample_dataset.generate import generate_sample

DEFAULT_RECIPE = "lite"


@dataclass(frozen=True)
class Workspace:
    """The names of one command, resolved."""

    target: str
    """The dataset as the user named it."""
    catalog: Catalog
    dataset: DatasetSpec
    recipe: RecipeSpec
    home: StoragePath
    original: DatasetSpec
    """The dataset whose labels are read: the same, unless ``dataset`` consists of its transcoded copies."""
    reporter: Reporter = field(default_factory=Silence, compare=False)

    @property
    def quoted(self) -> str:
        """The target as a shell takes it, for commands in messages."""
        return shell_line(self.target)

    @property
    def student(self) -> BackboneSpec:
        return self.catalog.backbone(self.recipe.student)

    @property
    def teacher(self) -> BackboneSpec:
        return self.catalog.backbone(self.recipe.teacher)

    def annotations(self) -> Annotations:
        """The dataset's videos; the sample dataset is generated on first use.

        Of transcoded copies (``NAME:256p``) the labels are those of the original, and only the paths are the copies'.

        Raises:
            UsageError: the labels cannot be read, or none of the videos is on disk.
            DynapropError: videos have no copy yet.
        """
        side = self.dataset.short_side
        if side is None:
            return read_videos(self.dataset, reporter=self.reporter)
        target = self._original_target
        table = load_copies(self.dataset.root, target=target, short_side=side)
        return annotations_of_copies(
            read_videos(self.original, reporter=self.reporter),
            table,
            target=target,
            short_side=side,
            hashing=partial(reading_again, self.reporter),
        )

    def with_recipe(self, name: str) -> "Workspace":
        """The same dataset with another recipe of the catalog."""
        return replace(self, recipe=self.catalog.recipe(name))

    def require_root(self) -> None:
        """Check that there is something to read, without reading it.

        Raises:
            UsageError: there are no videos.
            DynapropError: none has a copy yet.
        """
        if self.original.generate is None:
            self.original.require_root()
        if self.dataset.short_side is not None:
            load_copies(self.dataset.root, target=self._original_target, short_side=self.dataset.short_side)

    @property
    def _original_target(self) -> str:
        return self.target.removesuffix(f":{self.dataset.short_side}p")


def read_videos(dataset: DatasetSpec, *, reporter: Reporter) -> Annotations:
    """Videos and labels of a dataset that consists of no copies; the sample dataset is generated on first use.

    Raises:
        UsageError: the labels cannot be read, or none of the videos is on disk.
    """
    generate = dataset.generate
    if generate is not None:
        with reporter.steps("generate sample videos", 8 * generate.videos_per_class, "videos") as progress:
            generate_sample(
                dataset.root,
                videos_per_class=generate.videos_per_class,
                seed=generate.seed,
                on_video=lambda _done, _total: progress.advance(),
            )
            if not progress.done:
                progress.total = 0  # they were there
    dataset.require_root()
    annotations = read_annotations(dataset)
    require_videos(annotations)  # else all that was extracted would count as removed
    return annotations


def tell_notes(annotations: Annotations, reporter: Reporter) -> None:
    """Say what people should know of how a dataset was read, a line each."""
    for note in annotations.notes:
        reporter.say_once(f"note: {note}")


def home() -> StoragePath:
    """Folder of ``stores/`` and ``runs/``: $DYNAPROP_HOME, a path or a URL, else the current folder.

    Raises:
        UsageError: it cannot be written to, is a URL that makes no sense or names no bucket, or has a name that the
            locale lacks.
        DynapropError: the object store does not answer, or refuses.
    """
    folder = _home()
    if not isinstance(folder, Path):
        folder.check()
        return folder
    folder = folder.expanduser().absolute()
    require_utf8_locale(str(folder), where="DYNAPROP_HOME")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"DYNAPROP_HOME={folder}: {error.strerror}; name a folder that can be written") from None
    return folder


def files_home() -> Path:
    """Folder of the files that are no store and no results (``transcoded/``), which videos are read from: ``home``.

    With a URL as home it is the current folder.
    """
    if not isinstance(_home(), Path):
        return Path.cwd()
    folder = home()
    assert isinstance(folder, Path)
    return folder


def _home() -> StoragePath:
    return storage_path(os.environ.get("DYNAPROP_HOME") or ".")


def open_originals(target: str, catalog: str | None = None) -> DatasetSpec:
    """Resolve a dataset that is to be transcoded.

    Raises:
        UsageError: a name or path that does not exist, or that stands for copies.
    """
    dataset = load_catalog(Path(catalog) if catalog else None).dataset_or_folder(target)
    if dataset.short_side is not None:
        side = dataset.short_side
        original = target.removesuffix(f":{side}p")
        raise UsageError(
            f"{target!r} stands for copies; to make them,",
            remedy="transcode",
            target=original,
            options={"short_side": side},
        )
    return dataset


def open_workspace(
    target: str,
    recipe: str | None,
    catalog: str | None = None,
    *,
    sweep: str | None = None,
    reporter: Reporter | None = None,
) -> Workspace:
    """Resolve a dataset (a catalog name, or a folder of videos, or the transcoded copies of one) and a recipe.

    Args:
        target: the dataset.
        recipe: name in the catalog; None for the first recipe of the sweep, else ``lite``.
        catalog: path of the catalog file.
        sweep: name in the catalog.
        reporter: is told what the work on it has to say; by default nobody.

    Raises:
        UsageError: a name or path that does not exist.
    """
    entries = load_catalog(Path(catalog) if catalog else None)
    own = entries.sweeps_of(sweep)[0].recipes if sweep is not None else ()
    recipe = recipe or (own or (DEFAULT_RECIPE,))[0]
    dataset = entries.dataset_or_folder(target)
    original = dataset.original()
    dataset = locate_copies(dataset, files_home())
    return Workspace(
        target, entries, dataset, entries.recipe(recipe), home(), original=original, reporter=reporter or Silence()
    )
