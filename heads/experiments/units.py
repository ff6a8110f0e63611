"""Training units: which trainings a run consists of, and how one is done, stored and skipped when it was done."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from dynaprop.heads.experiments.measure import BranchCost, measure
from dynaprop.heads.experiments.side_by_side import train_side_by_side
from dynaprop.heads.features.loaded import FeatureSplit, load_features
from dynaprop.heads.model.setting import Setting
from dynaprop.heads.runs.checkpoint import check_checkpoint, save_checkpoint
from dynaprop.heads.runs.find_leaks import keep_leaks
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.rows import Asked, Measured
from dynaprop.heads.training.trained_models import Options, TrainedModels
from dynaprop.pipeline.annotations import Annotations, require_labels
from dynaprop.pipeline.annotations.label_notes import label_notes
from dynaprop.pipeline.annotations.splits import Split, splits_of
from dynaprop.pipeline.backbones.timm_networks import gmacs_per_frame
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.errors import DynapropError, InfrastructureError, UsageError
from dynaprop.pipeline.extract.required import require_features
from dynaprop.pipeline.machine import resolve_device, usable_cores
from dynaprop.pipeline.store.names import clip_rule, open_store
from dynaprop.pipeline.workspace import Workspace

_FEW_STEPS = 60  # the paper trains for thousands; the sample dataset needs 80


@dataclass(frozen=True)
class Unit:
    """One task: what is trained on one split at one seed and one number of clips."""

    name: str
    split: Split
    seed: int
    settings: tuple[Setting, ...]
    with_frames: bool
    """Whether single frames are scored, too."""


@dataclass(frozen=True)
class RunReport:
    """Where a flow's results are."""

    folder: str
    asked: tuple[Asked, ...]
    """What the flow was asked for; the folder may hold more."""


TrainUnit = Callable[..., str]
"""Takes ``units``, ``unit``, ``keep`` and ``on_frames``, as `train_unit` does; threads call it."""


def train_unit(units: "Units", unit: Unit, keep: bool, on_frames: Callable[[int], None]) -> str:
    """Train and measure one unit; returns its name."""
    units.train(unit, keep=keep, on_frames=on_frames)
    return unit.name


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
        self._reporter = workspace.reporter
        self.device = resolve_device(device)
        self.annotations: Annotations = workspace.annotations()
        require_labels(self.annotations)
        dataset, recipe = workspace.dataset, workspace.recipe
        self.splits = splits_of(
            self.annotations, folds=folds, seed=dataset.split_seed, test_fraction=dataset.test_fraction
        )
        notes = label_notes(self.annotations, self.splits)
        for note in notes:
            self._reporter.say_once(f"note: {note}")
        self.options = Options(**{field.name: getattr(recipe, field.name) for field in fields(Options)})
        self.keys = require_features(workspace)
        store = open_store(dataset, workspace.home, read_only=True)
        loaded = load_features(
            store,
            self.annotations.videos,
            class_names=self.annotations.class_names,
            student_key=self.keys["student"],
            teacher_key=self.keys["teacher"],
        )
        self.features = loaded.split
        self._store = store
        missing = loaded.missing + self.annotations.missing
        if missing:
            self._reporter.say(
                f"{len(missing)} of {len(self.features) + len(missing)} videos have no features: {missing[0]}, ..."
            )
        self._group_of = {video.id: video.group for video in self.annotations.videos}
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
        self.run = RunFolder(
            workspace.home / "runs" / f"{dataset.name}-{recipe.name}-{digest}", on_note=self._reporter.say
        )
        self._notes = notes
        self._about = {
            "dataset": dataset.name,
            "recipe": recipe.model_dump(mode="json"),
            "feature_keys": self.keys,
            "store": str(store.root),
            "grid": clip_rule(dataset),
            "classes": list(self.annotations.class_names),
            "missing": list(missing),
        }

    def ask(self, experiment: str, settings: Sequence[Setting], seeds: Sequence[int]) -> Asked:
        """What an experiment consists of on this run's splits."""
        return Asked(experiment, self.splits[0].name, tuple(seeds), tuple(settings))

    def do(self, asked: Sequence[Asked], *, keep: bool = False, train: TrainUnit = train_unit) -> RunReport:
        """Train and measure what is asked for and not there yet, and join the run's files.

        Args:
            asked: from ``ask``; what several experiments share is trained once.
            keep: write the trained models as checkpoints.
            train: does one unit; `train_unit`, or what wraps it.
        """
        self.run.describe(self._about)
        self.run.note(self.splits[0].name, self._notes)
        keep_leaks(
            self.run.path,
            self.annotations,
            self.splits,
            self.features,
            store=self._store,
            key=self.keys["teacher"],
            reporter=self._reporter,
        )
        for one in asked:
            self.run.ask(one, adding=keep)  # a training with other frames takes nothing from those before
        wanted = self._wanted(asked)
        done = {row for row in self.run.measured() & wanted if not keep or self._is_kept(row)}
        if done:
            self._reporter.say(f"train: {len(done)} of {len(wanted)} results are there already")
        units = self._units(wanted - done, first_seed=min((row.seed for row in wanted), default=0))
        if units:
            self._warn_of_few_steps()
        try:
            with self._reporter.steps("train", self._frames(units), "frames") as progress:
                jobs = [{"units": self, "unit": unit, "keep": keep} for unit in units]
                workers = min(usable_cores(), len(units)) if self.device == "cpu" else 1
                train_side_by_side(train, jobs, workers=workers, on_frames=progress.advance)
        finally:
            self.run.collect()
        return RunReport(str(self.run.path), tuple(asked))

    def _warn_of_few_steps(self) -> None:
        videos = min(len(split.train) for split in self.splits)
        steps = -(-videos // self.options.batch_size) * self.options.epochs
        if steps < _FEW_STEPS:
            self._reporter.say(
                f"train: {videos} training videos in batches of {self.options.batch_size} make {steps} steps, which "
                "hardly train a model: take a recipe of smaller batches (lite-small) or more epochs"
            )

    def train(self, unit: Unit, *, keep: bool, on_frames: Callable[[int], None]) -> None:
        """Train, measure and store one unit."""
        train, test = (self._part(part) for part in (unit.split.train, unit.split.test))
        for part, videos in (("training", train), ("test", test)):
            if not len(videos):
                raise DynapropError(f"split {unit.split.name}: none of its {part} videos has features")
        trained = self._models(unit, train, on_frames)
        key: dict[str, object] = {
            "dataset": self.workspace.dataset.name,
            "split": unit.split.name,
            "fold": unit.split.fold,
            "experiment": None,
            "recipe": self.workspace.recipe.name,
            "options_digest": self.options.digest,
            "feature_key": "+".join(self.keys.values()),
        }
        tables = measure(
            trained,
            test,
            settings=unit.settings,
            key=key,
            student_cost=branch_cost(self.workspace.student),
            teacher_cost=branch_cost(self.workspace.teacher),
            n_missing=len(unit.split.test) - len(test) + len(unit.split.missing),
            with_frames=unit.with_frames,
        )
        if keep:
            self._keep(unit, trained, tables.results)
        self.run.write(unit.name, tables)

    def features_of(self, videos: Sequence[str]) -> FeatureSplit:
        """The features of these videos (ids), as far as there are any."""
        return self.features.select(np.array([self._index[video] for video in videos if video in self._index], int))

    def _wanted(self, asked: Sequence[Asked]) -> set[Measured]:
        return {
            Measured(split.name, split.fold, seed, setting)
            for one in asked
            for seed in one.seeds
            for split in self.splits
            for setting in one.settings
        }

    def _units(self, rows: Iterable[Measured], *, first_seed: int) -> list[Unit]:
        """Rows whose trainings share their clips become one unit; seed by seed, so that means come early."""
        split_of = {(split.name, split.fold): split for split in self.splits}
        groups: dict[tuple[int, int, int], list[Measured]] = {}
        for row in rows:
            groups.setdefault((row.seed, row.fold or 0, row.setting.n), []).append(row)
        units = []
        for (seed, _, n), members in sorted(groups.items(), key=lambda item: item[0]):
            settings = tuple(sorted((row.setting for row in members), key=lambda setting: setting.name))
            split = split_of[members[0].split, members[0].fold]
            fold = "" if split.fold is None else split.fold
            name = f"{split.name}{fold}-n{n}-seed{seed}-{_digest([setting.name for setting in settings])}"
            units.append(Unit(name, split, seed, settings, with_frames=seed == first_seed))
        return units

    def _part(self, videos: Sequence[int]) -> FeatureSplit:
        """The features of a part of a split, which has positions in the list of videos."""
        return self.features_of([self.annotations.videos[video].id for video in videos])

    def _models(self, unit: Unit, train: FeatureSplit, on_frames: Callable[[int], None] | None = None) -> TrainedModels:
        return TrainedModels(
            train,
            groups=[self._group_of[video] for video in train.video_ids],
            seed=unit.seed,
            options=self.options,
            device=self.device,
            on_frames=on_frames,
        )

    def _frames(self, units: Iterable[Unit]) -> int:
        """Frames that pass through the heads in the trainings of some units."""
        total, models = 0, dict[tuple[str, int | None, int], TrainedModels]()
        for unit in units:
            key = unit.split.name, unit.split.fold, unit.seed
            if key not in models:
                models[key] = self._models(unit, self._part(unit.split.train))
            total += models[key].frames(unit.settings)
        return total

    def _keep(self, unit: Unit, trained: TrainedModels, results: pd.DataFrame) -> None:
        for setting, row in zip(unit.settings, results.to_dict("records"), strict=True):
            if setting.model == "dynamic-shuffled":
                continue
            save_checkpoint(
                self.run.checkpoint(Measured(unit.split.name, unit.split.fold, unit.seed, setting)),
                trained.model(setting),
                class_names=self.features.class_names,
                feature_keys={"student": self.keys["student"], "teacher": self.keys["teacher"]},
                n_s=setting.n_s,
                n_t=setting.n_t,
                seed=unit.seed,
                hyper_parameters=vars(self.options),
                metrics={"top1": row["top1"], "map": row["map"]},
            )

    def _is_kept(self, row: Measured) -> bool:
        if row.setting.model == "dynamic-shuffled":
            return True
        try:
            check_checkpoint(self.run.checkpoint(row))
        except UsageError:
            return False  # there is none
        except InfrastructureError:
            raise
        except DynapropError as error:
            self._reporter.say(f"train: {error}; it is trained again")
            return False
        return True


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=int).encode()).hexdigest()[:8]


def branch_cost(backbone: BackboneSpec) -> BranchCost:
    """Cost of one frame through a backbone."""
    return BranchCost(gmacs=gmacs_per_frame(backbone.model, backbone.size), gflops_paper=backbone.gflops_paper)
