"""A Prefect server as `dynaprop serve` starts it, in a folder of its own, and how it bears what it is given."""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import psutil

from dynaprop.flows.server.own_server import OwnServer

_EVERY = 1.0  # seconds between two looks
_PATIENCE = 30.0  # seconds without a new row after which task runs count as lost
_COMPLETED = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
_LOGGING = """
version: 1
disable_existing_loggers: false
formatters: {{plain: {{format: "%(levelname)s %(name)s %(message)s"}}}}
handlers: {{file: {{class: logging.FileHandler, filename: "{log}", formatter: plain}}}}
root: {{level: WARNING, handlers: [file]}}
"""


@dataclass(frozen=True)
class Health:
    """What was seen of a server, once a second."""

    looks: int
    refused: int
    """Requests that failed or were answered with an error."""
    health_ms: tuple[float, float]
    """Of GET /api/health, median and longest."""
    query_ms: tuple[float, float]
    """Of what the UI's first page asks for, the newest ten flow runs."""
    locked: int
    """Times that its log says "database is locked"."""
    dropped: int
    """Times that its log says a queue is full and an event dropped; each of several readers has a queue of its own."""
    errors: int
    """Errors in its log, of whatever kind."""
    mib: float
    """Its memory at the most."""
    database_mib: float
    """How much SQLite's files grew."""
    completed: int
    """Task runs that it says are completed, in the end."""
    missing: int
    """Task runs that it does not."""
    recorded_after: float
    """Seconds that the last of them came after the end of the command."""


class WatchedServer:
    """A running server and what is seen of it; made by ``watched_server``."""

    def __init__(self, server: OwnServer, home: Path) -> None:
        self.url = server.url
        self._home = home
        self._process = psutil.Process(server.process.pid)
        self._client = httpx.Client(base_url=server.url, timeout=120)
        self._health: list[float] = []
        self._query: list[float] = []
        self._refused = 0
        self._mib = 0.0
        self._done = threading.Event()
        self._client.get("/health").raise_for_status()  # it waits until the server has started
        self._empty_mib = self._database_mib()

    def watch(self) -> None:
        """Look at it once a second until ``end_watch``."""
        query = {"limit": 10, "sort": "START_TIME_DESC"}
        while not self._done.wait(_EVERY):
            self._timed(self._health, lambda: self._client.get("/health"))
            self._timed(self._query, lambda: self._client.post("/flow_runs/filter", json=query))
            self._mib = max(self._mib, self._process.memory_info().rss / 2**20)

    def end_watch(self) -> None:
        """Let ``watch`` return."""
        self._done.set()

    def completed(self) -> int:
        """Task runs that are completed."""
        answer = self._client.post("/task_runs/count", json=_COMPLETED)
        return int(answer.raise_for_status().json())

    def settle(self, tasks: int) -> Health:
        """Wait until so many task runs are recorded, or no more come.

        Args:
            tasks: as many as there were.
        """
        began = last = time.monotonic()
        completed = self.completed()
        while completed < tasks and time.monotonic() - last < _PATIENCE:
            time.sleep(0.5)
            if (now := self.completed()) > completed:
                completed, last = now, time.monotonic()
        log = (self._home / "server.log").read_text(encoding="utf-8")
        return Health(
            looks=len(self._health),
            refused=self._refused,
            health_ms=_median_and_most(self._health),
            query_ms=_median_and_most(self._query),
            locked=log.count("database is locked"),
            dropped=log.count("dropping message"),
            errors=sum(line.startswith(("ERROR ", "CRITICAL ")) for line in log.splitlines()),
            mib=self._mib,
            database_mib=self._database_mib() - self._empty_mib,
            completed=completed,
            missing=tasks - completed,
            recorded_after=last - began,
        )

    def _database_mib(self) -> float:
        return sum(path.stat().st_size for path in self._home.glob("prefect.db*")) / 2**20

    def _timed(self, times: list[float], ask: Callable[[], Any]) -> None:
        began = time.perf_counter()
        try:
            ask().raise_for_status()
        except httpx.HTTPError:
            self._refused += 1
        times.append(1e3 * (time.perf_counter() - began))


@contextmanager
def watched_server(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[WatchedServer]:
    """A server with UI and schedules, its SQLite database and its log in an empty folder.

    Args:
        home: the folder.
        settings: other environment variables of it.
    """
    logging = home / "logging.yml"
    logging.write_text(_LOGGING.format(log=home / "server.log"), encoding="utf-8")
    with patch.dict(os.environ, PREFECT_HOME=str(home), PREFECT_LOGGING_SETTINGS_PATH=str(logging), **(settings or {})):
        server = OwnServer(lasting=True)
    try:
        watched = WatchedServer(server, home)
        watching = threading.Thread(target=watched.watch, daemon=True)
        watching.start()
        try:
            yield watched
        finally:
            watched.end_watch()
            watching.join()
    finally:
        server.end()


def _median_and_most(values: list[float]) -> tuple[float, float]:
    return (round(statistics.median(values), 1), round(max(values), 1)) if values else (0.0, 0.0)
