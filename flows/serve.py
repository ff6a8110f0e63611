"""All flows as deployments `<flow>/local`, run by this process for whoever asks the Prefect server."""

import shlex
from collections.abc import Callable
from typing import Any

from prefect import Flow, serve
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

from flows.evaluate_sweep import evaluate_sweep
from flows.extract_features import extract_features
from flows.reproduce import reproduce
from flows.train_heads import train_heads
from flows.transcode import transcode

NAME = "local"
FLOWS: tuple[Flow[..., Any], ...] = (extract_features, train_heads, evaluate_sweep, reproduce, transcode)


def deployments() -> list[RunnerDeployment]:
    """One deployment a flow, which a process loads by its module: it need not start in this folder."""
    return [flow.to_deployment(NAME, entrypoint_type=EntrypointType.MODULE_PATH) for flow in FLOWS]  # type: ignore[misc]


def serve_flows(*, limit: int, on_line: Callable[[str], None]) -> None:
    """Run what is asked for until interrupted.

    Args:
        limit: flow runs at a time; others wait.
        on_line: called with lines for people: where the UI is, and how to ask for each flow.
    """
    url = PREFECT_API_URL.value()
    on_line(f"UI: {PREFECT_UI_URL.value() or url.removesuffix('/api')}")
    on_line("in another terminal, of any folder:")
    on_line(f"  export PREFECT_API_URL={shlex.quote(url)}")
    for flow in FLOWS:
        on_line(f"  prefect deployment run {flow.name}/{NAME} -p dataset=sample --watch")
    serve(*deployments(), limit=limit, print_starting_message=False)
