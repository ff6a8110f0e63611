"""All flows as deployments `<flow>/local`, run beside this process for whoever asks the Prefect server.

What asks the server and starts the flow runs is a process group of its own. It ends when its stdin closes, that is with
`dynaprop serve`, however that one ends: Ctrl-C in a terminal reaches the command alone, and a flow run that does not
end in time when it is asked to is killed.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynaprop.pipeline.child_python import child_command

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner import Runner

NAME = "local"
_PATIENCE = 10.0  # seconds for flow runs to tidy up; Prefect looks every third one whether they have ended


def flows() -> "list[Flow[..., Any]]":
    """All flows, in the order in which one needs them."""
    from dynaprop.flows.evaluate_sweep import evaluate_sweep
    from dynaprop.flows.extract_features import extract_features
    from dynaprop.flows.finetune import finetune
    from dynaprop.flows.reproduce import reproduce
    from dynaprop.flows.train_heads import train_heads
    from dynaprop.flows.transcode import transcode

    return [extract_features, train_heads, evaluate_sweep, reproduce, finetune, transcode]


def deployments() -> "list[RunnerDeployment]":
    """One deployment a flow, which a process loads by its module: it need not start in this folder."""
    from prefect.deployments.runner import EntrypointType

    # Prefect pauses schedules when serving ends; the next time they go on.
    return [
        flow.to_deployment(NAME, entrypoint_type=EntrypointType.MODULE_PATH, paused=False)  # type: ignore[misc]
        for flow in flows()
    ]


def serve_flows(*, limit: int) -> int:
    """Run what is asked for until interrupted.

    Args:
        limit: flow runs at a time; others wait.

    Returns:
        The exit code of the process that served, which has ended by itself and said why.
    """
    from prefect.settings import get_current_settings

    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    process = subprocess.Popen(
        child_command("dynaprop.flows.serve", str(limit)),
        stdin=subprocess.PIPE,
        env={**os.environ, **settings},
        process_group=0,
    )
    try:
        return process.wait()
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE + 1)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with suppress(OSError):  # it is somebody else's, too
            (Path(tempfile.gettempdir()) / "runner_storage").rmdir()


def main() -> None:
    """Serve until stdin closes: `python -m dynaprop.flows.serve LIMIT`."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()

    from prefect.client.orchestration import get_client
    from prefect.runner import Runner
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

    from dynaprop.flows.server.own_server import no_answer, without_password
    from dynaprop.flows.terminal.printing import answer, complain, make_harmless
    from dynaprop.flows.terminal.remedies import as_shown
    from dynaprop.pipeline.printable import shell_line

    make_harmless()

    url = PREFECT_API_URL.value()
    with get_client(sync_client=True) as client:
        if client.api_healthcheck() is not None:
            error = no_answer(url)
            complain(as_shown(error))
            sys.exit(error.exit_code)
    runner = Runner(limit=int(sys.argv[1]))
    for deployment in deployments():
        runner.add_deployment(deployment)
    url = without_password(url)
    answer(
        f"UI: {PREFECT_UI_URL.value() or url.removesuffix('/api')}",
        "in another terminal, of any folder:",
        f"  export PREFECT_API_URL={shell_line(url)}",
    )
    for flow in flows():
        answer(f"  prefect deployment run {flow.name}/{NAME} -p dataset=sample --watch")
    logging.getLogger("prefect.runner").setLevel(logging.WARNING)  # flow runs speak for themselves
    asyncio.run(_serve(runner))
    os._exit(0)  # Python's own end takes seconds with torch loaded


async def _serve(runner: "Runner") -> None:
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        if not runner.started:
            os._exit(0)
        if not stopping:
            stopping.append(loop.create_task(runner.astop()))

    # After the handler of Runner.start, which blocks the loop that is to notice the end of flow runs.
    loop.call_soon(loop.add_signal_handler, signal.SIGTERM, stop)
    await runner.start()


def _end_with_parent(parent: int) -> None:
    os.read(0, 1)
    time.sleep(0.5)  # a killed process closes its pipes first
    if os.getppid() == parent:
        os.kill(os.getpid(), signal.SIGTERM)
    else:  # nobody waits, and the server, which Prefect would first ask about its runs, may have ended as well
        os.killpg(0, signal.SIGTERM)
    time.sleep(_PATIENCE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
