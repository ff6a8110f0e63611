"""Models that recognise videos, by the names that people have for them."""

from collections.abc import Callable
from pathlib import Path

from dynaprop.heads.export.model_folder import is_export
from dynaprop.heads.recognise.find_model import chosen_arguments, find_model
from dynaprop.heads.recognise.recogniser import BranchNetwork, Recogniser, load_export, starting_pool
from dynaprop.heads.runs.checkpoint import load_checkpoint
from dynaprop.heads.runs.names import ignore
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.timm_networks import gmacs_per_frame
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.machine import resolve_device


def load(
    model: str | Path,
    *,
    n_s: int | None = None,
    n_t: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    deadline: float = 60.0,
    catalog: str | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Recogniser:
    """Load a model that recognises videos.

    Args:
        model: the folder of an exported model; or a run (its name or folder), a dataset or folder of videos (its newest
            run), of which Dynamic-STE is taken; or one checkpoint of a run.
        n_s, n_t, seed: which of a run's models; by default the recipe's frames and the lowest seed that was kept.
        device: auto, cpu, cuda or cuda:N.
        workers: decode processes; one a core by default.
        deadline: seconds without a new frame after which a video is given up.
        catalog: path of the catalog file, which an exported model does not need.
        on_note: called with lines for people: which model of a run it is, and where a backbone runs slower than it
            might.

    Raises:
        UsageError: there is no such model.
        DynapropError: its files are damaged or do not belong together, or its backbones are not here.
    """
    if is_export(folder := Path(model).expanduser()):
        if given := chosen_arguments(n_s=n_s, n_t=n_t, seed=seed):
            raise UsageError(f"{folder} is an exported model, which is one alone", remedy="leave out", options=given)
        return load_export(folder, device=device, workers=workers, deadline=deadline, on_note=on_note)
    found = find_model(str(model), n_s=n_s, n_t=n_t, seed=seed, catalog=catalog, on_note=on_note or ignore)
    if on_note is not None:
        on_note(found.title)
    device = resolve_device(device)
    with starting_pool(workers=workers, deadline=deadline) as pool:
        branches = {}
        for branch, (key, weights) in found.backbones.items():
            backbone = FrameBackbone(key=key, weights=weights, device=device, on_note=on_note)
            branches[branch] = BranchNetwork(backbone, gmacs_per_frame(key.model, key.size))
        return Recogniser(
            load_checkpoint(found.kept.path).model,
            class_names=found.info.class_names,
            n_s=found.info.n_s,
            n_t=found.info.n_t,
            branches=branches,
            **found.grid.model_dump(),
            device=device,
            pool=pool,
        )
