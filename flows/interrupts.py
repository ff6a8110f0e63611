"""Ctrl-C and its relatives: one of them ends a command within seconds, tidied up; more of them change nothing."""

import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 4.0  # seconds for tidying up

_received: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put is safe in a signal handler
_first: list[int] = []
_said = threading.Event()
_listening = threading.Event()


def listen() -> None:
    """From now on the first signal raises KeyboardInterrupt in the main thread, and the process ends within 4 s."""
    _listening.set()
    threading.Thread(target=_end_in_time, name="interrupts", daemon=True).start()
    keep_listening()


def keep_listening() -> None:
    """Take the signals back from Prefect, whose flows put a handler of their own, which every SIGTERM interrupts anew.

    Does nothing where ``listen`` was not called: a flow that a Prefect worker runs is ended by Prefect.
    """
    if not _listening.is_set() or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        # nohup means that the end of the terminal is not the command's.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def interrupted() -> int | None:
    """Exit code after a signal, as a shell has it (130, 143, 129); None if there was none."""
    return 128 + _first[0] if _first else None


def say_interrupted() -> None:
    """One line, once."""
    if not _said.is_set():
        _said.set()
        with suppress(OSError):  # the terminal is closed
            print("interrupted; the same command goes on where it stopped", file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _first:  # a second Ctrl-C must not stop the tidying up
        _first.append(number)
        _received.put(number)
        signal.default_int_handler(number, frame)


def _end_in_time() -> None:
    """End the process where tidying up takes too long; its children notice by themselves."""
    number = _received.get()
    time.sleep(_PATIENCE)
    say_interrupted()
    os._exit(128 + number)
