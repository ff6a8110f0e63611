"""Python's audit events while a test runs: every file that any thread or library opens, renames or deletes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Listener = Callable[[str, tuple[Any, ...]], None]

_listeners: list[Listener] = []  # the newest one listens
_installed = False


@contextmanager
def audited(listener: Listener) -> Iterator[None]:
    """Call the listener before each event; what it raises is raised by whoever caused the event."""
    global _installed
    if not _installed:
        sys.addaudithook(_hook)  # for good: a hook cannot be removed
        _installed = True
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def unheard() -> Iterator[None]:
    """Whatever the listener itself does."""
    kept = _listeners[:]
    _listeners.clear()
    try:
        yield
    finally:
        _listeners.extend(kept)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _listeners:
        _listeners[-1](event, arguments)
