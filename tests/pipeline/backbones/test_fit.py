"""Any timm model at any size: built for it where timm can, else one line that says which sizes there are.

Architectures of all families are in test_architectures.py.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.backbones.fit import build_network, fit_network
from dynaprop.pipeline.backbones.openvino_network import CompiledNetwork
from dynaprop.pipeline.backbones.timm_networks import channels, gmacs_per_frame, load_network
from dynaprop.pipeline.backbones.torch_network import TorchNetwork
from dynaprop.pipeline.backbones.weights import Weights, find_weights
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.video.decoders import resize_frame
from tests.conftest import REPOSITORY
from tests.pipeline.videos import all_frames, write_video


@pytest.mark.parametrize("model", ["test_vit3", "test_vit", "vit_tiny_patch16_224"])
def test_transformers_compiled_give_the_features_that_torch_gives(model, data_root):
    video = next((data_root / "weizmann" / "jack").glob("*.avi"))
    pictures = np.stack([resize_frame(frame, 112) for frame in all_frames(video)[:20:5]])
    normalisation = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    network = load_network(model, find_weights("random", model), 112).requires_grad_(False)
    features = CompiledNetwork(network, size=112, **normalisation).start(pictures)()
    expected = TorchNetwork(network, device=torch.device("cpu"), **normalisation).start(pictures)()
    assert np.linalg.norm(features - expected) <= 1e-3 * np.linalg.norm(expected)
    assert np.linalg.norm(features[0] - features[1:], axis=1).min() > 0, "pictures are told apart"


@pytest.mark.parametrize("model", ["test_vit3", "test_vit", "test_resnet", "pvt_v2_b0"])
def test_what_runs_as_timm_has_it_is_left_so(model):
    """At its own size, and at any other that it takes."""
    size = timm.get_pretrained_cfg(model).input_size[-1]
    assert fit_network(model, size).img_size is None
    assert list(build_network(model).state_dict()) == list(timm.create_model(model, num_classes=0).state_dict())
    assert channels(model, size) == channels(model, 2 * size)


def test_what_a_built_network_costs_is_counted_at_its_size():
    """By hand: multiply-adds of a ViT's patches, attention and MLP, 49 patches and a class token of 192 numbers."""
    d, tokens, blocks = 192, 50, 12
    by_hand = 49 * 3 * 16 * 16 * d + blocks * (tokens * 12 * d * d + 2 * tokens * tokens * d)
    assert gmacs_per_frame("vit_tiny_patch16_224", 112) == pytest.approx(by_hand / 1e9, rel=1e-3)


def test_what_a_pooled_transformer_costs_is_counted_to_its_end():
    """Its authors' count; class tokens that go through a layer alone once ended torch's count."""
    assert gmacs_per_frame("pit_ti_224", 224) == pytest.approx(0.7, rel=0.05)


def test_a_size_that_would_cut_pixels_off_is_refused():
    """timm would build it, and leave out what is right of the last whole patch."""
    timm.create_model("test_vit3", num_classes=0, img_size=114)(torch.zeros(1, 3, 114, 114))
    with pytest.raises(UsageError, match=r"takes no frames of 114 x 114 pixels; it takes multiples of 32, such as"):
        fit_network("test_vit3", 114)
    assert fit_network("test_vit3", 112) and fit_network("test_vit3", 96)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("pit_ti_224", 100),
        *(pytest.param("tnt_s_legacy_patch16_224", size, marks=pytest.mark.slow) for size in (100, 120)),
    ],
)
def test_patches_of_any_kind_count(model, size):
    """As timm's patch embedding says of itself, modules of its own kinds do not."""
    with pytest.raises(UsageError, match=rf"takes no frames of {size} x {size} pixels; it takes multiples of 32, such"):
        fit_network(model, size)
    assert fit_network(model, 112).img_size == 112


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("inception_v4", 64, "it takes 96, 128, 299, for example"),
        ("flexivit_small", 100, "it takes multiples of 32, such as 96, 128, 160"),
        ("test_vit3", 114, "it takes multiples of 32, such as 96, 128, 160"),
    ],
)
def test_what_is_said_of_sizes_is_no_contradiction(model, size, message):
    """Multiples of what the refused size is none of; and the model's own size is one of them, or left out."""
    with pytest.raises(UsageError, match=rf"; {message}$"):
        fit_network(model, size)


def test_a_model_that_gives_no_vector_is_refused():
    with pytest.raises(UsageError, match=r"timm's gemma4_vit_167m_enc gives no vector a frame but \d+ x 768 numbers"):
        fit_network("gemma4_vit_167m_enc", 96)


# Commands.

STUDENT = BackboneSpec(name="light", model="test_resnet", size=64, weights="random")
TEACHER = BackboneSpec(name="heavy", model="test_maxvit", size=112, weights="random")
REFUSED = r"backbone 'heavy': timm's test_maxvit takes no frames of 112 x 112 pixels; it takes multiples of 32, such as"


@pytest.fixture(autouse=True)
def _patience(monkeypatch) -> None:
    """A busy machine finds as many sizes as an idle one."""
    monkeypatch.setattr("dynaprop.pipeline.backbones.fit._SEARCH_SECONDS", 60)


def replaced(spec: BackboneSpec, **values: Any) -> BackboneSpec:
    return spec.model_copy(update=values)


def extraction(root: Path, home: Path, *backbones: BackboneSpec, dry_run: bool = False) -> Extraction:
    dataset = DatasetSpec(name="tiny", root=root, min_clips=4, max_clips=8)
    return Extraction(
        dataset=dataset,
        annotations=read_annotations(dataset),
        backbones=backbones,
        home=home,
        device="cpu",
        workers=1,
        dry_run=dry_run,
    )


@pytest.fixture
def videos(tmp_path) -> Path:
    for number in range(2):
        write_video(tmp_path / "videos" / "ab"[number] / f"{number}.mp4", frames=20, seed=number)
    return tmp_path / "videos"


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_size_that_a_model_lacks_is_known_before_a_video_is_probed(videos, tmp_path, monkeypatch, dry_run):
    monkeypatch.setattr("dynaprop.pipeline.extract.dataset.DecodePool", lambda **_: pytest.fail("a video is probed"))
    with (
        extraction(videos, tmp_path, STUDENT, TEACHER, dry_run=dry_run) as work,
        pytest.raises(UsageError, match=REFUSED),
    ):
        work.plan(work.changes(), save=not dry_run)


def test_weights_that_cannot_be_used_are_known_before_a_video_is_probed(videos, tmp_path, monkeypatch):
    (tmp_path / "w.pth").write_text("<html>")
    monkeypatch.setattr("dynaprop.pipeline.extract.dataset.DecodePool", lambda **_: pytest.fail("a video is probed"))
    heavy = replaced(STUDENT, weights=str(tmp_path / "w.pth"))
    with (
        extraction(videos, tmp_path, heavy) as work,
        pytest.raises(DynapropError, match=r"w\.pth is a web page, not weights"),
    ):
        work.plan(work.changes())


def test_a_backbone_that_is_added_later_is_checked_alone(videos, tmp_path, monkeypatch):
    """No video is new; the backbone whose features are there needs no network."""
    with extraction(videos, tmp_path, STUDENT) as work:
        work.extract_shards(work.plan(work.changes()).shards)
    checked = []
    monkeypatch.setattr(
        "dynaprop.pipeline.backbones.timm_networks.check_backbones", lambda backbones: checked.extend(backbones)
    )
    with extraction(videos, tmp_path, STUDENT, replaced(TEACHER, size=96)) as work:
        work.plan(work.changes())
    assert [key.backbone for key, _ in checked] == ["heavy"]
    monkeypatch.undo()
    with extraction(videos, tmp_path, STUDENT, TEACHER) as work, pytest.raises(UsageError, match=REFUSED):
        work.plan(work.changes())


def test_features_of_a_built_transformer_are_in_the_store(videos, tmp_path):
    spec = BackboneSpec(name="vit", model="test_vit3", size=112, weights="random")
    with extraction(videos, tmp_path, spec) as work:
        work.extract_shards(work.plan(work.changes()).shards)
        summary, store = work.summary(), work.store
    assert (summary.usable, summary.forwarded) == (2, 8)
    about = store.keys()[summary.keys["vit"]]
    assert about["gmacs_per_frame"] == gmacs_per_frame("test_vit3", 112)
    assert store.channels(summary.keys["vit"]) == 96
    network = timm.create_model("test_vit3", num_classes=0, img_size=112)
    assert sum(tensor.numel() for tensor in network.parameters()) == sum(
        tensor.numel() for tensor in load_network("test_vit3", Weights("random", None, ""), 112).parameters()
    )


@pytest.mark.parametrize(
    "options",
    [["extract", "--dry-run"], *(pytest.param([name], marks=pytest.mark.slow) for name in ("extract", "run"))],
)
def test_commands_say_it_in_one_line(videos, tmp_path, options):
    """In a process of its own, as a person waits for it."""
    (tmp_path / "catalog.yaml").write_text(
        "datasets: {tiny: {root: videos}}\n"
        "backbones:\n"
        "  light: {model: test_resnet, size: 64, weights: random}\n"
        "  heavy: {model: test_maxvit, size: 112, weights: random}\n"
        "recipes: {lite: {student: light, teacher: heavy}}\n"
        "sweeps: {default: {rows: [{models: [student]}]}}\n"
    )
    for number in range(2, 6):  # as many as a split takes
        write_video(videos / "ab"[number % 2] / f"{number}.mp4", frames=20, seed=number)
    code = "import sys\nfrom dynaprop.flows.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, options[0], "tiny", *options[1:]]
    began = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=200)
    print(f"{' '.join(options)}: {time.monotonic() - began:.1f} s")
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, said
    assert "backbone 'heavy': timm's test_maxvit takes no frames of 112 x 112 pixels; it takes" in said
    assert "Traceback" not in said and "probe" not in said


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "DYNAPROP_HOME": str(home), "COLUMNS": "500"}
