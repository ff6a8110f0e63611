"""The workers of a Dask cluster: started here or found by their scheduler's address, given tasks, ended or left alone.

A worker needs no Prefect and reaches no Prefect server: the task runs stay in the flow's process, where each waits for
what it has handed out.
"""

import gc
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, get_worker
from distributed.comm import CommClosedError
from distributed.protocol.pickle import dumps, loads  # Dask's own, on the wire
from distributed.utils import sync

from pipeline.cores import most_on_a_core
from pipeline.errors import DynapropError, InfrastructureError, UnfitWorker, UsageError
from pipeline.specs import ClusterSpec

T = TypeVar("T")

_ANSWER = 15.0  # seconds that a scheduler has to answer
_FIRST_WORKER = 300.0  # seconds that a cluster has to bring up a worker
_LOOK_EVERY = 20.0  # seconds between looks whether there still are workers
_GOODBYE = 1.5  # seconds to end: whoever typed Ctrl-C waits
_BEGUN = "dynaprop-begun"  # topic of Dask's events: one for each task that a worker begins


class Cluster:
    """A connection to workers, each of which runs one task at a time.

    Args:
        client: of Dask.
        workers: those that have just been seen to have what a task takes, one at least, as of ``fit_workers``.
        name: for messages.
        resources: what a task takes of its worker.
        own: the workers, where they were started here and are to end with the command.
        on_note: called with a line for people.
    """

    def __init__(
        self,
        client: Client,
        *,
        workers: dict[str, Any],
        name: str,
        resources: dict[str, float],
        own: LocalCluster | None,
        on_note: Callable[[str], None],
    ) -> None:
        self._client = client
        self._name = name
        self._resources = resources
        self._own = own
        self._on_note = on_note
        self._closed = False
        self._unfit: set[str] = set()
        self._noting = threading.Lock()
        self._looking = threading.Lock()
        self._seen = set(workers)
        self._looked = time.monotonic()
        self._alone_since: float | None = None
        self._begun: Counter[str] = Counter()
        client.subscribe_topic(_BEGUN, self._count_begun)
        self.workers = len(workers)
        cores = _usable_cores(client, workers)
        self.peers = most_on_a_core((worker["host"], cores.get(address)) for address, worker in workers.items())
        """Workers that share a core, of the core that has most of them."""

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a worker and wait for what it returns; from any thread.

        A task whose worker is lost goes to another one, three times. A worker that is unfit gets no other task.

        Raises:
            InfrastructureError: the connection was lost, or what the function raises of this kind.
            DynapropError: the cluster is gone, or was closed meanwhile, or no worker is left that is fit, or four were
                lost with this task.
            Exception: what else the function raises.
        """
        task = uuid.uuid4().hex
        self._begun[task] = 0
        try:
            while True:
                try:
                    worker, answer = self._answer(*self._submit(_Call(task, function, arguments)))
                except Exception as error:
                    if self._is_blameless(task, error):
                        continue
                    raise self._explained(error) from error
                if not isinstance(answer, UnfitWorker):
                    return answer
                self._leave_out(worker, answer)
                self._begun[task] = 0
        finally:
            del self._begun[task]

    def run_everywhere(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function beside the tasks of each worker that knows its module; who does not answer is left alone."""

        def ask() -> None:
            with suppress(Exception):  # of a connection that is lost
                self._client.run(
                    _call_if_loaded, function.__module__, function.__qualname__, *arguments, on_error="ignore"
                )

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

    def _leave_out(self, worker: str, answer: UnfitWorker) -> None:
        """Give no other task to a worker; raises where none is left."""
        with self._noting:
            if worker not in self._unfit:
                self._unfit.add(worker)
                self._on_note(f"cluster {self._name!r}: a worker is left out: {answer}")
        if not self._look() - self._unfit and not self._look(anew=True) - self._unfit:
            raise DynapropError(f"cluster {self._name!r}: no worker can extract this dataset; {answer}")

    def _count_begun(self, event: tuple[float, str]) -> None:
        _, task = event
        if task in self._begun:  # else it is another command's
            self._begun[task] += 1

    def _is_blameless(self, task: str, error: Exception) -> bool:
        """Whether Dask gave a task up for workers that were lost with others.

        Tasks that take a resource all wait at the workers, and Dask blames each loss on all that waited there.
        """
        return isinstance(error, KilledWorker) and not self._closed and self._begun[task] <= error.allowed_failures

    def _submit(self, call: "_Call") -> tuple[Future[Any], set[str]]:
        """Hand out a task, and name the workers that alone may have it; none where any may."""
        options: dict[str, Any] = {"resources": self._resources} if self._resources else {}
        chosen: set[str] = set()
        if self._unfit:
            chosen = self._look() - self._unfit
            options["workers"] = list(chosen)
        # The scheduler unpickles tasks, and need not have dynaprop: bytes that call the function where they are read.
        return self._client.submit(loads, dumps(call), pure=False, **options), chosen

    def _answer(self, future: Future[Any], chosen: set[str]) -> tuple[str, Any]:
        """Wait for a task for as long as there are workers for it."""
        done = threading.Event()  # Dask's own waiting with a timeout fails where both come at the same moment
        future.add_done_callback(lambda _: done.set())
        while not done.wait(_LOOK_EVERY):
            workers = self._look()
            if workers and chosen and not workers & chosen:
                raise InfrastructureError("the workers that could have had the task are gone, and others have come")
            since = self._alone_since
            if since is not None and (alone := time.monotonic() - since) > _FIRST_WORKER:
                raise DynapropError(
                    f"cluster {self._name!r}: no worker for {alone:.0f} s; "
                    "when there is one, give the same command again"
                )
        return future.result(timeout=_ANSWER)

    def _look(self, *, anew: bool = False) -> set[str]:
        """Addresses of the workers that have what a task takes.

        All who wait share a look: a scheduler that a thousand ask of a thousand workers has time for nothing else.
        """
        with self._looking:
            if anew or time.monotonic() - self._looked >= _LOOK_EVERY:
                self._seen = set(fit_workers(self._client, self._resources))
                self._looked = time.monotonic()
                if self._seen:
                    self._alone_since = None
                elif self._alone_since is None:
                    self._alone_since = self._looked
                    self._on_note(f"cluster {self._name!r}: no worker is left; waiting for one")
            return self._seen

    def _explained(self, error: Exception) -> Exception:
        """What an error of Dask means for people; any other as it is."""
        name = f"cluster {self._name!r}"
        if self._closed:
            return DynapropError(f"{name} was closed")
        if isinstance(error, KilledWorker):
            lost = error.allowed_failures + 1
            return DynapropError(f"{name}: {lost} workers were lost with the same task; is their memory too small?")
        if isinstance(error, CommClosedError | TimeoutError):
            return InfrastructureError(f"{name}: no connection ({str(error) or type(error).__name__})")
        if isinstance(error, ModuleNotFoundError):
            return DynapropError(f"{name}: a worker cannot import {error.name}; install this version of dynaprop there")
        if isinstance(error, CancelledError) or self._client.status != "running":
            return DynapropError(f"{name}: its scheduler is gone; when it is back, give the same command again")
        return error


def fit_workers(client: Client, resources: dict[str, float]) -> dict[str, Any]:
    """Workers that have what a task takes, by address."""
    assert client.scheduler is not None
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    return {
        address: worker
        for address, worker in workers.items()
        if all(worker["resources"].get(name, 0) >= amount for name, amount in resources.items())
    }


def _usable_cores(client: Client, workers: Iterable[str]) -> dict[str, set[int]]:
    """Cores that workers may use, by their addresses, of those whose system tells and who answer.

    Slurm gives each some of its own, dask-cuda those next to its GPU.
    """
    if hasattr(os, "sched_getaffinity"):
        with suppress(TimeoutError):
            ask = client._run, os.sched_getaffinity, 0  # run, with an end
            return client.sync(*ask, workers=list(workers), on_error="ignore", callback_timeout=_ANSWER)
    return {}


class _Call:
    """A call that is made where it is unpickled, with the worker's address and what an unfit one says."""

    def __init__(self, task: str, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._call = task, function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return _call, self._call


def _call(task: str, function: Callable[..., object], arguments: tuple[Any, ...]) -> tuple[str, object]:
    worker = get_worker()
    sync(worker.loop, worker.scheduler.log_event, topic=_BEGUN, msg=task)  # it is known before anything can happen
    try:
        return worker.address, function(*arguments)
    except UnfitWorker as error:
        return worker.address, error


def _call_if_loaded(module: str, name: str, *arguments: Any) -> None:
    if module in sys.modules:
        getattr(sys.modules[module], name)(*arguments)


def require_cluster(spec: ClusterSpec) -> None:
    """Make sure that there can be workers, before hours of planning for them.

    Raises:
        UsageError: dask-cuda is not installed, or the address is none.
        DynapropError: no scheduler answers.
    """
    _quiet_loggers()
    if (address := spec.scheduler()) is not None:
        _close(_connect(address, spec))
    elif spec.cuda:
        _cuda_cluster(spec)


@contextmanager
def open_cluster(spec: ClusterSpec, *, on_note: Callable[[str], None]) -> Iterator[Cluster]:
    """Start or find the workers that the catalog describes; what was started here ends with the body.

    Args:
        spec: any but ``inline``.
        on_note: called with a line for people.

    Raises:
        UsageError: dask-cuda is not installed, or the address is none.
        DynapropError: no scheduler answers, or no worker comes.
    """
    _quiet_loggers()
    if (address := spec.scheduler()) is not None:
        with _connected(address, spec, None, on_note=on_note) as cluster:
            yield cluster
        return
    with tempfile.TemporaryDirectory(prefix="dynaprop-dask-", ignore_cleanup_errors=True) as folder:
        with dask.config.set(temporary_directory=folder):
            local = _start(spec)
        try:
            with _connected(local, spec, local, on_note=on_note) as cluster:
                yield cluster
        finally:
            _kill_workers(local)
            _close(local)
            del local
            gc.collect()  # semaphores of its processes


def _quiet_loggers() -> None:
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.split(".")[0] == "distributed":  # what they log is answered here: errors are raised, workers replaced
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _connected(
    to: str | LocalCluster, spec: ClusterSpec, own: LocalCluster | None, *, on_note: Callable[[str], None]
) -> Iterator[Cluster]:
    resources = _resources(spec)
    client = _connect(to, spec)
    try:
        workers = _wait_for_workers(client, spec.name, resources, on_note=on_note)
        yield Cluster(client, workers=workers, name=spec.name, resources=resources, own=own, on_note=on_note)
    finally:
        _close(client)


def _connect(to: str | LocalCluster, spec: ClusterSpec) -> Client:
    try:
        return Client(to, timeout=_ANSWER, set_as_default=False)
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
    end = time.monotonic() + _FIRST_WORKER
    told = False
    while not (workers := fit_workers(client, resources)):
        if not told:
            on_note(f"cluster {name!r}: waiting for a {wanted}: `dask worker SCHEDULER --nthreads 1{option}`")
            told = True
        if time.monotonic() > end:
            raise DynapropError(
                f"cluster {name!r}: no {wanted} has come in {_FIRST_WORKER:g} s; start some with "
                f"`dask worker SCHEDULER --nthreads 1{option}`, or change the cluster in the catalog"
            )
        time.sleep(0.5)
    return workers


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
        "security": True,  # certificates of its own, in memory: who reaches a scheduler runs code
    }
    if not spec.cuda:
        return LocalCluster(n_workers=spec.processes, memory_limit=0, **options)
    return _cuda_cluster(spec)(memory_limit=None, **options)


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
    end = time.monotonic() + _GOODBYE
    # Until they are gone they may still make a file, and one may just be starting.
    while (pids := [pid for nanny in nannies if (pid := nanny.pid) is not None]) and time.monotonic() < end:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _close(what: Client | LocalCluster) -> None:
    with suppress(TimeoutError):  # then it ends with this process
        what.close(timeout=_GOODBYE)


def _resources(spec: ClusterSpec) -> dict[str, float]:
    if spec.resources is None:
        return {"GPU": 1} if spec.cuda else {}
    return dict(spec.resources)


def dask_setup(worker: Worker) -> None:
    """Called by Dask in each worker that was started here: a terminal's Ctrl-C is for the command, which ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
