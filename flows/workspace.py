"""What every flow starts from: catalog, dataset, recipe and the folder that all output goes to."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from flows.progress import steps
from pipeline.annotations import Annotations, read_annotations, require_videos
from pipeline.catalog import Catalog, load_catalog
from pipeline.errors import UsageError
from pipeline.sample import generate_sample
from pipeline.specs import BackboneSpec, DatasetSpec, RecipeSpec

DEFAULT_RECIPE = "lite"


@dataclass(frozen=True)
class Workspace:
    """The names of one command, resolved."""

    target: str
    """The dataset as the user named it."""
    catalog: Catalog
    dataset: DatasetSpec
    recipe: RecipeSpec
    home: Path

    @property
    def quoted(self) -> str:
        """The target as a shell takes it, for commands in messages."""
        return shlex.quote(self.target)

    @property
    def student(self) -> BackboneSpec:
        return self.catalog.backbone(self.recipe.student)

    @property
    def teacher(self) -> BackboneSpec:
        return self.catalog.backbone(self.recipe.teacher)

    def annotations(self) -> Annotations:
        """The dataset's videos; the sample dataset is generated on first use.

        Raises:
            UsageError: the labels cannot be read, or none of the videos is on disk.
        """
        generate = self.dataset.generate
        if generate is not None:
            with steps("generate sample videos", 8 * generate.videos_per_class, "videos") as progress:
                generate_sample(
                    self.dataset.root,
                    videos_per_class=generate.videos_per_class,
                    seed=generate.seed,
                    on_video=lambda _done, _total: progress.advance(),
                )
                if not progress.done:
                    progress.total = 0  # they were there
        self.dataset.require_root()
        annotations = read_annotations(self.dataset)
        require_videos(annotations)  # else all that was extracted would count as removed
        return annotations


def home() -> Path:
    """Folder of ``stores/`` and ``runs/``: $DYNAPROP_HOME, else the current folder.

    Raises:
        UsageError: it cannot be written to.
    """
    folder = Path(os.environ.get("DYNAPROP_HOME") or ".").expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"DYNAPROP_HOME={folder}: {error.strerror}; name a folder that can be written") from None
    return folder


def open_workspace(
    target: str, recipe: str | None, catalog: str | None = None, *, sweep: str | None = None
) -> Workspace:
    """Resolve a dataset (a catalog name, or a folder of videos) and a recipe.

    Args:
        target: the dataset.
        recipe: name in the catalog; None for the first recipe of the sweep, else ``lite``.
        catalog: path of the catalog file.
        sweep: name in the catalog.

    Raises:
        UsageError: a name or path that does not exist.
    """
    entries = load_catalog(Path(catalog) if catalog else None)
    own = entries.sweeps_of(sweep)[0].recipes if sweep is not None else ()
    recipe = recipe or (own or (DEFAULT_RECIPE,))[0]
    return Workspace(target, entries, entries.dataset_or_folder(target), entries.recipe(recipe), home())
