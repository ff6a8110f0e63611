"""`dynaprop export`: a model that a run has kept, as one folder to take anywhere."""

from pathlib import Path

from dynaprop.flows.terminal.progress import say, say_once
from dynaprop.heads.export.model_card import model_card
from dynaprop.heads.export.model_folder import write_export
from dynaprop.heads.export.new_folder import check_place, new_export
from dynaprop.heads.export.record import OnnxName
from dynaprop.heads.features.sampling import inference_clips
from dynaprop.heads.model.cost import gmacs_heads
from dynaprop.heads.recognise.find_model import RunModel, find_model
from dynaprop.heads.runs.checkpoint import load_checkpoint
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.pipeline.workspace import files_home


def export(
    run: str,
    *,
    model: str = "dynamic",
    n_s: int | None = None,
    n_t: int | None = None,
    seed: int | None = None,
    output: str | None = None,
    force: bool = False,
    onnx: bool = False,
    catalog: str | None = None,
) -> Path:
    """Write a model with its backbones, class names and model card into one folder.

    Args:
        run: a run, a dataset or folder of videos (its newest run), or one checkpoint of a run.
        model, n_s, n_t, seed: which of the run's models; by default the frames are the recipe's.
        output: the folder; ``exported/<dataset>-<recipe>-<model>-seed<seed>`` in ``$DYNAPROP_HOME`` by default.
        force: replace an older export.
        onnx: write the networks as ONNX, too, each compared with torch.
        catalog: path of the catalog file.

    Returns:
        The folder.

    Raises:
        UsageError: no such run or model, or something is in the folder's place.
        DynapropError: the backbones are not here, files of the run are damaged, or it cannot be written.
    """
    if onnx:
        from dynaprop.heads.export.onnx_files import require_onnx

        require_onnx()
    found = find_model(run, model=model, n_s=n_s, n_t=n_t, seed=seed, catalog=catalog, on_note=say_once)
    say(found.title)
    folder = Path(output).expanduser() if output else files_home() / "exported" / _name(found)
    check_place(folder, overwrite=force)
    info, kept = found.info, found.kept
    rows = RunFolder(found.run, on_note=say)
    rows.refresh()
    results, per_class = rows.of_kept(kept, "results"), rows.of_kept(kept, "per_class")
    per_class = per_class[per_class["seed"] == kept.seed] if len(per_class) else per_class
    if kept.fold is not None and len(per_class):
        per_class = per_class[per_class["fold"] == kept.fold]
    with new_export(folder, overwrite=force) as made:
        heads = load_checkpoint(kept.path).model
        backbones = found.to_export()
        n_s, n_t = map(len, inference_clips(found.grid.max_clips, n_s=info.n_s, n_t=info.n_t))  # no video has more
        counts = {"student": n_s, "teacher": n_t}
        names: tuple[OnnxName, ...] = ()
        if onnx:
            from dynaprop.heads.export.onnx_files import export_onnx

            say("export: ONNX, each network compared with torch")
            names = export_onnx(made, heads, backbones, n_s=n_s, n_t=n_t)
        published = results["gflops_paper"].dropna() if len(results) else results
        write_export(
            made,
            heads,
            name=kept.name,
            run=found.run.name,
            seed=info.seed,
            class_names=info.class_names,
            n_s=info.n_s,
            n_t=info.n_t,
            grid=found.grid,
            backbones=backbones,
            gmacs=sum(counts[branch] * backbone.gmacs for branch, backbone in backbones.items())
            + gmacs_heads(heads, n_s=n_s, n_t=n_t),
            gflops_paper=float(published.iloc[0]) if len(published) else None,
            card=lambda record: model_card(
                record, settings=found.settings, kept=kept, info=info, results=results, per_class=per_class
            ),
            onnx_files=names,
        )
    return folder


def _name(found: RunModel) -> str:
    recipe = found.settings.get("recipe", {}).get("name", "own")
    fold = "" if found.kept.fold is None else f"-fold{found.kept.fold}"
    return f"{found.settings.get('dataset', found.run.name)}-{recipe}-{found.kept.name}{fold}-seed{found.kept.seed}"
