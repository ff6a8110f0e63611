"""Which clips each branch sees: properties for all sizes, and cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynaprop.heads.features.sampling import inference_clips, training_clips
from dynaprop.pipeline.errors import UsageError

clips = st.integers(1, 400)
counts = st.integers(1, 100)


def increasing(indices: np.ndarray) -> bool:
    return bool((np.diff(indices) > 0).all())


@given(clips, counts, counts, st.booleans())
def test_inference_clips_are_disjoint_increasing_and_in_range(n_clips, n_s, n_t, skip_overlap):
    student, teacher = inference_clips(n_clips, n_s=n_s, n_t=n_t, skip_overlap=skip_overlap)
    for indices in (student, teacher):
        assert indices.dtype.kind == "i" and increasing(indices)
        assert len(indices) >= 1 and indices[0] >= 0 and indices[-1] < n_clips
    if n_clips > 1:
        assert not set(student) & set(teacher)


@given(clips, counts, counts)
def test_inference_clips_are_as_many_as_asked_or_all_there_are(n_clips, n_s, n_t):
    student, teacher = inference_clips(n_clips, n_s=n_s, n_t=n_t)
    if n_clips >= n_s + n_t:
        assert (len(student), len(teacher)) == (n_s, n_t)
    elif n_clips > 1:
        assert len(student) + len(teacher) == n_clips
        exact = n_clips * n_t / (n_s + n_t)  # the ratio is kept as well as whole clips allow
        assert abs(len(teacher) - exact) <= 0.5 or len(teacher) == 1 or len(student) == 1


@given(clips, counts, counts)
def test_the_teacher_is_spread_evenly_over_the_grid(n_clips, n_s, n_t):
    _, teacher = inference_clips(n_clips, n_s=n_s, n_t=n_t)
    segments = np.arange(len(teacher) + 1) * n_clips // len(teacher)
    assert (segments[:-1] <= teacher).all() and (teacher < segments[1:]).all()


@given(clips, counts, counts)
def test_skipping_overlap_leaves_clips_of_the_whole_grids_sampling(n_clips, n_s, n_t):
    student, teacher = inference_clips(n_clips, n_s=n_s, n_t=n_t, skip_overlap=True)
    whole_grid, _ = inference_clips(n_clips, n_s=n_s, n_t=0)
    kept = np.setdiff1d(whole_grid, teacher)
    if len(kept):
        assert student.tolist() == kept.tolist()


@given(clips, counts)
def test_one_branch_alone_gets_the_whole_grid(n_clips, n):
    for student, teacher, used in (
        (*inference_clips(n_clips, n_s=n, n_t=0), 0),
        (*inference_clips(n_clips, n_s=0, n_t=n), 1),
    ):
        indices, other = (student, teacher) if used == 0 else (teacher, student)
        assert len(indices) == min(n, n_clips) and len(other) == 0 and increasing(indices)
        assert indices.tolist() == training_clips(n_clips, n).tolist()


@given(clips, counts, st.integers(0, 2**32 - 1))
def test_training_clips_take_one_from_each_segment(n_clips, n, seed):
    for rng in (None, np.random.default_rng(seed)):
        indices = training_clips(n_clips, n, rng)
        size = min(n, n_clips)
        segments = np.arange(size + 1) * n_clips // size
        assert len(indices) == size
        assert (segments[:-1] <= indices).all() and (indices < segments[1:]).all()


def test_training_clips_reach_every_clip():
    rng = np.random.default_rng(0)
    assert set(np.concatenate([training_clips(10, 3, rng) for _ in range(200)])) == set(range(10))


def test_figure_3():
    # The 6-clip video: 4 clips for the student, 2 for the teacher, none of them twice.
    student, teacher = inference_clips(6, n_s=4, n_t=2)
    assert teacher.tolist() == [1, 4] and student.tolist() == [0, 2, 3, 5]
    # Read literally: of the student's 1, 3, 5, 7, 9 the clip that the teacher has is skipped.
    student, teacher = inference_clips(10, n_s=5, n_t=2, skip_overlap=True)
    assert teacher.tolist() == [2, 7] and student.tolist() == [1, 3, 5, 9]


def test_by_hand():
    student, teacher = inference_clips(25, n_s=20, n_t=5)
    assert teacher.tolist() == [2, 7, 12, 17, 22] and len(student) == 20
    student, teacher = inference_clips(10, n_s=12, n_t=3)  # 10 clips keep the ratio 4 to 1
    assert (len(student), len(teacher)) == (8, 2)
    student, teacher = inference_clips(2, n_s=20, n_t=5)
    assert sorted([*student, *teacher]) == [0, 1]
    student, teacher = inference_clips(1, n_s=20, n_t=5)
    assert student.tolist() == teacher.tolist() == [0]


@pytest.mark.parametrize("arguments", [(0, 4, 1), (5, -1, 2), (5, 0, 0)])
def test_impossible_counts_are_refused(arguments):
    n_clips, n_s, n_t = arguments
    with pytest.raises(UsageError, match="cannot sample"):
        inference_clips(n_clips, n_s=n_s, n_t=n_t)
    if n_clips == 0:
        with pytest.raises(UsageError, match="cannot sample"):
            training_clips(n_clips, 3)
