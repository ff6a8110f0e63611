"""The models of a training list at one seed; what two of them share is trained once."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from dynaprop.heads.evaluation.predict import Model, predict
from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, StaticSTE
from dynaprop.heads.model.setting import Setting
from dynaprop.heads.training.train import fit_static_weights, train_classifier, train_dynamic
from dynaprop.pipeline.annotations.splits import inner_holdout
from dynaprop.pipeline.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Hyper-parameters of the training; the defaults are the paper's (section 4.1)."""

    gamma: float = 4
    key_dim: int = 256
    lambda_frm: float = 0.5
    lambda_cos: float = 0.5
    epochs: int = 40
    lr: float = 1e-4
    milestones: tuple[int, ...] = (15, 30)
    batch_size: int = 32

    @property
    def digest(self) -> str:
        """Twelve digits that differ whenever an option does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Training:
    """One optimisation: stage 1 (teacher), stage 2 (dynamic), or a student of its own."""

    model: Literal["teacher", "student", "student-kd", "dynamic"]
    n: int
    """Clips a video."""
    fusion_s: bool | None
    fusion_t: bool | None
    losses: str
    part: bool = False
    """On four fifths of the training videos; the held-out rest is for the weights of a static ensemble."""

    @property
    def teacher(self) -> "Training | None":
        """The frozen teacher that it needs: stage 1, on as many clips as stage 2 will show it."""
        if self.model in ("teacher", "student"):
            return None
        return Training("teacher", self.n, None, self.fusion_t, "vid", self.part)

    def frames(self, n_clips: np.ndarray) -> int:
        """Frames that pass through the heads in an epoch, of both branches, for videos of so many clips ``[videos]``.

        A video of fewer clips than ``n`` gives all that it has.
        """
        of_a_branch = int(np.minimum(n_clips, self.n).sum())
        return of_a_branch if self.teacher is None else 2 * of_a_branch


def trainings(settings: Iterable[Setting]) -> set[Training]:
    """Everything that has to be trained for some settings."""
    return set().union(*(_needs(setting) for setting in settings))


class TrainedModels:
    """The models of one training list at one seed, each trained when it is first asked for.

    Args:
        train: the training videos.
        groups: a group a training video (or None), kept together when a fifth is held out.
        seed: of everything random.
        options: hyper-parameters.
        device: torch device.
        on_frames: called after every epoch with the frames that it took, see ``Training.frames``.
    """

    def __init__(
        self,
        train: FeatureSplit,
        *,
        groups: Sequence[str | None],
        seed: int,
        options: Options,
        device: str = "cpu",
        on_frames: Callable[[int], None] | None = None,
    ) -> None:
        self.train = train
        self.seed = seed
        self.options = options
        self.device = device
        self._groups = groups
        self._on_frames = on_frames
        self._models: dict[Training, FrameClassifier | DynamicSTE] = {}
        self._weights: dict[Setting, tuple[float, float]] = {}
        self._seconds: dict[Training, float] = {}
        self._parts: tuple[FeatureSplit, FeatureSplit] | None = None

    def model(self, setting: Setting) -> Model:
        """The trained model of a setting."""
        if setting.model in ("static-avg", "static-weighted"):
            student, teacher = (self._classifier(training) for training in _static_parts(setting, part=False))
            weights = self._static_weights(setting) if setting.model == "static-weighted" else None
            return StaticSTE(student=student, teacher=teacher, weights=weights)
        return self._trained(_training(setting))

    def frames(self, settings: Iterable[Setting]) -> int:
        """Frames that the training of some settings' models takes in all, before any of them is trained."""
        total = 0
        for training in trainings(settings):
            try:
                total += training.frames(self._videos(training).n_clips) * self.options.epochs
            except UsageError:  # nothing can be held out, and nothing is trained on the rest
                continue
        return total

    def seconds(self, setting: Setting) -> float:
        """Seconds that training a setting's model took so far, with all that it needs."""
        return sum(self._seconds.get(training, 0.0) for training in _needs(setting))

    def _classifier(self, training: Training) -> FrameClassifier:
        model = self._trained(training)
        assert isinstance(model, FrameClassifier)
        return model

    def _trained(self, training: Training) -> FrameClassifier | DynamicSTE:
        if training not in self._models:
            teacher = self._classifier(training.teacher) if training.teacher else None
            began = time.monotonic()
            self._models[training] = self._train(training, teacher)
            self._seconds[training] = time.monotonic() - began
        return self._models[training]

    def _train(self, training: Training, teacher: FrameClassifier | None) -> FrameClassifier | DynamicSTE:
        options = asdict(self.options)
        options |= {f"lambda_{loss}": 0.0 for loss in ("frm", "cos") if loss not in training.losses}
        options |= {"n": training.n, "seed": self.seed, "device": self.device}
        videos = self._videos(training)

        def tick(_epoch: int, _loss: float) -> None:
            if self._on_frames is not None:
                self._on_frames(training.frames(videos.n_clips))

        if training.model == "dynamic":
            assert teacher is not None
            return train_dynamic(videos, teacher, fusion=bool(training.fusion_s), on_epoch=tick, **options)
        del options["lambda_cos"]  # of Dynamic-STE alone
        branch: Literal["teacher", "student"] = "teacher" if training.model == "teacher" else "student"
        fusion = bool(training.fusion_t if branch == "teacher" else training.fusion_s)
        return train_classifier(videos, branch=branch, teacher=teacher, fusion=fusion, on_epoch=tick, **options)

    def _videos(self, training: Training) -> FeatureSplit:
        return self._held_out()[0] if training.part else self.train

    def _held_out(self) -> tuple[FeatureSplit, FeatureSplit]:
        """The training videos without a fifth, and that fifth."""
        if self._parts is None:
            firsts = [labels[0] for labels in self.train.labels]
            kept, held = inner_holdout(firsts, self._groups, seed=self.seed)
            self._parts = self.train.select(kept), self.train.select(held)
        return self._parts

    def _static_weights(self, setting: Setting) -> tuple[float, float]:
        """Weights fitted on a held-out fifth of the training videos, by models that never saw that fifth.

        Equal weights where every class has a single training video.
        """
        if setting not in self._weights:
            try:
                _, rest = self._held_out()
            except UsageError:  # one training video a class: nothing can be held out
                return 0.5, 0.5
            student, teacher = (self._classifier(training) for training in _static_parts(setting, part=True))
            # Each branch alone, on the very clips that the ensemble shows it.
            p_s, p_t = (
                predict(
                    StaticSTE(student=student, teacher=teacher, weights=weights),
                    rest,
                    n_s=setting.n_s,
                    n_t=setting.n_t,
                    device=self.device,
                ).probabilities
                for weights in ((1.0, 0.0), (0.0, 1.0))
            )
            self._weights[setting] = fit_static_weights(p_s, p_t, np.array([labels[0] for labels in rest.labels]))
        return self._weights[setting]


def _training(setting: Setting) -> Training:
    """The last training of a model that is no static ensemble."""
    if setting.model == "teacher":
        return Training("teacher", setting.n, None, setting.fusion_t, setting.losses)
    if setting.model == "student":
        return Training("student", setting.n, setting.fusion_s, None, setting.losses)
    if setting.model == "student-kd":  # its teacher has gone when it is measured
        return Training("student-kd", setting.n, setting.fusion_s, setting.fusion_t is not False, setting.losses)
    return Training("dynamic", setting.n, setting.fusion_s, setting.fusion_t, setting.losses)


def _static_parts(setting: Setting, *, part: bool) -> tuple[Training, Training]:
    """Student with KD and teacher of a static ensemble."""
    student = Training("student-kd", setting.n, setting.fusion_s, setting.fusion_t, "vid+frm", part)
    assert student.teacher is not None
    return student, student.teacher


def _needs(setting: Setting) -> set[Training]:
    if setting.model in ("static-avg", "static-weighted"):
        parts = (False, True) if setting.model == "static-weighted" else (False,)
        return {training for part in parts for training in _static_parts(setting, part=part)}
    last = _training(setting)
    return {last, last.teacher} if last.teacher else {last}
