"""Files that several processes bring up to date at once: none undoes what another one has written.

On a disk they take turns, by an flock, which the kernel takes back when a process dies. One that is stopped in its turn
holds up the others, and is named to them: were it passed over, it would go on one day and write what is outdated.

In S3 nobody waits. What was written is put on condition that the object is still that from before, and made again if it
is not. Since other stores put without conditions, and some that speak S3 pay no heed to them, it is looked at once more
after that. There, a process that stands still just before its put and is killed just after it undoes what others wrote;
whoever reads next finds that out (`is_current`).
"""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dynaprop.pipeline.io.atomic import published, writing
from dynaprop.pipeline.io.conditional_put import LARGEST, put_if
from dynaprop.pipeline.io.object_path import ObjectPath
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.io.reaching import StoreUnavailable, reaching

_TRIES = 100  # each that fails means that another process has succeeded
_PAUSE = 0.05  # seconds
_PATIENCE = 2.0  # seconds before a wait is spoken of
_SHOWN = 200  # bytes of who has his turn


def update_file(
    path: StoragePath,
    write: Callable[[Path], None],
    *,
    is_current: Callable[[], bool],
    on_note: Callable[[str], None] = lambda _: None,
) -> None:
    """Bring a file up to date.

    Args:
        path: the file.
        write: looks at what the file is to be made of, and writes it to the path that it is given. It is called again
            where another process was faster.
        is_current: whether the file is as ``write`` would make it.
        on_note: called with a line for people: for whom is waited.

    Raises:
        DynapropError: it cannot be written.
        StoreUnavailable: an object store is away, or others write all the time.
    """
    if isinstance(path, Path):
        if is_current():  # who changes nothing waits for nobody, and needs no folder that can be written to
            return
        with _turn(path, on_note):
            if not is_current():
                with published(path) as temporary:
                    write(temporary)
        return
    for attempt in range(_TRIES):
        version = _version(path)
        if is_current():
            return
        with tempfile.TemporaryDirectory(prefix="dynaprop-update-") as folder:
            file = Path(folder) / path.name
            with writing(file):
                write(file)
            with writing(path):
                if path.protocol in ("s3", "s3a") and file.stat().st_size <= LARGEST:
                    put_if(path, file.read_bytes(), version)
                else:
                    path.upload(file)
        time.sleep(_PAUSE * random.random() * min(attempt, 20))
    raise StoreUnavailable(f"{path}: others write to it all the time; try again")


@contextlib.contextmanager
def _turn(path: Path, on_note: Callable[[str], None]) -> Iterator[None]:
    """Exclude all other processes that update a file of the same folder."""
    guard = path.parent / ".update.guard"  # stays: were it deleted, two processes could hold two of them
    with writing(guard):
        guard.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(guard, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        begun, told = time.monotonic(), False
        while not _locked(guard, handle):
            if not told and time.monotonic() - begun > _PATIENCE:
                holder = os.pread(handle, _SHOWN, 0).decode(errors="replace") or "another process"
                on_note(f"{path}: waiting for {holder}, which writes it; should it stand still, continue or end it")
                told = True
            time.sleep(_PAUSE)
        with writing(guard):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _locked(guard: Path, handle: int) -> bool:
    with writing(guard):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _version(path: ObjectPath) -> str:
    """The object's ETag; empty where there is none."""
    try:
        with reaching(path):
            return str(path.system.info(str(path)).get("ETag", ""))
    except FileNotFoundError:
        return ""
