"""Temporary files of killed processes go, those of live ones never: with real processes that are killed and stopped."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io import leftovers
from dynaprop.pipeline.io.atomic import published
from dynaprop.pipeline.io.leftovers import (
    DEAD_AFTER,
    as_known,
    leftovers_of,
    name_beside,
    remove_leftovers,
    temporary_file,
    temporary_folder,
)
from tests.published_json import publish_json

WRITER = """
import sys, time
from pathlib import Path
from dynaprop.pipeline.io.leftovers import temporary_file, temporary_folder
from tests.published_json import publish_json
make = {"file": temporary_file, "folder": temporary_folder}[sys.argv[1]]
with make(Path(sys.argv[2]), "results.parquet") as path:
    (path / "part" if path.is_dir() else path).write_text("half")
    print(path, flush=True)
    time.sleep(600)
"""


@contextmanager
def writer(kind: str, folder: Path) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A process in the middle of writing, and what it writes."""
    command = [sys.executable, "-c", WRITER, kind, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def age(path: Path, seconds: float) -> None:
    for one in [path, *path.rglob("*")]:
        os.utime(one, (time.time() - seconds,) * 2)


@pytest.fixture(autouse=True)
def not_swept(monkeypatch):
    monkeypatch.setattr(leftovers, "_swept", set())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_and_what_a_live_one_writes_stays(tmp_path, kind):
    with writer(kind, tmp_path) as (killed, dead), writer(kind, tmp_path) as (stopped, alive):
        os.kill(stopped.pid, signal.SIGSTOP)  # silent, for however long
        age(alive, 10 * DEAD_AFTER)
        assert remove_leftovers(tmp_path) == []
        killed.kill()
        killed.wait()
        assert remove_leftovers(tmp_path) == [dead]
        assert list(tmp_path.iterdir()) == [alive]
        assert (alive / "part" if kind == "folder" else alive).read_text() == "half"
    assert remove_leftovers(tmp_path) == [alive]


def test_the_first_file_that_a_process_publishes_in_a_folder_removes_what_others_left(tmp_path):
    with writer("file", tmp_path) as (process, dead):
        publish_json(tmp_path / "live.json", {})
        assert dead.exists()
        process.kill()
        process.wait()
    leftovers._swept.clear()
    publish_json(tmp_path / "run.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {"live.json", "run.json"}


def test_folders_below_are_looked_through_where_that_is_asked(tmp_path):
    (tmp_path / "units" / "one").mkdir(parents=True)
    with writer("file", tmp_path / "units" / "one") as (_, dead):
        pass
    assert remove_leftovers(tmp_path) == []
    assert remove_leftovers(tmp_path, below=True) == [dead]
    assert remove_leftovers(tmp_path / "absent", below=True) == []


def test_other_programs_files_and_links_stay(tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    named = ".results.parquet.dynaprop-{}-0123456789ab.partial"
    (tmp_path / named.format(leftovers._machine())).symlink_to(target)
    os.mkfifo(tmp_path / named.format("12345678"))
    for name in (".movie.mp4.abcdefgh.partial", "movie.partial", ".movie.partial", "x.dynaprop-1-2.partial"):
        (tmp_path / name).touch()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    before = set(tmp_path.iterdir())
    assert remove_leftovers(tmp_path, below=True) == []
    assert set(tmp_path.iterdir()) == before
    assert remove_leftovers(tmp_path, earlier=True) == [tmp_path / ".movie.mp4.abcdefgh.partial"]
    assert target.read_text() == "precious"


@pytest.mark.parametrize("machine", ["12345678", "00000000"])
def test_of_other_machines_only_what_is_old_is_dead(tmp_path, machine):
    path = tmp_path / f".model.dynaprop-{machine}-0123456789ab.partial"
    (path / "below").mkdir(parents=True)
    (path / "below" / "weights").touch()
    age(path, DEAD_AFTER + 60)
    (path / "below" / "weights").touch()  # it goes on
    assert remove_leftovers(tmp_path) == []
    age(path, DEAD_AFTER - 60)
    assert remove_leftovers(tmp_path) == []
    age(path, DEAD_AFTER + 60)
    assert remove_leftovers(tmp_path) == [path]
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_that_is_locked_from_another_machine_stays(tmp_path):
    path = tmp_path / ".model.dynaprop-12345678-0123456789ab.partial"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        age(path, 10 * DEAD_AFTER)
        assert remove_leftovers(tmp_path) == []
    assert remove_leftovers(tmp_path) == [path]


@pytest.mark.parametrize("make", [temporary_file, temporary_folder])
def test_where_there_are_no_locks_a_writer_says_so_in_the_name(tmp_path, monkeypatch, make):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with make(tmp_path, "model") as path:
            assert ".dynaprop-00000000-" in path.name and list(tmp_path.iterdir()) == [path]
            assert remove_leftovers(tmp_path) == []
            patch.undo()  # another mount of the same disk may have locks
            assert remove_leftovers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [temporary_file, temporary_folder])
def test_a_writer_whose_file_was_taken_for_a_leftover_makes_another(tmp_path, monkeypatch, make):
    """Between making and locking it, a sweep of another process finds it."""
    lock, taken = fcntl.flock, []

    def sweep_first(handle, how):
        if how & fcntl.LOCK_EX and len(taken) < 3:
            taken.extend(remove_leftovers(tmp_path))
        return lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    with make(tmp_path, "model") as path:
        assert len(taken) == 3 and list(tmp_path.iterdir()) == [path]


def test_names_are_whole_and_cut_where_they_are_long(tmp_path):
    long = "é" * 120 + ".mp4"  # 244 bytes
    with published(tmp_path / long) as temporary:
        temporary.write_text("whole")
        assert leftovers_of(tmp_path / long, suffix="partial") == [temporary]
    assert (tmp_path / long).read_text() == "whole"
    other = name_beside(tmp_path / "model.lite", suffix="old")
    other.mkdir()
    assert leftovers_of(tmp_path / "model", suffix="old") == []
    assert leftovers_of(tmp_path / "model.lite", suffix="old") == [other]
    assert as_known(f"{other}/student.safetensors") == f"{tmp_path}/model.lite/student.safetensors"
    assert remove_leftovers(tmp_path) == [other]
    assert (tmp_path / "model.lite").is_dir(), "nothing was in its place, so it is put back"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_what_cannot_be_published_is_named_as_the_user_knows_it(tmp_path, monkeypatch, number):
    def full(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DynapropError, match=rf"^{tmp_path}/run.json cannot be written: .*; make room, then the same"):
        publish_json(tmp_path / "run.json", {})
    assert list(tmp_path.iterdir()) == []
