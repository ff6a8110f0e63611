"""`dynaprop report` on the command line."""

import os
import re

import pytest

from tests.heads.run_folder import single, ste, write_run

SMALL = {"table3": [single("student", 20), ste("dynamic", 20, 5)]}


@pytest.fixture
def runs(workplace):
    """Two runs of ``tiny`` with results, the second one newer, and one that was interrupted before any."""
    for age, name in enumerate(("tiny-lite-11111111", "tiny-lite-22222222")):
        folder = write_run(workplace / "runs" / name, experiments=SMALL, dataset="tiny", class_names="ab", seeds=1)
        os.utime(folder / "results.parquet", (1000 + age, 1000 + age))
    empty = write_run(workplace / "runs" / "tiny-other-33333333", experiments={}, dataset="tiny", recipe="other")
    assert not (empty / "results.parquet").exists()
    return workplace / "runs"


@pytest.fixture(autouse=True)
def blank_charts(monkeypatch):
    """Drawing is tested elsewhere."""
    monkeypatch.setattr(
        "dynaprop.heads.report.chart._render", lambda *_, kind, **__: b"<svg/>" if kind == "svg" else b"png"
    )


@pytest.mark.parametrize("name", ["tiny", "videos"])
def test_a_dataset_or_its_folder_means_its_newest_run_with_results(dynaprop, runs, name):
    outcome = dynaprop("report", name)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [
        f"report:  {runs}/tiny-lite-22222222/report.html",
        f"figures: {runs}/tiny-lite-22222222/figures",
    ]
    page = (runs / "tiny-lite-22222222" / "report.html").read_text()
    assert f"<code>dynaprop report {name}</code>" in page
    assert "no pictures" in page  # nothing was extracted here
    assert (runs / "tiny-lite-22222222" / "figures" / "per-class.parquet").exists()


def test_a_newer_run_whose_account_is_damaged_is_not_passed_over_silently(dynaprop, runs):
    (runs / "tiny-lite-22222222" / "run.json").write_text('{"dataset": "tinz"', encoding="utf-8")
    outcome = dynaprop("report", "tiny")
    assert outcome.code == 0, outcome.err
    assert f"report:  {runs}/tiny-lite-11111111/report.html" in outcome.out
    said = " ".join(outcome.err.split())
    assert said.count(f"{runs}/tiny-lite-22222222 is passed over: its run.json is damaged; `dynaprop sweep`") == 1


@pytest.mark.parametrize("name", ["tiny-lite-11111111", "runs/tiny-lite-11111111"])
def test_a_run_by_name_or_path_and_a_page_elsewhere(dynaprop, runs, workplace, name):
    outcome = dynaprop("report", name, "--output", "my pages/first one.html", "--videos", "a/test-0.mp4")
    assert outcome.code == 0, outcome.err
    page = workplace / "my pages" / "first one.html"
    assert "a: a/test-0.mp4" in page.read_text()
    assert (workplace / "my pages" / "figures" / "table-table3.parquet").exists()
    assert not (runs / "tiny-lite-11111111" / "report.html").exists()


def test_several_runs_are_one_page(dynaprop, runs):
    outcome = dynaprop("report", "tiny-lite-11111111", "tiny-lite-22222222")
    assert outcome.code == 0, outcome.err
    page = (runs / "tiny-lite-11111111" / "report.html").read_text()
    assert "lite (tiny-lite-11111111)" in page  # the same recipe twice
    assert "lite (tiny-lite-22222222)" in page


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["tiny-lite-1111111"],
            2,
            r"no run 'tiny-lite-1111111' \(did you mean 'tiny-lite-11111111'\?\): name a run in ",
        ),
        (["nothing/like it"], 2, r"no run 'nothing/like it': name a run in \S+/runs, a dataset, or a run's folder"),
        (["tiny-other-33333333"], 1, r"tiny-other-33333333 holds no results yet; `dynaprop sweep` writes them"),
        (["tiny", "--videos", "a/test-9.mp4"], 2, r"video 'a/test-9.mp4' was not scored .* \(did you mean 'a/test-\d"),
        (["tiny", "--output", "catalog.yaml/x"], 1, r"catalog.yaml/x cannot be written: .*; --output puts"),
        (["videos/a"], 1, r"no run of 'videos/a' in \S+/runs; `dynaprop sweep videos/a` makes one"),
    ],
)
def test_refusals_are_one_line(dynaprop, runs, arguments, code, message):
    outcome = dynaprop("report", *arguments)
    assert outcome.code == code
    assert re.search(message, outcome.err), outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


def test_a_dataset_without_runs(dynaprop, workplace):
    outcome = dynaprop("report", "tiny")
    assert outcome.code == 1
    assert re.fullmatch(r"error: no run of 'tiny' in \S+/runs; `dynaprop sweep tiny` makes one\n", outcome.err)


def test_after_a_real_run_there_are_thumbnails(dynaprop, workplace):
    assert dynaprop("run", "tiny", "--seeds", "1").code == 0
    outcome = dynaprop("report", "tiny")
    assert outcome.code == 0, outcome.err
    (page,) = workplace.glob("runs/*/report.html")
    html = page.read_text()
    assert html.count("data:image/jpeg;base64,") >= 6
    assert "no pictures" not in html
    (workplace / "videos").rename(workplace / "gone")
    assert dynaprop("report", "tiny").code == 0
    assert "no pictures" in page.read_text()
