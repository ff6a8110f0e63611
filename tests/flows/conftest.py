"""A tiny dataset of real video files with its own catalog, and the command line in this process."""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dynaprop.flows import cli
from dynaprop.flows.terminal.environment import prepare_environment
from tests.pipeline.videos import write_video

CATALOG = """
datasets:
  tiny: {root: videos, min_clips: 10, max_clips: 20, shard_rows: 40}
backbones:
  s: {model: test_efficientnet, size: 32, weights: random}
  t: {model: test_resnet, size: 64, weights: random}
  t2: {model: test_resnet, size: 48, weights: random}
recipes:
  lite: {student: s, teacher: t, n_s: 6, n_t: 2, epochs: 3, milestones: [2], key_dim: 16}
  other: {student: s, teacher: t2, n_s: 6, n_t: 2, epochs: 3, milestones: [2], key_dim: 16}
sweeps:
  default:
    seeds: 2
    rows: [{models: [student, static-weighted, dynamic]}, {models: [teacher], frames: [[6, 2], [0, 4]]}]
  few: {rows: [{models: [student]}, {models: [teacher], frames: [[0, 4]]}]}
  ablation: {recipes: [lite, other], rows: [{models: [dynamic], fusion: [none, both]}]}
  two: {include: [few, ablation]}
"""


@pytest.fixture(scope="session")
def prefect_server():
    """One temporary server for all flows of the session."""
    prepare_environment(verbose=False)  # before Prefect is imported
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder with the tiny catalog and three classes of five videos; everything is written below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DYNAPROP_CATALOG", raising=False)
    monkeypatch.setenv("DYNAPROP_HOME", str(tmp_path))
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    for label in range(3):
        for number in range(5):
            path = tmp_path / "videos" / "abc"[label] / f"{number}.mp4"
            write_video(path, frames=16 + number, seed=10 * label + number)
    return tmp_path


@pytest.fixture
def dynaprop(workplace, monkeypatch, capsys, request) -> Command:
    """Run the command line as `main` does, in this process; as flows where the test has a Prefect server."""

    prepare_environment(verbose=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    if "prefect_server" in request.fixturenames:
        from prefect.settings import PREFECT_API_URL

        url = PREFECT_API_URL.value()
        monkeypatch.setenv("PREFECT_API_URL", url)
        monkeypatch.setattr("dynaprop.flows.server.own_server._passing", {url})  # and show as little in its UI as there

    def command(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dynaprop", *arguments])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        with pytest.raises(SystemExit) as end:
            cli.main()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        out, err = capsys.readouterr()
        return Outcome(int(end.value.code or 0), out, err)

    return command
