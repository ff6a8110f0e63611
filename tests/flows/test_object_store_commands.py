"""The command line with a home in an object store: the whole way, repair, and one line where the store is no help."""

import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.flows.test_finetune import add_to_catalog
from tests.s3_server import SECRET


@pytest.fixture
def home(workplace, s3, monkeypatch) -> str:
    """$DYNAPROP_HOME."""
    monkeypatch.setenv("DYNAPROP_HOME", str(s3.home))
    return str(s3.home)


def test_the_whole_way_and_a_repair(dynaprop, workplace, s3, home):
    run = dynaprop("run", "tiny", "--experiment", "few", "--seeds", "1")
    assert run.code == 0, run.err
    folder = next(line for line in run.out.splitlines() if line.startswith("results:")).split()[1]
    assert folder.startswith(f"{home}/runs/tiny-lite-")
    name = folder.removeprefix(f"{home}/runs/").removesuffix("/results.parquet")
    objects = s3.objects()
    for table in ("results", "predictions", "per_class", "frame_scores"):
        assert len(pd.read_parquet(io.BytesIO(objects[f"runs/{name}/{table}.parquet"])))
    assert b"Student" in objects[f"runs/{name}/report.html"]
    assert any(key.endswith(".safetensors") for key in objects)
    assert {path.name for path in workplace.iterdir()} == {"catalog.yaml", "videos"}  # nothing is left beside it

    video = next((workplace / "videos").rglob("*.*"))
    predicted = dynaprop("predict", "tiny", str(video), "--json")
    assert predicted.code == 0, predicted.err
    assert len(json.loads(predicted.out)["top"]) == 3
    exported = dynaprop("export", name, "--output", "model")
    assert exported.code == 0, exported.err
    again = dynaprop("predict", "model", str(video), "--json")
    assert json.loads(again.out)["top"] == json.loads(predicted.out)["top"]
    shutil.rmtree(workplace / "model")

    shown = dynaprop("datasets")
    assert "4/4" in shown.out
    assert "0 problems" in dynaprop("verify", "tiny").out

    chunk = next(key for key in objects if key.endswith("/c/1/0"))
    s3.put(chunk, b"\1" + objects[chunk][1:])
    trained = dynaprop("train", "tiny")
    assert trained.code == 1
    assert "shard 1 of" in trained.err and "is damaged" in " ".join(trained.err.split())
    assert dynaprop("verify", "tiny").code == 1
    repaired = dynaprop("verify", "tiny", "--repair")
    assert repaired.code == 0, repaired.err
    assert "what was wrong is right now" in repaired.out
    assert s3.objects()[chunk] == objects[chunk]

    again = dynaprop("sweep", "tiny", "--experiment", "few", "--seeds", "1")
    assert again.code == 0, again.err
    assert "2 of 2 results are there already" in again.err

    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace("size: 64", "size: 80"))
    assert "1 feature keys deleted" in dynaprop("datasets", "--gc").err
    assert not [key for key in s3.objects() if "test_resnet" in key and "/stores/" in f"/{key}"]


def test_fine_tuned_backbones_are_weights_wherever_they_lie(dynaprop, workplace, s3, home, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(workplace / "downloads"))
    tuned = dynaprop("finetune", "tiny", "--epochs", "1")
    assert tuned.code == 0, tuned.err
    run = next(line for line in tuned.out.splitlines() if line.startswith("results:")).split()[1].rpartition("/")[0]
    name = run.removeprefix(f"{home}/runs/")
    objects = s3.objects()
    predictions = pd.read_parquet(io.BytesIO(objects[f"runs/{name}/predictions.parquet"])).query("model == 'dynamic'")
    row = predictions.iloc[0]
    found = dynaprop("predict", name, f"videos/{row.video_id}", "--json")
    assert found.code == 0, found.err
    scores = sorted((one["probability"] for one in json.loads(found.out)["top"]), reverse=True)
    np.testing.assert_allclose(scores, sorted(row.scores, reverse=True), atol=1e-3)

    recipe = add_to_catalog(tuned.err, workplace / "catalog.yaml")
    extracted = dynaprop("extract", "tiny", "--recipe", recipe)
    assert extracted.code == 0 and "this run decoded 0 videos" in " ".join(extracted.err.split()), extracted.err
    copies = sorted((workplace / "downloads").rglob("*.safetensors"))
    stored = {data for key, data in objects.items() if key.startswith(f"runs/{name}/backbones/")}
    assert {copy.read_bytes() for copy in copies} == stored and len(copies) == 2  # each fetched once

    student = f"runs/{name}/backbones/student-seed0.safetensors"
    s3.put(student, objects[student][:-4] + b"\0\0\0\1")
    changed = dynaprop("predict", name, f"videos/{row.video_id}")
    assert changed.code == 1 and "is not the file that finetuned-seed0.json describes" in " ".join(changed.err.split())


def test_copies_are_files_below_the_current_folder(dynaprop, workplace, s3, home):
    made = dynaprop("transcode", "tiny", "--short-side", "32")
    assert made.code == 0, made.err
    assert (workplace / "transcoded" / "tiny" / "32p" / "copies.parquet").exists()
    extracted = dynaprop("extract", "tiny:32p")
    assert extracted.code == 0, extracted.err
    assert all(key.startswith("stores/tiny.32p/") for key in s3.objects())


class TestOneLine:
    @pytest.fixture
    def fails(self, dynaprop, monkeypatch, reconnect):
        """Run a command that must fail with one line, in an environment that is changed first; returns the line."""

        def run(*command: str, code: int, **environment: str | None) -> str:
            for name, value in environment.items():
                if value is None:
                    monkeypatch.delenv(name)
                else:
                    monkeypatch.setenv(name, value)
            reconnect()
            outcome = dynaprop(*command)
            assert outcome.code == code, outcome.err
            (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
            assert SECRET not in outcome.err + outcome.out
            assert "Traceback" not in outcome.err
            return line

        return run

    def test_no_such_bucket(self, fails, home):
        line = fails("extract", "tiny", code=2, DYNAPROP_HOME="s3://nobucket/x")
        assert line == "error: s3://nobucket/x: there is no bucket 'nobucket' (or it is not ours to see)"

    def test_no_credentials(self, fails, home, tmp_path):
        line = fails("train", "tiny", code=1, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, HOME=str(tmp_path))
        assert line == (
            f"error: {home}: the store refuses: Unable to locate credentials; check the credentials and what they allow"
        )

    def test_nobody_there(self, fails, home):
        line = fails("datasets", code=1, AWS_ENDPOINT_URL="http://127.0.0.1:9")
        assert line.startswith(f"error: {home}: the store does not answer as it should: Could not connect")

    def test_no_right_to_write(self, fails, home, s3):
        s3.disturb = lambda method, _: "refuse" if method == "PUT" else None
        line = fails("extract", "tiny", code=1)
        assert line.startswith(f"error: {home}/stores/tiny/clips-1s-min10-max20/lock.json: the store refuses: ")

    def test_a_password_in_the_url(self, fails, home):
        line = fails("datasets", code=2, DYNAPROP_HOME=f"s3://KEY:{SECRET}@features/x")
        assert "holds a password; give credentials as its own tools take them" in line

    def test_a_scheme_that_cannot_publish(self, fails, home):
        line = fails("datasets", code=2, DYNAPROP_HOME="sftp://host/x")
        assert "stores can lie on a disk and in object stores, not on sftp://" in line
