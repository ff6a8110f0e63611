"""A Dask cluster: its workers are given tasks, and the loss of some costs no more than what they were at.

A worker needs no Prefect and reaches no Prefect server: the task runs stay in the flow's process, where each waits for
what it has handed out.
"""

import os
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker, LocalCluster, get_worker
from distributed.comm import CommClosedError
from distributed.protocol.pickle import dumps, loads  # Dask's own, on the wire
from distributed.utils import sync

from dynaprop.pipeline.errors import DynapropError, InfrastructureError, UnfitWorker
from dynaprop.pipeline.machine import most_on_a_core

T = TypeVar("T")

ANSWER = 15.0
"""Seconds that a scheduler has to answer."""
FIRST_WORKER = 300.0
"""Seconds that a cluster has to bring up a worker."""
GOODBYE = 1.5
"""Seconds to end: whoever typed Ctrl-C waits."""

_LOOK_EVERY = 20.0  # seconds between looks whether there still are workers
_BEGUN = "dynaprop-begun"  # topic of Dask's events: one for each task that a worker begins


class Cluster:
    """A connection to workers, each of which runs one task at a time.

    Args:
        client: of Dask.
        workers: those that have just been seen to have what a task takes, one at least, as of ``fit_workers``.
        name: for messages.
        resources: what a task takes of its worker.
        kill: ends the workers at once, where they were started here; others are let go.
        on_note: called with a line for people.
    """

    def __init__(
        self,
        client: Client,
        *,
        workers: dict[str, Any],
        name: str,
        resources: dict[str, float],
        kill: Callable[[], None] | None,
        on_note: Callable[[str], None],
    ) -> None:
        self._client = client
        self._name = name
        self._resources = resources
        self._kill = kill
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
        asking.join(GOODBYE)

    def stop(self, function: Callable[..., object], *arguments: Any) -> None:
        """Give up what ``run`` waits for; what no worker has begun never begins.

        Workers that were started here end; others call a function, see ``run_everywhere``.
        """
        self._closed = True
        if self._kill is not None:
            self._kill()
        else:
            self.run_everywhere(function, *arguments)
        close(self._client)

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
            if since is not None and (alone := time.monotonic() - since) > FIRST_WORKER:
                raise DynapropError(
                    f"cluster {self._name!r}: no worker for {alone:.0f} s; "
                    "when there is one, give the same command again"
                )
        return future.result(timeout=ANSWER)

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


def close(what: Client | LocalCluster) -> None:
    """Disconnect, or end a scheduler; nobody waits long for it."""
    with suppress(TimeoutError):  # then it ends with this process
        what.close(timeout=GOODBYE)


def _usable_cores(client: Client, workers: Iterable[str]) -> dict[str, set[int]]:
    """Cores that workers may use, by their addresses, of those whose system tells and who answer.

    Slurm gives each some of its own, dask-cuda those next to its GPU.
    """
    if hasattr(os, "sched_getaffinity"):
        with suppress(TimeoutError):
            ask = client._run, os.sched_getaffinity, 0  # run, with an end
            return client.sync(*ask, workers=list(workers), on_error="ignore", callback_timeout=ANSWER)
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
