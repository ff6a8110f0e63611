"""Progress on the terminal: a bar with rate and time left for what takes longer than two seconds, else one line.

Inside of flows the lines stand in the flow run's log, too; where that log is shown on the terminal, they do so once.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from dynaprop.flows.terminal.printing import console, remark
from dynaprop.pipeline.printable import printable

_Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

_said: set[str] = set()
_PATIENCE = 2.0  # seconds before a bar shows
_LINE_EVERY = 15.0  # seconds between lines where there is no terminal to draw a bar on


class Steps:
    """Counts the steps of one piece of work; ``advance`` may be called from several threads."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label = printable(label)
        self.total = total
        self.unit = unit
        self.done = 0
        self.began = time.monotonic()
        self._log = _run_log()  # here: threads that advance know of no flow run
        self._bar: Progress | None = None
        self._last_line = self.began
        self._lock = threading.Lock()

    def advance(self, steps: int = 1) -> None:
        """Count some steps as done."""
        with self._lock:
            self.done += steps
            self._show(time.monotonic())

    def _show(self, now: float) -> None:
        if now - self.began < _PATIENCE:
            return
        if console.is_terminal:
            self._draw()
        elif now - self._last_line > _LINE_EVERY:
            self._last_line = now
            left = (self.total - self.done) * (now - self.began) / max(self.done, 1)
            _tell(f"{self.label}: {self.done}/{self.total} {self.unit}, {self._rate()}, {clock(left)} left", self._log)

    def finish(self, *, completed: bool) -> None:
        """Take the bar away and say in one line what was done."""
        if self._bar is not None:
            self._bar.stop()
        if self.total and completed:
            seconds = time.monotonic() - self.began
            _tell(f"{self.label}: {self.done} {self.unit} in {clock(seconds)} ({self._rate()})", self._log)

    def _draw(self) -> None:
        if self._bar is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._bar.add_task(self.label, total=self.total, unit=self.unit, began=self.began)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=self.done)

    def _rate(self) -> str:
        return per_second(self.done, time.monotonic() - self.began, self.unit)


@contextmanager
def steps(label: str, total: int, unit: str) -> Iterator[Steps]:
    """Show the progress of ``total`` steps while the body runs."""
    counter = Steps(label, total, unit)
    try:
        yield counter
    except BaseException:
        counter.finish(completed=False)
        raise
    counter.finish(completed=True)


def say(message: str) -> None:
    """One line for the user, beside the results, which go to stdout."""
    _said.add(message)
    _tell(message, _run_log())


def say_once(message: str) -> None:
    """The same, unless this process has said so already: one command may be several flows."""
    if message not in _said:
        say(message)


class _Terminal:
    """`dynaprop.pipeline.progress.Reporter` of commands and flows."""

    say = staticmethod(say)
    say_once = staticmethod(say_once)
    steps = staticmethod(steps)


TERMINAL = _Terminal()


def _tell(message: str, log: _Log | None) -> None:
    if log is not None:
        log.info(printable(message))
    if log is None or not _is_shown(log):
        remark(message)


def _run_log() -> _Log | None:
    """The log of the flow run that this is part of; none outside of flows, where Prefect need not be loaded at all."""
    if "prefect.context" not in sys.modules:
        return None
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return None


def _is_shown(log: _Log) -> bool:
    """Whether the log's lines come to this process' terminal: in deployments, and with ``--verbose``."""
    from prefect.logging.handlers import PrefectConsoleHandler

    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, PrefectConsoleHandler)]
    return log.isEnabledFor(logging.INFO) and any(handler.level <= logging.INFO for handler in handlers)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        elapsed = time.monotonic() - task.fields["began"]
        return Text(per_second(int(task.completed), elapsed, task.fields["unit"]))


def per_second(done: int, seconds: float, unit: str) -> str:
    """A rate for people."""
    rate = done / max(seconds, 1e-9)
    return f"{rate:.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s"


def clock(seconds: float) -> str:
    """A length of time for people."""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
