"""Task runs side by side in the threads of this process; the first that fails ends them all."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from typing import Any


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
