"""Small synthetic feature splits."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from dynaprop.heads.features.loaded import FeatureSplit


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: more threads only get into each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_split() -> Callable[..., FeatureSplit]:
    """Factory of splits: unit noise plus, in each branch, a direction of the video's class times a signal."""

    def make(
        counts: Sequence[int] = (7, 3, 12, 1, 9, 5),
        *,
        n_classes: int = 3,
        d_s: int = 6,
        d_t: int = 10,
        student_signal: float = 1.0,
        teacher_signal: float = 1.0,
        seed: int = 0,
        videos_seed: int = 0,
    ) -> FeatureSplit:
        directions = np.random.default_rng(seed)  # the same classes whatever the videos
        towards_s = directions.normal(size=(n_classes, d_s))
        towards_t = directions.normal(size=(n_classes, d_t))
        rng = np.random.default_rng([seed, videos_seed])
        labels = np.arange(len(counts)) % n_classes
        rows = int(sum(counts))
        of_row = np.repeat(labels, counts)
        student = rng.normal(size=(rows, d_s)) + student_signal * towards_s[of_row]
        teacher = rng.normal(size=(rows, d_t)) + teacher_signal * towards_t[of_row]
        return FeatureSplit(
            video_ids=tuple(f"video{v}.mp4" for v in range(len(counts))),
            labels=tuple((int(label),) for label in labels),
            class_names=tuple(f"class{c}" for c in range(n_classes)),
            starts=np.cumsum(counts) - np.array(counts, np.int64),
            n_clips=np.array(counts, np.int64),
            student=torch.from_numpy(student.astype(np.float16)),
            teacher=torch.from_numpy(teacher.astype(np.float16)),
            timestamps=np.concatenate([np.arange(n, dtype=np.float64) for n in counts]),
        )

    return make
