"""What `dynaprop verify` does about results: check what the dataset's runs keep, and measure again what is damaged."""

import re
from collections.abc import Iterable, Sequence

from dynaprop.flows.terminal.printing import answer
from dynaprop.flows.terminal.progress import say
from dynaprop.flows.terminal.remedies import as_shown
from dynaprop.heads.experiments.units import Units
from dynaprop.heads.finetune.tuned_models import fine_tuning_problems
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.names import dataset_of
from dynaprop.heads.runs.rows import Asked
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.io.paths import StoragePath, children
from dynaprop.pipeline.workspace import Workspace

_SHOWN = 20  # problems


def check_runs(workspace: Workspace) -> list[str]:
    """Check every file that the dataset's runs keep, reading only; returns, and prints, what cannot be believed."""
    runs = _runs(workspace)
    problems = [problem for run in runs for problem in _problems(run)]
    answer(f"results: {len(runs)} runs, {len(problems)} problems")
    for problem in problems[:_SHOWN]:
        answer(f"  {problem}")
    if len(problems) > _SHOWN:
        answer(f"  ... and {len(problems) - _SHOWN} more")
    return problems


def repair_runs(workspace: Workspace, *, device: str = "auto") -> None:
    """Leave out what is damaged, make the tables anew, and measure again what the recipe's run was asked for.

    Raises:
        DynapropError: something is still damaged.
    """
    for run in _runs(workspace):
        if not _problems(run):
            continue
        try:
            _repair(workspace, run, device)
        except InfrastructureError:
            raise
        except DynapropError as error:  # it is among those that are left; the others go on
            say(f"{run.path}: {as_shown(error)}")
    left = [problem for run in _runs(workspace) for problem in _problems(run)]
    for problem in left[:_SHOWN]:
        answer(f"  {problem}")
    if left:
        raise DynapropError(
            f"{len(left)} files of runs are still damaged; `dynaprop train`, `sweep` and `finetune` of "
            f"{workspace.quoted} write them anew"
        )


def _repair(workspace: Workspace, run: RunFolder, device: str) -> None:
    wanted = run.asked()  # before anything is left out: an unreadable question is no question any more
    run.measured()
    run.collect()
    for split in dict.fromkeys(one.split for one in wanted):
        _measure_again(workspace, run, [one for one in wanted if one.split == split], device)


def _problems(run: RunFolder) -> list[str]:
    return run.problems() + fine_tuning_problems(run.path)


def _measure_again(workspace: Workspace, run: RunFolder, wanted: Sequence[Asked], device: str) -> None:
    if any(one.experiment == "finetune" for one in wanted):
        say(f"{run.path}: fine-tuned; without its finetuned-seed*.json `dynaprop finetune` makes it anew")
        return
    folds = re.fullmatch(r"(\d+)-fold", wanted[0].split)
    try:
        units = Units(workspace, folds=int(folds[1]) if folds else 0, device=device)
    except DynapropError as error:
        say(f"{run.path}: its results cannot be measured again now: {as_shown(error)}")
        return
    if units.run.path != run.path:
        sweeps = ", ".join(one.experiment for one in wanted)
        say(f"{run.path}: of another recipe, or of other features or labels than today's: sweep it again ({sweeps})")
        return
    for keep in (False, True):
        if some := [one for one in wanted if (one.experiment == "train") == keep]:
            units.do(some, keep=keep)


def _runs(workspace: Workspace) -> list[RunFolder]:
    folder = workspace.home / "runs"
    try:
        found: Iterable = children(folder)
    except FileNotFoundError:
        found = ()
    runs = sorted((path for path in found if path.is_dir()), key=lambda path: path.name)
    return [RunFolder(path, on_note=say) for path in runs if _is_of(path, workspace.dataset.name)]


def _is_of(run: StoragePath, dataset: str) -> bool:
    named = dataset_of(run)
    return run.name.startswith(f"{dataset}-") if named is None else named == dataset  # its own account is damaged
