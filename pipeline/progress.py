"""Progress: how work tells whoever asked for it how far it is, and what there is to know about it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Steps(Protocol):
    """Counts the steps of one piece of work."""

    total: int
    done: int
    began: float
    """By ``time.monotonic``."""

    def advance(self, steps: int = 1) -> None:
        """Count some steps as done; may be called from several threads."""


class Reporter(Protocol):
    """Whoever is told: a terminal, a flow run's log, or nobody."""

    def say(self, message: str) -> None:
        """One line for people."""

    def say_once(self, message: str) -> None:
        """The same, unless it has been said before."""

    def steps(self, label: str, total: int, unit: str) -> AbstractContextManager[Steps]:
        """Show the progress of ``total`` steps while the body runs."""


class _Uncounted:
    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.began = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self.done += steps


class Silence:
    """Tells nobody."""

    def say(self, message: str) -> None:
        pass

    def say_once(self, message: str) -> None:
        pass

    def steps(self, label: str, total: int, unit: str) -> AbstractContextManager[Steps]:
        return nullcontext(_Uncounted(total))


@contextmanager
def reading_again(reporter: Reporter, size: int) -> Iterator[Callable[[int], None]]:
    """Show how far the reading of files is that have other times than noted; see video/identity.py.

    Args:
        reporter: is told.
        size: of all these files, in bytes.
    """
    with reporter.steps("read files of other times", size >> 20, "MiB") as progress:
        lock, done = threading.Lock(), 0

        def count(n_bytes: int) -> None:
            nonlocal done
            with lock:
                before, done = done, done + n_bytes
                progress.advance((done >> 20) - (before >> 20))

        yield count
