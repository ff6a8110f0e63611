"""What is measured: a model, its parts and its numbers of frames. One setting is one line of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dynaprop.pipeline.clips import MOST_FRAMES
from dynaprop.pipeline.errors import UsageError

MODELS = ("student", "student-kd", "teacher", "static-avg", "static-weighted", "dynamic", "dynamic-shuffled")
"""Names of the models in the order of Table 3. ``dynamic-shuffled`` is a check, not a model: Dynamic-STE whose teacher
looks at another video."""

LOSSES = ("vid", "vid+frm", "vid+cos", "vid+frm+cos")
"""The loss sets of Table 5."""

Fusion = Literal["none", "student", "teacher", "both"]
"""Which branches have temporal fusion (Table 4)."""

_STUDENTS = ("student", "student-kd")
_DYNAMIC = ("dynamic", "dynamic-shuffled")


@dataclass(frozen=True)
class Setting:
    """One measured line."""

    model: str
    """A name in ``MODELS``."""
    n_s: int
    """Student frames; 0 for a model without the student's branch."""
    n_t: int
    """Teacher frames; 0 for a model without the teacher's branch."""
    fusion_s: bool | None = True
    """Whether the student's branch has temporal fusion; None without that branch."""
    fusion_t: bool | None = True
    losses: str = "vid"
    """What its last stage is trained by, one of ``LOSSES``."""

    @property
    def n(self) -> int:
        """Clips a video in its training, where both branches see the same ones."""
        return self.n_s or self.n_t

    @property
    def is_whole(self) -> bool:
        """Whether it is the model as it is meant, no ablation: fusion in all its branches, all its losses."""
        return False not in (self.fusion_s, self.fusion_t) and self.losses == _usual_losses(self.model)

    @property
    def name(self) -> str:
        """A name of its own, fit for a file: ``dynamic-20+5``, ``dynamic-20+5-fusion-teacher``."""
        fused = [branch for branch, on in (("student", self.fusion_s), ("teacher", self.fusion_t)) if on]
        fusion = "" if False not in (self.fusion_s, self.fusion_t) else f"-fusion-{'+'.join(fused) or 'none'}"
        losses = "" if self.losses == _usual_losses(self.model) else f"-{self.losses}"
        return f"{self.model}-{self.n_s}+{self.n_t}{fusion}{losses}"


def expand(
    models: Sequence[str],
    frames: Sequence[tuple[int, int]],
    *,
    fusion: Sequence[Fusion] = ("both",),
    losses: Sequence[str] = (),
) -> tuple[Setting, ...]:
    """All settings of some models at some numbers of frames.

    Args:
        models: names in ``MODELS``
        frames: pairs (n_s, n_t). A student takes n_s; the teacher takes both, a row each, unless one is 0; an ensemble
            takes the pair.
        fusion: branches with temporal fusion
        losses: loss sets of Dynamic-STE, in ``LOSSES``; all three losses where empty

    Raises:
        UsageError: a model that needs frames of a branch gets none, or there are too many of them
    """
    for name, n in ((name, n) for pair in frames for name, n in zip(("n_s", "n_t"), pair, strict=True)):
        if n > MOST_FRAMES:
            raise UsageError(f"{name} is {n}: a branch sees {MOST_FRAMES:,} frames of a video at most")
    settings = []
    for model in models:
        for n_s, n_t in frames:
            for on in fusion:
                for_student, for_teacher = on in ("both", "student"), on in ("both", "teacher")
                sets = (losses if model in _DYNAMIC else ()) or (_usual_losses(model),)
                for s, t in _frames_of(model, n_s, n_t):
                    parts = (for_student if s else None, for_teacher if t else None)
                    settings += [Setting(model, s, t, *parts, one) for one in sets]
    return tuple(dict.fromkeys(settings))


def _frames_of(model: str, n_s: int, n_t: int) -> list[tuple[int, int]]:
    if model == "teacher":
        pairs = [(0, n) for n in (n_s, n_t) if n]
    elif model in _STUDENTS:
        pairs = [(n_s, 0)] if n_s else []
    else:
        pairs = [(n_s, n_t)] if n_s and n_t else []
    if not pairs:
        raise UsageError(f"{model} cannot be measured at {n_s} student and {n_t} teacher frames")
    return pairs


def _usual_losses(model: str) -> str:
    return {"student": "vid", "teacher": "vid"}.get(model, "vid+frm+cos" if model in _DYNAMIC else "vid+frm")
