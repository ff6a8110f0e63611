"""Task runs side by side in the threads of this process; the first that fails ends them all."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from typing import Any

from dynaprop.pipeline.errors import DynapropError


def run_side_by_side(
    task: Callable[..., object], jobs: Iterable[dict[str, Any]], *, workers: int, stop: Callable[[], None]
) -> None:
    """Run a task for every job; a run begins when there is a thread for it, and what has not begun never does.

    Args:
        task: takes a job's values as keyword arguments.
        jobs: one task run each.
        workers: task runs at a time.
        stop: called after a failure or an interrupt: it ends those that are running.

    Raises:
        BaseException: what the first task run raises that fails.
    """
    threads = ThreadPoolExecutor(max(1, workers))
    try:
        # In a copy of this context, so that each knows the flow run that it is a part of.
        futures = [threads.submit(copy_context().run, partial(task, **job)) for job in jobs]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        stop()
        raise
    finally:
        threads.shutdown()


def train_side_by_side(
    task: Callable[..., object],
    jobs: Sequence[dict[str, Any]],
    *,
    workers: int,
    on_frames: Callable[[int], None],
) -> None:
    """Run trainings: on matrices as small as the heads' cores do more apart than together.

    Features stay in memory once, whatever the number of cores.

    Args:
        task: takes ``on_frames``, too, and calls it with the frames newly done.
        jobs, workers: see ``run_side_by_side``; torch's threads are shared out among them.
        on_frames: called with what they call theirs with.
    """
    import torch  # takes seconds, and shards of a cluster do without

    stopped = threading.Event()

    def advance(frames: int) -> None:
        if stopped.is_set():
            raise DynapropError("stopped")
        on_frames(frames)

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // max(1, workers)))
    try:
        run_side_by_side(task, [{**job, "on_frames": advance} for job in jobs], workers=workers, stop=stopped.set)
    finally:
        torch.set_num_threads(threads)
