"""A tiny trained-looking model with real backbones, as an export has it, for tests that decode real files."""

from pathlib import Path

import torch

from dynaprop.heads.evaluation.predict import Model
from dynaprop.heads.export.model_folder import BackboneToExport, write_export
from dynaprop.heads.export.new_folder import new_export
from dynaprop.heads.export.record import ClipRule
from dynaprop.heads.model.cost import gmacs_heads
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, StaticSTE
from dynaprop.pipeline.backbones.feature_key import feature_key
from dynaprop.pipeline.backbones.timm_networks import gmacs_per_frame, load_network

CLASSES = ("jump", "run", "walk")
GRID = ClipRule(clip_seconds=1.0, min_clips=10, max_clips=40, min_share=0.5)
N_S, N_T = 6, 2


def backbone(model: str, size: int) -> BackboneToExport:
    pixels = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    key, weights = feature_key(backbone=model, model=model, size=size, weights="random", **pixels)
    return BackboneToExport(key, load_network(model, weights, size), gmacs_per_frame(model, size))


def backbones() -> dict[str, BackboneToExport]:
    return {"student": backbone("test_efficientnet", 32), "teacher": backbone("test_resnet", 48)}


def heads(kind: str = "dynamic", seed: int = 0) -> Model:
    """Untrained heads whose scores differ from video to video."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        widths = {branch: int(one.network.num_features) for branch, one in backbones().items()}
        make = {"n_classes": len(CLASSES), "key_dim": 8, "feature_std": 0.05}
        student = FrameClassifier(dim=widths["student"], **make).eval()
        teacher = FrameClassifier(dim=widths["teacher"], **make).eval()
        if kind == "dynamic":
            return DynamicSTE(student_dim=widths["student"], teacher=teacher, key_dim=8, feature_std=0.05).eval()
    return {"student": student, "teacher": teacher, "static": StaticSTE(student=student, teacher=teacher)}[kind]


def counts(kind: str) -> dict[str, int]:
    return {"n_s": 0 if kind == "teacher" else N_S, "n_t": 0 if kind == "student" else N_T}


def write_tiny(
    folder: Path, *, kind: str = "dynamic", seed: int = 0, overwrite: bool = False, onnx: bool = False
) -> Path:
    """Export a tiny model and return its folder."""
    model, n = heads(kind, seed), counts(kind)
    own = {branch: one for branch, one in backbones().items() if n[f"n_{branch[0]}"]}
    with new_export(folder, overwrite=overwrite) as made:
        names: tuple[str, ...] = ()
        if onnx:
            from dynaprop.heads.export.onnx_files import export_onnx

            names = export_onnx(made, model, own, **n)
        write_export(
            made,
            model,
            name=f"{kind}-6+2",
            run="a-run",
            seed=seed,
            class_names=CLASSES,
            **n,
            grid=GRID,
            backbones=own,
            gmacs=sum(n[f"n_{branch[0]}"] * one.gmacs for branch, one in own.items()) + gmacs_heads(model, **n),
            gflops_paper=None,
            card=lambda record: f"# {record.name}\n",
            onnx_files=names,
        )
    return folder
