"""Every equation of the paper against the same formula in float64 NumPy, written out with loops.

Nothing here but the layers' weights comes from the code under test.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dynaprop.heads.model.attention import attention_weights
from dynaprop.heads.model.branch import Branch
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, StaticSTE, normalised_weights
from dynaprop.heads.model.fusion import TemporalFusion
from dynaprop.heads.model.losses import cosine_loss, frame_loss, student_loss, video_loss
from dynaprop.heads.model.prediction import top_k, video_logits
from dynaprop.heads.model.propagation import KnowledgePropagation

B, N_S, N_T, D_S, D_T, D_K, C = 3, 9, 4, 5, 7, 6, 8
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(autouse=True)
def float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return np.array(
        [[sum(weight[o, i] * row[i] for i in range(len(row))) + bias[o] for o in range(len(bias))] for row in x]
    )


def softmax(x: np.ndarray) -> np.ndarray:
    exponentials = [math.exp(value) for value in x]
    return np.array([e / sum(exponentials) for e in exponentials])


def attention(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Eq. (1) for one video without padding."""
    tau = math.sqrt(keys.shape[1])
    attended = []
    for q in queries:
        exponentials = [math.exp(np.dot(q, k) / tau) for k in keys]
        attended.append(sum(e / sum(exponentials) * v for e, v in zip(exponentials, values, strict=True)))
    return np.array(attended)


def fuse(fusion: TemporalFusion, z: np.ndarray) -> np.ndarray:
    return attention(linear(fusion.query, z), linear(fusion.key, z), linear(fusion.value, z))


def video_score(frame_scores: np.ndarray, gamma: int) -> np.ndarray:
    """Eq. (3) and the average below it, for one video without padding."""
    k = max(1, math.floor(len(frame_scores) / gamma))
    confident_first = sorted(range(len(frame_scores)), key=lambda i: -max(frame_scores[i]))
    return sum(frame_scores[i] for i in confident_first[:k]) / k


def cross_entropy(prediction: np.ndarray, target: np.ndarray) -> float:
    return -sum(t * math.log(p) for p, t in zip(prediction, target, strict=True))


def cosine(q: np.ndarray, k: np.ndarray) -> float:
    return np.dot(q, k) / (math.sqrt(np.dot(q, q)) * math.sqrt(np.dot(k, k)))


def everything(n: int) -> torch.Tensor:
    return torch.ones(B, n, dtype=torch.bool)


def test_temporal_fusion():
    fusion = TemporalFusion(dim=D_S, key_dim=D_K)
    z = torch.randn(B, N_S, D_S)
    fused = fusion(z, everything(N_S)).detach().numpy()
    for b in range(B):
        np.testing.assert_allclose(fused[b], fuse(fusion, z[b].numpy()), **CLOSE)


@pytest.mark.parametrize("classes", [7, 1000], ids=["fewer classes than frames", "more"])
def test_a_head_multiplied_into_the_values_is_the_same_head(classes):
    """Linear layers commute with attention: head(fusion(z)) by one matrix, padding and all."""
    fusion, head = TemporalFusion(dim=D_S, key_dim=D_K), torch.nn.Linear(D_S, classes)
    z = torch.randn(B, N_S, D_S)
    mask = everything(N_S).clone()
    mask[1, 2:] = False
    torch.testing.assert_close(fusion(z, mask, head=head), head(fusion(z, mask)), rtol=1e-9, atol=1e-9)


def test_equations_1_and_2_knowledge_propagation():
    propagation = KnowledgePropagation(student_dim=D_S, teacher_dim=D_T, key_dim=D_K)
    h_s, h_t = torch.randn(B, N_S, D_S), torch.randn(B, N_T, D_T)
    propagated = propagation(h_s, h_t, everything(N_T))
    for b in range(B):
        queries = linear(propagation.query, h_s[b].numpy())
        keys = linear(propagation.key, h_t[b].numpy())
        h_ts = attention(queries, keys, linear(propagation.value, h_t[b].numpy()))
        np.testing.assert_allclose(propagated.queries[b].detach(), queries, **CLOSE)
        np.testing.assert_allclose(propagated.keys[b].detach(), keys, **CLOSE)
        np.testing.assert_allclose(propagated.features[b].detach(), h_s[b].numpy() + h_ts, **CLOSE)


def test_masked_keys_get_exactly_no_weight():
    mask = torch.tensor([[True] * N_T, [True, False, True, False], [False, False, False, True]])
    weights = attention_weights(torch.randn(B, N_S, D_K), torch.randn(B, N_T, D_K), mask)
    assert (weights.masked_select(~mask[:, None, :].expand_as(weights)) == 0).all()
    np.testing.assert_allclose(weights.sum(dim=2), 1.0, **CLOSE)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 1), (4, 1), (7, 1), (8, 2), (12, 3), (20, 5), (23, 5), (80, 20)])
def test_equation_3_k(n, k):
    assert top_k(torch.tensor([n]), gamma=4).tolist() == [k]


@pytest.mark.parametrize("gamma", [1, 2, 4, 100])
def test_equation_3_video_score(gamma):
    scores = torch.randn(B, N_S, C)
    ours = video_logits(scores, everything(N_S), gamma=gamma)
    for b in range(B):
        np.testing.assert_allclose(ours[b], video_score(scores[b].numpy(), gamma), **CLOSE)


def test_equally_confident_frames_are_taken_in_order():
    scores = torch.zeros(1, 400, 2)
    scores[0, :, 0] = 1.0
    scores[0, :, 1] = torch.arange(400) / -1000.0  # tells the frames apart without changing their confidence
    expected = np.mean(np.arange(100) / -1000.0)  # k = 100
    assert video_logits(scores, torch.ones(1, 400, dtype=torch.bool), gamma=4)[0, 1].item() == pytest.approx(expected)


def test_equation_6_video_loss():
    scores, labels = torch.randn(B, C), torch.tensor([2, 0, 7])
    expected = np.mean([cross_entropy(softmax(scores[b].numpy()), np.eye(C)[labels[b]]) for b in range(B)])
    np.testing.assert_allclose(video_loss(scores, labels), expected, **CLOSE)


def test_equation_7_frame_loss():
    student, teacher = torch.randn(B, N_S, C), torch.randn(B, N_S, C)
    expected = np.mean(
        [
            sum(
                cross_entropy(softmax(s), softmax(t))
                for s, t in zip(student[b].numpy(), teacher[b].numpy(), strict=True)
            )
            / N_S
            for b in range(B)
        ]
    )
    np.testing.assert_allclose(frame_loss(student, teacher, everything(N_S)), expected, **CLOSE)


def test_equation_8_cosine_loss():
    queries, keys = torch.randn(B, N_S, D_K), torch.randn(B, N_S, D_K)
    expected = np.mean(
        [-sum(cosine(q, k) for q, k in zip(queries[b].numpy(), keys[b].numpy(), strict=True)) / N_S for b in range(B)]
    )
    np.testing.assert_allclose(cosine_loss(queries, keys, everything(N_S)), expected, **CLOSE)


def test_a_longer_video_does_not_weigh_more_in_the_losses():
    mask = torch.tensor([[True] * 8, [True, True] + [False] * 6])
    student, teacher = torch.randn(2, 8, C), torch.randn(2, 8, C)
    alone = [
        frame_loss(student[b : b + 1, :n], teacher[b : b + 1, :n], mask[b : b + 1, :n]) for b, n in ((0, 8), (1, 2))
    ]
    np.testing.assert_allclose(frame_loss(student, teacher, mask), (alone[0] + alone[1]) / 2, **CLOSE)


@pytest.mark.parametrize(
    ("frame", "cosine_", "expected"),
    [(None, None, 2.0), (3.0, None, 3.5), (None, -0.5, 1.8), (3.0, -0.5, 3.3)],
    ids=["vid", "vid+frm", "vid+cos", "vid+frm+cos"],
)
def test_equation_5_loss_sets_of_table_5(frame, cosine_, expected):
    parts = [None if x is None else torch.tensor(x) for x in (frame, cosine_)]
    assert student_loss(torch.tensor(2.0), *parts, lambda_frm=0.5, lambda_cos=0.4).item() == pytest.approx(expected)


@pytest.mark.parametrize("n_t", [N_T, N_S], ids=["inference", "training"])
@pytest.mark.parametrize("fusion_t", [True, False], ids=["teacher-fusion", "no-teacher-fusion"])
@pytest.mark.parametrize("fusion_s", [True, False], ids=["student-fusion", "no-student-fusion"])
def test_dynamic_ste_from_features_to_equation_5(fusion_s, fusion_t, n_t):
    teacher = FrameClassifier(dim=D_T, n_classes=C, key_dim=D_K, fusion=fusion_t, feature_std=0.3)
    model = DynamicSTE(student_dim=D_S, teacher=teacher, key_dim=D_K, gamma=4, fusion=fusion_s, feature_std=1.7)
    z_s, z_t, labels = torch.randn(B, N_S, D_S), torch.randn(B, n_t, D_T), torch.tensor([1, 5, 2])
    scores = model(z_s, everything(N_S), z_t, everything(n_t))

    def branch(module: Branch, z: np.ndarray, std: float) -> np.ndarray:
        return z / std if module.fusion is None else fuse(module.fusion, z / std)

    losses = []
    for b in range(B):
        h_s = branch(model.student, z_s[b].numpy(), 1.7)
        h_t = branch(teacher.branch, z_t[b].numpy(), 0.3)
        queries, keys = linear(model.propagation.query, h_s), linear(model.propagation.key, h_t)
        o_s = h_s + attention(queries, keys, linear(model.propagation.value, h_t))
        s = linear(model.classifier, o_s)
        np.testing.assert_allclose(scores.frame_logits[b].detach(), s, **CLOSE)
        np.testing.assert_allclose(scores.video_logits[b].detach(), video_score(s, 4), **CLOSE)
        if n_t == N_S:
            targets = linear(teacher.classifier, h_t)
            video = cross_entropy(softmax(video_score(s, 4)), np.eye(C)[labels[b]])
            frame = np.mean([cross_entropy(softmax(s[i]), softmax(targets[i])) for i in range(N_S)])
            cosines = np.mean([cosine(queries[i], keys[i]) for i in range(N_S)])
            losses.append(video + 0.5 * frame - 0.5 * cosines)
    if n_t == N_S:
        total = student_loss(
            video_loss(scores.video_logits, labels),
            frame_loss(scores.frame_logits, teacher.classifier(scores.teacher_features), everything(N_S)),
            cosine_loss(scores.queries, scores.keys, everything(N_S)),
            lambda_frm=0.5,
            lambda_cos=0.5,
        )
        np.testing.assert_allclose(total.detach(), np.mean(losses), **CLOSE)


@pytest.mark.parametrize("weights", [None, (0.25, 0.75), (-1.0, 2.0)])
def test_static_ste_averages_the_probabilities_of_both(weights):
    student = FrameClassifier(dim=D_S, n_classes=C, key_dim=D_K)
    teacher = FrameClassifier(dim=D_T, n_classes=C, key_dim=D_K)
    z_s, z_t = torch.randn(B, N_S, D_S), torch.randn(B, N_T, D_T)
    ours = StaticSTE(student=student, teacher=teacher, weights=weights)(z_s, everything(N_S), z_t, everything(N_T))
    w_s, w_t = {None: (0.5, 0.5), (0.25, 0.75): (0.25 / 1.0001, 0.75 / 1.0001), (-1.0, 2.0): (0.0, 2 / 2.0001)}[weights]
    for b in range(B):
        p_s = softmax(video_score(linear(student.classifier, fuse(student.branch.fusion, z_s[b].numpy())), 4))
        p_t = softmax(video_score(linear(teacher.classifier, fuse(teacher.branch.fusion, z_t[b].numpy())), 4))
        np.testing.assert_allclose(ours[b].detach(), w_s * p_s + w_t * p_t, **CLOSE)


def test_fast_normalised_fusion_is_efficientdets():
    # Tan et al., "EfficientDet", section 3.3: O = sum_i w_i / (0.0001 + sum_j w_j) I_i with w_i = relu(w_i).
    np.testing.assert_allclose(normalised_weights((3.0, 1.0)), (3 / 4.0001, 1 / 4.0001), **CLOSE)
    assert normalised_weights((-3.0, 1.0))[0] == 0.0
