"""Work ahead in a background thread: what is read next is made while the reader is busy."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

_WAIT = 0.2  # seconds between looks at whether anybody still reads


class _End:
    """What comes last: the error that ended the items, if one did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetched(items: Iterator[T], *, depth: int) -> Iterator[T]:
    """Yield the items in order; up to ``depth`` of them wait ready-made.

    The items are made in a thread of their own. It ends when the reader does: after the item that it is at.
    """
    ready: queue.Queue[T | _End] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: T | _End) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=_WAIT)
            except queue.Full:
                continue

    def make() -> None:
        error = None
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
        except BaseException as failure:  # the reader's to deal with
            error = failure
        put(_End(error))

    threading.Thread(target=make, name="prefetch", daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
