"""What an operator sees of an extraction in Prefect's UI: progress and failures as artifacts, and lines about videos in
the log.

All of it only where somebody can look: commands whose server ends with them do without. And nothing hangs on it: what
goes wrong here costs one line in the log.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL

from dynaprop.flows.server.own_server import can_be_looked_at
from dynaprop.flows.terminal.progress import clock, per_second
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.extract.plan import ExtractionPlan
from dynaprop.pipeline.extract.summary import ExtractionSummary
from dynaprop.pipeline.printable import printable
from dynaprop.pipeline.progress import Steps
from dynaprop.pipeline.store.manifest import ABSENT
from dynaprop.pipeline.video.container import VideoError

MOST_ROWS = 1000
"""of a table in the UI"""

MOST_LINES = 100
"""about single videos in the log of one task"""

# What Markdown takes for more than a letter: _ at the ends of a word, - and its like where they begin a list.
_SIGN = re.compile(r"[\\`*\[\]<>~&]|(?<!\w)_|_(?!\w)|^[-+#](?=[-\s]|$)")

_EVERY = 3.0  # seconds between two updates of a progress artifact, more where a hundredth of the time so far is more
_SELDOM = 60.0  # seconds, and never more than that
_PATIENCE = 10.0  # seconds for the last one


def watched() -> bool:
    """Whether somebody can look at the runs of this process in a UI."""
    return can_be_looked_at(PREFECT_API_URL.value())


def artifact_key(*parts: str) -> str:
    """A key as Prefect takes them, of names of the catalog: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def table_row(columns: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """A row of a table artifact, escaped: Prefect's UI takes a cell for Markdown, and would even load pictures.

    Its second UI does not, and shows the backslashes, which names seldom need.
    """
    cells = (_SIGN.sub(r"\\\g<0>", printable(text)) for text in texts)
    return dict(zip(columns, cells, strict=True))


@contextmanager
def harmless() -> Iterator[None]:
    """Let the body show something: no error of it ends a run."""
    try:
        yield
    except Exception as error:
        _note(error)


def _note(error: Exception) -> None:
    get_run_logger().warning(printable(f"not shown in the UI: {type(error).__name__}: {error}"))


class ExtractionProgress:
    """How far an extraction is; ``add`` may be called from several threads.

    Args:
        steps: counts its clips.
        videos: of the shards that are to be done.
        failed: videos that already the probe found to be unusable, by id.
    """

    def __init__(self, steps: Steps, *, videos: int, failed: Mapping[str, str]) -> None:
        self._steps = steps
        self._videos = videos
        self._done = 0
        self._failed = dict(failed)
        self._partial: dict[str, str] = {}
        self._state = "running"
        self._lock = threading.Lock()

    def add(self, result: ShardResult) -> None:
        """Count a finished shard."""
        with self._lock:
            self._done += result.videos
            self._failed |= {video: error.kind for video, error in result.failed.items()}
            self._partial |= {video: lack.kind for video, lack in result.partial.items()}

    def finish(self, *, completed: bool) -> None:
        """From now on no time is left."""
        self._state = "completed" if completed else "interrupted"

    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._steps.began

    def percent(self) -> float:
        """Of the clips."""
        return min(100.0, 100 * self._steps.done / self._steps.total) if self._steps.total else 100.0

    def text(self) -> str:
        """Videos, clips, rate and time left, and failures by kind so far, in Markdown."""
        done, total, seconds = self._steps.done, self._steps.total, self.seconds()
        with self._lock:
            videos = self._done
            kinds = {"failed": Counter(self._failed.values()), "partial": Counter(self._partial.values())}
        if not total:
            text = "**Nothing to do**: all features are there"
        elif self._state == "running":
            videos = max(videos, int(self._videos * done / total))  # shards are many videos, which are of many lengths
            text = f"**About {videos:,} of {self._videos:,} videos**, {done:,} of {total:,} clips, "
            text += per_second(done, seconds, "clips")
            text += f", {clock((total - done) * seconds / done)} left" if done else ""
        else:
            text = f"**{videos:,} of {self._videos:,} videos**, {done:,} of {total:,} clips in {clock(seconds)} "
            text += f"({per_second(done, seconds, 'clips')})"
            text += ", interrupted" if self._state == "interrupted" else ""
        lines = [
            f"{status}: {', '.join(f'{count:,} {kind}' for kind, count in counts.most_common())}"
            for status, counts in kinds.items()
            if counts
        ]
        return "\n\n".join([text, *lines])


@contextmanager
def progress_artifact(
    steps: Steps, plan: ExtractionPlan, sizes: Mapping[int, int], *, name: str
) -> Iterator[Callable[[ShardResult], None]]:
    """Keep an artifact up to date while the body extracts; a thread does, so that no shard waits for the server.

    Args:
        steps: counts the clips.
        plan: what is to be done.
        sizes: videos of each of its shards.
        name: of the dataset and recipe.

    Yields:
        What to call with each finished shard, from any thread.
    """
    if not watched():
        yield lambda _: None
        return
    current = plan.manifest.current()
    bad = current[current["error_kind"].notna() & (current["error_kind"] != ABSENT)]
    with harmless():
        errors = {row.video_id: VideoError(row.error_kind, row.error_detail) for row in bad.itertuples()}
        _log_videos("failed", errors, where="")
    progress = ExtractionProgress(
        steps, videos=sum(sizes.values()), failed=dict(zip(bad["video_id"], bad["error_kind"], strict=True))
    )
    ended = threading.Event()
    run = copy_context().run  # the run that the artifact belongs to
    arguments = (_publish, progress, ended, artifact_key(name, "extraction"))
    thread = threading.Thread(target=run, args=arguments, name="progress artifact", daemon=True)
    thread.start()
    completed = False
    try:
        yield progress.add
        completed = True
    finally:
        progress.finish(completed=completed)
        ended.set()
        thread.join(_PATIENCE if completed else 1.0)  # Ctrl-C has a second, too


def _publish(progress: ExtractionProgress, ended: threading.Event, key: str) -> None:
    artifact: UUID | None = None
    shown: tuple[float, str] | None = None
    over = noted = False
    while True:
        now = progress.percent(), progress.text()
        try:
            if artifact is None:
                made = create_progress_artifact(now[0], key, now[1])
                assert isinstance(made, UUID)
                artifact = made
            elif now != shown:
                update_progress_artifact(artifact, *now)
            shown = now
        except Exception as error:  # the next time may be better
            if not noted:
                _note(error)
            noted = True
        if over:
            return
        over = ended.wait(min(max(_EVERY, progress.seconds() / 100), _SELDOM))


def show_failures(summary: ExtractionSummary, *, name: str) -> None:
    """A table of the videos that failed, are partial or absent; it is made without any, too, as the last one counts."""
    if not watched():
        return
    rows = [
        (video, status, error.kind, error.detail)
        for status, errors in (("failed", summary.failed), ("partial", summary.partial))
        for video, error in errors.items()
    ]
    rows += [(video, "absent", ABSENT, "listed, but not on disk") for video in summary.absent]
    text = f"{summary.usable:,} of {summary.videos:,} videos are usable: **{len(summary.failed):,} failed**, "
    text += f"{len(summary.partial):,} partial; {len(summary.absent):,} absent"
    if len(rows) > MOST_ROWS:
        text += f"\n\nThe first {MOST_ROWS:,} of {len(rows):,} are below; `dynaprop datasets --failed` names all"
    with harmless():
        table = [table_row(("video", "status", "kind", "detail"), row) for row in rows[:MOST_ROWS]]
        create_table_artifact(table, artifact_key(name, "failures"), text)


def log_shard(result: ShardResult) -> None:
    """Write a line a failed or partial video (at most ``MOST_LINES``) and one of the shard into the task's log.

    They are logfmt, for machines: ``video="a/1.mp4" shard=12 status=failed kind=timeout detail="..."``.
    """
    if not watched():
        return
    with harmless():
        _log_videos("failed", result.failed, where=f" shard={result.shard}")
        _log_videos("partial", result.partial, where=f" shard={result.shard}")
        get_run_logger().info(
            printable(
                f"shard={result.shard} videos={result.videos} clips={result.clips} frames={result.frames} "
                f"failed={len(result.failed)} partial={len(result.partial)} seconds={result.seconds:.1f}"
            )
        )


def _log_videos(status: str, errors: Mapping[str, VideoError], *, where: str) -> None:
    log = get_run_logger()
    for video, error in list(errors.items())[:MOST_LINES]:
        what = f"status={status} kind={error.kind} detail={_quoted(error.detail[:500])}"
        log.warning(printable(f"video={_quoted(video)}{where} {what}"))
    if len(errors) > MOST_LINES:
        log.warning(printable(f"{where} status={status} omitted={len(errors) - MOST_LINES}".strip()))


def _quoted(text: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(text, ensure_ascii=False))
