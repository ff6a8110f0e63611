"""What every label format is read into."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.video.frame_folder import FrameFolder

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Video:
    """One video and what is known about it."""

    id: str
    """Unique, and the same on every machine: the dataset's own id where its format has one, else the path relative to
    the dataset's root, with `/` and extension."""
    path: Path
    """The file, or the folder of its frames."""
    labels: tuple[int, ...] = ()
    """Indices into the class names, the first one is trained on; empty when unlabelled."""
    split: SplitName | None = None
    """The part that the dataset puts it in; None where it has no split."""
    group: str | None = None
    """Videos of one group (a person, a recording) never lie on both sides of a split."""
    frames: FrameFolder | None = None
    """None for a video file; else ``path`` is a folder of pictures."""


@dataclass(frozen=True)
class Annotations:
    """The videos of a dataset, sorted by id."""

    videos: tuple[Video, ...]
    class_names: tuple[str, ...]
    """In Unicode's composed form (NFC), in which macOS does not write the names of folders; ids stay as they are."""
    absent: tuple[Video, ...] = ()
    """Videos that the dataset lists and the disk lacks, sorted by id."""
    notes: tuple[str, ...] = ()
    """What a person should know of how they were read, a sentence each without its full stop."""

    def __post_init__(self) -> None:
        ids = [video.id for video in self.videos]
        if ids != sorted(set(ids)):
            raise ValueError("videos should be sorted by id, each id once")
        if any(not 0 <= label < len(self.class_names) for video in self.videos for label in video.labels):
            raise ValueError("a label is no index into the class names")

    @property
    def missing(self) -> tuple[str, ...]:
        """Ids of the absent videos."""
        return tuple(video.id for video in self.absent)

    @property
    def held_out_part(self) -> SplitName | None:
        """The part that models are measured on: test, else val; None without a split that has labels on both sides.

        Absent videos have a say, so that the part does not change with what is on disk.
        """
        labelled = {video.split for video in self.videos + self.absent if video.labels}
        if "train" not in labelled:
            return None
        return "test" if "test" in labelled else "val" if "val" in labelled else None


def require_videos(annotations: Annotations) -> None:
    """Check that there is anything to decode.

    Raises:
        UsageError: no listed video is on disk.
    """
    if not annotations.videos and not annotations.absent:
        raise UsageError("the lists name no video; correct the dataset's entry")
    if not annotations.videos:
        first = annotations.absent[0]
        raise UsageError(
            f"none of the {len(annotations.absent):,} listed videos is on disk: no video for {first.path}, the first; "
            "put them below the dataset's root, or correct it"
        )


def require_labels(annotations: Annotations) -> None:
    """Check that a model can be trained and measured on these labels.

    Raises:
        UsageError: no videos, no labels, a single class, or a class that cannot be on both sides of a split still to
            be made.
    """
    require_videos(annotations)
    counts = Counter(video.labels[0] for video in annotations.videos if video.labels)
    if not counts:
        raise UsageError("the videos have no labels, so nothing can be trained: put each class in a folder of its own")
    if len(counts) == 1:
        name = annotations.class_names[next(iter(counts))]
        raise UsageError(f"all labelled videos are of the one class {name!r}: training needs at least two classes")
    if annotations.held_out_part is None:
        alone = [annotations.class_names[label] for label, count in sorted(counts.items()) if count == 1]
        if alone:
            more = f" (and {len(alone) - 1} more classes)" if len(alone) > 1 else ""
            raise UsageError(
                f"class {alone[0]!r}{more} has a single video, which cannot be both trained and tested on: "
                "add videos, remove the class, or give train/ and test/ folders"
            )
