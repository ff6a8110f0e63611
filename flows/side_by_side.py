"""Tasks side by side in the threads of this process: features stay in memory once, whatever the number of cores."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from prefect import Task
from prefect.task_runners import ThreadPoolTaskRunner

from pipeline.errors import DynapropError


def run_side_by_side(
    task: Task[..., Any], jobs: Sequence[dict[str, Any]], *, workers: int, on_frames: Callable[[int], None]
) -> None:
    """Run a task for every job; on matrices as small as the heads' cores do more apart than together.

    Args:
        task: takes a job's values and ``on_frames`` as keyword arguments.
        jobs: one task each.
        workers: tasks at once; torch's threads are shared out among them.
        on_frames: called with the frames newly done. After a failure or an interrupt it ends the other tasks.

    Raises:
        BaseException: what the first task raises that fails.
    """
    stopped = threading.Event()

    def advance(frames: int) -> None:
        if stopped.is_set():
            raise DynapropError("stopped")
        on_frames(frames)

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // max(1, workers)))
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=max(1, workers))
    try:
        with runner:
            try:
                for future in [runner.submit(task, {**job, "on_frames": advance}) for job in jobs]:
                    future.result()
            except BaseException:
                stopped.set()
                raise
    finally:
        torch.set_num_threads(threads)
