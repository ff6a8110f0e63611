"""Videos to train backbones on, as their probes describe them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest


@dataclass(frozen=True)
class TrainingVideo:
    """A video that can be decoded, with the times of all its frames."""

    id: str
    path: str
    decoder: str
    times: np.ndarray
    """[n_frames] float64, seconds since the first presented frame."""
    start: float
    estimated: bool
    clips: np.ndarray
    """[T] int64, the frame that each clip begins with."""
    stream: int | None = None
    """Number of the video stream."""
    size: tuple[int, int] | None = None
    """Width and height as shown; None for a folder of pictures, which may be of any size."""
    share: float = 1.0
    """Of what the container announces: how much is in the file."""
    folder: FrameFolder | None = None

    def request(self, frames: np.ndarray) -> FrameRequest:
        """Ask for these frames (rising indices)."""
        return FrameRequest(
            path=self.path,
            frames=frames,
            timestamps=self.times[frames],
            start=self.start,
            estimated=self.estimated,
            folder=self.folder,
            stream=self.stream,
            size=self.size,
        )


def probe_videos(
    videos: Sequence[Video],
    *,
    pool: DecodePool,
    clip_seconds: float,
    min_clips: int,
    max_clips: int,
    min_share: float,
    on_video: Callable[[], None] | None = None,
) -> tuple[list[TrainingVideo], dict[str, VideoError]]:
    """Find out about the frames of videos; the clips are those that features are extracted of.

    Args:
        videos: files or folders of pictures.
        pool: decode children.
        clip_seconds, min_clips, max_clips: see ``clip_grid``.
        min_share: a file of which a smaller part is there is not used.
        on_video: called after each one.

    Returns:
        What can be used, in order; and what cannot, by id.
    """
    usable, failed = [], {}
    probes = pool.probe((str(video.path) for video in videos), (video.frames for video in videos))
    for video, probe in zip(videos, probes, strict=True):
        if on_video:
            on_video()
        if isinstance(probe, Probe) and probe.share < min_share:
            lack = probe.note if video.frames else f"the file holds {probe.share:.1%} of the frames that it announces"
            probe = VideoError("missing_frames", lack)
        if isinstance(probe, VideoError):
            failed[video.id] = probe
            continue
        grid = clip_grid(
            probe.timestamps, probe.duration, clip_seconds=clip_seconds, min_clips=min_clips, max_clips=max_clips
        )
        usable.append(
            TrainingVideo(
                id=video.id,
                path=str(video.path),
                decoder=probe.decoder,
                times=probe.timestamps,
                start=probe.start,
                estimated=probe.estimated,
                clips=grid.frames,
                stream=probe.stream,
                size=None if video.frames else (probe.width, probe.height),
                share=probe.share,
                folder=video.frames,
            )
        )
    return usable, failed
