"""A workspace's extraction. A module of its own, as it imports the whole cache, for which names are not to wait."""

from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.workspace import Workspace


def open_extraction(
    workspace: Workspace,
    *,
    device: str = "auto",
    workers: int | None = None,
    deadline: float = 60.0,
    dry_run: bool = False,
    wait: bool = False,
) -> Extraction:
    """The extraction of a workspace's dataset with its recipe's two backbones."""
    return Extraction(
        dataset=workspace.dataset,
        annotations=workspace.annotations,
        backbones=[workspace.student, workspace.teacher],
        home=workspace.home,
        device=device,
        workers=workers,
        deadline=deadline,
        dry_run=dry_run,
        wait=wait,
        on_note=workspace.reporter.say,
    )
