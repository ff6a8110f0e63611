"""Flow `transcode`: small copies of a dataset's videos, which decode many times faster."""

from prefect import flow

from dynaprop.flows.commands.transcode import transcode as copy_videos
from dynaprop.flows.entry import enter_flow
from dynaprop.flows.terminal.progress import TERMINAL
from dynaprop.pipeline.video.transcode import SHORT_SIDE


@flow(name="transcode", persist_result=False)
def transcode(
    dataset: str,
    short_side: int = SHORT_SIDE,
    workers: int | None = None,
    deadline: float = 60.0,
    catalog: str | None = None,
    wait: bool = False,
) -> dict[str, int]:
    """Copy every video of a dataset once, at a small size; goes on where it was interrupted.

    Args:
        dataset: name in the catalog, or a folder of videos.
        short_side: pixels of the copies' shorter side.
        workers: decode processes; one a core by default.
        deadline: seconds without a new frame after which a video is given up.
        catalog: path of the catalog file.
        wait: wait while another process transcodes this dataset, instead of refusing.
    """
    enter_flow()
    return copy_videos(
        dataset,
        short_side=short_side,
        workers=workers,
        deadline=deadline,
        catalog=catalog,
        wait=wait,
        reporter=TERMINAL,
    )
