"""Training: what it learns, what it must not touch, and that a seed is enough to repeat it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynaprop.heads.evaluation.metric import multi_hot, top1
from dynaprop.heads.evaluation.predict import predict
from dynaprop.heads.features.batch import gather_frames
from dynaprop.heads.model.ensembles import FrameClassifier, normalised_weights
from dynaprop.heads.training.train import fit_static_weights, train_classifier, train_dynamic
from dynaprop.pipeline.errors import DynapropError, UsageError

QUICK = {"n": 6, "epochs": 3, "lr": 1e-3, "key_dim": 4}
THOROUGH = {"n": 8, "epochs": 40, "lr": 3e-3, "key_dim": 16}


def accuracy(model, split, **counts) -> float:
    prediction = predict(model, split, **counts)
    return top1(prediction.probabilities, multi_hot(split.labels, len(split.class_names)))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_dynamic_ste_beats_a_student_whose_features_tell_nothing(make_split):
    # 4 classes (chance 0.25): the student sees noise, the teacher sees the class.
    of_branches = {"n_classes": 4, "d_s": 12, "d_t": 16, "student_signal": 0.0, "teacher_signal": 1.0}
    train = make_split([10] * 64, **of_branches, videos_seed=1)
    test = make_split([12] * 64, **of_branches, videos_seed=2)
    teacher = train_classifier(train, branch="teacher", **THOROUGH)
    student = train_classifier(train, branch="student", **THOROUGH)
    dynamic = train_dynamic(train, teacher, **THOROUGH)
    assert accuracy(teacher, test, n_s=0, n_t=8) >= 0.95
    assert accuracy(student, test, n_s=8, n_t=0) <= 0.5
    assert accuracy(dynamic, test, n_s=8, n_t=2) >= 0.85


def test_a_separable_problem_is_learnt_by_the_student_with_and_without_kd(make_split):
    of_branches = {"n_classes": 3, "d_s": 12, "d_t": 12}
    train, test = make_split([9] * 48, **of_branches, videos_seed=1), make_split([9] * 48, **of_branches, videos_seed=2)
    teacher = train_classifier(train, branch="teacher", **THOROUGH)
    for with_kd in (None, teacher):
        student = train_classifier(train, branch="student", teacher=with_kd, **THOROUGH)
        assert accuracy(student, test, n_s=8, n_t=0) >= 0.95


def test_kd_brings_frame_predictions_closer_to_the_teachers(make_split):
    train = make_split([8] * 24, teacher_signal=2.0)
    teacher = train_classifier(train, branch="teacher", **THOROUGH)
    z_s, z_t = train.student.view(24, 8, -1).float(), train.teacher.view(24, 8, -1).float()
    mask = torch.ones(24, 8, dtype=torch.bool)
    targets = teacher(z_t, mask).frame_logits.softmax(dim=2)

    def cross_entropy(student: FrameClassifier) -> float:
        return -(targets * student(z_s, mask).frame_logits.log_softmax(dim=2)).sum(dim=2).mean().item()

    plain = train_classifier(train, branch="student", **THOROUGH)
    distilled = train_classifier(train, branch="student", teacher=teacher, lambda_frm=5.0, **THOROUGH)
    assert cross_entropy(distilled) < cross_entropy(plain)


@pytest.mark.parametrize("lambdas", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_every_loss_set_of_table_5_trains_and_all_differ_from_video_loss_alone(make_split, lambdas):
    split = make_split([9] * 24)
    longer = QUICK | {"epochs": 12}
    teacher = train_classifier(split, branch="teacher", **longer)
    losses: list[float] = []
    frm, cos = lambdas
    model = train_dynamic(
        split, teacher, lambda_frm=frm, lambda_cos=cos, on_epoch=lambda _, loss: losses.append(loss), **longer
    )
    alone = train_dynamic(split, teacher, lambda_frm=0.0, lambda_cos=0.0, **longer)
    assert len(losses) == 12 and losses[-1] < losses[0] - 0.05
    assert same(model, alone) is (lambdas == (0.0, 0.0))


def test_stage_2_leaves_every_teacher_parameter_and_buffer_unchanged(make_split):
    split = make_split()
    teacher = train_classifier(split, branch="teacher", **QUICK)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    model = train_dynamic(split, teacher, **QUICK)
    train_classifier(split, branch="student", teacher=teacher, **QUICK)
    assert model.teacher is teacher
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_stage_2_changes_every_student_parameter(make_split):
    split = make_split()
    teacher = train_classifier(split, branch="teacher", **QUICK)
    untrained = train_dynamic(split, teacher, **(QUICK | {"epochs": 0}))
    start = {name: p.clone() for name, p in untrained.named_parameters() if p.requires_grad}
    trained = dict(train_dynamic(split, teacher, **QUICK).named_parameters())
    # The bias of the fusion's keys shifts all scores of a query alike, so that its gradient is 0 but for rounding.
    for name in start.keys() - {"student.fusion.key.bias"}:
        assert not torch.equal(start[name], trained[name]), name


def test_the_seed_alone_decides_the_weights(make_split):
    split = make_split()
    teacher = train_classifier(split, branch="teacher", seed=5, **QUICK)
    first = train_dynamic(split, teacher, seed=5, **QUICK)
    torch.manual_seed(99)
    np.random.default_rng().random(3)
    torch.randn(17)
    assert same(teacher, train_classifier(split, branch="teacher", seed=5, **QUICK))
    assert same(first, train_dynamic(split, teacher, seed=5, **QUICK))
    assert not same(first, train_dynamic(split, teacher, seed=6, **QUICK))


def test_clips_are_drawn_anew_in_every_epoch_and_are_the_same_for_both_branches(make_split, monkeypatch):
    split = make_split([40])
    drawn: dict[int, list[list[int]]] = {id(split.student): [], id(split.teacher): []}

    def spy(features, rows, **options):
        drawn[id(features)].append([row.tolist() for row in rows])
        return gather_frames(features, rows, **options)

    teacher = train_classifier(split, branch="teacher", **QUICK)
    monkeypatch.setattr("dynaprop.heads.training.train.gather_frames", spy)
    train_dynamic(split, teacher, n=6, epochs=5, key_dim=4)
    of_student, of_teacher = drawn.values()
    assert of_student == of_teacher and len(of_student) == 5
    assert len({str(rows) for rows in of_student}) > 1


def test_training_leaves_the_global_random_state_alone(make_split):
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    train_classifier(make_split(), branch="student", **QUICK)
    assert torch.equal(torch.randn(3), expected)


def test_the_learning_rate_falls_after_the_milestones(make_split, monkeypatch):
    rates: list[float] = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self))[1]
    )
    train_classifier(make_split(), branch="student", n=4, epochs=40, key_dim=4)  # one batch an epoch
    np.testing.assert_allclose(rates, [1e-4] * 15 + [1e-5] * 15 + [1e-6] * 10)


def test_the_scale_is_the_standard_deviation_of_the_branchs_training_features(make_split):
    split = make_split()
    teacher = train_classifier(split, branch="teacher", **QUICK)
    model = train_dynamic(split, teacher, **QUICK)
    assert model.student.feature_std.item() == pytest.approx(split.student.double().numpy().std(), rel=1e-6)
    assert teacher.branch.feature_std.item() == pytest.approx(split.teacher.double().numpy().std(), rel=1e-6)


def test_static_weights_minimise_the_likelihood_of_held_out_videos():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=80)

    def scores(sharpness: float) -> np.ndarray:
        logits = rng.normal(size=(80, 3)) + sharpness * np.eye(3)[labels]
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    student, teacher = scores(1.0), scores(1.4)

    def likelihood(weights: tuple[float, float]) -> float:
        w_s, w_t = normalised_weights(weights)
        return -np.log((w_s * student + w_t * teacher)[np.arange(80), labels]).mean()

    fitted = fit_static_weights(student, teacher, labels)
    grid = min(likelihood((a, 1 - a)) for a in np.linspace(0, 1, 1001))
    assert likelihood(fitted) <= grid + 1e-6
    assert 0 < fitted[0] < fitted[1]  # both help, the sharper one more


def test_static_weights_give_all_to_a_model_that_is_always_right():
    labels = np.arange(9) % 3
    weights = fit_static_weights(np.full((9, 3), 1 / 3), 0.98 * np.eye(3)[labels] + 0.02 / 3, labels)
    assert weights[0] == pytest.approx(0.0, abs=1e-4) and weights[1] == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(UsageError, match="held-out"):
        fit_static_weights(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, int))


def test_what_cannot_be_trained_is_refused_in_one_line(make_split):
    split = make_split()
    with pytest.raises(UsageError, match=r"1 of 6 training videos have no label, 'video2\.mp4' first"):
        labels = (*split.labels[:2], (), *split.labels[3:])
        train_classifier(replace(split, labels=labels), branch="student", **QUICK)
    with pytest.raises(UsageError, match="no videos"):
        train_classifier(split.select(np.array([], int)), branch="student", **QUICK)
    with pytest.raises(UsageError, match="10 channels and 3 classes, the split has 4 and 3"):
        train_dynamic(make_split(d_t=4), train_classifier(split, branch="teacher", **QUICK), **QUICK)
    with pytest.raises(DynapropError, match=r"loss is .* in epoch"):
        train_classifier(split, branch="student", n=6, epochs=20, lr=1e38, key_dim=4)
