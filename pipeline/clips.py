"""The clip grid: which frame stands for each clip of a video (section 3.2, "sampling scheme")."""

from dataclasses import dataclass

import numpy as np

MOST_FRAMES = 100_000  # of a branch and video that anything may ask for
_TICK = 1e-4  # seconds; container time bases round frame times by less than this


@dataclass(frozen=True)
class ClipGrid:
    """The first frame of every clip of one video."""

    frames: np.ndarray
    """[T] int64, index of the frame in presentation order, strictly increasing."""
    timestamps: np.ndarray
    """[T] float64, seconds of these frames since the first presented frame."""

    def __len__(self) -> int:
        return len(self.frames)


def clip_grid(
    timestamps: np.ndarray,
    duration: float,
    *,
    clip_seconds: float = 1.0,
    min_clips: int = 1,
    max_clips: int = 1024,
) -> ClipGrid:
    """Divide a video of ``duration`` seconds into clips and take the first frame of each.

    A video has ``T = max(1, floor(duration / clip_seconds))`` clips. Below ``min_clips`` the clips get shorter, but
    there are never more of them than frames; beyond ``max_clips`` they get longer. Clip ``i`` starts at
    ``i * duration / T`` (``i * clip_seconds`` where T was not changed) and is represented by the last frame presented
    at or before its start. No frame stands for two clips: where frames are further apart than clips are long, there
    are fewer clips.

    Args:
        timestamps: [n_frames] float64 seconds since the first frame, strictly increasing.
        duration: seconds.
        clip_seconds: length of a clip; 16 frames at 16 FPS in the paper.
        min_clips: at least so many clips, as far as there are frames.
        max_clips: at most so many clips.
    """
    n_frames = len(timestamps)
    natural = max(1, int(np.floor(duration / clip_seconds + _TICK)))
    count = min(max(natural, min(min_clips, n_frames)), max_clips, n_frames)
    seconds = clip_seconds if count == natural else duration / count
    starts = np.arange(count) * seconds
    frames = np.searchsorted(timestamps, starts + _TICK, side="right") - 1
    repeated = frames[1:] == frames[:-1]
    if repeated.any():
        frames = frames[np.append(True, ~repeated)]
    wanted = min(min_clips, max_clips, n_frames)
    if len(frames) < wanted:
        # Uneven frame times: equal parts of time hold too few frames, so take equal parts of the frames.
        frames = np.arange(wanted) * n_frames // wanted
    return ClipGrid(frames=frames.astype(np.int64), timestamps=timestamps[frames])
