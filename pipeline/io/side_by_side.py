"""Reading many files at a time, as many as a place serves well."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dynaprop.pipeline.machine import usable_cores

_READERS = 16  # objects that are read side by side: they wait for the network, not for a core


Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(place: object, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Call a function that reads files of a place for every item, several at a time; results in order.

    After an error or an interrupt, what has not begun does not begin.
    """
    threads = ThreadPoolExecutor(usable_cores() if isinstance(place, Path) else _READERS)
    try:
        yield from threads.map(function, items)
    finally:
        threads.shutdown(cancel_futures=True)
