"""Which clips of a video each branch sees (section 3.2, "Sampling scheme", and Figure 3)."""

import numpy as np

from dynaprop.pipeline.errors import UsageError


def training_clips(n_clips: int, n: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Clips of one video for training, where both branches see the same ones (r_t = r_s).

    One clip from each of ``min(n, n_clips)`` equal segments: a random one, or the middle one without ``rng``.

    Returns:
        increasing int64 clip indices ``[min(n, n_clips)]``

    Raises:
        UsageError: ``n_clips`` or ``n`` is below 1
    """
    if n_clips < 1 or n < 1:
        raise UsageError(f"cannot sample {n} of {n_clips} clips: both must be at least 1")
    low, high = _segments(n_clips, min(n, n_clips))
    return _middles(low, high) if rng is None else rng.integers(low, high)


def inference_clips(n_clips: int, *, n_s: int, n_t: int, skip_overlap: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Clips of one video for the student and for the teacher at inference: evenly spaced, and no clip twice.

    The teacher's lie in the middle of ``n_t`` equal segments of the grid, the student's in the middle of ``n_s``
    equal segments of what is left. A video with fewer than ``n_s + n_t`` clips keeps the ratio: all of its clips are
    used and each branch gets at least one; a single clip goes to both. A branch with count 0 gets none.

    Args:
        n_clips: clips of the video, at least 1
        n_s: clips wanted for the student
        n_t: clips wanted for the teacher
        skip_overlap: Figure 3 read literally: the student's are spread over the whole grid and those that the
            teacher has are skipped, so that the student sees fewer than ``n_s``. If none would remain, the
            student gets what it would get without the option.

    Returns:
        (student's, teacher's) increasing int64 clip indices

    Raises:
        UsageError: a video without clips, a negative count, or both counts 0
    """
    if n_clips < 1 or min(n_s, n_t) < 0 or n_s + n_t == 0:
        raise UsageError(
            f"cannot sample {n_s} student and {n_t} teacher clips of {n_clips}: "
            "counts must not be negative, nor both 0, and the video needs a clip"
        )
    share_s, share_t = _shares(n_clips, n_s, n_t)
    teacher = _spread(n_clips, share_t)
    if n_clips == 1:
        return _spread(1, share_s), teacher
    if skip_overlap and n_s > 0:
        student = np.setdiff1d(_spread(n_clips, min(n_s, n_clips)), teacher)
        if len(student):
            return student, teacher
    left = np.setdiff1d(np.arange(n_clips), teacher)
    return left[_spread(len(left), share_s)], teacher


def _shares(n_clips: int, n_s: int, n_t: int) -> tuple[int, int]:
    """How many clips each branch really gets."""
    if n_clips == 1 or n_clips >= n_s + n_t or min(n_s, n_t) == 0:
        return min(n_s, n_clips), min(n_t, n_clips)
    share_t = min(max(round(n_clips * n_t / (n_s + n_t)), 1), n_clips - 1)
    return n_clips - share_t, share_t


def _spread(n_clips: int, n: int) -> np.ndarray:
    """The middle clip of each of ``n`` equal segments of the grid; empty for ``n = 0``."""
    return _middles(*_segments(n_clips, n))


def _segments(n_clips: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """First clip and past-the-last clip of ``n <= n_clips`` segments that cover the grid, none of them empty."""
    bounds = np.arange(n + 1) * n_clips // max(n, 1)
    return bounds[:-1], bounds[1:]


def _middles(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (low + high) // 2
