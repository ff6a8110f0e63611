"""What a measurement was taken on, how long a step takes, and how much memory."""

import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psutil

from dynaprop.pipeline.machine import usable_cores


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, GPU, versions and the date."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    return {
        "date": datetime.date.today().isoformat(),
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "openvino": version("openvino") if find_spec("openvino") else None,
    }


def seconds_of(step: Callable[[], object]) -> float:
    """Wall time of a step."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def median_seconds(steps: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Median wall time of each step; they take turns, so that a noisy machine disturbs all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repetitions):
        for name, step in steps.items():
            times[name].append(seconds_of(step))
    return {name: statistics.median(values) for name, values in times.items()}


def run_module(module: str, *arguments: str, **environment: str) -> None:
    """Run `python -m MODULE` with its output thrown away, and insist on success."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


class PeakMemory:
    """Peak memory (proportional set size) of all child processes together while the body runs."""

    def __init__(self) -> None:
        self.mebibytes = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        done = False
        while not done:  # once at the end at least
            done = self._done.wait(0.5)
            total = 0
            for process in me.children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:  # it has ended meanwhile
                    continue
            self.mebibytes = max(self.mebibytes, total / 2**20)
