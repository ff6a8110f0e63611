"""`dynaprop serve`: flows run when `prefect deployment run` asks for them, and nothing is left behind."""

import os
import re
import signal
import subprocess
import sys

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


def test_every_parameter_is_described_and_typed():
    """The UI's form shows what the docstrings say."""
    from flows.serve import deployments

    found = {f"{each.flow_name}/{each.name}": each for each in deployments()}
    flows = ("extract-features", "train-heads", "evaluate-sweep", "reproduce", "transcode")
    assert list(found) == [f"{name}/local" for name in flows]
    for name, deployment in found.items():
        assert deployment.description
        schema = deployment._parameter_openapi_schema
        assert schema.required == ["dataset"]
        for parameter, described in schema.properties.items():
            assert described.get("description"), (name, parameter)
            assert described.get("type") or all(one.get("type") for one in described["anyOf"]), (name, parameter)
