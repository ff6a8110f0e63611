"""The models of Table 3, trained together on one training list at one seed and one (n_s, n_t)."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from heads.evaluate import Model, predict
from heads.features import FeatureSplit
from heads.models import DynamicSTE, FrameClassifier, StaticSTE
from heads.training import fit_static_weights, train_classifier, train_dynamic
from pipeline.errors import UsageError
from pipeline.splits import inner_holdout

MODELS = ("student", "student-kd", "teacher", "static-avg", "static-weighted", "dynamic", "dynamic-shuffled")
"""Names of the models in the order of Table 3. ``dynamic-shuffled`` is a check, not a model: Dynamic-STE whose teacher
looks at another video."""


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


class TrainedModels:
    """A set of models, each trained when it is first asked for; what two models share is trained once.

    Args:
        train: the training videos.
        groups: a group a training video (or None), kept together when a fifth is held out.
        n_s, n_t: frames of student and teacher.
        seed: of everything random.
        options: hyper-parameters.
        device: torch device.
        on_epoch: called after every epoch of every training.
    """

    def __init__(
        self,
        train: FeatureSplit,
        *,
        groups: Sequence[str | None],
        n_s: int,
        n_t: int,
        seed: int,
        options: Options,
        device: str = "cpu",
        on_epoch: Callable[[], None] | None = None,
    ) -> None:
        self.train = train
        self.groups = groups
        self.n_s = n_s
        self.n_t = n_t
        self.seed = seed
        self.options = options
        self.device = device
        self.on_epoch = on_epoch
        self._seconds: dict[str, float] = {}

    @cached_property
    def student(self) -> FrameClassifier:
        return self._classifier("student", self.train, "student", self.n_s)

    @cached_property
    def teacher(self) -> FrameClassifier:
        """Stage 1: on as many clips as stage 2 will show it."""
        return self._classifier("teacher", self.train, "teacher", self.n_s)

    @cached_property
    def teacher_few(self) -> FrameClassifier:
        """The baseline row "Teacher n_t", trained and tested at its own number of frames."""
        return self._classifier("teacher-few", self.train, "teacher", self.n_t)

    @cached_property
    def student_kd(self) -> FrameClassifier:
        return self._classifier("student-kd", self.train, "student", self.n_s, teacher=self.teacher)

    @cached_property
    def dynamic(self) -> DynamicSTE:
        teacher = self.teacher
        began = time.monotonic()
        model = train_dynamic(
            self.train,
            teacher,
            n=self.n_s,
            **asdict(self.options),
            seed=self.seed,
            device=self.device,
            on_epoch=self._tick,
        )
        self._seconds["dynamic"] = time.monotonic() - began
        return model

    @cached_property
    def static_avg(self) -> StaticSTE:
        return StaticSTE(student=self.student_kd, teacher=self.teacher)

    @cached_property
    def static_weighted(self) -> StaticSTE:
        """Weights fitted on a held-out fifth of the training videos, by models that never saw that fifth.

        Equal weights where every class has a single training video.
        """
        firsts = [labels[0] for labels in self.train.labels]
        try:
            kept, held = inner_holdout(firsts, self.groups, seed=self.seed)
        except UsageError:  # one training video a class: nothing can be held out
            return StaticSTE(student=self.student_kd, teacher=self.teacher, weights=(0.5, 0.5))
        part, rest = self.train.select(kept), self.train.select(held)
        teacher = self._classifier("part-teacher", part, "teacher", self.n_s)
        student = self._classifier("part-student-kd", part, "student", self.n_s, teacher=teacher)
        # Each branch alone, on the very clips that the ensemble shows it.
        p_s, p_t = (
            predict(
                StaticSTE(student=student, teacher=teacher, weights=weights),
                rest,
                n_s=self.n_s,
                n_t=self.n_t,
                device=self.device,
            ).probabilities
            for weights in ((1.0, 0.0), (0.0, 1.0))
        )
        weights = fit_static_weights(p_s, p_t, np.array([labels[0] for labels in rest.labels]))
        return StaticSTE(student=self.student_kd, teacher=self.teacher, weights=weights)

    def model(self, name: str) -> Model:
        """A model by its name in ``MODELS``."""
        return getattr(self, name.replace("-shuffled", "").replace("-", "_"))

    def seconds(self, name: str) -> float:
        """Seconds that training a model took so far, with all that it needs."""
        needs = {name} if name in ("teacher", "teacher-few") else _NEEDS[name]
        return sum(self._seconds.get(training, 0.0) for training in needs)

    def _classifier(
        self, name: str, videos: FeatureSplit, branch: str, n: int, teacher: FrameClassifier | None = None
    ) -> FrameClassifier:
        options = asdict(self.options)
        del options["lambda_cos"]  # of Dynamic-STE alone
        began = time.monotonic()
        model = train_classifier(
            videos,
            branch="student" if branch == "student" else "teacher",
            n=n,
            teacher=teacher,
            **options,
            seed=self.seed,
            device=self.device,
            on_epoch=self._tick,
        )
        self._seconds[name] = time.monotonic() - began
        return model

    def _tick(self, _epoch: int, _loss: float) -> None:
        if self.on_epoch is not None:
            self.on_epoch()


def trainings(models: Sequence[str], *, n_s: int, n_t: int) -> int:
    """How many trainings these models take together, for progress bars."""
    needed = set().union(*(_NEEDS[name] for name in models))
    return len(needed - ({"teacher-few"} if n_s == n_t else set()))


_NEEDS = {
    "student": {"student"},
    "student-kd": {"teacher", "student-kd"},
    "teacher": {"teacher", "teacher-few"},
    "static-avg": {"teacher", "student-kd"},
    "static-weighted": {"teacher", "student-kd", "part-teacher", "part-student-kd"},
    "dynamic": {"teacher", "dynamic"},
    "dynamic-shuffled": {"teacher", "dynamic"},
}
