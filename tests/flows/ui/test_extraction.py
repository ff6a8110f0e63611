"""What Prefect's UI is given to show: read back from a real server through its API."""

import json
import logging
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from dynaprop.flows.terminal.environment import prepare_environment
from dynaprop.flows.terminal.progress import Steps
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.extract.summary import ExtractionSummary
from dynaprop.pipeline.video.container import VideoError
from tests.conftest import REPOSITORY
from tests.flows.conftest import CATALOG
from tests.pipeline.videos import write_video

prepare_environment(verbose=False)  # before Prefect is imported

from prefect import flow  # noqa: E402
from prefect.client.orchestration import SyncPrefectClient, get_client  # noqa: E402
from prefect.client.schemas.filters import LogFilter  # noqa: E402
from prefect.client.schemas.objects import Artifact, FlowRun  # noqa: E402
from prefect.settings import PREFECT_API_URL  # noqa: E402

from dynaprop.flows.evaluate_sweep import evaluate_sweep  # noqa: E402
from dynaprop.flows.extract_features import extract_features  # noqa: E402
from dynaprop.flows.server import own_server as server  # noqa: E402
from dynaprop.flows.terminal.table import results_table  # noqa: E402
from dynaprop.flows.ui import extraction as artifacts  # noqa: E402
from dynaprop.heads.runs.folder import RunFolder  # noqa: E402

pytestmark = pytest.mark.usefixtures("prefect_server")

LINE = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')


@pytest.fixture
def dataset(workplace, request) -> str:
    """The tiny dataset under a name that no other test has used, since artifacts are found by their names."""
    name = re.sub(r"[^a-z]+", "-", request.node.name)[-60:].strip("-")
    (workplace / "catalog.yaml").write_text(CATALOG.replace("tiny:", f"{name}:"))
    return name


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as made:
        yield made


def found(client: SyncPrefectClient, prefix: str) -> dict[str, Artifact]:
    """The latest artifacts whose keys begin so, by the rest of the key."""
    chosen = {"sort": "KEY_ASC", "artifacts": {"key": {"like_": f"{prefix}-%"}}}
    reply = client.request("POST", "/artifacts/latest/filter", json=chosen).json()
    made = [Artifact.model_validate({**one, "id": one["latest_id"]}) for one in reply]
    return {one.key.removeprefix(f"{prefix}-"): one for one in made}


def last_run(client: SyncPrefectClient, artifact: Artifact) -> FlowRun:
    return client.read_flow_run(artifact.flow_run_id)


def lines_of(client: SyncPrefectClient, run: FlowRun) -> list[str]:
    """The run's log and its tasks'."""
    logging.getLogger("prefect.flow_runs").handlers[0].flush()
    chosen = LogFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
    return [log.message for log in client.read_logs(chosen, limit=200, offset=0)]


def parsed(line: str) -> dict[str, str]:
    """A line of logfmt."""
    assert LINE.sub("", line).strip() == "", line
    return {name: json.loads(value) if value[0] == '"' else value for name, value in LINE.findall(line)}


def test_a_command_shows_progress_failures_and_videos_in_logs(workplace, dataset, client):
    (workplace / "videos" / "b" / "bad.mp4").write_text("no video")
    whole = write_video(workplace / "videos" / "c" / "cut.avi", frames=60, codec="mpeg4")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_LOGGING")}
    environment |= {"PYTHONPATH": str(REPOSITORY), "PREFECT_API_URL": PREFECT_API_URL.value()}
    command = [sys.executable, "-m", "dynaprop.flows.cli", "extract", dataset]
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "status=" not in done.stderr  # the terminal stays as it is without a server

    made = found(client, f"{dataset}-lite")
    assert made.keys() == {"extraction", "failures"}
    progress = made["extraction"]
    assert (progress.type, progress.data) == ("progress", 100.0)
    head, failed, partial = progress.description.split("\n\n")
    assert re.fullmatch(r"\*\*16 of 16 videos\*\*, (\d+) of \1 clips in .* s \(.* clips/s\)", head)
    assert failed == "failed: 1 unreadable"
    assert partial == "partial: 1 missing_frames"

    assert made["failures"].type == "table"
    rows = json.loads(made["failures"].data)
    assert [(row["video"], row["status"], row["kind"]) for row in rows] == [
        ("b/bad.mp4", "failed", "unreadable"),
        ("c/cut.avi", "partial", "missing_frames"),
    ]
    assert re.fullmatch(r"the file holds \S+% of the frames that it announces", rows[1]["detail"])
    assert made["failures"].description == "16 of 17 videos are usable: **1 failed**, 1 partial; 0 absent"

    run = last_run(client, progress)
    tasks = client.request("POST", "/task_runs/filter", json={"flow_runs": {"id": {"any_": [str(run.id)]}}}).json()
    names = sorted(task["name"] for task in tasks)
    assert names[:2] == ["extract shard 0000 (4 videos)", "extract shard 0001 (4 videos)"]
    assert sum(int(re.search(r"\((\d+) videos\)", name)[1]) for name in names) == 16

    lines = lines_of(client, run)
    videos = [parsed(line) for line in lines if line.startswith("video=")]
    assert {(line["video"], line["status"], line["kind"], line.get("shard")) for line in videos} == {
        ("b/bad.mp4", "failed", "unreadable", None),  # found by the probe, before there are shards
        ("c/cut.avi", "partial", "missing_frames", str(len(names) - 1)),
    }
    shards = [parsed(line) for line in lines if line.startswith("shard=")]
    assert [int(line["shard"]) for line in shards] == list(range(len(names)))
    assert sum(int(line["videos"]) for line in shards) == 16
    assert sum(int(line["partial"]) for line in shards) == 1


def test_what_is_there_already_is_said_and_costs_no_task(dataset, client):
    extract_features(dataset)
    state = extract_features(dataset, return_state=True)
    made = found(client, f"{dataset}-lite")
    assert made["extraction"].flow_run_id == made["failures"].flow_run_id == state.state_details.flow_run_id
    assert made["extraction"].description == "**Nothing to do**: all features are there"
    assert made["extraction"].data == 100.0
    assert json.loads(made["failures"].data) == []  # not those of an earlier run


def test_nothing_is_shown_on_a_server_that_ends_with_its_command(dataset, client, monkeypatch):
    monkeypatch.setattr(server, "_passing", {PREFECT_API_URL.value()})
    extract_features(dataset)
    evaluate_sweep(dataset, sweep="few", seeds=(0,))
    assert found(client, f"{dataset}-lite") == {}


def test_a_server_that_takes_no_artifacts_costs_a_line(dataset, client, monkeypatch, caplog):
    def refuse(*_):
        raise OSError("no room")

    monkeypatch.setattr(artifacts, "create_progress_artifact", refuse)
    monkeypatch.setattr(artifacts, "create_table_artifact", refuse)
    caplog.set_level(logging.INFO, "prefect.flow_runs")
    state = extract_features(dataset, return_state=True)
    assert state.is_completed()
    assert state.result()["usable"] == 15
    lines = [record.message for record in caplog.records if "not shown" in record.message]
    assert lines == ["not shown in the UI: OSError: no room"] * 2  # progress, failures
    assert found(client, f"{dataset}-lite") == {}


def test_progress_counts_shards_of_several_threads():
    steps = Steps("extract", 1000, "clips")
    progress = artifacts.ExtractionProgress(steps, videos=400, failed={"x": "no_video"})
    assert progress.text().startswith("**About 0 of 400 videos**, 0 of 1,000 clips, 0 clips/s\n\nfailed: 1 no_video")

    def shard(number: int) -> None:
        steps.advance(10)
        failed = {f"{number}/f": VideoError("timeout", "no frame")}
        partial = {f"{number}/{name}": VideoError("decode", "damaged") for name in "ab"}
        progress.add(ShardResult(number, videos=8, clips=10, frames=20, failed=failed, partial=partial))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(shard, range(40)))
    steps.advance(450)  # of shards that are not finished
    head, failed, partial = progress.text().split("\n\n")
    assert re.fullmatch(r"\*\*About 340 of 400 videos\*\*, 850 of 1,000 clips, .* clips/s, .* left", head)
    assert failed == "failed: 40 timeout, 1 no_video"
    assert partial == "partial: 80 decode"
    assert progress.percent() == 85
    progress.finish(completed=False)
    assert re.match(
        r"\*\*320 of 400 videos\*\*, 850 of 1,000 clips in .* s \(.* clips/s\), interrupted\n", progress.text()
    )


def test_an_interrupted_extraction_says_so(dataset, client, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr("dynaprop.flows.extract_features.extract_shard", fail)
    assert extract_features(dataset, return_state=True).is_failed()
    made = found(client, f"{dataset}-lite")
    assert made.keys() == {"extraction"}
    assert re.search(r"\*\*0 of 15 videos\*\*, .* interrupted", made["extraction"].description)


def test_a_table_shows_at_most_a_thousand_failures(client, caplog):
    errors = {f"{number:04d}.mp4": VideoError("timeout", "no frame") for number in range(1200)}
    summary = ExtractionSummary(
        videos=2000, usable=800, failed=errors, partial={}, absent=("gone",), decoded=0, forwarded=0, keys={},
        store=Path(),
    )  # fmt: skip

    @flow
    def show():
        artifacts.show_failures(summary, name="Many.of_them")
        artifacts.log_shard(ShardResult(7, failed=errors, seconds=1.0))

    caplog.set_level(logging.INFO, "prefect.flow_runs")
    show()
    (made,) = found(client, "many-of-them").values()
    assert len(json.loads(made.data)) == 1000
    assert "**1,200 failed**, 0 partial; 1 absent" in made.description
    assert "first 1,000 of 1,201" in made.description
    lines = [parsed(record.message) for record in caplog.records if "=" in record.message]
    assert len(lines) == 102
    assert lines[100] == {"shard": "7", "status": "failed", "omitted": "1100"}
    assert lines[101]["failed"] == "1200"


def test_names_of_any_kind_are_one_line_that_machines_can_read(caplog):
    odd = 'a "b" c=d\\e\n日本語 %s'

    @flow
    def show():
        artifacts.log_shard(ShardResult(0, partial={odd: VideoError("decode", 'says "no"')}, seconds=1.0))

    caplog.set_level(logging.INFO, "prefect.flow_runs")
    show()
    (line,) = [record.message for record in caplog.records if record.message.startswith("video=")]
    assert "\n" not in line
    assert "日本語" in line
    assert parsed(line) == {
        "video": odd, "shard": "0", "status": "partial", "kind": "decode", "detail": 'says "no"',
    }  # fmt: skip


def test_a_sweep_shows_its_table_and_its_picture(workplace, dataset, client):
    extract_features(dataset)
    (report,) = evaluate_sweep(dataset, sweep="two", recipe="lite", seeds=(0, 1))
    made = found(client, f"{dataset}-lite")
    assert made.keys() == {
        "extraction", "failures", "few-results", "ablation-results", "few-accuracy-cost",
    }  # fmt: skip
    few = next(asked for asked in report.asked if asked.experiment == "few")
    table = results_table(RunFolder(Path(report.folder)).rows_of(few))
    rows = json.loads(made["few-results"].data)
    assert [tuple(row.values()) for row in rows] == [
        tuple("\\-" if cell == "-" else cell for cell in row) for row in table.rows
    ]
    assert list(rows[0]) == ["model", "n_s", "n_t", "top-1 %", "mAP %", "GMACs (measured)"]
    assert [row["model"] for row in rows] == ["Student", "Teacher"]
    assert "2 seeds" in made["few-results"].description
    assert report.folder in made["few-results"].description

    picture = made["few-accuracy-cost"]
    assert picture.type == "markdown"
    found_picture = re.search(r"!\[([^\]]+)\]\(data:image/png;base64,([^)]+)\)", picture.data)
    assert "points of 2 models" in found_picture[1]
    assert Image.open(BytesIO(b64decode(found_picture[2]))).width > 1000


def test_cells_of_tables_are_no_markdown():
    texts = ("a/my_video-1.mp4", "![x](http://a/b.png)", "_x_ *y* `z` <b> &lt;", "- 1", "-1.5", "---", "\\n")
    assert list(artifacts.table_row("abcdefg", texts).values()) == [
        "a/my_video-1.mp4",
        r"!\[x\](http://a/b.png)",
        r"\_x\_ \*y\* \`z\` \<b\> \&lt;",
        r"\- 1",
        "-1.5",
        r"\---",
        r"\\n",
    ]


def test_keys_are_what_prefect_takes():
    assert artifacts.artifact_key("Kitchen.256p", "lite_small", "results") == "kitchen-256p-lite-small-results"
