"""Exported models: whole, checked file by file, and never in the way of something else."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch

from dynaprop.heads.evaluation.video_scores import score_videos
from dynaprop.heads.export.model_folder import read_export
from dynaprop.heads.export.new_folder import check_place, new_export
from dynaprop.heads.export.onnx_files import require_onnx
from dynaprop.heads.export.record import ModelRecord
from dynaprop.heads.recognise.recogniser import load_export
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.weights import Weights
from dynaprop.pipeline.errors import DynapropError, UsageError
from tests.heads.tiny_model import CLASSES, N_S, N_T, backbone, backbones, heads, write_tiny
from tests.pipeline.videos import write_video

FILES = ["README.md", "heads.safetensors", "model.json", "student.safetensors", "teacher.safetensors"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def folder(made, tmp_path):
    """A copy to tamper with."""
    return shutil.copytree(made, tmp_path / "model")


def rewrite(folder, change, *, sign=True):
    """Change model.json, and sign the change as somebody would who wants it to pass."""
    path = folder / "model.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    if sign:
        record["record_sha256"] = ModelRecord.model_validate_json(path.read_bytes()).digest()
        path.write_text(json.dumps(record))


def test_the_folder_holds_all_it_takes_and_no_more(made):
    assert sorted(file.name for file in made.iterdir()) == FILES
    assert list(made.parent.iterdir()) == [made]
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in made.iterdir())
    exported = read_export(made)
    assert exported.record.class_names == CLASSES
    for name, tensor in heads().state_dict().items():
        np.testing.assert_array_equal(exported.model.state_dict()[name], tensor)


def test_a_model_of_one_branch_has_one_backbone(tmp_path):
    folder = write_tiny(tmp_path / "model", kind="teacher")
    assert sorted(file.name for file in folder.iterdir()) == [name for name in FILES if "student" not in name]
    assert list(read_export(folder).backbones) == ["teacher"]


def test_a_moved_export_says_the_same(made, folder, tmp_path):
    video = write_video(tmp_path / "video.mp4")
    answers = []
    for place in (made, folder):
        with load_export(place, device="cpu", workers=1) as recogniser:
            answers += recogniser.predict([video])
    np.testing.assert_array_equal(answers[0].scores, answers[1].scores)


@pytest.mark.parametrize("name", ["heads.safetensors", "student.safetensors", "teacher.safetensors"])
def test_one_flipped_bit_is_refused(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(DynapropError, match=rf"{name} is not the file that model\.json describes") as error:
        read_export(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["heads.safetensors", "teacher.safetensors"])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(DynapropError, match=f"{name} is missing"):
        read_export(folder)


def test_files_of_two_exports_do_not_mix(folder, tmp_path):
    other = write_tiny(tmp_path / "other", seed=1)
    shutil.copy(other / "heads.safetensors", folder)
    with pytest.raises(DynapropError, match=r"heads\.safetensors is not the file"):
        read_export(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda r: r.update(surprise=1), "surprise: Extra inputs"),
        (lambda r: r["class_names"].reverse(), "was changed after the export"),
        (lambda r: r["grid"].update(min_clips=11), "was changed after the export"),
        (lambda r: r["backbones"]["student"].update(model="hf-hub:somebody/something"), "String should match pattern"),
        (lambda r: r["backbones"]["student"].update(sha256="../x"), "String should match pattern"),
    ],
)
def test_a_changed_record_is_refused(folder, change, message):
    rewrite(folder, change, sign=False)
    with pytest.raises(DynapropError, match=message) as error:
        read_export(folder)
    assert "model.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["class_names"].pop(), "2 class names for a model of 3 classes"),
        (lambda r: r.update(n_t=0), "an ensemble needs frames for both branches"),
        (lambda r: r["backbones"].pop("student"), "the backbones give"),
        (lambda r: r["backbones"]["student"].update(channels=7), "the backbones give"),
        (lambda r: r["model"].update(key_dim=9), "describes another model than its weights"),
        (lambda r: r.update(feature_version=1), "makes other features"),
    ],
)
def test_parts_that_do_not_fit_are_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(DynapropError, match=message):
        read_export(folder)


def test_weights_of_another_network_are_refused(folder):
    rewrite(folder, lambda r: r["backbones"]["student"].update(model="test_vit"))
    with pytest.raises(DynapropError, match=r"backbones\.student: timm's test_vit gives 64 channels, not 256"):
        load_export(folder, device="cpu", workers=1)
    rewrite(folder, lambda r: r["backbones"]["student"].update(model="pvt_v2_b0", size=64))
    with pytest.raises(DynapropError, match=r"bytes are not weights of timm's pvt_v2_b0, which has 13,639,040"):
        load_export(folder, device="cpu", workers=1)


def test_what_is_no_export_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="no exported model here"):
        read_export(tmp_path)


def test_an_older_export_is_replaced_only_when_asked(made, folder):
    with pytest.raises(UsageError, match="force=True replaces it"):
        write_tiny(folder, seed=1)
    assert read_export(folder).record == read_export(made).record
    write_tiny(folder, seed=1, overwrite=True)
    assert read_export(folder).record.seed == 1
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_other_things_are_never_replaced(folder, tmp_path):
    (folder / "holiday.mp4").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in (folder, tmp_path / "file"):
        with pytest.raises(UsageError, match="give another output"):
            check_place(place, overwrite=True)
        with pytest.raises(UsageError), new_export(place, overwrite=True):
            pytest.fail("it must not begin")
    assert (folder / "holiday.mp4").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()
    assert read_export(write_tiny(tmp_path / "model")).record.class_names == CLASSES
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_nothing_and_an_older_export_alone(folder, made):
    for place in (folder, folder.parent / "new"):
        with pytest.raises(RuntimeError, match="half-way"), new_export(place, overwrite=True) as partial:
            (partial / "model.json").write_text("{")
            raise RuntimeError("half-way")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert read_export(folder).record == read_export(made).record


@pytest.fixture(scope="module")
def with_onnx(tmp_path_factory):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    return write_tiny(tmp_path_factory.mktemp("onnx") / "model", onnx=True)


def run_onnx(path, **inputs):
    import onnxruntime

    (output,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
    return output


def test_onnx_computes_what_torch_does(with_onnx):
    assert sorted(read_export(with_onnx).record.onnx_sha256) == ["heads.onnx", "student.onnx", "teacher.onnx"]
    rng = np.random.default_rng(5)
    inputs, of_torch = {}, []
    for branch, n, left in (("student", N_S, N_S - 2), ("teacher", N_T, N_T)):
        one = backbones()[branch]
        network = FrameBackbone(key=one.key, weights=Weights("random", None, one.key.weights))
        frames = rng.integers(0, 256, (n, one.key.size, one.key.size, 3), np.uint8)
        features = run_onnx(with_onnx / f"{branch}.onnx", frames=frames)
        np.testing.assert_allclose(features, network.features(frames), atol=1e-4)
        inputs |= {f"{branch}_features": features[None], f"{branch}_mask": np.arange(n)[None] < left}
        of_torch.append((torch.from_numpy(features[None, :left]), torch.ones(1, left, dtype=torch.bool)))
    with torch.inference_mode():
        expected = score_videos(heads(), *of_torch).probabilities.numpy()
    np.testing.assert_allclose(run_onnx(with_onnx / "heads.onnx", **inputs), expected, atol=1e-4)


def test_a_transformer_is_exported_and_read_at_the_size_that_it_was_built_for(tmp_path, monkeypatch):
    vit = backbone("test_vit3", 112)
    both = backbones() | {"student": vit}
    monkeypatch.setattr("tests.heads.tiny_model.backbones", lambda: both)
    folder = write_tiny(tmp_path / "model", kind="student", onnx=True)
    key, weights = read_export(folder).backbones["student"]
    frames = np.random.default_rng(6).integers(0, 256, (3, 112, 112, 3), np.uint8)
    features = FrameBackbone(key=key, weights=weights).features(frames)
    expected = FrameBackbone(key=vit.key, weights=Weights("random", None, vit.key.weights)).features(frames)
    np.testing.assert_array_equal(features, expected)
    np.testing.assert_allclose(run_onnx(folder / "student.onnx", frames=frames), expected, atol=1e-4)


def test_a_tampered_onnx_file_is_refused(with_onnx, tmp_path):
    folder = shutil.copytree(with_onnx, tmp_path / "model")
    (folder / "heads.onnx").write_bytes(b"other")
    with pytest.raises(DynapropError, match=r"heads\.onnx is not the file"):
        read_export(folder)


def test_onnx_that_differs_from_torch_is_not_published(with_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr("dynaprop.heads.export.onnx_files._DIFFERENCE", -1.0)
    with pytest.raises(DynapropError, match=r"student\.onnx computes something else than torch"):
        write_tiny(tmp_path / "model", onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_packages_that_onnx_lacks_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UsageError, match=r"ONNX needs onnxscript, .*pip install 'dynaprop\[onnx\]'"):
        require_onnx()
