"""Where a lock is kept: a few bytes that change by compare-and-swap alone."""

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Protocol

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.atomic import reading, writing
from dynaprop.pipeline.io.object_lock import S3LockRecord, UnconditionalLockRecord
from dynaprop.pipeline.io.paths import StoragePath


class LockRecord(Protocol):
    """Where the lock is kept. All methods raise DynapropError when the place cannot be read or written."""

    @property
    def caveat(self) -> str | None:
        """A line for people where the swap is not what it should be; known once the lock is held."""

    def content(self) -> bytes | None:
        """What is there, None if nothing: for who only looks, however fast others swap."""

    def read(self) -> tuple[bytes | None, str]:
        """What is there, None if nothing, and a version that tells it from whatever was or will be there."""

    def swap(self, new: bytes | None, expected: str) -> str | None:
        """Replace what is there, or take it away (None), if it still has the expected version.

        Returns:
            The new version; None if it was another one, and then nothing has changed.
        """


class LocalLockRecord:
    """The record as a file of a local disk, swapped under an flock, which the kernel releases when a process dies.

    The lock's content is never the same twice, so its digest is its version.

    Args:
        folder: the store's folder; it is created.
    """

    caveat = None

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock.json"
        self._guard = folder / ".lock.guard"  # stays: were it deleted, two processes could hold two of them
        self._new = folder / ".lock.json.new"  # written under the guard alone

    def content(self) -> bytes | None:
        try:
            with reading(self.path):
                return self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DynapropError(f"{self.path} cannot be read: {error.strerror}") from None

    def read(self) -> tuple[bytes | None, str]:
        content = self.content()
        return content, "" if content is None else hashlib.sha256(content).hexdigest()

    def swap(self, new: bytes | None, expected: str) -> str | None:
        with writing(self._guard.parent):
            self._guard.parent.mkdir(parents=True, exist_ok=True)
            guard = os.open(self._guard, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with writing(self._guard):
                fcntl.flock(guard, fcntl.LOCK_EX)
            if self.read()[1] != expected:
                return None
            with writing(self.path):
                if new is None:
                    self.path.unlink(missing_ok=True)
                    self._new.unlink(missing_ok=True)  # of a swap that failed
                else:
                    self._new.write_bytes(new)
                    self._new.replace(self.path)
            return self.read()[1]
        finally:
            os.close(guard)


def lock_record(folder: StoragePath) -> LockRecord:
    """Where the lock of a store lies."""
    if isinstance(folder, Path):
        return LocalLockRecord(folder)
    return S3LockRecord(folder) if folder.protocol in ("s3", "s3a") else UnconditionalLockRecord(folder)
