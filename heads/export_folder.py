"""The folder of an export: whole under its name or absent, and never in the place of something else."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heads.exported import CARD, FORMAT, HEADS, RECORD
from pipeline.errors import UsageError
from pipeline.files import sync, writing

_NETWORKS = ("student", "teacher", "heads")


@contextmanager
def new_export(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder to fill; afterwards it is durable and stands under its name, or is gone.

    Args:
        folder: where the export will be.
        overwrite: whether an older export may be there, which then is replaced.

    Raises:
        UsageError: something is there that must not be replaced.
        DynapropError: it cannot be written.
    """
    check_place(folder, overwrite=overwrite)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        made.chmod(0o777 & ~_umask())
        yield made
        with writing(folder):
            for file in made.iterdir():
                sync(file)
            sync(made)
            check_place(folder, overwrite=overwrite)  # it took a while
            if folder.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
                try:
                    folder.rename(old)  # over the empty folder
                except OSError:
                    old.rmdir()
                    raise
                try:
                    made.rename(folder)
                except OSError:
                    old.rename(folder)
                    raise
                shutil.rmtree(old, ignore_errors=True)
            else:
                made.rename(folder)
            sync(folder.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_place(folder: Path, *, overwrite: bool) -> None:
    """Raises UsageError where something is that an export must not replace."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is there and no folder; give another --output")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not _is_older_export(folder):
        raise UsageError(f"{folder} is there and no exported model; give another --output")
    if not overwrite:
        raise UsageError(f"{folder} holds an exported model; --force replaces it, --output puts this one elsewhere")


def _is_older_export(folder: Path) -> bool:
    """Whether nothing else than an export would be lost."""
    known = {RECORD, HEADS, CARD, *(f"{name}.{kind}" for name in _NETWORKS for kind in ("safetensors", "onnx"))}
    try:
        return (
            FORMAT in (folder / RECORD).read_text(encoding="utf-8")
            and {file.name for file in folder.iterdir()} <= known
        )
    except (OSError, ValueError):
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
