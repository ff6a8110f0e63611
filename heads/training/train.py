"""Training the heads on resident frame features: stage 1, its baselines, and stage 2 (sections 3.3 and 4.1)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from dynaprop.heads.features.batch import gather_frames
from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.features.sampling import training_clips
from dynaprop.heads.model.branch import measure_std
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, normalised_weights
from dynaprop.heads.model.losses import dynamic_losses, frame_loss, student_loss, video_loss
from dynaprop.pipeline.errors import DynapropError, UsageError

_GENERATOR = Lock()

OnEpoch = Callable[[int, float], None]
"""called with (epochs finished, mean loss of the last one)"""


def train_classifier(
    split: FeatureSplit,
    *,
    branch: Literal["student", "teacher"],
    n: int,
    teacher: FrameClassifier | None = None,
    fusion: bool = True,
    key_dim: int = 256,
    gamma: float = 4,
    lambda_frm: float = 0.5,
    epochs: int = 40,
    lr: float = 1e-4,
    milestones: Sequence[int] = (15, 30),
    batch_size: int = 32,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> FrameClassifier:
    """Train Teacher or Student by eq. (4), or, given a ``teacher``, Student with KD by eq. (5) without L_cos.

    The same seed gives the same weights on the same machine, whatever ran before in the process.

    Args:
        split: the training videos
        branch: whose features to train on
        n: clips sampled from each video, anew in every epoch
        teacher: a trained teacher; it is moved to ``device`` and otherwise only read
        fusion: whether the model has temporal fusion
        key_dim: width of the fusion's queries and keys
        gamma: of eq. (3)
        lambda_frm: of eq. (5); used with a teacher only
        epochs: passes over the training videos
        lr: Adam's initial learning rate, times 0.1 after each of the ``milestones`` (in epochs)
        milestones: see ``lr``
        batch_size: videos in a batch
        seed: of the initial weights, the order of the videos and the sampled clips
        device: where to train
        on_epoch: told the progress

    Raises:
        UsageError: the split has no or unlabelled videos, or does not fit the teacher
        DynapropError: features without variance, or the loss is not finite
    """
    labels = first_labels(split)
    features = split.student if branch == "student" else split.teacher
    if teacher is not None:
        _check_teacher(teacher, split)
        teacher.to(device)
    with seeded(seed):
        model = FrameClassifier(
            dim=features.shape[1],
            n_classes=len(split.class_names),
            key_dim=key_dim,
            gamma=gamma,
            fusion=fusion,
            feature_std=measure_std(features, split.rows),
        ).to(device)

    def batch_loss(rows: list[np.ndarray], targets: torch.Tensor) -> torch.Tensor:
        z, mask = gather_frames(features, rows, device=device)
        scores = model(z, mask)
        frame = None
        if teacher is not None and lambda_frm > 0:
            z_t, _ = gather_frames(split.teacher, rows, device=device)
            with torch.no_grad():
                teacher_logits = teacher(z_t, mask).frame_logits
            frame = frame_loss(scores.frame_logits, teacher_logits, mask)
        video = video_loss(scores.video_logits, targets)
        return student_loss(video, frame, None, lambda_frm=lambda_frm, lambda_cos=0.0)

    _minimise(
        model,
        batch_loss,
        labels,
        split,
        n=n,
        epochs=epochs,
        lr=lr,
        milestones=milestones,
        batch_size=batch_size,
        seed=seed,
        device=device,
        on_epoch=on_epoch,
    )
    return model


def train_dynamic(
    split: FeatureSplit,
    teacher: FrameClassifier,
    *,
    n: int,
    fusion: bool = True,
    key_dim: int = 256,
    gamma: float = 4,
    lambda_frm: float = 0.5,
    lambda_cos: float = 0.5,
    epochs: int = 40,
    lr: float = 1e-4,
    milestones: Sequence[int] = (15, 30),
    batch_size: int = 32,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> DynamicSTE:
    """Stage 2: train Dynamic-STE by eq. (5) around a trained teacher, which is frozen and shared.

    Both branches see the same ``n`` clips. ``fusion`` is the student's. A lambda of 0 leaves its loss out (Table 5).
    The other arguments and the errors are those of `train_classifier`.
    """
    labels = first_labels(split)
    _check_teacher(teacher, split)
    with seeded(seed):
        model = DynamicSTE(
            student_dim=split.student.shape[1],
            teacher=teacher,
            key_dim=key_dim,
            gamma=gamma,
            fusion=fusion,
            feature_std=measure_std(split.student, split.rows),
        ).to(device)

    def batch_loss(rows: list[np.ndarray], targets: torch.Tensor) -> torch.Tensor:
        z_s, mask = gather_frames(split.student, rows, device=device)
        z_t, _ = gather_frames(split.teacher, rows, device=device)
        scores = model(z_s, mask, z_t, mask)
        return dynamic_losses(scores, teacher, mask, targets, lambda_frm=lambda_frm, lambda_cos=lambda_cos).total

    _minimise(
        model,
        batch_loss,
        labels,
        split,
        n=n,
        epochs=epochs,
        lr=lr,
        milestones=milestones,
        batch_size=batch_size,
        seed=seed,
        device=device,
        on_epoch=on_epoch,
    )
    return model


def fit_static_weights(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Weights of the weighted Static-STE that minimise the negative log-likelihood of held-out videos.

    Fast normalised fusion depends on the ratio of the two weights only, so they are sought as (a, 1 - a). The
    likelihood is concave in a: the one-dimensional search finds the optimum, with no learning rate to choose.

    Args:
        student: video probabilities ``[v, c]`` on videos that neither model was trained on
        teacher: the same of the teacher
        labels: class index of each video ``[v]``

    Returns:
        (student's, teacher's) weights for `StaticSTE`
    """
    if len(labels) == 0:
        raise UsageError("static weights need at least one held-out video: hold out more of the training split")
    index = np.arange(len(labels))
    p_s = student[index, labels].astype(np.float64)  # [v]
    p_t = teacher[index, labels].astype(np.float64)  # [v]

    def negative_log_likelihood(a: float) -> float:
        w_s, w_t = normalised_weights((a, 1.0 - a))
        return float(-np.log(np.maximum(w_s * p_s + w_t * p_t, np.finfo(np.float64).tiny)).mean())

    a = float(minimize_scalar(negative_log_likelihood, bounds=(0.0, 1.0), method="bounded").x)
    return a, 1.0 - a


def _minimise(
    model: nn.Module,
    batch_loss: Callable[[list[np.ndarray], torch.Tensor], torch.Tensor],
    labels: np.ndarray,
    split: FeatureSplit,
    *,
    n: int,
    epochs: int,
    lr: float,
    milestones: Sequence[int],
    batch_size: int,
    seed: int,
    device: torch.device | str,
    on_epoch: OnEpoch | None,
) -> None:
    """Run Adam over the trainable parameters of ``model``; leaves it in evaluation mode."""
    targets = torch.from_numpy(labels).to(device)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=list(milestones), gamma=0.1)
    model.train()
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), device=device)
        order = rng.permutation(len(labels))
        for start in range(0, len(order), batch_size):
            videos = order[start : start + batch_size]
            rows = [split.starts[v] + training_clips(split.n_clips[v], n, rng) for v in videos]
            loss = batch_loss(rows, targets[torch.from_numpy(videos).to(device)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(videos)
        schedule.step()
        mean = total.item() / len(labels)
        if not np.isfinite(mean):
            raise DynapropError(f"training loss is {mean} in epoch {epoch}: check the features or lower lr={lr:g}")
        if on_epoch is not None:
            on_epoch(epoch, mean)
    model.eval()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's only generator and give it back as it was; models that are trained side by side take turns."""
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def first_labels(split: FeatureSplit) -> np.ndarray:
    """The label that each video is trained on, int64 ``[v]``: its first one, as AR-Net does it.

    Raises:
        UsageError: no videos, or a video without label
    """
    if len(split) == 0:
        raise UsageError("the training split has no videos")
    unlabelled = [name for name, labels in zip(split.video_ids, split.labels, strict=True) if not labels]
    if unlabelled:
        raise UsageError(
            f"{len(unlabelled)} of {len(split)} training videos have no label, {unlabelled[0]!r} first: leave them out"
        )
    return np.array([labels[0] for labels in split.labels], dtype=np.int64)


def _check_teacher(teacher: FrameClassifier, split: FeatureSplit) -> None:
    expected = (teacher.branch.dim, teacher.n_classes)
    found = (split.teacher.shape[1], len(split.class_names))
    if expected != found:
        raise UsageError(
            f"the teacher was trained on {expected[0]} channels and {expected[1]} classes, "
            f"the split has {found[0]} and {found[1]}: train the teacher on this data"
        )
