"""`dynaprop finetune` on real files: from cached heads, from scratch, interrupted, by two processes; and extraction."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from bench import finetuning as bench
from dynaprop.heads.finetune.networks import FrameEncoder
from dynaprop.heads.finetune.state import TrainingState
from dynaprop.heads.runs.checkpoint import load_checkpoint
from dynaprop.pipeline.backbones.fit import build_network
from dynaprop.pipeline.backbones.timm_networks import load_network
from dynaprop.pipeline.backbones.weights import find_weights
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.local_lock import lock_record
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.store.feature_store import FeatureStore, list_stores
from dynaprop.pipeline.video.decoders import resize_frame
from tests.conftest import REPOSITORY
from tests.pipeline.videos import all_frames


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def folder_of(text: str) -> Path:
    found = re.search(r"^results: (.+)/results.parquet$", text, re.MULTILINE)
    assert found, text
    return Path(found[1])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    files = [*folder.glob("backbones/*.safetensors"), *folder.glob("checkpoints/*/*.safetensors")]
    assert len(files) == 4
    return {f"{file.stem}.{name}": tensor for file in files for name, tensor in load_file(file).items()}


def add_to_catalog(said: str, file: Path) -> str:
    """As a user would: copy the lines that the command prints; returns the recipe's name."""
    lines = re.search(r"^backbones:\n(?:  .*\n)+recipes:\n(?:  .*\n)", said, re.MULTILINE)
    assert lines, said
    catalog = yaml.safe_load(file.read_text())
    for section, entries in yaml.safe_load(lines[0]).items():
        assert not catalog[section].keys() & entries.keys(), "names of others"
        catalog[section] |= entries
    file.write_text(yaml.safe_dump(catalog))
    (recipe,) = yaml.safe_load(lines[0])["recipes"]
    return recipe


def test_from_cached_heads_and_back_into_the_cache(dynaprop, workplace, monkeypatch):
    assert dynaprop("extract", "tiny").code == 0
    assert dynaprop("train", "tiny").code == 0
    (cached_heads,) = (workplace / "runs").rglob("dynamic-6+2.safetensors")
    cached_run = cached_heads.parents[2]

    tuned = dynaprop("finetune", "tiny", "--init", cached_run.name, "--epochs", "2")
    assert tuned.code == 0, tuned.err
    folder = folder_of(tuned.out)
    assert folder.parent == workplace / "runs" and folder.name.startswith("tiny-lite-finetune-")
    log = pd.read_parquet(folder / "epochs-seed0.parquet")
    assert log[["stage", "epoch"]].values.tolist() == [["teacher", 1], ["teacher", 2], ["student", 1], ["student", 2]]
    assert log["frame_loss"].isna().tolist() == [True, True, False, False]
    assert not list(folder.glob("state/*"))

    # Begun with the cached heads: two epochs leave them near, but not where they were.
    (tuned_heads,) = folder.rglob("dynamic-6+2.json")
    before, after = (load_checkpoint(path).model for path in (cached_heads, tuned_heads))
    assert torch.equal(before.student.feature_std, after.student.feature_std)
    moved = (before.classifier.weight - after.classifier.weight).abs()
    assert 0 < moved.max() < 1e-3

    # The features of the fine-tuned backbones are cached under keys of their own, which the heads know.
    described = json.loads((folder / "finetuned-seed0.json").read_text())["backbones"]
    keys = {branch: about["feature_key"] for branch, about in described.items()}
    store = FeatureStore.existing(list_stores(workplace / "stores")[0])
    assert len(store.keys()) == 4 and set(keys.values()) <= set(store.keys())
    assert load_checkpoint(tuned_heads).info.feature_keys == keys
    row = store.manifest().current().set_index("video_id").loc["a/0.mp4"]
    native = all_frames(workplace / "videos" / "a" / "0.mp4")
    for branch, key in keys.items():
        about = described[branch]
        network = load_network(about["model"], find_weights(str(folder / about["weights"]), about["model"]))
        frames = np.array([resize_frame(native[index], about["size"]) for index in row["frames"]])
        mask = torch.ones(1, len(frames), dtype=torch.bool)
        with torch.no_grad():
            z = FrameEncoder(network, mean=about["mean"], std=about["std"]).eval()(torch.from_numpy(frames), mask)
        cached = store.read_shard(key, row["shard"])[row["row"] % store.shard_rows :][: row["n_clips"]]
        np.testing.assert_allclose(cached.astype(np.float32), z[0].numpy(), rtol=5e-3, atol=1e-4)

    # The models are measured on them.
    results = pd.read_parquet(folder / "results.parquet")
    assert results[["model", "n_s", "n_t", "recipe"]].values.tolist() == [
        ["teacher", 0, 6, "lite-finetuned"],
        ["dynamic", 6, 2, "lite-finetuned"],
    ]
    assert (results["n_videos"] == 6).all() and (results["gmacs_measured"] > 0).all()

    frozen = pd.read_parquet(cached_run / "results.parquet").query("model == 'dynamic'")["top1"].iloc[0]
    assert (
        f"dynamic-6+2, seed 0: top-1 {100 * frozen:.1f} %" in tuned.err
        and f"; top-1 {100 * results['top1'].iloc[1]:.1f} %" in tuned.err
    )

    # As backbones of the catalog they are what is cached already, for any other training.
    recipe = add_to_catalog(tuned.err, workplace / "catalog.yaml")
    entries = load_catalog(workplace / "catalog.yaml").recipes
    own = {"name", "student", "teacher", "finetune"}
    assert entries[recipe].model_dump(exclude=own) == entries["lite"].model_dump(exclude=own)
    extracted = dynaprop("extract", "tiny", "--recipe", recipe)
    assert extracted.code == 0 and "this run decoded 0 videos" in " ".join(extracted.err.split())
    assert dynaprop("sweep", "tiny", "--recipe", recipe, "--experiment", "few").code == 0

    # The newest run is the one that was measured last, not the one that was last asked for.
    assert dynaprop("train", "tiny").code == 0
    newest = dynaprop("predict", "tiny", "videos/a/0.mp4")
    assert newest.code == 0 and f"dynamic-6+2, seed 0, of {folder}" in " ".join(newest.err.split())

    # Another seed adds to the same run, and the frozen backbones stand beside it in a report.
    again = dynaprop("finetune", "tiny", "--init", cached_run.name, "--epochs", "2")
    assert again.code == 0 and "fine-tuned already" in again.err and folder_of(again.out) == folder
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "results.parquet"), results)
    assert dynaprop("train", "tiny", "--seeds", "2").code == 0
    second = dynaprop("finetune", "tiny", "--init", cached_run.name, "--epochs", "2", "--seed", "1")
    assert second.code == 0 and folder_of(second.out) == folder, second.err
    assert pd.read_parquet(folder / "results.parquet")["seed"].tolist() == [0, 0, 1, 1]
    page = dynaprop("report", cached_run.name, folder.name)
    assert page.code == 0, page.err

    # New videos are recognised by each seed's own backbones, whatever the catalog knows.
    predictions = pd.read_parquet(folder / "predictions.parquet").query("model == 'dynamic'")
    elsewhere = workplace / "other.yaml"
    elsewhere.write_text((workplace / "catalog.yaml").read_text().replace("test_efficientnet", "test_vit"))
    for row in predictions.drop_duplicates("seed").itertuples():
        video = f"videos/{row.video_id}"
        options = ("--seed", str(row.seed), "--catalog", str(elsewhere), "--json")
        found = dynaprop("predict", folder.name, video, *options)
        assert found.code == 0, found.err
        scores = sorted((one["probability"] for one in json.loads(found.out)["top"]), reverse=True)
        np.testing.assert_allclose(scores, sorted(row.scores, reverse=True), atol=1e-3)
    lacking = dynaprop("predict", folder.name, video, "--seed", "7")
    assert lacking.code == 2 and "`dynaprop finetune TARGET --recipe lite --seed 7` keeps it" in lacking.err
    backbone = folder / "backbones" / "student-seed1.safetensors"
    backbone.write_bytes(backbone.read_bytes()[:-4] + b"\0\0\0\1")
    changed = dynaprop("predict", folder.name, video, "--seed", "1")
    assert changed.code == 1 and "is not the file that finetuned-seed1.json describes" in " ".join(changed.err.split())

    # And in the README's comparison.
    own = {
        name: {"n_s": 6, "n_t": 2, "recipe": row["recipe"].replace(bench.RECIPE, "lite")}
        for name, row in bench.ROWS.items()
    }
    monkeypatch.setattr(bench, "ROWS", {name: row | own[name] for name, row in bench.ROWS.items()})
    data = bench.measured(cached_run, folder)
    assert data["fine-tuned"]["seed"] == data["frozen"]["seed"] == [0, 1]
    dynamic = pd.read_parquet(folder / "results.parquet").query("model == 'dynamic'")
    assert data["fine-tuned"]["top1"] == dynamic["top1"].tolist()
    assert data["epochs"] == {"teacher": 2, "student": 2} and len(data["minutes_a_seed"]) == 2
    assert "| fine-tuned backbones | 2 |" in bench.table(data)
    bench.plot(folder, workplace / "curve.png")
    assert (workplace / "curve.png").stat().st_size > 5000


def test_interrupted_it_goes_on_and_ends_with_the_same_weights(dynaprop, workplace, monkeypatch):
    monkeypatch.setenv("DYNAPROP_HOME", str(workplace / "whole"))
    whole = dynaprop("finetune", "tiny", "--epochs", "2")
    assert whole.code == 0, whole.err
    monkeypatch.setenv("DYNAPROP_HOME", str(workplace / "parts"))
    save = TrainingState.save

    def save_and_end(self, *arguments, **options) -> None:
        save(self, *arguments, **options)
        raise DynapropError("ended by the test")

    for done in range(4):  # after every epoch of both stages
        monkeypatch.setattr(TrainingState, "save", save_and_end)
        part = dynaprop("finetune", "tiny", "--epochs", "2")
        assert part.code == 1 and "ended by the test" in part.err, part.err
        if done:
            assert f"fine-tune teacher: {min(done, 2)} of 2 epochs are there already" in part.err
    monkeypatch.setattr(TrainingState, "save", save)
    last = dynaprop("finetune", "tiny", "--epochs", "2")
    assert last.code == 0, last.err
    logs = [pd.read_parquet(folder_of(each.out) / "epochs-seed0.parquet") for each in (whole, last)]
    pd.testing.assert_frame_equal(*(log.drop(columns="seconds") for log in logs))
    one, other = weights_of(folder_of(whole.out)), weights_of(folder_of(last.out))
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def test_two_processes_by_torchrun_end_as_one_does(dynaprop, workplace, monkeypatch):
    """From new heads, for which the first process alone measures features."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [
        sys.executable,
        *launch,
        "-m",
        "dynaprop.flows.cli",
        "finetune",
        "tiny",
        "--epochs",
        "1",
        "--workers",
        "1",
    ]
    ended = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    folder = folder_of(ended.stdout)
    assert ended.stdout.count("results: ") == 1
    assert ended.stderr.count("fine-tuned: ") == 1
    assert pd.read_parquet(folder / "epochs-seed0.parquet")["videos"].tolist() == [9, 9]
    assert not list(folder.glob("state/*"))
    monkeypatch.setenv("DYNAPROP_HOME", str(workplace / "alone"))
    alone = dynaprop("finetune", "tiny", "--epochs", "1")
    assert alone.code == 0, alone.err
    two, one = weights_of(folder), weights_of(folder_of(alone.out))
    assert two.keys() == one.keys()
    # But for rounding; a key's bias moves by that alone. A second process with heads of its own would make it 0.02.
    apart = torch.cat([(two[name] - one[name]).float().flatten() for name in one if not name.endswith("key.bias")])
    assert apart.norm() < 3e-4


def test_what_cannot_be_begun_with_is_one_line(dynaprop, workplace):
    for name in ("no-such-run", "", "videos"):
        nothing = dynaprop("finetune", "tiny", "--init", name)
        assert nothing.code == 2 and f"no run '{name}': name a run in" in nothing.err
    assert dynaprop("extract", "tiny").code == 0 and dynaprop("train", "tiny").code == 0
    (run,) = (workplace / "runs").iterdir()
    seed = dynaprop("finetune", "tiny", "--init", run.name, "--seed", "1")
    assert seed.code == 2 and "has no Dynamic-STE of 6 + 2 frames and seed 1 on this split" in seed.err
    assert "dynaprop train tiny --recipe lite --seeds 2" in seed.err
    other = dynaprop("finetune", "tiny", "--recipe", "other", "--init", run.name)
    assert other.code == 2
    assert "trained on features of other backbones than the recipe's" in other.err


def test_a_teacher_of_no_epochs_stays_as_the_run_has_it(dynaprop, workplace):
    catalog = workplace / "catalog.yaml"
    entries = yaml.safe_load(catalog.read_text())
    entries["recipes"]["lite"]["finetune"] = {"teacher_epochs": 0, "student_epochs": 1}
    catalog.write_text(yaml.safe_dump(entries))
    alone = dynaprop("finetune", "tiny")
    assert alone.code == 2 and "a teacher of 0 epochs needs heads to begin with" in alone.err
    assert dynaprop("extract", "tiny").code == 0 and dynaprop("train", "tiny").code == 0
    (heads,) = (workplace / "runs").rglob("dynamic-6+2.json")
    tuned = dynaprop("finetune", "tiny", "--init", str(heads.parents[2]))
    assert tuned.code == 0, tuned.err
    folder = folder_of(tuned.out)
    backbone = load_network("test_resnet", find_weights("random", "test_resnet")).state_dict()
    kept = load_file(folder / "backbones" / "teacher-seed0.safetensors")
    assert kept.keys() == backbone.keys() and all(torch.equal(kept[name], backbone[name]) for name in kept)
    before = load_checkpoint(heads).model.teacher.state_dict()
    (tuned_heads,) = folder.rglob("dynamic-6+2.json")
    after = load_checkpoint(tuned_heads).model
    assert all(torch.equal(before[name], tensor) for name, tensor in after.teacher.state_dict().items())


@pytest.mark.slow
def test_a_transformer_is_tuned_at_the_size_that_it_was_built_for(dynaprop, workplace):
    """From weights made at its own size to weights at this one, which then are a backbone's like any others."""
    torch.manual_seed(4)
    whole = timm.create_model("test_vit3")
    torch.save({"model": whole.state_dict()}, workplace / "vit.pth.tar")
    catalog = workplace / "catalog.yaml"
    entries = yaml.safe_load(catalog.read_text())
    entries["backbones"]["s"] = {"model": "test_vit3", "size": 112, "weights": "vit.pth.tar"}
    catalog.write_text(yaml.safe_dump(entries))
    tuned = dynaprop("finetune", "tiny", "--epochs", "1")
    assert tuned.code == 0, tuned.err
    kept = load_file(folder_of(tuned.out) / "backbones" / "student-seed0.safetensors")
    assert kept["pos_embed"].shape == build_network("test_vit3", 112).state_dict()["pos_embed"].shape
    assert kept["pos_embed"].shape != whole.pos_embed.shape
    entries["backbones"]["s"]["size"] = 113
    catalog.write_text(yaml.safe_dump(entries))
    refused = dynaprop("finetune", "tiny", "--epochs", "1")
    assert refused.code == 2 and "backbone 's': timm's test_vit3 takes no frames of 113 x 113 pixels" in refused.err


def test_one_seed_of_a_run_is_trained_by_one_process_at_a_time(dynaprop, workplace):
    ended = dynaprop("finetune", "tiny", "--epochs", "1")
    assert ended.code == 0
    folder = folder_of(ended.out)
    (folder / "finetuned-seed0.json").unlink()
    with StoreLock(lock_record(folder / "locks" / "seed0"), name="the test"):
        second = dynaprop("finetune", "tiny", "--epochs", "1")
    assert second.code == 1
    assert f"{folder.name}, seed 0 is in use by process" in second.err
