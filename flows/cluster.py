"""The workers of a Dask cluster: started here or found by their scheduler's address, given tasks, ended or left alone.

A worker imports the pipeline alone. It needs no Prefect and reaches no Prefect server: the task runs stay in the flow's
process, where each waits for what it has handed out.
"""

import gc
import logging
import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import dask
from distributed import Client, KilledWorker, LocalCluster, Worker
from distributed.comm import CommClosedError

from pipeline.errors import DynapropError, InfrastructureError, UsageError
from pipeline.specs import ClusterSpec

T = TypeVar("T")

_ANSWER = 15.0  # seconds that a scheduler has to answer
_FIRST_WORKER = 300.0  # seconds that a cluster has to bring up its first worker
_GOODBYE = 2.0  # seconds to end: whoever typed Ctrl-C waits


class Cluster:
    """A connection to workers, each of which runs one task at a time.

    Args:
        client: of Dask; it has at least one worker.
        name: for messages.
        resources: what a task takes of its worker.
        own: the workers, where they were started here and are to end with the command.

    Raises:
        DynapropError: no worker has so much.
    """

    def __init__(self, client: Client, *, name: str, resources: dict[str, float], own: LocalCluster | None) -> None:
        self._client = client
        self._own = own
        self._name = name
        self._options = {"resources": resources} if resources else {}
        self._closed = False
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self.workers = len(workers)
        self.peers = max(Counter(worker["host"] for worker in workers).values())
        """Workers of the machine that has most of them."""
        for resource, amount in resources.items():
            if all(worker["resources"].get(resource, 0) < amount for worker in workers):
                raise DynapropError(
                    f"cluster {name!r}: none of its {self.workers} workers has {resource}={amount:g}; start them with "
                    f'`dask worker ... --resources "{resource}={amount:g}"`, or change resources in the catalog'
                )

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a worker and wait for what it returns; from any thread.

        A task whose worker is lost goes to another one, three times.

        Raises:
            InfrastructureError: the worker was lost each time, or the connection to it.
            DynapropError: the cluster is gone, or was closed meanwhile, or its workers lack dynaprop.
            Exception: what the function raises.
        """
        try:
            return self._client.submit(function, *arguments, pure=False, **self._options).result()
        except (KilledWorker, CommClosedError, TimeoutError) as error:
            raise InfrastructureError(f"cluster {self._name!r}: {_why(error)}") from error
        except ModuleNotFoundError as error:
            raise DynapropError(
                f"cluster {self._name!r}: a worker cannot import {error.name}; install this version of dynaprop there"
            ) from error
        except (CancelledError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and self._client.status == "running":
                raise
            reason = "was closed" if self._closed else "is gone; when it is back, the same command goes on"
            raise DynapropError(f"cluster {self._name!r} {reason}") from error

    def run_everywhere(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in each worker now, beside its tasks; who does not answer in time is left alone."""

        def ask() -> None:
            with suppress(Exception):  # of a connection that is lost
                self._client.run(function, *arguments, on_error="ignore")

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_GOODBYE)

    def stop(self, function: Callable[..., object], *arguments: Any) -> None:
        """Give up what ``run`` waits for; what no worker has begun never begins.

        Workers that were started here end; others call a function, see ``run_everywhere``.
        """
        self._closed = True
        if self._own is not None:
            _kill_workers(self._own)
        else:
            self.run_everywhere(function, *arguments)
        _close(self._client)


@contextmanager
def open_cluster(spec: ClusterSpec, *, on_note: Callable[[str], None]) -> Iterator[Cluster]:
    """Start or find the workers that the catalog describes; what was started here ends with the body.

    Args:
        spec: any but ``inline``.
        on_note: called with a line for people.

    Raises:
        UsageError: dask-cuda is not installed.
        DynapropError: no scheduler answers, or no worker comes.
    """
    # Dask logs what is answered here: lost workers are replaced, and errors are raised.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if spec.address is not None:
        with _connected(spec.address, spec, None, on_note=on_note) as cluster:
            yield cluster
        return
    with tempfile.TemporaryDirectory(prefix="dynaprop-dask-", ignore_cleanup_errors=True) as folder:
        with dask.config.set(temporary_directory=folder):
            local = _start(spec)
        try:
            with _connected(local.scheduler_address, spec, local, on_note=on_note) as cluster:
                yield cluster
        finally:
            _kill_workers(local)
            _close(local)
            del local
            gc.collect()  # semaphores of its processes


@contextmanager
def _connected(
    address: str, spec: ClusterSpec, own: LocalCluster | None, *, on_note: Callable[[str], None]
) -> Iterator[Cluster]:
    try:
        client = Client(address, timeout=_ANSWER, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise DynapropError(
            f"cluster {spec.name!r}: no Dask scheduler answers at {address}; start one with `dask scheduler`"
        ) from error
    try:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            on_note(f"cluster {spec.name!r}: waiting for its first worker")
        try:
            client.wait_for_workers(1, timeout=_FIRST_WORKER)
        except TimeoutError as error:
            raise DynapropError(
                f"cluster {spec.name!r}: no worker has come to {address} in {_FIRST_WORKER:g} s; start some with "
                f"`dask worker {address} --nthreads 1`"
            ) from error
        yield Cluster(client, name=spec.name, resources=_resources(spec), own=own)
    finally:
        _close(client)


def _start(spec: ClusterSpec) -> LocalCluster:
    """Workers on this machine, each with one thread, that end with this process, however it ends."""
    options: dict[str, Any] = {
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",  # with None its port is a fixed one
        "worker_dashboard_address": None,
        "preload": [__name__],
        "resources": _resources(spec) or None,
        "silence_logs": logging.CRITICAL,
    }
    if not spec.cuda:
        return LocalCluster(n_workers=spec.processes, memory_limit=0, **options)
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise UsageError(f"cluster {spec.name!r}: needs the package dask-cuda; run: pip install dask-cuda") from error
    return LocalCUDACluster(memory_limit=None, **options)


def _kill_workers(local: LocalCluster) -> None:
    """End workers at once: what they have published is whole, and asking them kindly takes longer than people wait."""
    for nanny in local.workers.values():
        nanny.close_gracefully()  # it does not start another worker
        with suppress(ProcessLookupError):
            if (pid := nanny.pid) is not None:
                os.kill(pid, signal.SIGKILL)


def _close(what: Client | LocalCluster) -> None:
    with suppress(TimeoutError):  # then it ends with this process
        what.close(timeout=_GOODBYE)


def _resources(spec: ClusterSpec) -> dict[str, float]:
    if spec.resources is None:
        return {"GPU": 1} if spec.cuda else {}
    return dict(spec.resources)


def _why(error: Exception) -> str:
    if isinstance(error, KilledWorker):
        return f"the worker of a task was lost {error.allowed_failures + 1} times (out of memory, or preempted?)"
    return f"a worker cannot be reached ({str(error) or type(error).__name__})"


def dask_setup(worker: Worker) -> None:
    """Called by Dask in each worker that was started here: a terminal's Ctrl-C is for the command, which ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
