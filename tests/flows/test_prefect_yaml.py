"""`prefect.yaml` with Prefect's own commands: deploy, a worker in a checkout, and a run that it is asked for."""

import os
import subprocess
import sys

import pytest

from dynaprop.pipeline.store.feature_store import FeatureStore, list_stores
from tests.conftest import REPOSITORY
from tests.test_kill import session

PREFECT = (sys.executable, "-m", "prefect")
ON_GPU = ("extract-features", "train-heads", "evaluate-sweep", "reproduce", "finetune")


@pytest.fixture
def environment(prefect_server, workplace, tmp_path_factory) -> dict[str, str]:
    """A user's environment, whose server is the session's and has both pools."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.settings import PREFECT_API_URL
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        for name in ("local", "gpu"):
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    kept = {name: value for name, value in os.environ.items() if name.split("_")[0] not in ("PREFECT", "PYTHONPATH")}
    return {
        **kept,
        "PREFECT_API_URL": PREFECT_API_URL.value() or "",
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DYNAPROP_HOME": str(workplace),
        "DYNAPROP_CATALOG": str(workplace / "catalog.yaml"),
    }


def test_deploy_and_a_run_on_a_worker(environment, workplace, tmp_path_factory):
    deployed = subprocess.run(
        [*PREFECT, "--no-prompt", "deploy", "--all"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    check_deployments()
    # Asked for from anywhere; the worker's folder is a checkout, which makes its modules known.
    ask = [*PREFECT, "deployment", "run", "extract-features/local", "-p", f"dataset={workplace / 'videos'}", "--watch"]
    asked = subprocess.Popen(
        ask,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    worker = None
    try:
        assert asked.stdout is not None
        told = ""
        while "Created flow run" not in told:
            line = asked.stdout.readline()
            assert line, told
            told += line
        worker = subprocess.Popen(
            [*PREFECT, "worker", "start", "--pool", "local", "--run-once"],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        log, _ = worker.communicate(timeout=200)
        told += asked.communicate(timeout=60)[0]
        assert asked.returncode == 0, told + log
        assert "Completed" in told
        assert session(worker.pid) == []
    finally:
        for process in (asked, worker):
            if process is not None:
                process.kill()
                process.communicate()
    (root,) = list_stores(workplace / "stores")
    store = FeatureStore.existing(root)
    assert len(store.manifest().current()) == 15
    assert all(len(store.ledger(key).published()) == len(store.manifest().shards()) for key in list(store.keys()))


def check_deployments() -> None:
    """What the server was told: each flow for each pool, nothing about this machine."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        names = {flow.id: flow.name for flow in client.read_flows()}
        found = {(names[each.flow_id], each.name): each for each in client.read_deployments()}
    wanted = {(flow, pool) for flow in ON_GPU for pool in ("local", "gpu")} | {("transcode", "local")}
    assert set(found) == wanted
    for (flow, pool), deployment in found.items():
        assert deployment.work_pool_name == pool
        extracts = {"cluster": "gpus"} if flow in ("extract-features", "reproduce") else {}
        assert deployment.parameters == ({"device": "cuda", **extracts} if pool == "gpu" else {})
        assert set(deployment.parameters) <= set(deployment.parameter_openapi_schema["properties"])
        assert all("description" in each for each in deployment.parameter_openapi_schema["properties"].values()), flow
        assert deployment.job_variables["working_dir"] == "."  # else stores/ would lie in a temporary folder
        assert not deployment.pull_steps
        assert not any(str(REPOSITORY) in str(value) for _, value in deployment)
