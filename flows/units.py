"""Training units: which trainings a run consists of, and how one is done, stored and skipped when it was done."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.progress import say, steps
from flows.workspace import Workspace
from heads.checkpoint import save_checkpoint
from heads.features import FeatureSplit, load_features
from heads.measure import BranchCost, measure
from heads.results import RunFolder
from heads.trained import Options, TrainedModels, trainings
from pipeline.annotations import Annotations, require_labels
from pipeline.backbone import gmacs_per_frame
from pipeline.errors import DynapropError
from pipeline.extraction import locate_backbone, open_store, resolve_device
from pipeline.files import publish_json
from pipeline.plan import shards_to_do
from pipeline.specs import BackboneSpec
from pipeline.splits import Split, given_or_stratified, group_folds


@dataclass(frozen=True)
class Unit:
    """One training: a split, a number of frames and a seed."""

    name: str
    split: Split
    n_s: int
    n_t: int
    seed: int
    models: tuple[str, ...]


@dataclass(frozen=True)
class RunReport:
    """Where a flow's results are."""

    folder: str
    units: list[str]
    """Names of the units that the flow was asked for; the folder may hold more."""


class Units:
    """Everything that the trainings of one run share: features in memory, splits, hyper-parameters and the run folder.

    Args:
        workspace: dataset and recipe.
        folds: 0 for the given (or a stratified) split, else the number of folds by group.
        device: torch device, or ``auto``.

    Raises:
        DynapropError: features are not extracted yet, or labels do not allow training.
    """

    def __init__(self, workspace: Workspace, *, folds: int = 0, device: str = "auto") -> None:
        self.workspace = workspace
        self.device = resolve_device(device)
        self.annotations: Annotations = workspace.annotations()
        require_labels(self.annotations)
        dataset, recipe = workspace.dataset, workspace.recipe
        self.splits = (
            group_folds(self.annotations, folds, seed=dataset.split_seed)
            if folds
            else (given_or_stratified(self.annotations, seed=dataset.split_seed, test_fraction=dataset.test_fraction),)
        )
        self.options = Options(
            gamma=recipe.gamma,
            key_dim=recipe.key_dim,
            lambda_frm=recipe.lambda_frm,
            lambda_cos=recipe.lambda_cos,
            epochs=recipe.epochs,
            lr=recipe.lr,
            milestones=recipe.milestones,
            batch_size=recipe.batch_size,
        )
        self.keys = {"student": _key_name(workspace.student), "teacher": _key_name(workspace.teacher)}
        store = open_store(dataset, workspace.home)
        shards = store.manifest().shards()
        undone = shards_to_do(store, store.manifest(), list(self.keys.values()))
        if undone or not shards:
            raise DynapropError(
                f"{len(undone)} of {len(shards)} shards of {dataset.name!r} have no features yet; run: "
                f"dynaprop extract {workspace.target} --recipe {recipe.name}"
            )
        loaded = load_features(
            store,
            self.annotations.videos,
            class_names=self.annotations.class_names,
            student_key=self.keys["student"],
            teacher_key=self.keys["teacher"],
        )
        self.features = loaded.split
        missing = loaded.missing + self.annotations.missing
        if missing:
            say(f"{len(missing)} of {len(self.features) + len(missing)} videos have no features: {missing[0]}, ...")
        self._index = {video: index for index, video in enumerate(self.features.video_ids)}
        # All that decides the outcome of a unit: whatever of it changes begins another run.
        identity = {
            "options": self.options.digest,
            **self.keys,
            "grid": store.root.name,
            "classes": self.annotations.class_names,
            "videos": [(video.id, video.labels, video.split, video.group) for video in self.annotations.videos],
            "missing": missing,
            "features": loaded.digest,
            "split": [dataset.split_seed, dataset.test_fraction],
            "published": [workspace.student.gflops_paper, workspace.teacher.gflops_paper],
        }
        digest = _digest(identity)
        self.run = RunFolder(workspace.home / "runs" / f"{dataset.name}-{recipe.name}-{digest}")
        self.run.describe(
            {
                "dataset": dataset.name,
                "recipe": recipe.model_dump(mode="json"),
                "feature_keys": self.keys,
                "store": str(store.root),
                "classes": list(self.annotations.class_names),
                "missing": list(missing),
            }
        )

    def plan(self, *, counts: Sequence[tuple[int, int]], seeds: Sequence[int], models: Sequence[str]) -> list[Unit]:
        """The units of these settings, seed by seed."""
        return [
            Unit(
                name=f"{split.name}{'' if split.fold is None else split.fold}-{n_s}+{n_t}-seed{seed}-{_digest(models)}",
                split=split,
                n_s=n_s,
                n_t=n_t,
                seed=seed,
                models=tuple(models),
            )
            for seed in seeds
            for split in self.splits
            for n_s, n_t in counts
        ]

    def do(self, units: Sequence[Unit], *, keep: bool = False) -> RunReport:
        """Do the units that are not done and join the run's files.

        Args:
            units: from ``plan``.
            keep: write the trained models as checkpoints.
        """
        todo = [unit for unit in units if not self._done(unit, keep)]
        epochs = sum(trainings(unit.models, n_s=unit.n_s, n_t=unit.n_t) for unit in todo) * self.options.epochs
        if len(todo) < len(units):
            say(f"train: {len(units) - len(todo)} of {len(units)} trainings are there already")
        try:
            with steps("train", epochs, "epochs") as progress:
                for unit in todo:
                    train_unit(self, unit, keep, progress.advance)
        finally:
            self.run.collect()
        return RunReport(str(self.run.path), [unit.name for unit in units])

    def train(self, unit: Unit, *, keep: bool, on_epoch: Callable[[], None]) -> None:
        """Train, measure and store one unit."""
        train, test = (
            self.features_of([self.annotations.videos[video].id for video in part])
            for part in (unit.split.train, unit.split.test)
        )
        for part, videos in (("training", train), ("test", test)):
            if not len(videos):
                raise DynapropError(f"split {unit.split.name}: none of its {part} videos has features")
        groups = {video.id: video.group for video in self.annotations.videos}
        trained = TrainedModels(
            train,
            groups=[groups[video] for video in train.video_ids],
            n_s=unit.n_s,
            n_t=unit.n_t,
            seed=unit.seed,
            options=self.options,
            device=self.device,
            on_epoch=on_epoch,
        )
        key: dict[str, object] = {
            "dataset": self.workspace.dataset.name,
            "split": unit.split.name,
            "fold": unit.split.fold,
            "experiment": "sweep",
            "recipe": self.workspace.recipe.name,
            "options_digest": self.options.digest,
            "feature_key": "+".join(self.keys.values()),
        }
        tables = measure(
            trained,
            test,
            models=unit.models,
            key=key,
            student_cost=_cost(self.workspace.student),
            teacher_cost=_cost(self.workspace.teacher),
            n_missing=len(unit.split.test) - len(test) + len(unit.split.missing),
        )
        if keep:
            self._keep(unit, trained, tables.results)
        self.run.write(unit.name, tables)

    def _keep(self, unit: Unit, trained: TrainedModels, results: pd.DataFrame) -> None:
        for row in results.to_dict("records"):
            if row["model"] == "dynamic-shuffled":
                continue
            few = row["model"] == "teacher" and row["n_t"] != unit.n_s
            save_checkpoint(
                self.run.checkpoints(unit.name) / ("teacher-few" if few else row["model"]),
                trained.model("teacher-few" if few else row["model"]),
                class_names=self.features.class_names,
                feature_keys={"student": self.keys["student"], "teacher": self.keys["teacher"]},
                n_s=row["n_s"],
                n_t=row["n_t"],
                seed=unit.seed,
                hyper_parameters=vars(self.options),
                metrics={"top1": row["top1"], "map": row["map"]},
            )
        publish_json(self._kept(unit), {"models": sorted(results["model"].unique())})

    def _done(self, unit: Unit, keep: bool) -> bool:
        return self.run.has(unit.name) and (not keep or self._kept(unit).exists())

    def _kept(self, unit: Unit) -> Path:
        """Written when all of a unit's checkpoints are."""
        return self.run.checkpoints(unit.name) / "done.json"

    def features_of(self, videos: Sequence[str]) -> FeatureSplit:
        """The features of these videos (ids), as far as there are any."""
        return self.features.select(np.array([self._index[video] for video in videos if video in self._index], int))


@task(name="train-heads", task_run_name="train {unit.name}", cache_policy=NO_CACHE)
def train_unit(units: Units, unit: Unit, keep: bool, on_epoch: Callable[[], None]) -> str:
    """Train and measure one unit; returns its name."""
    units.train(unit, keep=keep, on_epoch=on_epoch)
    return unit.name


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=int).encode()).hexdigest()[:8]


def _key_name(backbone: BackboneSpec) -> str:
    return locate_backbone(backbone)[0].name


def _cost(backbone: BackboneSpec) -> BranchCost:
    return BranchCost(gmacs=gmacs_per_frame(backbone.model, backbone.size), gflops_paper=backbone.gflops_paper)
