"""Ctrl-C and its relatives: one of them ends a command within seconds, tidied up; more of them change nothing."""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 6.0  # seconds for tidying up, which takes about one; children need one more to notice that they are alone
_IMPORTING = 10.0  # seconds for an import to end

_received: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put is safe in a signal handler
_first: list[int] = []
_raised = threading.Event()
_message: list[str] = []
_terminals: list[int] = []
_ending = threading.Lock()
_listening = threading.Event()


@contextmanager
def interruptible(message: str, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Let the first signal raise KeyboardInterrupt in the body, and end the process after it.

    The exit code is a shell's for the signal: 130 (SIGINT), 143 (SIGTERM) or 129 (SIGHUP). It comes when the body has
    tidied up, or after some seconds anyway: children notice by themselves that their parent is gone. After the body
    signals are ignored. An import comes to its end first.

    Args:
        message: said at the end, if a signal came.
        patience: seconds for tidying up.
    """
    _message[:] = [message]
    threading.Thread(
        target=_end_in_time, args=(threading.get_ident(), patience), name="interrupts", daemon=True
    ).start()
    _listening.set()
    keep_listening()
    _terminals[:] = filter(os.isatty, (1, 2))
    try:
        yield
    finally:
        if _first:
            _end(_first[0])
        _listening.clear()
        _received.put(0)  # the thread's sign to end
        for number in _SIGNALS:  # all is done, and Python takes a second or two to end
            signal.signal(number, signal.SIG_IGN)


def keep_listening() -> None:
    """Take the signals back from Prefect, whose flows put a handler of their own: SIGTERM interrupts it each time anew.

    Does nothing where the body of ``interruptible`` does not run: a Prefect worker ends its flows itself.
    """
    if not _listening.is_set() or threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        # nohup means that the end of the terminal is not the command's.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def interrupted() -> bool:
    """Whether a signal has come, or is about to: on a closed terminal writing may fail before SIGHUP comes."""
    if not all(map(os.isatty, _terminals)):
        _first.append(signal.SIGHUP)
    return bool(_first)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _first:
        _first.append(number)
        _received.put(number)
    if not _raised.is_set() and not _imports(frame):  # a second Ctrl-C must not stop the tidying up
        _raised.set()
        signal.default_int_handler(number, frame)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported: an exception amid native code's initialisation may abort the process."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _end_in_time(main_thread: int, patience: float) -> None:
    number = _received.get()
    if not number:
        return
    end = time.monotonic() + _IMPORTING
    while not _raised.wait(0.05) and time.monotonic() < end:
        if signal.getsignal(number) == _interrupt:  # Prefect's would raise each time
            signal.pthread_kill(main_thread, number)  # again: the import may be over
    time.sleep(patience)
    _end(number)


def _end(number: int) -> None:
    """End the process at once: Python's own end takes seconds with torch loaded, and has nothing to add."""
    _ending.acquire()  # for good: whoever comes second waits for the end
    with suppress(OSError, ValueError):  # the terminal is closed
        sys.stdout.flush()
        print(*_message, file=sys.stderr, flush=True)
    os._exit(128 + number)
