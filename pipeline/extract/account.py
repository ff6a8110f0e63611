"""What people are told of an extraction: before it, odd labels; after it, what was done."""

from dynaprop.pipeline.annotations.label_notes import expected_notes
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract.changes import Changes
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.summary import ExtractionSummary
from dynaprop.pipeline.progress import Reporter


def tell_labels(extraction: Extraction, reporter: Reporter) -> None:
    """Say what looks odd about the labels, while they can still be mended."""
    dataset = extraction.dataset
    for note in expected_notes(extraction.annotations, seed=dataset.split_seed, test_fraction=dataset.test_fraction):
        reporter.say(f"note: {note}")


def tell_touched(changes: Changes, reporter: Reporter) -> None:
    """Say what came of videos that have other times than were noted of them."""
    if changes.touched:
        reporter.say(f"{len(changes.touched):,} videos have other times and the same bytes: nothing is done for them")
    if changes.in_doubt:
        reporter.say(
            f"{len(changes.in_doubt):,} videos, {changes.in_doubt[0]} first, have other times than an earlier version "
            "noted, which noted too little to tell whether they have changed: they are extracted again"
        )


def tell_summary(summary: ExtractionSummary, reporter: Reporter) -> None:
    """Say what was done, what failed and what is absent.

    Raises:
        DynapropError: not one video could be used.
    """
    for video, error in list(summary.failed.items())[:5]:
        reporter.say(f"failed: {video}: {error}")
    if len(summary.failed) > 5:
        more = len(summary.failed) - 5
        reporter.say(f"... and {more} more failed videos; their ids and reasons: {summary.store / 'manifest.parquet'}")
    if summary.partial:
        video, lack = next(iter(summary.partial.items()))
        reporter.say(
            f"partial: {len(summary.partial):,} videos are used as far as possible, {video} first: {lack.detail}"
        )
    if summary.absent:
        reporter.say(
            f"absent: {len(summary.absent):,} listed videos are not on disk, {summary.absent[0]} first; "
            f"their ids: {summary.store / 'manifest.parquet'}, error_kind absent"
        )
    reporter.say(
        f"features: {summary.usable} of {summary.videos} videos; this run decoded {summary.decoded} videos and ran "
        f"{summary.forwarded} frames through backbones -> {summary.store}"
    )
    if not summary.usable:
        raise DynapropError(f"none of the {summary.videos} videos could be used; the reasons are above")
