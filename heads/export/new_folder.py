"""The folder of an export: whole under its name or absent, and never in the place of something else."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dynaprop.heads.export.model_folder import CARD, HEADS, RECORD, bring_back_export
from dynaprop.heads.export.record import FORMAT
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.io.atomic import sync, writing
from dynaprop.pipeline.io.folder_swap import swap_in
from dynaprop.pipeline.io.leftovers import temporary_folder

_NETWORKS = ("student", "teacher", "heads")


@contextmanager
def new_export(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder to fill; afterwards it is durable and stands under its name, or is gone.

    An older export is there until the new one is.

    Args:
        folder: where the export will be.
        overwrite: whether an older export may be there, which then is replaced.

    Raises:
        UsageError: something is there that must not be replaced.
        DynapropError: it cannot be written.
    """
    check_place(folder, overwrite=overwrite)
    with ExitStack() as stack:
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            made = stack.enter_context(temporary_folder(folder.parent, folder.name))
        yield made
        with writing(folder):
            for file in made.iterdir():
                sync(file)
            sync(made)
            check_place(folder, overwrite=overwrite)  # it took a while
            swap_in(made, folder)
            sync(folder.parent)


def check_place(folder: Path, *, overwrite: bool) -> None:
    """Raises UsageError where something is that an export must not replace."""
    bring_back_export(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is there and no folder", remedy="export elsewhere")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not _is_older_export(folder):
        raise UsageError(f"{folder} is there and no exported model", remedy="export elsewhere")
    if not overwrite:
        raise UsageError(f"{folder} holds an exported model", remedy="replace the export")


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
