"""Workers of a Dask cluster: started here, or found by their scheduler's address."""

import gc
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import Client, LocalCluster

from dynaprop.flows.cluster.connection import ANSWER, FIRST_WORKER, GOODBYE, Cluster, close, fit_workers
from dynaprop.pipeline.catalog.clusters import ClusterSpec
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.main_guard import failed_for_want_of_guard, require_main_guard


def require_cluster(spec: ClusterSpec) -> None:
    """Make sure that there can be workers, before hours of planning for them.

    Raises:
        UsageError: dask-cuda is not installed, or the address is none.
        DynapropError: no scheduler answers.
    """
    _quiet_loggers()
    if (address := spec.scheduler()) is not None:
        close(_connect(address, spec))
    elif spec.cuda:
        _cuda_cluster(spec)


@contextmanager
def open_cluster(spec: ClusterSpec, *, on_note: Callable[[str], None]) -> Iterator[Cluster]:
    """Start or find the workers that the catalog describes; what was started here ends with the body.

    Args:
        spec: any but ``inline``.
        on_note: called with a line for people.

    Raises:
        UsageError: dask-cuda is not installed, the address is none, or the script lacks its guard.
        DynapropError: no scheduler answers, or no worker comes.
    """
    _quiet_loggers()
    if (address := spec.scheduler()) is not None:
        with _connected(address, spec, on_note=on_note) as cluster:
            yield cluster
        return
    require_main_guard()
    with ExitStack() as ends:
        # An interrupt comes to the main thread alone, and waits for workers that nobody could end half started.
        with ThreadPoolExecutor(1, thread_name_prefix="cluster") as threads:
            try:
                local = threads.submit(lambda: ends.enter_context(_started(spec))).result()
            except RuntimeError as error:  # Dask's, of workers that ended at once
                raise failed_for_want_of_guard() or error from error
        with _connected(local, spec, kill=partial(_kill_workers, local), on_note=on_note) as cluster:
            yield cluster


def _quiet_loggers() -> None:
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.split(".")[0] == "distributed":  # what they log is answered here: errors are raised, workers replaced
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _connected(
    to: str | LocalCluster,
    spec: ClusterSpec,
    *,
    kill: Callable[[], None] | None = None,
    on_note: Callable[[str], None],
) -> Iterator[Cluster]:
    resources = _resources(spec)
    client = _connect(to, spec)
    try:
        workers = _wait_for_workers(client, spec.name, resources, on_note=on_note)
        yield Cluster(client, workers=workers, name=spec.name, resources=resources, kill=kill, on_note=on_note)
    finally:
        close(client)


def _connect(to: str | LocalCluster, spec: ClusterSpec) -> Client:
    try:
        return Client(to, timeout=ANSWER, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise DynapropError(
            f"cluster {spec.name!r}: no Dask scheduler answers at {to}; start one with `dask scheduler`"
        ) from error


def _wait_for_workers(
    client: Client, name: str, resources: dict[str, float], *, on_note: Callable[[str], None]
) -> dict[str, Any]:
    """Wait for the first worker that has what a task takes; all that have it, see ``fit_workers``."""
    takes = ",".join(f"{resource}={amount:g}" for resource, amount in resources.items())
    wanted = f"worker with {takes}" if takes else "worker"
    option = f' --resources "{takes}"' if takes else ""
    end = time.monotonic() + FIRST_WORKER
    told = False
    while not (workers := fit_workers(client, resources)):
        if not told:
            on_note(f"cluster {name!r}: waiting for a {wanted}: `dask worker SCHEDULER --nthreads 1{option}`")
            told = True
        if time.monotonic() > end:
            raise DynapropError(
                f"cluster {name!r}: no {wanted} has come in {FIRST_WORKER:g} s; start some with "
                f"`dask worker SCHEDULER --nthreads 1{option}`, or change the cluster in the catalog"
            )
        time.sleep(0.5)
    return workers


@contextmanager
def _started(spec: ClusterSpec) -> Iterator[LocalCluster]:
    """Workers on this machine, each with one thread, that end with the body or with this process, however it ends.

    The thread that starts them hears no Ctrl-C any more.
    """
    options: dict[str, Any] = {
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",  # with None its port is a fixed one
        "worker_dashboard_address": None,
        "resources": _resources(spec) or None,
        "silence_logs": logging.CRITICAL,
        "security": True,  # certificates of its own, in memory: who reaches a scheduler runs code
    }
    # A terminal's Ctrl-C is for the command, which ends them: they inherit from this thread that they do not hear it.
    resource_tracker.ensure_running()  # else the first process would start it, and with it hear again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with tempfile.TemporaryDirectory(prefix="dynaprop-dask-", ignore_cleanup_errors=True) as folder:
        with dask.config.set(temporary_directory=folder):
            if spec.cuda:
                local = _cuda_cluster(spec)(memory_limit=None, **options)
            else:
                local = LocalCluster(n_workers=spec.processes, memory_limit=0, **options)
        try:
            yield local
        finally:
            _kill_workers(local)
            close(local)
            gc.collect()  # semaphores of its processes


def _cuda_cluster(spec: ClusterSpec) -> Any:
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise UsageError(f"cluster {spec.name!r}: needs the package dask-cuda; run: pip install dask-cuda") from error
    return LocalCUDACluster


def _kill_workers(local: LocalCluster) -> None:
    """End workers at once: what they have published is whole, and asking them kindly takes longer than people wait."""
    nannies = list(local.workers.values())
    for nanny in nannies:
        nanny.close_gracefully()  # it does not start another worker
    end = time.monotonic() + GOODBYE
    # Until they are gone they may still make a file, and one may just be starting.
    while (pids := [pid for nanny in nannies if (pid := nanny.pid) is not None]) and time.monotonic() < end:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _resources(spec: ClusterSpec) -> dict[str, float]:
    if spec.resources is None:
        return {"GPU": 1} if spec.cuda else {}
    return dict(spec.resources)
