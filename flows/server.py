"""Prefect's API server for one command, in a process that ends with the command's, however that one ends.

Prefect would start a temporary server by itself, but one that outlives a killed command, is hit by its terminal's
Ctrl-C, and takes up to five seconds to end. What runs report they have reported when they end, so this one is killed.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DynapropError


@contextmanager
def prefect_server() -> Iterator[None]:
    """Let the flows of the body use the API that Prefect's settings name, else a server of their own on loopback.

    Raises:
        DynapropError: no server answers.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_SERVER_API_AUTH_STRING,
        temporary_settings,
    )

    if url := PREFECT_API_URL.value():
        try:
            yield
        except RuntimeError as error:
            if "Failed to reach API" not in str(error):
                raise
            raise DynapropError(
                f"no Prefect server answers at {url}; start it, or unset PREFECT_API_URL to do without"
            ) from error
        return
    # Bound here: the port is known at once, is nobody else's, and requests wait until the server has started.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.server", str(listening.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=(listening.fileno(),),
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,  # Ctrl-C reaches the command alone, which still has states to report
        )
    try:
        auth = PREFECT_SERVER_API_AUTH_STRING.value()
        with temporary_settings({PREFECT_API_URL: url, **({PREFECT_API_AUTH_STRING: auth} if auth else {})}):
            yield
    except Exception as error:
        if process.poll() is None or isinstance(error, DynapropError):
            raise
        raise DynapropError(
            f"Prefect's server has ended by itself ({process.returncode}): its database may be damaged or its disk "
            f"full; look at {PREFECT_HOME.value()}, or set PREFECT_HOME to an empty folder"
        ) from error
    finally:
        process.kill()
        process.communicate()  # reaps it and closes the pipe


def main() -> None:
    """Serve on the inherited socket until stdin closes: `python -m flows.server FD`."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with_parent, daemon=True).start()

    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(create_app(ephemeral=True), log_level="critical", lifespan="on")
    uvicorn.Server(config).run(sockets=[listening])


def _end_with_parent() -> None:
    os.read(0, 1)  # unlike sys.stdin it needs no lock when the interpreter ends
    os._exit(0)


if __name__ == "__main__":
    main()
