"""What a fine-tuning has kept: models for `heads.experiments.measure`, backbones, and whether they are what it left."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dynaprop.heads.evaluation.predict import Model
from dynaprop.heads.finetune.two_stages import Places, Stage
from dynaprop.heads.model.setting import Setting
from dynaprop.heads.runs.checkpoint import check_checkpoint, load_checkpoint
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.io.paths import StoragePath, matching
from dynaprop.pipeline.io.sealed import read_notes, read_record, read_sealed


@dataclass(frozen=True)
class FineTunedModels:
    """The heads of one seed."""

    places: Places
    checkpoints: Mapping[Setting, StoragePath]
    device: str = "cpu"

    @property
    def seed(self) -> int:
        return self.places.seed

    def check(self) -> None:
        """Make sure that all models are there and whole.

        Raises:
            DynapropError: one is not; with what makes it anew, as a finished fine-tuning is not done again.
        """
        for path in self.checkpoints.values():
            try:
                check_checkpoint(path)
            except InfrastructureError:
                raise
            except DynapropError as error:
                raise DynapropError(
                    f"{error}; to do so, delete {self.places.done}, and the same command trains anew"
                ) from None

    def model(self, setting: Setting) -> Model:
        """The fine-tuned model of a setting.

        Raises:
            DynapropError: its files are damaged.
        """
        return load_checkpoint(self.checkpoints[setting], device=self.device).model

    def seconds(self, setting: Setting) -> float:
        """What the epochs of its stage took, and for Dynamic-STE those of its teacher.

        Raises:
            DynapropError: the loss curve, which says so, is damaged.
        """
        try:
            log = read_sealed(self.places.epochs).to_pandas()
        except (OSError, ValueError):
            raise DynapropError(
                f"{self.places.epochs} is damaged; restore it, or delete {self.places.done.name}, and the same command "
                "trains anew"
            ) from None
        stages = ["teacher"] if setting.model == "teacher" else ["teacher", "student"]
        return float(log.loc[log["stage"].isin(stages), "seconds"].sum())


def fine_tuned_backbones(done: StoragePath) -> dict[Stage, dict[str, Any]]:
    """What a finished fine-tuning says about its backbones, whose weights are checked.

    Args:
        done: ``Places.done``.

    Raises:
        DynapropError: it is damaged, or the weights are not those that it left.
    """
    remedy = f"restore it, or delete {done}, and the same command trains anew"
    try:
        backbones: dict[Stage, dict[str, Any]] = read_record(done)["backbones"]
        for one in backbones.values():
            path = done.parent / "backbones" / PurePosixPath(one["weights"]).name
            if hashlib.sha256(path.read_bytes()).hexdigest() != one["weights_sha256"]:
                raise DynapropError(f"{path} is not what {done.name} describes; {remedy}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DynapropError(f"{done.name} or its backbones cannot be believed ({error}); {remedy}") from None
    return backbones


def fine_tuning_problems(run: StoragePath) -> list[str]:
    """What the finished fine-tunings of a run keep that cannot be believed, besides their models."""
    problems = []
    for done in matching(run, "finetuned-seed*.json"):
        epochs = run / f"epochs-{done.stem.removeprefix('finetuned-')}.parquet"
        for check, path in ((fine_tuned_backbones, done), (read_notes, epochs)):
            try:
                check(path)
            except InfrastructureError:
                raise
            except (OSError, ValueError, DynapropError) as error:
                problems.append(str(error))
    return problems
