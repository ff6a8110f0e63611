"""`dynaprop serve`: flows run when `prefect deployment run` asks for them, and nothing is left behind."""

import os
import re
import signal
import subprocess
import sys

import httpx

from pipeline.store import FeatureStore, list_stores
from tests.conftest import REPOSITORY
from tests.test_kill import session


def test_a_flow_runs_when_it_is_asked_for(workplace, tmp_path_factory):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
    }
    command = [sys.executable, "-m", "flows.cli", "serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=workplace, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as served:
        try:
            assert served.stdout is not None
            told = ""
            while "transcode/local" not in told:
                line = served.stdout.readline()
                assert line, told
                told += line
            url = re.search(r"export PREFECT_API_URL=(http://127.0.0.1:\d+/api)", told)
            assert url is not None
            settings = httpx.get(url[1].removesuffix("api") + "ui-settings").raise_for_status().json()
            assert settings["api_url"] == url[1]  # else pages ask port 4200
            ask = [sys.executable, "-m", "prefect", "deployment", "run", "extract-features/local"]
            done = subprocess.run(
                [*ask, "-p", "dataset=tiny", "--watch"],
                cwd=tmp_path_factory.mktemp("elsewhere"),
                env={**environment, "PREFECT_API_URL": url[1]},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Completed" in done.stdout
            served.send_signal(signal.SIGINT)
            served.stdout.close()
            assert served.wait(timeout=30) == 130
            assert session(served.pid) == []
        finally:
            served.kill()
    (root,) = list_stores(workplace / "stores")
    store = FeatureStore.existing(root)
    assert len(store.manifest().current()) == 15
    assert all(len(store.ledger(key).published()) == len(store.manifest().shards()) for key in list(store.keys()))
