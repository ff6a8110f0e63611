"""What the machine offers: cores that a process may use, and the device that torch computes on."""

import os
from collections import Counter
from collections.abc import Collection, Iterable

from dynaprop.pipeline.errors import UsageError


def usable_cores() -> int:
    """Cores that the process may run on; all of the machine where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_on_a_core(processes: Iterable[tuple[str, Collection[int] | None]]) -> int:
    """The most processes that share a core; if each takes that part of its cores, none has to take turns.

    Args:
        processes: machine and usable cores of each, of the cores None where nobody tells: they may be any.
    """
    found = Counter((machine, core) for machine, cores in processes for core in cores or (None,))
    return max((n + (core is not None) * found[machine, None] for (machine, core), n in found.items()), default=1)


def is_first() -> bool:
    """Whether this is the only process, or the first of those that `torchrun` has started: it alone says things."""
    return os.environ.get("RANK", "0") == "0"


def resolve_device(device: str) -> str:
    """Turn ``auto`` into ``cuda`` where there is a GPU, else ``cpu``, and check any other name.

    Raises:
        UsageError: torch has no such device here.
    """
    if device == "cpu":
        return device
    import torch  # takes seconds

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.is_available():
        return device  # nothing is tried on it: processes that torchrun has started get a GPU each, later
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("it computes nothing")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition("Expected one of")[0] or "torch knows no such device"
        raise UsageError(f"device {device!r} cannot be used here ({reason}); known: auto, cpu, cuda, cuda:N") from None
    return device
