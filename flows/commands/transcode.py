"""`dynaprop transcode`: small copies of a dataset's videos, which decode many times faster."""

from functools import partial

from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.copies.transcoding import Transcoding, TranscodingSummary
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.printable import shell_line
from dynaprop.pipeline.progress import Reporter, reading_again
from dynaprop.pipeline.video.transcode import SHORT_SIDE
from dynaprop.pipeline.workspace import files_home, open_originals, read_videos, tell_notes


def transcode(
    target: str,
    *,
    short_side: int = SHORT_SIDE,
    workers: int | None = None,
    deadline: float = 60.0,
    catalog: str | None = None,
    wait: bool = False,
    reporter: Reporter,
) -> dict[str, int]:
    """Copy every video of a dataset once at a small size; goes on where it was interrupted.

    Args:
        target: name in the catalog, or a folder of videos.
        short_side, workers, deadline, catalog, wait: as of the flow ``transcode``.
        reporter: is told.

    Returns:
        Numbers of videos by what came of them.

    Raises:
        UsageError: no such dataset, or it stands for copies.
        DynapropError: not one video could be copied.
    """
    spec = open_originals(target, catalog)

    def read() -> Annotations:
        annotations = read_videos(spec, reporter=reporter)
        tell_notes(annotations, reporter)
        return annotations

    with Transcoding(
        dataset=spec,
        annotations=read,
        home=files_home(),
        target=target,
        short_side=short_side,
        workers=workers,
        deadline=deadline,
        wait=wait,
        on_note=reporter.say,
    ) as transcoding:
        videos = transcoding.to_do(hashing=partial(reading_again, reporter))
        with reporter.steps("transcode", len(videos), "videos") as progress:
            transcoding.run(videos, on_video=progress.advance)
        summary = transcoding.summary()
    _tell(summary, target=f"{target}:{short_side}p", reporter=reporter)
    return {"made": summary.made, "found": summary.found, "there": summary.there, "failed": len(summary.failed)}


def _tell(summary: TranscodingSummary, *, target: str, reporter: Reporter) -> None:
    """Say what was done, what failed, and what to do next.

    Args:
        summary: of the transcoding.
        target: what stands for the copies.
        reporter: is told.

    Raises:
        DynapropError: not one video could be copied.
    """
    if summary.failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.kinds.items())
        video, error = next(iter(summary.failed.items()))
        reporter.say(f"failed: {len(summary.failed):,} videos ({kinds}), {video} first: {error}")
    found = f", {summary.found:,} of an interrupted run were verified" if summary.found else ""
    reporter.say(
        f"copies: {summary.videos - len(summary.failed):,} of {summary.videos:,} videos; this run made "
        f"{summary.made:,}{found}, {summary.there:,} were there; {_size(summary.original_bytes)} of videos, "
        f"{_size(summary.copy_bytes)} of copies -> {summary.folder}"
    )
    if len(summary.failed) == summary.videos:
        raise DynapropError(f"none of the {summary.videos:,} videos could be copied; the first one's reason is above")
    reporter.say(f"next: dynaprop extract {shell_line(target)}")


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"
