"""The models that a fine-tuning has kept, for `heads.measure`."""

from collections.abc import Mapping
from dataclasses import dataclass

from heads.checkpoint import load_checkpoint
from heads.evaluate import Model
from heads.setting import Setting
from heads.two_stages import Places
from pipeline.errors import DynapropError
from pipeline.object_path import StoragePath
from pipeline.sealed import read_sealed


@dataclass(frozen=True)
class FineTunedModels:
    """The heads of one seed."""

    places: Places
    checkpoints: Mapping[Setting, StoragePath]
    device: str = "cpu"

    @property
    def seed(self) -> int:
        return self.places.seed

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
