"""Commands without a Prefect server: nothing of it is imported or asked for, and what comes out is the same."""

import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from dynaprop.flows.server.named import names_server
from tests.conftest import REPOSITORY

# Whether a command has imported what it does not need, or opened a socket: told at its end.
WATCHED = """
import os, runpy, sys
asked = []
sys.addaudithook(lambda event, arguments: asked.append(event) if event in ("socket.connect", "socket.bind") else None)
sys.argv = ["dynaprop", *sys.argv[1:]]
try:
    runpy.run_module("dynaprop.flows.cli", run_name="__main__", alter_sys=True)
finally:
    print(sorted({"prefect", "distributed", "dask", "fastapi", "sqlalchemy"} & set(sys.modules)), asked)
"""


def environment(workplace: Path, **others: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    own = {"PYTHONPATH": str(REPOSITORY), "DYNAPROP_HOME": str(workplace), "PREFECT_HOME": str(workplace / "prefect")}
    return {**kept, **own, **others}


def run(workplace: Path, *command: str, **others: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dynaprop.flows.cli", *command],
        cwd=workplace,
        env=environment(workplace, **others),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_no_import_and_no_socket(workplace):
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "run", "tiny", "--experiment", "few"],
        cwd=workplace,
        env=environment(workplace),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] []"
    assert not (workplace / "prefect").exists()  # nor a database


@pytest.mark.parametrize(
    "surroundings",
    [
        {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"},
        {"PREFECT_SERVER_API_BASE_PATH": "/other"},
        {"PREFECT_HOME": "/proc/nowhere"},
    ],
    ids=["proxies", "base path", "no home of Prefect's"],
)
def test_what_surrounds_it_is_of_no_concern(workplace, surroundings):
    done = run(workplace, "extract", "tiny", **surroundings)
    assert done.returncode == 0, done.stderr
    assert "features: 15 of 15 videos" in done.stderr


def test_three_first_commands_at_once(workplace):
    """Of three datasets, in a home where nothing has been before."""
    for number in range(3):
        shutil.copytree(workplace / "videos", workplace / f"d{number}")
    with ThreadPoolExecutor(3) as together:
        done = list(together.map(lambda number: run(workplace, "extract", f"d{number}"), range(3)))
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]


def test_closed_stdin(workplace):
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m dynaprop.flows.cli extract tiny <&-', sys.executable],
        cwd=workplace,
        env=environment(workplace),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_limit_of_file_sizes_is_said_as_such(workplace):
    """A shard of features does not fit into 4 kB."""
    done = subprocess.run(
        [sys.executable, "-m", "dynaprop.flows.cli", "extract", "tiny"],
        cwd=workplace,
        env=environment(workplace),
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 1
    assert re.search(r"^error: .*(File too large|disk is full)", done.stderr.splitlines()[-1], re.IGNORECASE), (
        done.stderr
    )


def test_a_verbose_command_ends_when_it_is_done(workplace):
    assert run(workplace, "extract", "tiny").returncode == 0
    done = run(workplace, "extract", "tiny", "-v")
    assert done.returncode == 0 and "features: 15 of 15 videos" in done.stderr


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Path:
    """An empty folder that is Prefect's home and the current one; no setting in the environment."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("profiles.toml", 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'),
        (".env", "PREFECT_API_URL=http://127.0.0.1:9/api\n"),
        ("prefect.toml", '[api]\nurl = "http://127.0.0.1:9/api"\n'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://127.0.0.1:9/api"\n'),
    ],
)
def test_a_server_is_found_wherever_prefect_finds_it(settings, file, text):
    (settings / file).write_text(text)
    code = "from dynaprop.flows.server.named import names_server; print(names_server())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(settings, PREFECT_HOME=str(settings)),
        capture_output=True,
        text=True,
        cwd=settings,
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("profiles.toml", 'active = "a"\n[profiles.a]\nPREFECT_LOGGING_LEVEL = "INFO"\n'),
        ("profiles.toml", '[profiles.a]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'),
        ("pyproject.toml", '[project]\nname = "api"\n'),
    ],
)
def test_no_server_is_found_where_none_is_named(settings, file, text):
    (settings / file).write_text(text)
    assert not names_server()


def outcome(home: Path) -> dict[str, object]:
    """Digests of the store's chunks, and the rows of all tables."""
    chunks = {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((home / "stores").rglob("features.zarr/**/*"))
        if path.is_file()
    }
    (run,) = {path.parent for path in (home / "runs").glob("*/results.parquet")}
    tables: dict[str, object] = {}
    for name in ("results", "predictions", "per_class", "frame_scores"):
        table = pd.read_parquet(run / f"{name}.parquet")
        table = table.drop(columns=[column for column in table if "seconds" in column or "time" in column])
        tables[name] = table.to_csv(index=False)
    return {"chunks": chunks, "run": run.name, **tables}


def go_the_way(dynaprop, home: Path, monkeypatch) -> dict[str, object]:
    monkeypatch.setenv("DYNAPROP_HOME", str(home))
    for command in ("extract", "train", "sweep", "report"):
        done = dynaprop(command, "tiny")
        assert done.code == 0, done.err
    return outcome(home)


def test_both_ways_come_to_the_same(request, dynaprop, workplace, monkeypatch):
    plain = go_the_way(dynaprop, workplace / "plain", monkeypatch)
    request.getfixturevalue("prefect_server")
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    flows = go_the_way(dynaprop, workplace / "flows", monkeypatch)
    assert len(plain["chunks"]) > 3
    assert flows == plain
    from prefect import get_client

    with get_client(sync_client=True) as client:
        names = {flow.name for flow in client.read_flows()}
    assert names >= {"extract-features", "train-heads", "evaluate-sweep"}
