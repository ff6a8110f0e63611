"""The lock of a store: one coordinator at a time extracts into it.

The lock is one small record, ``lock.json`` in the store's folder, that changes by compare-and-swap alone, so that an
object store's conditional put can hold it as well as a local file. Its owner swaps a new beat in every few seconds. Who
waits trusts no clock but its own: an owner of this machine whose process is gone is replaced at once, any other when
its beat has not changed for a while.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.local_lock import LockRecord
from dynaprop.pipeline.printable import shell_line

BEAT_EVERY = 5.0  # seconds
STALE_AFTER = 30.0  # seconds without a new beat
_POLL_EVERY = 1.0  # seconds
_COMMAND_LENGTH = 200  # characters of the command that others are shown
_UNKNOWN = "an unknown owner"  # of a damaged record


@dataclass(frozen=True)
class LockOwner:
    """Who holds a lock."""

    owner: str
    """Unique to one acquisition."""
    host: str
    place: str
    """Boot id and process namespace: where the process id means something; empty if unknown."""
    pid: int
    started: str
    """When the kernel started the process, as it counts: tells it from a later one of the same id."""
    command: str
    since: str
    beat: int
    beat_at: str
    """Wall clock of the owner, for people only."""

    @classmethod
    def this_process(cls) -> "LockOwner":
        """A new owner: this process."""
        return cls(
            owner=uuid.uuid4().hex,
            host=socket.gethostname(),
            place=_place(),
            pid=os.getpid(),
            started=_started(os.getpid()) or "",
            command=shell_line(Path(sys.argv[0]).name, *sys.argv[1:])[:_COMMAND_LENGTH],
            since=_now(),
            beat=0,
            beat_at=_now(),
        )

    @classmethod
    def parse(cls, content: bytes) -> "LockOwner | None":
        """Read a record; None if it is not one."""
        try:
            owner = cls(**json.loads(content))
        except (ValueError, TypeError, RecursionError):
            return None
        fields = asdict(owner)
        numbers = ("pid", "beat")
        return owner if all(type(fields[name]) is (int if name in numbers else str) for name in fields) else None

    def to_bytes(self) -> bytes:
        """The record that ``parse`` reads."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"

    def is_gone(self) -> bool:
        """Whether the process certainly runs no more; of other machines and containers nothing is certain."""
        return self.is_near() and _started(self.pid) not in (self.started, "")

    def is_near(self) -> bool:
        """Whether it is of this machine and container, where a process that is gone is noticed at once."""
        return bool(self.place) and self.place == _place()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since} ({self.command}; last beat {self.beat_at})"


class StoreLock:
    """Exclusive right to write to a store, as a context manager; given back on every way out.

    Args:
        record: where the lock is kept.
        name: what is locked, for messages.
        wait: wait for another owner instead of refusing; None where the command has no option to wait.
        on_note: called with a line for people: for whom is waited, from whom the lock was taken over.
        beat_every: seconds between signs of life.
        stale_after: seconds without one after which an owner is taken for dead.
    """

    def __init__(
        self,
        record: LockRecord,
        *,
        name: str,
        wait: bool | None = False,
        on_note: Callable[[str], None] | None = None,
        beat_every: float = BEAT_EVERY,
        stale_after: float = STALE_AFTER,
    ) -> None:
        self.taken_over = False
        """Whether the owner before left without giving the lock back."""
        self._record = record
        self._name = name
        self._wait = wait
        self._on_note = on_note or (lambda _: None)
        self._beat_every = beat_every
        self._stale_after = stale_after
        self._owner = LockOwner.this_process()
        self._version: str | None = None  # None: not held
        self._beaten = 0.0  # monotonic clock before the last sign of life
        self._swapping = threading.Lock()
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._acquire()
            if self._record.caveat is not None:
                self._on_note(f"{self._name}: {self._record.caveat}")
            self._heart = threading.Thread(target=self._beat_on, name="store lock", daemon=True)
            self._heart.start()
        except BaseException:  # an interrupt, too, and it may come when the lock has just been taken
            self._release()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
        self._release()

    @property
    def owner(self) -> str:
        """What the record calls this acquisition."""
        return self._owner.owner

    def check(self, *, writes: bool = True) -> None:
        """Make sure that the lock is held, and stays so for as long as an owner may be silent.

        Args:
            writes: whether this process then writes to the store. Where it hands out a shard and the worker looks
                before each write, a sign of life that is no older than the time between two is enough: a swap for each
                shard would keep the store busy with the lock.

        Raises:
            DynapropError: it was lost to another process, while this one was suspended or cut off.
        """
        if not self._beat(unless_within=0.0 if writes else self._beat_every):
            raise DynapropError(
                f"{self._name}: this process has lost its lock, it was silent for too long and another one took over; "
                "what was finished is kept",
                remedy="wait and go on",
            )

    def _beat(self, *, unless_within: float = 0.0) -> bool:
        """Give a sign of life, unless there was one in the last seconds; False if the lock is lost."""
        with self._swapping:
            if self._version is None:
                return False
            now = time.monotonic()
            if now - self._beaten < unless_within:
                return True
            self._owner = replace(self._owner, beat=self._owner.beat + 1, beat_at=_now())
            self._version = self._record.swap(self._owner.to_bytes(), self._version)
            self._beaten = now
            return self._version is not None

    def _beat_on(self) -> None:
        alive = True
        while alive and not self._ended.wait(self._beat_every):
            with contextlib.suppress(DynapropError):  # a full disk may have room again before the owner counts as dead
                alive = self._beat()

    def _release(self) -> None:
        self._version = None
        with contextlib.suppress(DynapropError):  # it would hide why the body ended; a dead owner is replaced anyway
            content, version = self._record.read()
            holder = LockOwner.parse(content) if content is not None else None
            if holder is not None and holder.owner == self._owner.owner:
                self._record.swap(None, version)

    def _acquire(self) -> None:
        seen, changed, told = "", 0.0, False
        while True:
            content, version = self._record.read()
            holder = LockOwner.parse(content) if content is not None else None
            silent = version == seen and time.monotonic() - changed >= self._stale_after
            if content is None or silent or (holder and holder.is_gone()):
                self._beaten = time.monotonic()
                self._version = self._record.swap(self._owner.to_bytes(), version)
                if self._version is not None:
                    if content is not None:
                        self.taken_over = True
                        self._on_note(f"{self._name}: took over from {holder or _UNKNOWN}, which is gone or silent")
                    return
                continue
            if not self._wait and (version != seen != "" or (holder and holder.is_near())):
                in_use = f"{self._name} is in use by {holder or _UNKNOWN}"
                if self._wait is None:
                    raise DynapropError(f"{in_use}; try again when that has ended")
                raise DynapropError(in_use, remedy="wait")
            if not told:
                doing = "waiting for" if self._wait else f"looking up to {self._stale_after:g} s for a sign of life of"
                self._on_note(f"{self._name}: {doing} {holder or _UNKNOWN}")
                told = True
            if version != seen:
                seen, changed = version, time.monotonic()
            time.sleep(min(_POLL_EVERY, self._stale_after / 4))


def _place() -> str:
    """What process ids of this machine and container have in common; empty where there is no telling."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Start time of a process in the kernel's ticks; None if it is gone, empty if unknown."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass  # it is there, and another user's
    try:
        # pid (name) state ...; the name may hold spaces and brackets, the start time is field 22
        state, *fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return ""
    return None if state in "ZX" else fields[18]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
