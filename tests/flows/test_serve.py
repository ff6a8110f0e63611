"""`dynaprop serve`: flows run when `prefect deployment run` asks for them, and nothing is left behind."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dynaprop.pipeline.io.local_lock import lock_record
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.store.feature_store import FeatureStore, list_stores
from tests.conftest import REPOSITORY
from tests.test_kill import session

PREFECT = (sys.executable, "-m", "prefect")


@dataclass
class Served:
    """`dynaprop serve` on a free port, with everything of its own."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    told: str = ""
    url: str = ""

    def wait_for(self, words: str) -> None:
        """Read on until a line has these words."""
        assert self.process.stdout is not None
        line = ""
        while words not in line:
            line = self.process.stdout.readline()
            assert line, self.told
            self.told += line

    def call(self, route: str, body: dict[str, object] | None = None) -> Any:
        """The server's API: POST with a body, else GET."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{route}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def start_waiting(self) -> None:
        """Have a flow run that runs until it is interrupted, as its store is in use."""
        deployment = self.call("deployments/name/extract-features/local")["id"]
        self.call(f"deployments/{deployment}/create_flow_run", {"parameters": {"dataset": "tiny", "wait": True}})
        self.wait_for("waiting for ")


@contextmanager
def serving(environment: dict[str, str], folder: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "dynaprop.flows.cli", "serve", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        served = Served(process, environment)
        try:
            served.wait_for("transcode/local")
            url = re.search(r"export PREFECT_API_URL=(http://127.0.0.1:\d+/api)", served.told)
            assert url is not None
            served.url = url[1]
            yield served
        finally:
            process.kill()
            for pid in session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def environment(tmp_path_factory) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "TMPDIR": str(tmp_path_factory.mktemp("temporary")),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("torch")),  # its own, for all programs
    }


def test_a_flow_runs_when_it_is_asked_for_and_all_ends_with_one_control_c(workplace, environment, tmp_path_factory):
    with serving(environment, workplace) as served:
        settings = httpx.get(served.url.removesuffix("api") + "ui-settings").raise_for_status().json()
        assert settings["api_url"] == served.url  # else pages ask port 4200
        for origin, allowed in (("http://elsewhere.example", None), (served.url.removesuffix("/api"),) * 2):
            answer = httpx.get(f"{served.url}/health", headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed, "pages of others may not ask"
        check_strangers_are_refused(served.url)
        done = subprocess.run(
            [
                sys.executable,
                *["-m", "prefect", "deployment", "run", "extract-features/local", "-p", "dataset=tiny", "--watch"],
            ],
            cwd=tmp_path_factory.mktemp("elsewhere"),
            env={**environment, "PREFECT_API_URL": served.url},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Completed" in done.stdout
        (root,) = list_stores(workplace / "stores")
        store = FeatureStore.existing(root)
        assert len(store.manifest().current()) == 15
        assert all(len(store.ledger(key).published()) == len(store.manifest().shards()) for key in list(store.keys()))
        served.wait_for("features: ")
        with StoreLock(lock_record(root), name="the test"):
            served.start_waiting()
            logged = [entry["message"] for entry in served.call("logs/filter", {})]
            for start in ("probe: 15 videos in ", "extract: 150 clips in ", "features: 15 of 15 videos"):
                assert sum(message.startswith(start) for message in logged) == 1
                assert served.told.count(start) == 1
            assert len(session(served.process.pid)) == 4
            served.process.send_signal(signal.SIGINT)
            assert served.process.wait(timeout=60) == 130
            assert session(served.process.pid) == []
        assert served.process.stdout is not None
        rest = served.process.stdout.read()
        assert rest.splitlines()[-1].startswith("no longer serving; ")
        assert "Traceback" not in rest
    assert list(Path(environment["TMPDIR"]).rglob("*")) == []
    with closing(sqlite3.connect(Path(environment["PREFECT_HOME"]) / "prefect.db")) as database:
        states = database.execute("SELECT state_name FROM flow_run ORDER BY created").fetchall()
    assert states == [("Completed",), ("Cancelled",)]


def check_strangers_are_refused(url: str) -> None:
    """What a browser sends for a page of another site without asking first; who changes a deployment runs commands."""
    stranger = "http://stranger.example"
    for headers, status in (
        ({"Origin": stranger}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "stranger.example"}, 400),
    ):
        answer = httpx.post(f"{url}/deployments/bulk_delete", content="{}", headers=headers)
        assert answer.status_code == status, answer.text
    events = f"ws{url.removeprefix('http')}/events/out"
    with pytest.raises(InvalidStatus):
        connect(events, origin=stranger, subprotocols=["prefect"])
    with connect(events, origin=url.removesuffix("/api"), subprotocols=["prefect"]):
        pass
    assert len(httpx.post(f"{url}/deployments/filter", json={}).json()) == 6, "none is gone"


@pytest.mark.slow
def test_nothing_outlives_a_killed_serve_and_schedules_go_on_with_the_next(workplace, environment):
    with serving(environment, workplace) as served:
        served.process.terminate()
        assert served.process.wait(timeout=60) == 143
    with serving(environment, workplace) as served:
        assert [each["paused"] for each in served.call("deployments/filter", {})] == [False] * 6
        root = workplace / "stores" / "tiny" / "clips-1s-min10-max20"
        root.mkdir(parents=True)
        with StoreLock(lock_record(root), name="the test"):
            served.start_waiting()
            served.process.kill()
            end = time.monotonic() + 60
            while session(served.process.pid):
                assert time.monotonic() < end, "something outlives a killed `dynaprop serve`"
                time.sleep(0.1)


def test_a_taken_port_is_one_clear_line(environment, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "dynaprop.flows.cli", "serve", "--port", str(port)]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == f"error: port {port} of 127.0.0.1: Address already in use; name another one with --port\n"


def test_a_server_that_does_not_answer_is_one_clear_line(environment, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    command = [sys.executable, "-m", "dynaprop.flows.cli", "serve"]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env={**environment, "PREFECT_API_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: no Prefect server answers at {url}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("by", ["environment", "profile"])
def test_a_port_for_somebody_elses_server_is_refused(environment, tmp_path, by):
    url = "http://somebody:s3cret@127.0.0.1:4200/api"
    if by == "profile":  # as `prefect config set` writes it
        (Path(environment["PREFECT_HOME"]) / "profiles.toml").write_text(
            f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{url}"\n'
        )
    command = [sys.executable, "-m", "dynaprop.flows.cli", "serve", "--port", "4300"]
    named = environment | ({"PREFECT_API_URL": url} if by == "environment" else {})
    ended = subprocess.run(command, cwd=tmp_path, env=named, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: --port 4300 ") and ended.stderr.count("\n") == 1
    assert "s3cret" not in ended.stderr


def test_the_server_of_a_profile_is_used(environment, tmp_path):
    """And no other one is started at its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    (Path(environment["PREFECT_HOME"]) / "profiles.toml").write_text(
        f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{url}"\n'
    )
    command = [sys.executable, "-m", "dynaprop.flows.cli", "serve"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith(f"error: no Prefect server answers at {url}")


def test_every_parameter_is_described_and_typed():
    """The UI's form shows what the docstrings say."""
    from dynaprop.flows.serve import deployments

    found = {f"{each.flow_name}/{each.name}": each for each in deployments()}
    flows = ("extract-features", "train-heads", "evaluate-sweep", "reproduce", "finetune", "transcode")
    assert list(found) == [f"{name}/local" for name in flows]
    for name, deployment in found.items():
        assert deployment.description
        schema = deployment._parameter_openapi_schema
        assert schema.required == ["dataset"]
        for parameter, described in schema.properties.items():
            assert described.get("description"), (name, parameter)
            assert described.get("type") or all(one.get("type") for one in described["anyOf"]), (name, parameter)
