"""Several commands in one run folder, stopped and killed at every step: no row lost, none twice."""

import fcntl
import multiprocessing
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa
import pytest

from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.rows import ASPECTS, TABLES
from dynaprop.pipeline.io.parquet import parquet_source
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.io.sealed import read_record
from tests.heads.run_writer import SETTINGS, VIDEOS, add_results, measured, tables_of

_SPAWNER = multiprocessing.get_context("forkserver")
_SPAWNER.set_forkserver_preload(["tests.heads.run_writer", "s3fs"])
_ROWS = {"results": 1, "predictions": len(VIDEOS), "per_class": 2}
_ENDS = 60.0  # seconds
_BLOCKED = 0.7  # seconds after which a command that has not ended waits for another one

at_every = pytest.mark.parametrize(
    "stride",  # odd, as turns are taken
    [
        pytest.param(7, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param(1, marks=[pytest.mark.kill, pytest.mark.timeout(1800)]),
    ],
)


class Command:
    """One process of `add_results`, which keeps a log outside of the run."""

    def __init__(
        self, run: StoragePath, seed: int, logs: Path, *, environment: Mapping[str, str] | None = None, **steps: int
    ) -> None:
        self.log = logs / f"{run.name}-{seed}-{time.monotonic_ns()}.log"
        self.process: BaseProcess = _SPAWNER.Process(
            target=add_results, args=(str(run), seed, str(self.log), environment or {}), kwargs=steps
        )
        self.process.start()

    def wait(self, seconds: float = _ENDS) -> bool:
        """Whether it has ended."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def ends_well(self) -> None:
        assert self.wait(), "a command waits for ever"
        assert self.process.exitcode == 0

    def wait_until_stopped(self) -> bool:
        """False if it ends before."""
        begun = time.monotonic()
        while time.monotonic() - begun < _ENDS:
            if not self.process.is_alive():
                return False
            with suppress(psutil.NoSuchProcess):  # it has just ended
                if psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED:
                    return True
            time.sleep(0.005)
        raise AssertionError("neither stopped nor ended")

    def go_on(self) -> None:
        psutil.Process(self.process.pid).send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    @property
    def steps(self) -> int:
        return int(self.log.read_text(encoding="utf-8").splitlines()[0])

    @property
    def notes(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines()[1:]


@contextmanager
def command(run: Path, seed: int, **options: int) -> Iterator[Command]:
    one = Command(run, seed, run.parent, **options)
    try:
        yield one
    finally:
        one.kill()


def check(run: StoragePath, seeds: set[int]) -> None:
    """Every table holds every row of these seeds once, as anybody reads it; so does what was asked for."""
    for table in TABLES:
        if table == "frame_scores" and 0 not in seeds:
            continue  # no other seed has any
        frame = pd.read_parquet(parquet_source(run / f"{table}.parquet"))
        found = frame[frame["seed"].isin(seeds)].groupby(ASPECTS, dropna=False).size()
        wanted = seeds & {0} if table == "frame_scores" else seeds
        assert sorted(found.index.get_level_values("seed")) == sorted([*wanted] * len(SETTINGS)), table
        assert set(found) <= {_ROWS.get(table, len(VIDEOS))}, table
        if "top1" in frame:
            assert (frame["top1"].astype(int) == frame["seed"]).all()
    assert seeds <= set(read_record(run / "asked" / "sweep-test.json")["seeds"])
    assert not RunFolder(run).problems()
    assert set().union(*map(measured, seeds)) <= RunFolder(run).measured()


def steps_of_a_command(folder: Path, *, template: Path) -> int:
    """Steps of a command that comes second, undisturbed; the template is what the first one left."""
    with command(folder, 7) as first:
        first.ends_well()
    shutil.copytree(folder, template)
    with command(folder, 0) as second:
        second.ends_well()
        assert second.steps > 30  # else the steps are not counted
        return second.steps


def disturb(run: Path, step: int, *, kill: bool, template: Path) -> None:
    """One command stops at a step, another one runs; then the first goes on, or is killed."""
    shutil.copytree(template, run)
    with command(run, 0, stop_at=step) as first:
        if not first.wait_until_stopped():
            return
        with command(run, 1) as second:
            blocked = not second.wait(_BLOCKED)
            if kill:
                first.kill()
            else:
                first.go_on()
                first.ends_well()
            second.ends_well()
            assert blocked or not second.notes
    check(run, {1, 7} if kill else {0, 1, 7})
    if kill:
        with command(run, 0) as again:
            again.ends_well()
        check(run, {0, 1, 7})


@pytest.mark.parametrize("kill", [False, True], ids=["goes on", "killed"])
def test_a_command_that_stands_still_loses_nobody_anything(tmp_path, kill):
    template = tmp_path / "template"
    steps = steps_of_a_command(tmp_path / "plain", template=template)
    for step in range(5, steps + 1, steps // 4):
        disturb(tmp_path / f"run-{step}", step, kill=kill, template=template)


@at_every
@pytest.mark.parametrize("kill", [False, True], ids=["goes on", "killed"])
def test_at_every_step(tmp_path, kill, stride):
    template = tmp_path / "template"
    steps = range(1, steps_of_a_command(tmp_path / "plain", template=template) + 1, stride)
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda step: disturb(tmp_path / f"run-{step}", step, kill=kill, template=template), steps))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_commands_at_once_stopped_and_killed_anywhere(tmp_path):
    steps = steps_of_a_command(tmp_path / "plain", template=tmp_path / "template")
    rng = random.Random(5)
    for case in range(25):
        run = tmp_path / f"run-{case}"
        stop = rng.randint(1, steps)
        with (
            command(run, 0, stop_at=stop, die_at=rng.randint(stop + 1, 2 * steps)) as first,
            command(run, 1, stop_at=rng.randint(1, steps)) as second,
            command(run, 2) as third,
        ):
            third.wait(rng.random())
            for one in (first, second):
                if one.process.is_alive() and one.wait_until_stopped():
                    one.go_on()
            first.wait()
            second.ends_well()
            third.ends_well()
            check(run, {1, 2} if first.process.exitcode else {0, 1, 2})


def is_held(guard: Path) -> bool:
    with guard.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_who_waits_is_told_for_whom(tmp_path):
    """It says so after two seconds, and ends when the other one does."""
    run = tmp_path / "run"
    for step in range(steps_of_a_command(tmp_path / "plain", template=tmp_path / "template"), 0, -1):
        with command(run, 0, stop_at=step) as first:
            if not first.wait_until_stopped() or not is_held(run / ".update.guard"):
                continue
            with command(run, 1) as second:
                assert not second.wait(6)
                first.go_on()
                second.ends_well()
                (note,) = second.notes
                assert f"waiting for process {first.process.pid} on" in note and "continue or end it" in note
                return
    raise AssertionError("nobody ever has his turn")


class Held:
    """Keeps a request waiting, and lets all later ones through: who made it stands still."""

    def __init__(self, number: int, *, lose: bool) -> None:
        self.number = number
        self.lose = lose
        self.count = 0
        self.is_held = threading.Event()
        self.released = threading.Event()

    def __call__(self, _method: str, _path: str) -> str | None:
        self.count += 1
        if self.count != self.number:
            return None
        self.is_held.set()
        self.released.wait(_ENDS)
        return "refuse" if self.lose else None


def begun_in_s3(s3, logs: Path) -> dict[str, bytes]:
    """What a first command leaves in a run's folder."""
    run = s3.home / "template"
    Command(run, 7, logs, environment=s3.environment).ends_well()
    return {key.removeprefix("template/"): data for key, data in s3.objects().items() if key.startswith("template/")}


def disturb_s3(s3, logs: Path, request: int, *, kill: bool, lose: bool, template: Mapping[str, bytes]) -> bool:
    """``disturb`` in an object store, where nobody waits for anybody; False where there is no such request."""
    run = s3.home / f"run-{request}"
    for key, data in template.items():
        s3.put(f"{run.name}/{key}", data)
    start: Callable[[int], Command] = partial(Command, run, logs=logs, environment=s3.environment)
    s3.disturb = held = Held(request, lose=lose)
    first = start(0)
    while not held.is_held.wait(0.01):
        if first.wait(0):
            return False
    second = start(1)
    second.ends_well()
    if kill:
        first.kill()
    held.released.set()
    if kill:
        check(run, {1, 7})
        start(0).ends_well()
    else:
        first.ends_well()
    s3.disturb = lambda _method, _path: None
    check(run, {0, 1, 7})
    return True


@pytest.mark.parametrize("kill", [False, True], ids=["goes on", "killed"])
def test_in_an_object_store_too(s3, tmp_path, kill):
    template = begun_in_s3(s3, tmp_path)
    for request in (4, 19, 34):
        assert disturb_s3(s3, tmp_path, request, kill=kill, lose=False, template=template)


@at_every
@pytest.mark.parametrize("kill", [False, True], ids=["goes on", "killed"])
def test_at_every_request(s3, tmp_path, kill, stride):
    """A request of a killed command is carried out or not, in turns."""
    template = begun_in_s3(s3, tmp_path)
    request = 1
    while disturb_s3(s3, tmp_path, request, kill=kill, lose=kill and request % 2 == 0, template=template):
        request += stride
    assert request > 30


def test_a_lack_of_memory_is_no_damage(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.write("test-seed0", tables_of(0))

    def lacking(*_: object, **__: object) -> None:
        raise pa.lib.ArrowMemoryError("malloc of size 1 failed")

    with monkeypatch.context() as patch:
        patch.setattr("dynaprop.pipeline.io.sealed.pq.read_table", lacking)
        with pytest.raises(MemoryError):
            run.measured()
    assert run.measured() == measured(0)
