"""Checkpoints: the round trip, and what is refused."""

import hashlib
import json
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch

from dynaprop.heads.evaluation.predict import predict
from dynaprop.heads.finetune.two_stages import starting_heads
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, StaticSTE
from dynaprop.heads.runs.checkpoint import load_checkpoint, save_checkpoint
from dynaprop.pipeline.errors import DynapropError, UsageError

FACTS = {
    "class_names": ("a", "b", "c"),
    "feature_keys": {"student": "lite0-0123", "teacher": "lite2-4567"},
    "n_s": 6,
    "n_t": 2,
    "seed": 7,
    "hyper_parameters": {"lr": 1e-4, "milestones": (15, 30), "lambda_cos": 0.5},
    "metrics": {"top1": 0.75},
}


def models():
    torch.manual_seed(0)
    student = FrameClassifier(dim=6, n_classes=3, key_dim=4, feature_std=0.7)
    teacher = FrameClassifier(dim=10, n_classes=3, key_dim=4, gamma=2.5, fusion=False, feature_std=3.0)
    return {
        "student": student,
        "teacher": teacher,
        "static-avg": StaticSTE(student=student, teacher=teacher),
        "static-weighted": StaticSTE(student=student, teacher=teacher, weights=(0.25, 0.75)),
        "dynamic": DynamicSTE(student_dim=6, teacher=teacher, key_dim=5, feature_std=0.7),
    }


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "runs" / "dynamic-n_s6.seed7"  # a dot in the name is no suffix
    save_checkpoint(path, models()["dynamic"], **FACTS)
    return path


def rewrite(path, change):
    """Tamper with the json of a checkpoint."""
    file = path.with_name(path.name + ".json")
    record = json.loads(file.read_text())
    del record["checksum"]  # as in a file of an earlier version
    change(record)
    file.write_text(json.dumps(record))


@pytest.mark.parametrize("name", ["student", "teacher", "static-avg", "static-weighted", "dynamic"])
def test_round_trip(tmp_path, make_split, name):
    model = models()[name]
    save_checkpoint(tmp_path / name, model, **FACTS)
    loaded = load_checkpoint(tmp_path / name)
    assert type(loaded.model) is type(model) and not loaded.model.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], tensor), key
    for fact, value in FACTS.items():
        assert getattr(loaded.info, fact) == value
    counts = {"n_s": 0 if name == "teacher" else 4, "n_t": 0 if name == "student" else 2}
    before, after = (predict(m, make_split(), **counts).probabilities for m in (model, loaded.model))
    np.testing.assert_array_equal(before, after)


def test_a_loaded_teacher_is_frozen_still(saved):
    model = load_checkpoint(saved).model
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert model.classifier.weight.requires_grad


def test_the_two_files_and_nothing_else_are_written(saved):
    assert sorted(p.name for p in saved.parent.iterdir()) == [f"{saved.name}.json", f"{saved.name}.safetensors"]
    for suffix in (".json", ".safetensors"):
        assert load_checkpoint(saved.with_name(saved.name + suffix)).info.seed == 7


def test_a_metric_that_is_nan_becomes_null(tmp_path):
    save_checkpoint(tmp_path / "x", models()["student"], **(FACTS | {"metrics": {"map": float("nan")}}))
    assert json.loads((tmp_path / "x.json").read_text())["metrics"] == {"map": None}
    assert load_checkpoint(tmp_path / "x").info.metrics == {"map": None}


def test_saving_again_replaces(saved):
    other = models()["dynamic"]
    torch.nn.init.ones_(other.classifier.weight)
    save_checkpoint(saved, other, **(FACTS | {"seed": 8}))
    loaded = load_checkpoint(saved)
    assert loaded.info.seed == 8 and (loaded.model.classifier.weight == 1).all()


def test_a_crash_between_the_two_files_is_noticed(saved, tmp_path):
    other = models()["dynamic"]
    torch.nn.init.ones_(other.classifier.weight)
    save_checkpoint(tmp_path / "other", other, **FACTS)
    (tmp_path / "other.safetensors").replace(saved.with_name(saved.name + ".safetensors"))
    with pytest.raises(DynapropError, match="is not the file that"):
        load_checkpoint(saved)


def test_a_missing_checkpoint_or_half_of_one_is_wrong_use(saved, tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.json is missing"):
        load_checkpoint(tmp_path / "nothing")
    saved.with_name(saved.name + ".safetensors").unlink()
    with pytest.raises(UsageError, match=r"\.safetensors is missing"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda r: r.pop("n_s"), "n_s: Field required"),
        (lambda r: r.update(surprise=1), "surprise: Extra inputs"),
        (lambda r: r["model"].update(kind="os.system"), "model: Input tag 'os.system'"),
        (lambda r: r["model"].update(key_dim="5"), "key_dim: Input should be a valid integer"),
        (lambda r: r["model"].update(gamma=0), "gamma: Input should be greater than or equal to 1"),
        (lambda r: r["class_names"].append("d"), "class_names has 4 entries for a model of 3"),
        (lambda r: r["model"].update(student_dim=7), r"classifier\.weight should be .* \[3, 7\], is .* \[3, 6\]"),
        (lambda r: r["model"].update(student_dim=10**6), "describes another model"),
        (lambda r: r["model"].update(student_dim=10**9), "student_dim: Input should be less than or equal to 1000000"),
        (lambda r: r["model"].update(gamma=float("inf")), "gamma: Input should be a finite number"),
        (lambda r: r["metrics"].update(map=float("nan")), "metrics.map: Input should be a finite number"),
        (lambda r: r.update(n_s=10**12), "n_s: Input should be less than or equal to"),
        (lambda r: r["model"].update(fusion=False), r"student\.fusion\.key\.bias should be absent"),
        (lambda r: r["model"]["teacher"].update(fusion=True), "is absent"),
    ],
)  # fmt: skip
def test_a_json_that_was_tampered_with_is_refused(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(DynapropError, match=message) as raised:
        load_checkpoint(saved)
    assert "\n" not in str(raised.value)


def test_a_json_that_is_none_is_refused(saved):
    saved.with_name(saved.name + ".json").write_text('{"schema_version": 1,')
    with pytest.raises(DynapropError, match=r"\.json is damaged: .*; restore the file or train the model again"):
        load_checkpoint(saved)


def test_ensemble_members_with_different_classes_are_refused(tmp_path):
    save_checkpoint(tmp_path / "x", models()["static-avg"], **FACTS)
    rewrite(tmp_path / "x", lambda r: r["model"]["student"].update(n_classes=9))
    with pytest.raises(DynapropError, match=r"student\.classifier\.bias should be"):
        load_checkpoint(tmp_path / "x")


@pytest.mark.parametrize("data", [b"", b"\x80\x04 a pickle, say", b"\xff" * 64])
def test_weights_that_are_no_safetensors_file_are_refused(saved, data):
    saved.with_name(saved.name + ".safetensors").write_bytes(data)
    rewrite(saved, lambda r: r.update(weights_sha256=hashlib.sha256(data).hexdigest()))
    with pytest.raises(DynapropError, match="is damaged"):
        load_checkpoint(saved)


def test_weights_of_another_type_are_refused(tmp_path):
    model = models()["student"]
    save_checkpoint(tmp_path / "x", model, **FACTS)
    halves = safetensors.torch.save({k: v.half() for k, v in model.state_dict().items()})
    (tmp_path / "x.safetensors").write_bytes(halves)
    rewrite(tmp_path / "x", lambda r: r.update(weights_sha256=hashlib.sha256(halves).hexdigest()))
    with pytest.raises(DynapropError, match=r"should be torch\.float32 .*, is torch\.float16"):
        load_checkpoint(tmp_path / "x")


def test_heads_of_before_names_were_composed_begin_a_fine_tuning(tmp_path):
    """Their classes are those of the dataset, whose names are composed today; others are refused."""
    composed = ("a", unicodedata.normalize("NFC", "é"), "z")
    apart = tuple(unicodedata.normalize("NFD", name) for name in composed)
    assert apart != composed
    save_checkpoint(tmp_path / "old", models()["dynamic"], **FACTS | {"class_names": apart})
    student, teacher = (SimpleNamespace(name=name) for name in FACTS["feature_keys"].values())
    old = load_checkpoint(tmp_path / "old")
    assert starting_heads(old, student=student, teacher=teacher, class_names=composed) is old.model
    for others in (("a", "e", "z"), composed[::-1], composed[:2]):
        with pytest.raises(UsageError, match="other classes"):
            starting_heads(old, student=student, teacher=teacher, class_names=others)
