"""Models that a run has kept as checkpoints, by the names of their files."""

import re
from dataclasses import dataclass

from dynaprop.heads.model.setting import MODELS
from dynaprop.pipeline.io.paths import StoragePath


@dataclass(frozen=True)
class Kept:
    """A model that a run has kept as a checkpoint."""

    path: StoragePath
    """Of its json."""
    split: str
    fold: int | None
    seed: int
    model: str
    """A name in ``MODELS``."""
    n_s: int
    n_t: int
    variant: str
    """What its setting's name says besides (Tables 4 and 5); empty for the whole model."""

    @property
    def name(self) -> str:
        """That of its setting."""
        return f"{self.model}-{self.n_s}+{self.n_t}{self.variant}"


def kept_at(path: StoragePath) -> Kept | None:
    """The kept model whose json is at a path, as `RunFolder.checkpoint` names it; None for any other file."""
    part = re.fullmatch(r"(?P<split>\d+-fold(?=\d)|.+?)(?P<fold>\d+)?-seed(?P<seed>\d+)", path.parent.name)
    setting = re.fullmatch(r"(?P<model>[a-z-]+)-(?P<n_s>\d+)\+(?P<n_t>\d+)(?P<variant>.*)\.json", path.name)
    if part is None or setting is None or setting["model"] not in MODELS:
        return None
    return Kept(
        path,
        split=part["split"],
        fold=None if part["fold"] is None else int(part["fold"]),
        seed=int(part["seed"]),
        model=setting["model"],
        n_s=int(setting["n_s"]),
        n_t=int(setting["n_t"]),
        variant=setting["variant"],
    )
