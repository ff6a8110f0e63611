"""A disk that is full while a run's files are written: one line with path and advice, and the same command goes on."""

import errno
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from dynaprop.pipeline.io import atomic as files


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """A limit of the kernel on a file's size: longer ones end half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refused(outcome, name: str) -> None:
    """One line that names the file as its reader knows it, and says what to do."""
    lines = [line for line in outcome.err.splitlines() if "cannot be written" in line]
    assert outcome.code == 1 and len(lines) == 1 and "Traceback" not in outcome.err, outcome.err
    assert re.search(rf"{name} cannot be written: [A-Z][a-z ]+; make room, then the same command goes on", lines[0])
    assert ".partial" not in lines[0]


def leftovers(home: Path) -> list[Path]:
    return [path for path in home.rglob(".*") if path.suffix in (".partial", ".old")]


@pytest.fixture
def full_at(monkeypatch):
    """Make the disk full whenever a file of this name is about to be made durable."""

    @contextmanager
    def full(name: str) -> Iterator[None]:
        sync = files.sync

        def no_room(path):
            if Path(path).name.startswith(f".{name}.dynaprop-"):
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(path)

        with monkeypatch.context() as patch:
            patch.setattr(files, "sync", no_room)
            yield

    return full


@pytest.mark.parametrize("limit", [50, 5_000])
def test_files_that_really_end_half_way(workplace, dynaprop, limit):
    """run.json, then what was asked for, units, checkpoints and tables are cut off."""
    assert dynaprop("extract", "tiny").code == 0
    with files_of_at_most(limit):
        refused(dynaprop("train", "tiny"), r"/runs/\S+")
    assert leftovers(workplace) == []
    assert dynaprop("train", "tiny").code == 0
    (results,) = workplace.glob("runs/*/results.parquet")
    rows = pd.read_parquet(results)[["model", "n_s", "n_t"]]
    assert len(rows) == len(rows.drop_duplicates()) == 7  # all models but the shuffled one, the teacher at both numbers


def test_every_file_of_a_run(workplace, dynaprop, full_at):
    """One after the other, by each command that writes them; what was finished before is kept."""
    assert dynaprop("extract", "tiny").code == 0
    for command in (("train", "tiny"), ("sweep", "tiny", "--experiment", "few")):
        for name in ("run.json", "results.parquet", "predictions.parquet", "per_class.parquet", "frame_scores.parquet"):
            with full_at(name):
                refused(dynaprop(*command), rf"/runs/\S+/{name}")
    for name in ("dynamic-6+2.safetensors", "dynamic-6+2.json"):
        with full_at(name):
            refused(dynaprop("train", "tiny"), rf"/runs/\S+/checkpoints/\S+/{re.escape(name)}")
    assert dynaprop("train", "tiny").code == 0
    with full_at("report.html"):
        refused(dynaprop("report", "tiny"), r"/runs/\S+/report\.html")
    with files_of_at_most(10_000):
        refused(dynaprop("export", "tiny", "--output", "model"), r"model\S*")
    with full_at("line.png"):
        refused(dynaprop("predict", "tiny", "videos/a/0.mp4", "--timeline", "line.png"), r"line\.png")
    assert leftovers(workplace) == [] and not Path("model").exists()
    assert dynaprop("export", "tiny", "--output", "model").code == 0
