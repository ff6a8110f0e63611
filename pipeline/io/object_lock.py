"""The lock's record as an object, where no flock helps.

S3 compares and swaps by itself: a put with ``If-None-Match: *`` only creates, one with ``If-Match`` only replaces the
version that it names (AWS since November 2024; MinIO, Ceph and R2 have both, too). Other stores are not asked for it,
as fsspec has no common way to, and some that speak S3 pay no heed to the conditions. There the record is written, and
read again after a pause: of two processes that start at the same moment the later one has it, and the other finds out
by that read or, at the latest, before its next shard, since `StoreLock.check`, or a cluster's worker, reads the record
before every write to the store. What is left is a process that stands still for longer than that between its check and
its write.

A record that was given back is an empty object: it is swapped like any other, while few stores delete conditionally.
"""

import hashlib
import threading
import time

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.conditional_put import put_if
from dynaprop.pipeline.io.object_path import ObjectPath
from dynaprop.pipeline.io.reaching import StoreUnavailable, reaching

_TRIES = 5
_PAUSE = 2.0  # seconds, longer than two processes need to read a record and write theirs
_CAVEAT = (
    "the lock cannot be sure here, as the store puts without conditions: do not start two extractions within the same "
    "few seconds"
)
_SWAPPING = threading.Lock()  # memory:// is this process's alone, so this is all that it needs


class S3LockRecord:
    """The record as an object that S3 swaps; its ETag is its version.

    Args:
        folder: the store's place.
    """

    def __init__(self, folder: ObjectPath) -> None:
        self.path = folder / "lock.json"
        self.caveat: str | None = None
        self._unconditional: UnconditionalLockRecord | None = None
        self._tested = False
        self._unanswered: set[bytes] = set()  # what may have been written or not

    def content(self) -> bytes | None:
        return _content(self.path)

    def read(self) -> tuple[bytes | None, str]:
        if self._unconditional is not None:
            return self._unconditional.read()
        content, version = self._read()
        return content or None, version

    def swap(self, new: bytes | None, expected: str) -> str | None:
        if self._unconditional is not None:
            return self._unconditional.swap(new, expected)
        content = new or b""
        if not self._tested and self._read()[1] != expected:  # a store that heeds no condition would overwrite it
            return None
        for _ in range(_TRIES):
            version = self._put(content, expected)
            if version is None:
                found, version = self._read()
                if found is not None and found in self._unanswered and found != content:
                    expected = version  # ours: its put was carried out, and the answer was lost
                    continue
                if found != content:  # else the same, by a put that was repeated
                    if version != expected:
                        return None
                    continue
            self._unanswered.clear()
            return version if self._tested or new is None else self._test(content, version)
        raise StoreUnavailable(f"{self.path}: others write to it all the time; try again")

    def _read(self) -> tuple[bytes | None, str]:
        """Content and version that belong together; fsspec reads them one after the other."""
        for _ in range(_TRIES):
            try:
                with reaching(self.path):
                    before = self.path.system.info(str(self.path))
                    if before["type"] != "file":
                        return None, ""
                    content = self.path.read_bytes()
                    after = self.path.system.info(str(self.path))
            except FileNotFoundError:
                return None, ""
            if before["ETag"] == after["ETag"]:
                return content, str(after["ETag"])
        raise StoreUnavailable(f"{self.path}: others write to it all the time; try again")

    def _put(self, content: bytes, expected: str) -> str | None:
        """Write if the version is the expected one; None if it is not."""
        try:
            answer = put_if(self.path, content, expected)
        except FileNotFoundError as error:  # not the record is missing but all that it should lie in
            raise DynapropError(f"{self.path} cannot be written: {error}") from None
        except StoreUnavailable:
            self._unanswered.add(content)
            raise
        if answer is None or "ETag" in answer:
            return None if answer is None else str(answer["ETag"])
        found, version = self._read()  # by an s3fs that keeps the answer for itself
        return version if found == content else None

    def _test(self, content: bytes, version: str) -> str | None:
        """Whether the store heeds conditions: it may not create what has just been written."""
        self._tested = True
        if self._put(content, "") is None:
            return version
        self.caveat = _CAVEAT
        self._unconditional = UnconditionalLockRecord(self.path.parent)
        return self._unconditional.confirm(content, pause=_PAUSE)


class UnconditionalLockRecord:
    """The record as an object of a store that puts without conditions; its digest is its version.

    Args:
        folder: the store's place.
    """

    def __init__(self, folder: ObjectPath) -> None:
        self.path = folder / "lock.json"
        in_memory = self.path.protocol == "memory"
        self.caveat = None if in_memory else _CAVEAT
        self._pause = 0.0 if in_memory else _PAUSE
        self._own: str | None = None  # the version that is ours

    def content(self) -> bytes | None:
        return _content(self.path)

    def read(self) -> tuple[bytes | None, str]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None, ""
        return content or None, hashlib.sha256(content).hexdigest()

    def swap(self, new: bytes | None, expected: str) -> str | None:
        content = new or b""
        with _SWAPPING:
            if self.read()[1] != expected:
                return None
            with reaching(self.path):
                self.path.put(content)
        return self.confirm(content, pause=self._pause if expected != self._own else 0.0)

    def confirm(self, content: bytes, *, pause: float) -> str | None:
        """The version of what has been written, if after a pause it is still there."""
        time.sleep(pause)
        found, version = self.read()
        if (found or b"") != content:
            return None
        self._own = version
        return version


def _content(path: ObjectPath) -> bytes | None:
    """The record in one request: an object is replaced whole, so no version is needed to know that it is whole."""
    try:
        return path.read_bytes() or None
    except FileNotFoundError:
        return None
