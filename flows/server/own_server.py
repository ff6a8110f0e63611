"""Prefect's API server for `dynaprop serve`, in a process that ends with the command's, however that one ends.

Prefect would start a temporary server by itself, but one that outlives a killed command, is hit by its terminal's
Ctrl-C, and takes up to five seconds to end. What runs report they have reported when they end, so this one is killed.
"""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from dynaprop.pipeline.child_python import child_command
from dynaprop.pipeline.errors import DynapropError

_passing: set[str] = set()  # URLs of servers that end with this process's command
# Where task runs are recorded one by one, they come faster than that, and those that wait too long are forgotten.
# What is killed in the second between two recordings is lost: not for servers that end with a command.
_RECORDER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",  # seconds; Prefect rounds it down, to 0 even
}


@contextmanager
def prefect_server(*, port: int = 0, lasting: bool = False) -> Iterator[None]:
    """Let the flows of the body use the API that Prefect's settings name, else a server of their own on loopback.

    Args:
        port, lasting: of its own server, see ``OwnServer``.

    Raises:
        DynapropError: no server answers.
    """
    if url := named_server():
        _reach_loopback(url)
        try:
            yield
        except RuntimeError as error:
            if "Failed to reach API" not in str(error):
                raise
            raise no_answer(url) from error
        return
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_SERVER_API_AUTH_STRING,
        temporary_settings,
    )

    own = OwnServer(port=port, lasting=lasting)
    try:
        _reach_loopback(own.url)
        if not lasting:
            _passing.add(own.url)
        auth = PREFECT_SERVER_API_AUTH_STRING.value()
        try:
            with temporary_settings({PREFECT_API_URL: own.url, **({PREFECT_API_AUTH_STRING: auth} if auth else {})}):
                yield
        except Exception as error:
            if own.process.poll() is None or isinstance(error, DynapropError):
                raise
            raise DynapropError(
                f"Prefect's server has ended by itself ({own.process.returncode}): its database may be damaged or its "
                f"disk full; look at {PREFECT_HOME.value()}, or set PREFECT_HOME to an empty folder"
            ) from error
    finally:
        own.end()


def _reach_loopback(url: str) -> None:
    """Let no proxy stand between this machine and itself: neither here nor in the processes of flow runs."""
    host = urlsplit(url).hostname
    if host in ("127.0.0.1", "localhost", "::1"):
        for name in ("no_proxy", "NO_PROXY"):
            hosts = [one for one in os.environ.get(name, "").split(",") if one]
            os.environ[name] = ",".join(dict.fromkeys([*hosts, host]))


def named_server() -> str | None:
    """URL of the server that Prefect's settings name: the environment, or a profile (`prefect config set`)."""
    from prefect.settings import PREFECT_API_URL  # takes a second

    return PREFECT_API_URL.value()


def no_answer(url: str) -> DynapropError:
    """That nothing answers at the address that Prefect's settings name."""
    url = without_password(url)
    return DynapropError(
        f"no Prefect server answers at {url}; start it, or unset PREFECT_API_URL for one that this command starts"
    )


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"//[^/@]*@", "//", url)


def can_be_looked_at(url: str | None) -> bool:
    """Whether the server at a URL outlasts this process's command, so that somebody may look at its runs."""
    return bool(url) and url not in _passing


class OwnServer:
    """A server process on loopback that ends with this one, however this one ends.

    Args:
        port: to listen on; any free one by default.
        lasting: with UI and schedules, for more than one command.

    Raises:
        DynapropError: the port is taken.
    """

    def __init__(self, *, port: int = 0, lasting: bool = False) -> None:
        # Bound here: the port is known at once, is nobody else's, and requests wait until the server has started.
        try:
            listening = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            reason = os.strerror(error.errno or 0)  # Python's own text repeats the address
            raise DynapropError(f"port {port} of 127.0.0.1: {reason}; name another one with --port") from None
        with listening:
            self.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            self.url = f"{self.address}/api"
            self.process = subprocess.Popen(
                child_command(
                    "dynaprop.flows.server.own_server",
                    str(listening.fileno()),
                    *(["lasting"] if lasting else []),
                ),
                stdin=subprocess.PIPE,
                pass_fds=(listening.fileno(),),
                env={
                    "PREFECT_UI_API_URL": self.url,  # where pages in a browser ask; by default at port 4200
                    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # its pages ask amplitude.com, analytics or not
                    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
                    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": self.address,  # by default any page that a browser shows
                    **(_RECORDER if lasting else {}),
                    **os.environ,
                    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
                },
                process_group=0,  # Ctrl-C reaches the command alone, which still has states to report
            )

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()  # reaps it and closes the pipe


def main() -> None:
    """Serve on the inherited socket until stdin closes: `python -m dynaprop.flows.server.own_server FD [lasting]`."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with_parent, daemon=True).start()

    import uvicorn
    from prefect.server.api.server import create_app

    from dynaprop.flows.server.same_origin import of_this_machine

    origins = os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    app = of_this_machine(create_app(ephemeral="lasting" not in sys.argv, final=True), origins=origins)
    config = uvicorn.Config(app, log_level="critical", lifespan="on")
    uvicorn.Server(config).run(sockets=[listening])


def _end_with_parent() -> None:
    os.read(0, 1)  # unlike sys.stdin it needs no lock when the interpreter ends
    os._exit(0)


if __name__ == "__main__":
    main()
