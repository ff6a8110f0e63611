"""What a recogniser says about a video."""

from dataclasses import dataclass

import numpy as np

from dynaprop.pipeline.video.container import VideoError


@dataclass(frozen=True)
class FrameTrack:
    """What one branch saw of a video, frame by frame."""

    timestamps: np.ndarray
    """[n] seconds since the video's first frame."""
    probabilities: np.ndarray
    """[n, c] float64; of a student's frame in Dynamic-STE after propagation, of a teacher's by its own classifier."""


@dataclass(frozen=True)
class Milliseconds:
    """Wall time of each stage. Videos that share a batch share its time by their frames."""

    open: float = 0.0
    """Opening the file and reading its frames' times."""
    decode: float = 0.0
    """From the first packet to the last wanted frame, resized."""
    student: float = 0.0
    teacher: float = 0.0
    heads: float = 0.0

    @property
    def total(self) -> float:
        return self.open + self.decode + self.student + self.teacher + self.heads


@dataclass(frozen=True)
class Prediction:
    """What became of one video."""

    video: str
    """The path that was given."""
    top: tuple[tuple[str, float], ...] = ()
    """Classes and their probabilities, most probable first; none where the video failed."""
    scores: np.ndarray | None = None
    """[c] float64, the probabilities of all classes in the model's order."""
    student: FrameTrack | None = None
    """None where the model has no such branch."""
    teacher: FrameTrack | None = None
    attention: np.ndarray | None = None
    """[n_s, n_t] how much each student frame took from each teacher frame, eq. (1); of Dynamic-STE alone."""
    gmacs: float = 0.0
    """Multiply-adds really spent on the frames really used, heads included, in units of 1e9."""
    milliseconds: Milliseconds = Milliseconds()
    error: VideoError | None = None
    """Why the video failed."""

    @property
    def label(self) -> str | None:
        """The most probable class."""
        return self.top[0][0] if self.top else None

    @property
    def frames(self) -> dict[str, int]:
        """Frames used of each branch."""
        tracks = {"student": self.student, "teacher": self.teacher}
        return {branch: len(track.timestamps) for branch, track in tracks.items() if track is not None}


@dataclass(frozen=True)
class BranchFeatures:
    """One branch's features of a video."""

    timestamps: np.ndarray
    """[n] seconds since the video's first frame."""
    features: np.ndarray
    """[n, d] float16, as the cache holds them."""


@dataclass(frozen=True)
class Features:
    """The backbones' features of the frames that a model looks at."""

    video: str
    student: BranchFeatures | None = None
    teacher: BranchFeatures | None = None
    milliseconds: Milliseconds = Milliseconds()
    error: VideoError | None = None
