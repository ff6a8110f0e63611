"""Predictions over a split."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynaprop.heads.evaluation.predict import predict
from dynaprop.heads.features.sampling import inference_clips
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, StaticSTE
from dynaprop.pipeline.errors import DynapropError, UsageError


@pytest.fixture
def trio():
    torch.manual_seed(0)
    student = FrameClassifier(dim=6, n_classes=3, key_dim=4)
    teacher = FrameClassifier(dim=10, n_classes=3, key_dim=4)
    return student, teacher, DynamicSTE(student_dim=6, teacher=teacher, key_dim=4)


def test_dynamic_prediction_is_each_videos_own_from_its_inference_clips(make_split, trio):
    split = make_split()
    model = trio[2]
    prediction = predict(model, split, n_s=6, n_t=2, batch_size=4)
    assert prediction.video_ids == split.video_ids
    for v in range(len(split)):
        start, stop = split.starts[v], split.starts[v] + split.n_clips[v]
        student, teacher = inference_clips(int(stop - start), n_s=6, n_t=2)
        z_s, z_t = split.student[start + student].float()[None], split.teacher[start + teacher].float()[None]
        ones_s, ones_t = torch.ones(z_s.shape[:2], dtype=torch.bool), torch.ones(z_t.shape[:2], dtype=torch.bool)
        expected = model(z_s, ones_s, z_t, ones_t).video_logits.double().softmax(dim=1)[0]
        np.testing.assert_allclose(prediction.probabilities[v], expected.detach(), rtol=1e-5)
        assert (prediction.n_s_used[v], prediction.n_t_used[v]) == (len(student), len(teacher))


def test_the_frames_really_used_are_counted(make_split, trio):
    prediction = predict(trio[2], make_split((25, 10, 2, 1)), n_s=8, n_t=2)
    assert prediction.n_s_used.tolist() == [8, 8, 1, 1]
    assert prediction.n_t_used.tolist() == [2, 2, 1, 1]
    literal = predict(trio[2], make_split((10,)), n_s=5, n_t=2, skip_overlap=True)
    assert (literal.n_s_used[0], literal.n_t_used[0]) == (4, 2)


def test_a_classifier_takes_the_branch_that_has_frames(make_split, trio):
    split = make_split()
    student, teacher, _ = trio
    of_student, of_teacher = predict(student, split, n_s=4, n_t=0), predict(teacher, split, n_s=0, n_t=4)
    assert of_student.n_t_used.tolist() == [0] * 6 and of_teacher.n_s_used.tolist() == [0] * 6
    both = predict(StaticSTE(student=student, teacher=teacher), make_split((1,)), n_s=4, n_t=4).probabilities
    singles = [
        predict(student, make_split((1,)), n_s=4, n_t=0).probabilities,
        predict(teacher, make_split((1,)), n_s=0, n_t=4).probabilities,
    ]
    np.testing.assert_allclose(both, (singles[0] + singles[1]) / 2, rtol=1e-6)


def test_probabilities_are_float64_and_sum_to_one(make_split, trio):
    probabilities = predict(trio[2], make_split(), n_s=4, n_t=2).probabilities
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)


def test_batches_do_not_matter(make_split, trio):
    one, all_ = (predict(trio[2], make_split(), n_s=6, n_t=3, batch_size=size).probabilities for size in (1, 64))
    np.testing.assert_allclose(one, all_, rtol=1e-5)


def test_counts_and_widths_that_do_not_fit_the_model_are_refused(make_split, trio):
    split = make_split()
    student, _, dynamic = trio
    for n_s, n_t in ((4, 2), (0, 0)):
        with pytest.raises(UsageError, match="one branch"):
            predict(student, split, n_s=n_s, n_t=n_t)
    with pytest.raises(UsageError, match="both branches"):
        predict(dynamic, split, n_s=4, n_t=0)
    with pytest.raises(UsageError, match="student features of 6 channels, these have 5"):
        predict(dynamic, make_split(d_s=5), n_s=4, n_t=2)
    with pytest.raises(UsageError, match="3 classes, the data have 4"):
        predict(dynamic, make_split(n_classes=4), n_s=4, n_t=2)


def test_features_that_are_not_finite_are_named(make_split, trio):
    split = make_split()
    broken = split.teacher.clone()
    broken[split.starts[2] :][: split.n_clips[2]] = torch.nan
    with pytest.raises(DynapropError, match=r"1 of 6 videos are not finite, 'video2\.mp4' first"):
        predict(trio[2], replace(split, teacher=broken), n_s=4, n_t=2)
