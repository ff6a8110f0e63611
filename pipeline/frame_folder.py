"""Videos that come as a folder of numbered pictures, as many public data sets are passed on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FrameFolder:
    """How the pictures of one video are named and timed."""

    template: str
    """Name of a picture with its number in it, such as ``image_{:05d}.jpg``."""
    first: int
    """Number of the first picture."""
    fps: float
    """Pictures a second; a folder does not say."""
    n_frames: int | None = None
    """Pictures that the dataset's list announces; None where it does not say."""
