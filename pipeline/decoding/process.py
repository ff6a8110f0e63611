"""The parent's end of one decode child: start it, ask it, and notice when it hangs or dies."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dynaprop.pipeline.child_python import child_command
from dynaprop.pipeline.decoding.protocol import HEADER
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.video.container import VideoError

# Sent by people, batch systems and a kernel out of memory; a decoder that crashes dies of another signal.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LONGEST = 2**30  # bytes of a message: more than the times of all frames of a week
_STARTS = 3
_START_SECONDS = 60.0


class ChildLost(Exception):
    """The child process died while it worked on a video.

    Args:
        status: as ``subprocess`` has it; a negative one is the signal that ended the child.
    """

    def __init__(self, status: int) -> None:
        self.from_outside = -status in _FROM_OUTSIDE
        """Whether somebody else ended the child, so that decoder and video are not to blame."""
        try:
            how = f"of {signal.Signals(-status).name}"
        except ValueError:
            how = f"with exit code {status}"
        super().__init__(f"the decode child died {how}")


class DecodeProcess:
    """One child process and its pipes.

    Args:
        deadline: seconds without a message after which the child counts as hung.
        memory: bytes that the child may allocate.
    """

    def __init__(self, *, deadline: float, memory: int) -> None:
        self.deadline = deadline
        self.memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._interrupted = False

    @property
    def pid(self) -> int | None:
        """The running child's process id."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the child now rather than with the first question.

        Raises:
            DynapropError: no child could be started.
        """
        if self._process is None:
            self._start()

    def ask(self, request: dict[str, Any]) -> Iterator[tuple[bytes, bytearray]]:
        """Send a request and yield its messages ``(kind, payload)``; the last one is ``D``.

        Raises:
            VideoError: as the child reported it, or ``timeout``; a hung child is killed.
            ChildLost: the child died while it worked.
            DynapropError: no child could be started.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            while True:
                kind, length = HEADER.unpack(self._read(HEADER.size))
                if length > _LONGEST:  # the child's memory is damaged
                    process.kill()
                    raise ChildLost(self._reap())
                payload = self._read(length)
                if kind == b"E":
                    error = VideoError(**json.loads(payload))
                    if error.kind == "memory":
                        self.kill()  # what it holds is not given back
                    raise error
                yield kind, payload
                if kind == b"D":
                    return
        except BrokenPipeError:
            raise ChildLost(self._reap()) from None
        except GeneratorExit:
            self.kill()  # an abandoned answer would be taken for the next one's
            raise

    def interrupt(self) -> None:
        """Kill the child for good and leave the rest to whoever waits for it."""
        self._interrupted = True
        if (process := self._process) is not None:
            process.kill()

    def kill(self) -> None:
        """End the child at once and reap it."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def _reap(self) -> int:
        """Wait for the child, which has ended or is ending; its exit status."""
        assert self._process is not None
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was not sent any more
                    pipe.close()
        return process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        for attempt in range(1, _STARTS + 1):
            self._process = subprocess.Popen(
                child_command("dynaprop.pipeline.decoding.child", str(self.memory)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C reaches the parent alone, which then ends its children
            )
            if self._interrupted:
                self._process.kill()
            try:
                self._read(HEADER.size, max(_START_SECONDS, self.deadline))  # its first sign of life
                return self._process
            except (ChildLost, VideoError) as error:
                if attempt == _STARTS or self._interrupted or not (isinstance(error, ChildLost) and error.from_outside):
                    raise DynapropError(f"a decode process cannot be started: {error}") from None
        raise AssertionError("unreachable")

    def _read(self, length: int, deadline: float | None = None) -> bytearray:
        """Read exactly so many bytes; the deadline counts only while nothing comes.

        Straight into their place, which takes no longer than to copy them from shared memory.
        """
        deadline = deadline or self.deadline
        assert self._process is not None and self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        payload = bytearray(length)
        left = memoryview(payload)
        while left:
            if not select.select([pipe], [], [], deadline)[0]:
                self.kill()
                raise VideoError("timeout", f"no new frame within {deadline:g} s")
            n_read = os.readv(pipe, [left])
            if not n_read:
                raise ChildLost(self._reap())
            left = left[n_read:]
        return payload
