"""How many cores a process may use, and with how many others."""

import os
from collections import Counter
from collections.abc import Collection, Iterable


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
