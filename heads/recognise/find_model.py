"""Which of the models that runs have kept a name means."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dynaprop.heads.export.model_folder import BackboneToExport, is_export
from dynaprop.heads.export.record import Branch, ClipRule
from dynaprop.heads.model.setting import MODELS
from dynaprop.heads.recognise.recogniser import BRANCHES
from dynaprop.heads.runs.checkpoint import CheckpointInfo, read_info
from dynaprop.heads.runs.folder import RunFolder, read_settings
from dynaprop.heads.runs.kept import Kept, kept_at
from dynaprop.heads.runs.names import OnNote, ignore, named_run
from dynaprop.pipeline.backbones.feature_key import FeatureKey, feature_key
from dynaprop.pipeline.backbones.timm_networks import gmacs_per_frame, load_network
from dynaprop.pipeline.backbones.weights import Weights
from dynaprop.pipeline.catalog.catalog import Catalog
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.errors import DynapropError, UsageError, did_you_mean
from dynaprop.pipeline.io.paths import StoragePath, matching, storage_path
from dynaprop.pipeline.io.sealed import read_record
from dynaprop.pipeline.store.names import locate_backbone


@dataclass(frozen=True)
class RunModel:
    """A model that a run has kept, and where its backbones are."""

    run: StoragePath
    settings: dict[str, Any]
    """The run's ``run.json``."""
    kept: Kept
    info: CheckpointInfo
    grid: ClipRule
    backbones: dict[Branch, tuple[FeatureKey, Weights]]
    """Of the branches that the model has."""

    @property
    def title(self) -> str:
        """Which model it is, for people."""
        fold = "" if self.kept.fold is None else f", fold {self.kept.fold} of {self.kept.split}"
        return f"model: {self.kept.name}, seed {self.kept.seed}{fold}, of {self.run}"

    def to_export(self) -> dict[Branch, BackboneToExport]:
        """The backbones with their networks."""
        return {
            branch: BackboneToExport(
                key, load_network(key.model, weights, key.size), gmacs_per_frame(key.model, key.size)
            )
            for branch, (key, weights) in self.backbones.items()
        }


def find_model(
    name: str,
    *,
    model: str = "dynamic",
    n_s: int | None = None,
    n_t: int | None = None,
    seed: int | None = None,
    catalog: str | None = None,
    on_note: OnNote = ignore,
) -> RunModel:
    """Find a model that a run has kept.

    Args:
        name: a run, a dataset or folder of videos (its newest run), or the checkpoint itself.
        model, n_s, n_t, seed: which one of the run's; by default the frames are the recipe's, the seed is the lowest.
        catalog: path of the catalog file, which knows the backbones.
        on_note: called with a line for people.

    Raises:
        UsageError: no such run, or the run has not kept the model.
        DynapropError: the backbones are not here, or files of the run are damaged.
    """
    if model not in MODELS:
        raise UsageError(f"unknown model {model!r}{did_you_mean(model, list(MODELS))}")
    if is_export(Path(name).expanduser()):
        raise UsageError(f"{name} is an exported model already: copy the folder, or export from its run")
    entries = load_catalog(Path(catalog) if catalog else None)
    kept = _checkpoint(name)
    if kept is None:
        try:
            run = named_run(name, entries, keeping=True, on_note=on_note)[1]
        except UsageError as error:
            raise UsageError(f"{error}; or an exported model's") from None
        kept = _choose(RunFolder(run), model, n_s, n_t, seed)
        if kept.fold is not None:
            on_note(f"{kept.name} of fold {kept.fold} of {kept.split}, which was trained on a part of the videos")
    else:
        run = kept.path.parents[2]
        if n_s not in (None, kept.n_s) or n_t not in (None, kept.n_t) or seed not in (None, kept.seed):
            raise UsageError(f"{name} is {kept.name} at seed {kept.seed}", remedy="leave out the choice")
    settings, info = read_settings(run), read_info(kept.path)
    counts = {"student": info.n_s, "teacher": info.n_t}
    return RunModel(
        run=run,
        settings=settings,
        kept=kept,
        info=info,
        grid=_grid(run, settings),
        backbones={branch: _backbone(info.feature_keys[branch], run, entries) for branch in BRANCHES if counts[branch]},
    )


def _checkpoint(name: str) -> Kept | None:
    """The checkpoint that a path names, by either of its files or without suffix."""
    path = storage_path(name)
    stem = path.name.removesuffix(".json").removesuffix(".safetensors")
    if path.parent.parent.name != "checkpoints":
        return None
    file = path.with_name(f"{stem}.json")
    kept = kept_at(file) if file.is_file() else None
    if kept is None:
        raise UsageError(f"no checkpoint {name!r} of a run: name a .json or .safetensors file below its checkpoints/")
    return kept


def _choose(run: RunFolder, model: str, n_s: int | None, n_t: int | None, seed: int | None) -> Kept:
    every = run.kept()
    wanted = [one for one in every if (one.model, one.variant) == (model, "") and seed in (None, one.seed)]
    wanted = [one for one in wanted if n_s in (None, one.n_s) and n_t in (None, one.n_t)]
    settings = read_settings(run.path)
    recipe = settings.get("recipe", {})
    if not wanted:
        raise _not_kept(
            f"{run.path} has not kept {_asked(model, n_s, n_t, seed)} ({_there(every)})", settings, n_s, n_t, seed
        )
    lowest = min(one.seed for one in wanted)
    wanted = [one for one in wanted if one.seed == lowest]
    if len({one.name for one in wanted}) > 1:
        own = [one for one in wanted if (one.n_s, one.n_t) == (recipe.get("n_s"), recipe.get("n_t"))]
        if not own:
            frames = sorted({(one.n_s, one.n_t) for one in wanted})
            raise UsageError(
                f"{run.path} has kept {model} with several numbers of frames",
                remedy="choose frames",
                choices=[chosen_arguments(n_s=n_s or None, n_t=n_t or None) for n_s, n_t in frames],
            )
        wanted = own
    return min(wanted, key=lambda one: (one.fold is not None, one.fold or 0, one.split))


def _not_kept(problem: str, settings: dict[str, Any], n_s: int | None, n_t: int | None, seed: int | None) -> UsageError:
    """With what trains a model that a run lacks."""
    tuned = "finetune" in settings
    seeds = {} if not seed else {"seed": seed} if tuned else {"seeds": range(seed + 1)}
    return UsageError(
        problem,
        remedy="keep by fine-tuning" if tuned else "keep by training",
        options={"recipe": settings.get("recipe", {}).get("name", "NAME")} | chosen_arguments(n_s=n_s, n_t=n_t) | seeds,
    )


def chosen_arguments(**given: int | None) -> dict[str, str | int | range]:
    """Of which model is meant; without what is not asked for."""
    return {name: value for name, value in given.items() if value is not None}


def _asked(model: str, n_s: int | None, n_t: int | None, seed: int | None) -> str:
    frames = " and ".join(f"{n} {branch}" for n, branch in ((n_s, "student"), (n_t, "teacher")) if n)
    parts = [model, f"of {frames} frames" if frames else "", "" if seed is None else f"at seed {seed}"]
    return " ".join(filter(None, parts))


def _there(kept: Sequence[Kept]) -> str:
    names = sorted({f"{one.name} at seed {one.seed}" for one in kept})
    return f"there are {', '.join(names[:8])}{' and others' if len(names) > 8 else ''}" if names else "it has kept none"


def _grid(run: StoragePath, settings: dict[str, Any]) -> ClipRule:
    """The clip grid that the run's features have."""
    try:
        return ClipRule.model_validate(settings.get("grid"))
    except ValidationError:
        raise DynapropError(
            f"{run / 'run.json'} does not name its clip grid; `dynaprop train` writes it anew"
        ) from None


def _backbone(name: str, run: StoragePath, catalog: Catalog) -> tuple[FeatureKey, Weights]:
    """The backbone that makes the features of a key: one that the run has fine-tuned, or one of the catalog.

    Weights are known by their digest, which is part of the key, wherever they lie.
    """
    if (tuned := _fine_tuned(name, run)) is not None:
        return tuned
    specs = [spec for spec in catalog.backbones.values() if name.startswith(f"{spec.model}-{spec.size}-")]
    problem: DynapropError | None = None
    for spec in specs:
        try:
            key, weights = locate_backbone(spec)
        except DynapropError as error:
            problem = problem or error
            continue
        if key.name == name:
            return key, weights
    raise problem or DynapropError(
        f"{run} was trained on the features {name}, whose backbone {catalog.path} does not have",
        remedy="right catalog",
    )


def _fine_tuned(name: str, run: StoragePath) -> tuple[FeatureKey, Weights] | None:
    """The backbone of a key among those that a fine-tuning left in the run's folder; needs no catalog."""
    for record in matching(run, "finetuned-seed*.json"):
        try:
            backbones = read_record(record)["backbones"]
            made = [(branch, one) for branch, one in backbones.items() if one["feature_key"] == name]
            for branch, one in made:
                key, weights = feature_key(
                    backbone=branch,
                    model=one["model"],
                    size=one["size"],
                    weights=str(run / "backbones" / Path(one["weights"]).name),
                    mean=tuple(one["mean"]),
                    std=tuple(one["std"]),
                    precision=one["precision"],
                )
                if key.name == name:
                    return key, weights
                raise DynapropError(f"{weights.path} is not the file that {record.name} describes; fine-tune again")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise DynapropError(f"{record} is damaged; delete it, and `dynaprop finetune` trains anew") from None
    return None
