"""One dataset's transcoding from beginning to end: what there is to do, the copies, and what came of it."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.copies.dataset import copies_folder, require_files
from dynaprop.pipeline.copies.names import copy_path
from dynaprop.pipeline.copies.pool import CopyOutcome, CopyPool, CopyRequest
from dynaprop.pipeline.copies.table import Copy, CopyTable
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.atomic import writing
from dynaprop.pipeline.io.local_lock import LocalLockRecord
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.earlier_rules import READING_RULES
from dynaprop.pipeline.video.identity import FileIdentity, Hashing, Source, Stamp
from dynaprop.pipeline.video.transcode import SHORT_SIDE

_VIDEOS_A_SAVE = 256


@dataclass(frozen=True)
class TranscodingSummary:
    """What a transcoding left in the folder."""

    videos: int
    """Videos on disk; absent ones are not counted."""
    made: int
    """Copies that this run made."""
    found: int
    """Whole copies of an interrupted run, which this one verified and entered into the table."""
    there: int
    """Copies that the table had."""
    failed: dict[str, VideoError]
    """Videos that there is no copy of, and why, by id."""
    original_bytes: int
    """Of the originals that there are copies of."""
    copy_bytes: int
    folder: Path

    @property
    def kinds(self) -> dict[str, int]:
        """Number of failures by kind, the most frequent first."""
        return dict(Counter(error.kind for error in self.failed.values()).most_common())


class Transcoding:
    """Makes the copies of a dataset: a context manager that holds the lock of their folder.

    A video whose original is unchanged and whose copy is there is not done again; one that failed is tried again. A
    copy that the table lacks, since the run that made it was killed, is verified once more, and kept if it says that it
    was made of the original as it is now; so is one of an earlier version, kept if that one read the same frames.
    Copies of videos that are no longer listed stay.

    Args:
        dataset: the dataset of the originals.
        annotations: its videos, or what reads them: after the lock was waited for they may be others.
        home: folder of ``transcoded/``.
        target: the dataset as the user named it, for messages.
        short_side: pixels of the copies' shorter side, even.
        workers: decode children; one a core by default.
        deadline: seconds without a new frame after which a video is given up.
        wait: wait while another process transcodes this dataset, instead of refusing.
        on_note: called with a line for people about lock and table.

    Raises:
        UsageError: the short side is no even number.
        DynapropError: on entry, when another process holds the lock, or the folder cannot be written to.
    """

    def __init__(
        self,
        *,
        dataset: DatasetSpec,
        annotations: Annotations | Callable[[], Annotations],
        home: Path,
        target: str | None = None,
        short_side: int = SHORT_SIDE,
        workers: int | None = None,
        deadline: float = 60.0,
        wait: bool = False,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        if short_side < 2 or short_side % 2:
            raise UsageError(f"short side {short_side}: pictures in H.264 have even sides; give an even number")
        self.folder = copies_folder(dataset, short_side, home)
        self._annotations = annotations
        self._target = target or dataset.name
        self._short_side = short_side
        self._workers = workers
        self._deadline = deadline
        self._note = on_note or (lambda _: None)
        self._lock = StoreLock(LocalLockRecord(self.folder), name=str(self.folder), wait=wait, on_note=on_note)
        self._table = CopyTable(self.folder)
        self._videos: tuple[Video, ...] = ()
        self._made = self._found = 0
        self.transcoded = 0
        """Videos that this run began a copy of, failed ones included."""

    def __enter__(self) -> Self:
        self._lock.__enter__()
        try:
            with writing(self.folder):
                for stray in self.folder.rglob("*.partial"):  # of a killed run: nobody else writes here
                    stray.unlink(missing_ok=True)
            try:
                self._table = CopyTable.load(self.folder)
            except ValueError:
                self._note(f"{self.folder}: the table of copies is damaged; every copy is verified again")
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._lock.__exit__()

    def to_do(self, *, hashing: Hashing | None = None) -> tuple[Video, ...]:
        """The videos without a copy.

        Args:
            hashing: shows how far it is where videos, or their copies, have to be read.

        Raises:
            UsageError: the videos are folders of pictures.
        """
        annotations = self._annotations() if callable(self._annotations) else self._annotations
        require_files(annotations, self._target)
        self._videos = annotations.videos
        current = self._table.current(self._videos, hashing=hashing)
        there = {video_id for video_id, copy in current.items() if copy.error_kind is None}
        return tuple(
            video
            for video in self._videos
            if video.id not in there or self._table.copies[video.id].rules < READING_RULES
        )

    def run(self, videos: Sequence[Video], *, on_video: Callable[[], None] | None = None) -> None:
        """Make copies, and say so in the table as work goes on.

        Args:
            videos: from ``to_do``.
            on_video: called after each video.

        Raises:
            DynapropError: the disk is full or read-only, or the lock was lost; the copies made so far are kept.
        """
        begun: deque[tuple[Video, FileIdentity]] = deque()
        with DecodePool(workers=self._workers, deadline=self._deadline) as children:
            pool = CopyPool(children)
            try:
                for done, outcome in enumerate(pool.transcode(self._requests(videos, begun)), 1):
                    self._enter(*begun.popleft(), outcome)
                    if on_video:
                        on_video()
                    if done % _VIDEOS_A_SAVE == 0:
                        self._save()
            except BaseException:
                with suppress(DynapropError):  # it would hide why the work ended
                    self._save()
                raise
            finally:
                self.transcoded += pool.transcoded_videos
        if videos or self._table.touched:
            self._save()

    def summary(self) -> TranscodingSummary:
        """What is there now, after ``to_do`` and ``run``."""
        copies = [self._table.copies[video.id] for video in self._videos]
        there = [copy for copy in copies if copy.error_kind is None]
        return TranscodingSummary(
            videos=len(copies),
            made=self._made,
            found=self._found,
            there=len(there) - self._made - self._found,
            failed={
                copy.video_id: VideoError(copy.error_kind, copy.error_detail or "")
                for copy in copies
                if copy.error_kind is not None
            },
            original_bytes=sum(copy.original.size for copy in there),
            copy_bytes=sum(copy.copy.size for copy in there),
            folder=self.folder,
        )

    def _requests(self, videos: Sequence[Video], begun: deque[tuple[Video, FileIdentity]]) -> Iterator[CopyRequest]:
        for video in videos:
            identity, stamp = self._original(video)
            begun.append((video, identity))
            yield CopyRequest(
                path=str(video.path),
                stamp=stamp,
                copy=self.folder / copy_path(video.id),
                tag=f"{self._short_side}p of {identity.content}",
                short_side=self._short_side,
            )

    def _original(self, video: Video) -> tuple[FileIdentity, Stamp]:
        """What a video is, as far as it is known by its size and times, and these; where it cannot be read, nothing."""
        known, stamp = self._table.copies.get(video.id), Source(video.path).stamp()
        if known is not None and known.original.content and known.original.is_of(stamp):
            return known.original, stamp
        identity = Source(video.path).identity()
        return identity, identity.stamp

    def _enter(self, video: Video, original: FileIdentity, outcome: CopyOutcome | VideoError) -> None:
        path = copy_path(video.id)
        if isinstance(outcome, VideoError):
            with writing(self.folder / path):
                (self.folder / path).unlink(missing_ok=True)  # of what the original once was
            self._table.put(Copy(video.id, original, path, error_kind=outcome.kind, error_detail=outcome.detail))
            return
        self._made += not outcome.found
        self._found += outcome.found
        made = outcome.transcoded
        self._table.put(
            Copy(
                video_id=video.id,
                original=original,
                path=path,
                copy=Source(self.folder / path).identity(),
                n_frames=made.n_frames,
                duration=made.duration,
                width=made.width,
                height=made.height,
                seconds=outcome.seconds,
            )
        )

    def _save(self) -> None:
        self._lock.check()
        self._table.save()
