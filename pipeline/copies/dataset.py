"""Transcoded copies used as a dataset of its own, ``NAME.256p``: where they lie, and its videos.

The copies of one short side lie in one folder, `$DYNAPROP_HOME/transcoded/<dataset>/<short side>p`. Ids, labels, splits
and groups are those of the original, paths those of the copies. So the manifest of its store, which has path, size,
time and content of every video that was decoded, records the copies as the source of the features.
"""

from dataclasses import replace
from pathlib import Path

from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.copies.names import copy_path
from dynaprop.pipeline.copies.table import TABLE, CopyTable
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.video.identity import Hashing


def copies_folder(dataset: DatasetSpec, short_side: int, home: Path) -> Path:
    """Folder of a dataset's copies."""
    return home / "transcoded" / dataset.name / f"{short_side}p"


def locate_copies(dataset: DatasetSpec, home: Path) -> DatasetSpec:
    """The same dataset; of transcoded copies (``Catalog.dataset_or_folder``) with the folder where they are as root."""
    if dataset.short_side is None:
        return dataset
    root = copies_folder(dataset.original(), dataset.short_side, home)
    return dataset.model_copy(update={"root": root, "generate": None})


def load_copies(folder: Path, *, target: str, short_side: int) -> CopyTable:
    """Read the table of copies that are to be used.

    Args:
        folder: of the copies.
        target: the dataset of the originals as the user named it, for messages.
        short_side: of the copies, for messages.

    Raises:
        DynapropError: there are none, or the table is damaged; with the command that makes it.
    """
    if not (folder / TABLE).exists():
        raise _lack_of_copies(f"no video of {target} has a copy of short side {short_side} yet;", target, short_side)
    try:
        return CopyTable.load(folder)
    except ValueError as error:
        raise _lack_of_copies(f"{error}; to verify all copies again,", target, short_side) from None


def annotations_of_copies(
    annotations: Annotations, table: CopyTable, *, target: str, short_side: int, hashing: Hashing | None = None
) -> Annotations:
    """The same videos by the paths of their copies; those that no copy could be made of become absent.

    Args:
        annotations: of the originals.
        table: the copies.
        target: the dataset as the user named it, for messages.
        short_side: of the copies, for messages.
        hashing: shows how far it is where videos, or their copies, have to be read.

    Raises:
        UsageError: the videos are folders of pictures.
        DynapropError: videos were never tried, or have changed since, or their copies have; or all have failed.
    """
    require_files(annotations, target)
    videos: list[Video] = []
    failed: list[Video] = []
    lacking: list[Video] = []
    current = table.current(annotations.videos, hashing=hashing)
    if table.touched:
        table.remember()
    for video in annotations.videos:
        copy = current.get(video.id)
        if copy is None:
            lacking.append(video)
        else:
            there = replace(video, path=table.folder / copy.path)
            (videos if copy.error_kind is None else failed).append(there)
    if lacking:
        raise _lack_of_copies(
            f"{len(lacking):,} of {len(annotations.videos):,} videos have no copy of short side {short_side} yet, "
            f"{lacking[0].id} first;",
            target,
            short_side,
        )
    if not videos:
        problem = f"none of the {len(failed):,} videos of {target} could be copied; to see why,"
        raise _lack_of_copies(problem, target, short_side)
    lost = [replace(video, path=table.folder / copy_path(video.id)) for video in annotations.absent]
    absent = tuple(sorted([*lost, *failed], key=lambda video: video.id))
    return replace(annotations, videos=tuple(videos), absent=absent)


def _lack_of_copies(problem: str, target: str, short_side: int) -> DynapropError:
    return DynapropError(problem, remedy="transcode", target=target, options={"short_side": short_side})


def require_files(annotations: Annotations, target: str) -> None:
    """Check that a dataset's videos are files.

    Raises:
        UsageError: one of them is a folder of pictures.
    """
    for video in annotations.videos:
        if video.frames is not None:
            raise UsageError(
                f"{target}: {video.id} is a folder of pictures, which need no transcoding: they are read one by one"
            )
