"""How the files on disk differ from what a store knows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.extract.changed_files import find_changed, known_videos
from dynaprop.pipeline.store.manifest import ABSENT, Manifest
from dynaprop.pipeline.video.earlier_rules import READING_RULES
from dynaprop.pipeline.video.identity import FileIdentity, Hashing


@dataclass(frozen=True)
class Changes:
    """How the files on disk differ from a manifest."""

    to_probe: tuple[Video, ...]
    """New or changed videos."""
    removed: tuple[str, ...]
    """Ids whose current row becomes a tombstone."""
    absent: tuple[Video, ...] = ()
    """Listed videos that are not on disk, as far as the manifest does not say so yet."""
    moved: tuple[Video, ...] = ()
    """The same content under another path."""
    retried: tuple[Video, ...] = ()
    """Unchanged videos that are to be probed and extracted again."""
    outdated: tuple[Video, ...] = ()
    """Unchanged videos that an earlier version read by its own rules: to be probed again, and extracted again where
    today's read other frames."""
    touched: tuple[tuple[str, FileIdentity], ...] = ()
    """Ids of videos of other times, but the same bytes, and what is to be noted of their files."""
    in_doubt: tuple[str, ...] = ()
    """Ids of some of those to probe: they may be the same, but an earlier version noted too little to tell."""

    def __bool__(self) -> bool:
        return bool(
            self.to_probe or self.removed or self.absent or self.moved or self.retried or self.outdated or self.touched
        )

    @property
    def n_probes(self) -> int:
        """Videos that have to be probed."""
        return len(self.to_probe) + len(self.retried) + len(self.outdated)

    def only(self, video_ids: Iterable[str]) -> "Changes":
        """Those of the changes that are about these videos."""
        ids = set(video_ids)

        def some(videos: tuple[Video, ...]) -> tuple[Video, ...]:
            return tuple(video for video in videos if video.id in ids)

        return Changes(
            to_probe=some(self.to_probe),
            removed=tuple(video_id for video_id in self.removed if video_id in ids),
            absent=some(self.absent),
            moved=some(self.moved),
            retried=some(self.retried),
            outdated=some(self.outdated),
            touched=tuple(one for one in self.touched if one[0] in ids),
            in_doubt=tuple(video_id for video_id in self.in_doubt if video_id in ids),
        )


def compare(
    manifest: Manifest,
    videos: Sequence[Video],
    *,
    root: Path,
    absent: Sequence[Video] = (),
    retry: Iterable[str] = (),
    hashing: Hashing | None = None,
) -> Changes:
    """Compare the videos on disk with the manifest; reads a file, and all of it, only where size or a time changed.

    Args:
        manifest: what the store knows.
        videos: what there is.
        root: folder that the manifest's paths are relative to.
        absent: what is listed besides, but not on disk.
        retry: ids to probe and extract anew although their files are the same.
        hashing: shows how far the reading is.
    """
    current = known_videos(manifest)
    found = find_changed(manifest, current, videos, hashing=hashing)
    again, below = set(retry), f"{root.as_posix()}/"
    to_probe, removed, moved, retried, outdated, listed = [], [], [], [], [], set()
    for video in videos:
        listed.add(video.id)
        row = current.get(video.id)
        if row is None:
            to_probe.append(video)
        elif video.id in found.other:
            removed.append(video.id)
            to_probe.append(video)
        else:
            if video.id in again:
                retried.append(video)
            elif row.rules < READING_RULES:
                outdated.append(video)
            if row.path != video.path.as_posix().removeprefix(below):
                moved.append(video)
    lost = []
    for video in absent:
        listed.add(video.id)
        row = current.get(video.id)
        if row is None or row.error_kind != ABSENT:
            lost.append(video)
            removed += [video.id] if row else []
    removed += [video_id for video_id in current if video_id not in listed]
    return Changes(
        to_probe=tuple(to_probe),
        removed=tuple(removed),
        absent=tuple(lost),
        moved=tuple(moved),
        retried=tuple(retried),
        outdated=tuple(outdated),
        touched=tuple(found.touched.items()),
        in_doubt=tuple(found.in_doubt),
    )
