"""The page of made-up runs: what it holds, what it never holds, and what it refuses."""

import json
import re
import unicodedata
from datetime import UTC, datetime
from html.parser import HTMLParser

import pandas as pd
import pytest
from markupsafe import escape

from dynaprop.heads.evaluation.summary import summarise
from dynaprop.heads.report.page import make_report, write_report
from dynaprop.heads.report.rows import Runs
from dynaprop.heads.report.tables import report_table
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.pipeline.errors import DynapropError, UsageError
from tests.heads.run_folder import PAPER, TABLE3, single, ste, write_run

ODD = ["<script>alert(1)</script>", "日本語", '$x^2$ & "so on" \'', "w" * 300, "naïve café"]
WRITTEN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
SMALL = {"table3": [single("student", 20), single("teacher", 20), *TABLE3[-3:]]}


@pytest.fixture(autouse=True)
def blank_charts(monkeypatch):
    """Drawing takes most of the time, and other tests look at the drawings."""
    monkeypatch.setattr(
        "dynaprop.heads.report.chart._render", lambda *_, kind, **__: b"<svg/>" if kind == "svg" else b"png"
    )


def page_of(*folders, **options) -> str:
    return make_report(folders, **{"metrics": {}, "pictures": no_pictures, **FIXED, **options}).html


def no_pictures(_dataset, _ids):
    return {}


FIXED = {"command": "dynaprop report <b>", "written": WRITTEN}


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "source", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def table_of(folder, experiment: str, metric="top1"):
    runs = Runs([folder])
    (part,) = runs.parts()
    rows = runs.rows(part)
    predictions = runs.predictions(part, experiment, scores=True)
    rows = rows[rows["experiment"] == experiment]
    return report_table(rows, predictions, experiment=experiment, metric=metric, name="x")


def test_a_table_shows_ours_with_costs_and_intervals_beside_the_papers(tmp_path):
    table = table_of(write_run(tmp_path / "r", experiments={"table3": TABLE3}), "table3")
    assert not any(line["kind"] == "published" for line in table.lines)  # every published row stands in a line of ours
    assert [line["model"] for line in table.lines] == [setting.model for setting in SHOWN]
    cells = dict(zip(table.columns, table.lines[-1]["cells"], strict=True))
    assert cells["published, not measured: mAP % on ActivityNet 1.3"] == "81.2"
    assert cells["GFLOPs (paper)"] == "11.0"
    assert cells["GMACs (measured)"] == "5.00"
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d", cells["top-1 %"])
    assert cells["Dynamic-STE minus it, points"] == ""
    teacher = dict(zip(table.columns, table.lines[2]["cells"], strict=True))
    assert teacher["n_t"] == "20 (19.5 used)"
    assert re.fullmatch(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", teacher["Dynamic-STE minus it, points"])
    assert "3 seeds, 30 videos, 0 missing" in table.caption
    assert any("80.1 in the same table" in note for note in table.notes)


SHOWN = [TABLE3[2], TABLE3[3], TABLE3[0], TABLE3[1], *TABLE3[4:]]


def test_variants_are_lines_of_their_own_each_with_its_published_row(tmp_path):
    folder = write_run(tmp_path / "r", experiments={name: PAPER[name] for name in ("table4", "table5")})
    fusion = table_of(folder, "table4")
    found = {
        (cells["fusion in student"], cells["in teacher"]): cells["published, not measured: mAP % on ActivityNet 1.3"]
        for line in fusion.lines
        for cells in [dict(zip(fusion.columns, line["cells"], strict=True))]
    }
    assert found == {("no", "no"): "79.3", ("no", "yes"): "80.7", ("yes", "no"): "79.9", ("yes", "yes"): "81.2"}
    assert [line["kind"] for line in fusion.lines].count("main") == 1
    losses = table_of(folder, "table5")
    assert {line["cells"][losses.columns.index("losses")] for line in losses.lines} == {
        "vid",
        "vid + frm",
        "vid + cos",
        "vid + frm + cos",
    }


def test_published_rows_without_a_counterpart_follow_and_are_marked(tmp_path):
    table = table_of(write_run(tmp_path / "r", experiments={"table1": [ste("dynamic", 16, 4)]}), "table1", "map")
    ours, *theirs = table.lines
    assert [ours["kind"], theirs[0]["kind"]] == ["main", "published"]
    assert [line["cells"][0] for line in theirs if line["model"] is None] == [
        "AdaFrame",
        "LiteEval",
        "ListenToLook",
        "SCSampler",
        "AR-Net",
        "AR-Net",
    ]
    assert len(theirs) == 8
    assert "published (Table 1 of the paper), not measured" in table.caption


def test_kinds_of_split_are_never_mixed(tmp_path):
    folder = write_run(
        tmp_path / "r", experiments=SMALL, seeds=1, splits=[("test", None), ("3-fold", 0), ("3-fold", 1), ("3-fold", 2)]
    )
    totals = []
    html = page_of(folder, on_table=totals.append)
    assert totals == [2, 2]
    runs = Runs([folder])
    assert [(part.title, len(runs.rows(part))) for part in runs.parts()] == [("3 folds", 15), ("test split", 5)]
    page = Page(html)
    assert "90 of 90 test videos evaluated" in page.text
    assert "30 of 30 test videos evaluated" in page.text
    anchors = {attributes["id"] for attributes in page.of("h2")}
    assert anchors == {"made-up-3-fold", "made-up-test"}


def test_names_of_any_kind_stay_text(tmp_path):
    folder = write_run(
        tmp_path / "r", experiments=SMALL, class_names=ODD, dataset="d", recipe="<i>", missing=["<u>gone</u>"], seeds=2
    )
    page = Page(page_of(folder))
    assert not page.of("script") + page.of("i") + page.of("u") + page.of("b")
    assert "<u>gone</u>" in page.text
    assert "dynaprop report <b>" in page.text
    assert ODD[0] in page.text
    assert all(attributes["alt"] is not None for attributes in page.of("img"))


def test_nothing_is_loaded_from_anywhere(tmp_path):
    html = page_of(write_run(tmp_path / "r", experiments=SMALL, seeds=1))
    page = Page(html)
    policy = [tag["content"] for tag in page.of("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    links = [tag.get(name) for _, tag in page.tags for name in ("src", "srcset", "href") if tag.get(name)]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "url(" not in html
    assert "@import" not in html
    assert not page.of("script")


def test_many_missing_videos_are_cut_after_fifty(tmp_path):
    missing = [f"gone {i:03d}" for i in range(120)]
    page = Page(page_of(write_run(tmp_path / "r", experiments=SMALL, seeds=1, missing=missing)))
    assert "30 of 150 test videos evaluated" in page.text
    assert "120 videos of made-up" in page.text
    assert "gone 049" in page.text
    assert "gone 050" not in page.text
    assert "and 70 more" in page.text


def test_many_classes_give_worst_pairs_instead_of_a_matrix(tmp_path):
    names = [f"class {i:03d}" for i in range(200)]
    folder = write_run(tmp_path / "r", experiments=SMALL, class_names=names, videos_per_class=2, seeds=1)
    report = make_report([folder], metrics={}, pictures=no_pictures, **FIXED)
    assert "taken for" in report.html
    assert not any(chart.name.startswith("confusion") for chart in report.charts)
    assert set(report.tables["confusion"].columns) == {"true_class", "predicted_class", "videos", "share"}


def test_runs_of_two_recipes_share_a_table_and_of_one_recipe_are_told_apart(tmp_path):
    folders = [
        write_run(tmp_path / name, experiments=SMALL, recipe=recipe, seeds=1)
        for name, recipe in (("first", "resnet"), ("second", "efficientnet"), ("third", "resnet"))
    ]
    both = Runs(folders[:2])
    (part,) = both.parts()
    assert sorted(summarise(both.rows(part))["recipe"].unique()) == ["efficientnet", "resnet"]
    alike = Runs([folders[0], folders[2], folders[0]])
    assert sorted(alike.results["recipe"].unique()) == ["resnet (first)", "resnet (third)"]
    assert len(alike.results) == 10  # the same folder twice counts once
    namesake = Runs([folders[0], write_run(tmp_path / "copy" / "first", experiments=SMALL, recipe="resnet", seeds=1)])
    assert namesake.results["recipe"].nunique() == 2
    page = Page(page_of(*folders[:2]))
    assert "efficientnet, 20 + 5 frames" in page.text


def test_without_dynamic_ste_there_is_a_page_all_the_same(tmp_path):
    page = Page(page_of(write_run(tmp_path / "r", experiments={"default": [single("student", 20)]}, seeds=1)))
    assert "there is nothing to compare" in page.text
    assert "No scores frame by frame" in page.text


def test_runs_without_frame_scores_say_so(tmp_path):
    folder = write_run(tmp_path / "r", experiments={"sweep": SMALL["table3"]}, seeds=1, frame_scores=False)
    results = pd.read_parquet(folder / "results.parquet")
    old = results.drop(columns="top1_first_label").astype({"fusion_s": "object", "gflops_paper": "object"})
    old.to_parquet(folder / "results.parquet")  # as the first versions wrote them
    assert "No scores frame by frame" in Page(page_of(folder)).text


def test_chosen_videos_are_shown_with_pictures_where_there_are_some(tmp_path):
    folder = write_run(tmp_path / "r", experiments=SMALL, seeds=1)
    asked = []

    def pictures(dataset, ids):
        asked.append((dataset, list(ids)))
        return {"b/test-1.mp4": [(0.5, PIXEL), (1.5, PIXEL)]}

    page = Page(page_of(folder, videos=["b/test-1.mp4", "c/test-0.mp4"], pictures=pictures))
    assert asked == [("made-up", ["b/test-1.mp4", "c/test-0.mp4"])]
    assert sum(str(tag["src"]).startswith("data:image/jpeg") for tag in page.of("img")) == 2
    assert page.text.count("no pictures") == 1
    by_default = Page(page_of(folder))
    assert "a: a/test-0.mp4" in by_default.text  # gains most
    assert "f: f/test-4.mp4" in by_default.text  # loses most


PIXEL = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300030202020202030202020303030304060404040404080606050609080a0a09"
    "0809090a0c0f0c0a0b0e0b09090d110d0e0f101011100a0c12131210130f101010ffc9000b080001000101011100ffcc00060010100"
    "5ffda0008010100003f00d2cf20ffd9"
)


def test_files_beside_the_page(tmp_path):
    folder = write_run(tmp_path / "r", experiments=SMALL, seeds=1)
    report = make_report([folder], metrics={"made-up": "map"}, pictures=no_pictures, **FIXED)
    page = write_report(report, tmp_path / "out")
    assert page == tmp_path / "out" / "report.html"
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    for chart in report.charts:
        assert {f"{chart.name}.png", f"{chart.name}.parquet"} <= names
        assert f"figures/{chart.name}.png" in report.html
    curve = pd.read_parquet(tmp_path / "out" / "figures" / "accuracy-cost-lite.parquet")
    assert set(curve["published"]) == {True, False}
    table = pd.read_parquet(tmp_path / "out" / "figures" / "table-table3.parquet")
    assert table["dynamic_minus"].notna().sum() == len(table) - 1
    (compared,) = (tmp_path / "out" / "figures").glob("comparisons-*.parquet")
    sentences = pd.read_parquet(compared)
    assert len(sentences) and all(escape(sentence) in report.html for sentence in sentences["sentence"])
    assert "The headline is mAP" in report.html
    again = write_report(report, tmp_path / "other.html")
    assert again.read_bytes() == page.read_bytes()


def test_refusals(tmp_path):
    folder = write_run(tmp_path / "r", experiments=SMALL, seeds=1)
    with pytest.raises(UsageError, match=r"'a/test-9.mp4' .* \(did you mean '[a-f]/test-\d.mp4'\?\)"):
        page_of(folder, videos=["a/test-9.mp4"])
    (folder / "predictions.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DynapropError, match=r"predictions.parquet is damaged; `dynaprop sweep` writes it anew"):
        page_of(folder)
    other = write_run(tmp_path / "s", experiments=SMALL, seeds=1, class_names=tuple("abcdeg"))
    with pytest.raises(DynapropError, match="other classes than"):
        Runs([folder, other]).classes(Runs([folder]).parts()[0])
    pd.read_parquet(folder / "results.parquet").drop(columns="map").to_parquet(folder / "results.parquet")
    with pytest.raises(DynapropError, match=r"results.parquet lacks map"):
        Runs([folder])
    for damaged in ([1], {"dataset": "made-up", "classes": None}, {"dataset": "made-up", "missing": 3}):
        (other / "run.json").write_text(json.dumps(damaged))
        with pytest.raises(DynapropError, match=r"run.json is damaged"):
            Runs([other])
    with pytest.raises(DynapropError, match=r"none/run.json is not there"):
        Runs([tmp_path / "none"])


def test_runs_of_before_names_were_composed_stand_beside_those_of_today(tmp_path):
    today = ("kick", unicodedata.normalize("NFC", "étreinte"))
    before = tuple(unicodedata.normalize("NFD", name) for name in today)
    assert before != today
    folders = [
        write_run(tmp_path / f"r{number}", experiments=SMALL, seeds=1, class_names=names)
        for number, names in enumerate((before, today))
    ]
    runs = Runs(folders)
    (part,) = runs.parts()
    assert runs.classes(part) == list(today)
    assert set(runs.per_class(part, "table3")["class_name"]) == set(today)


def test_notes_stand_on_the_page_under_their_own_split(tmp_path):
    splits = [("test", None), *(("3-fold", fold) for fold in range(3))]
    folder = write_run(tmp_path / "r", experiments=SMALL, seeds=1, splits=splits)
    assert "To know about labels" not in page_of(folder)  # of earlier versions
    RunFolder(folder).note("3-fold", ["classes '<b>' and 'B' look alike"])
    page = page_of(folder)
    assert (
        page.count("To know about labels") == page.count("classes &#39;&lt;b&gt;&#39; and &#39;B&#39; look alike.") == 1
    )
    assert page.index("3 folds</h2>") < page.index("look alike") < page.index("test split</h2>")
    (folder / "notes" / "3-fold.json").write_text("{")
    with pytest.raises(DynapropError, match="is damaged"):
        page_of(folder)


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    report = make_report(
        [write_run(tmp_path / "r", experiments={"default": [single("student", 20)]}, seeds=1)],
        metrics={},
        pictures=no_pictures,
        **FIXED,
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(DynapropError, match=r"cannot be written: .*; another output puts the report elsewhere"):
        write_report(report, tmp_path / "file" / "report.html")
