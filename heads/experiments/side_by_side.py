"""Trainings side by side in the threads of this process."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.side_by_side import run_side_by_side


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
