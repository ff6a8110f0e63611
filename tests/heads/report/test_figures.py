"""The numbers behind the report's figures, by hand, and the files that they become."""

import base64
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dynaprop.heads.report.chart import Chart, file_stem, plain
from dynaprop.heads.report.class_charts import class_chart, class_gains, confused_pairs, confusion, confusion_table
from dynaprop.heads.report.curve import cost_curve, curve_experiment
from dynaprop.heads.report.timeline import mean_gains, telling_videos, timeline
from tests.heads.run_folder import single, ste, write_run

ODD = ["<script>alert(1)</script>", '$x^2$ & "so on" \'', "日本語", "bell\x07", "w" * 500]


def svg_of(uri: str) -> ElementTree.Element:
    head, data = uri.split(",", 1)
    assert head == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(data))


def test_average_precision_of_a_class_is_weighted_by_its_videos_in_each_fold():
    columns = ["class_name", "model", "seed", "fold", "n_videos", "average_precision"]
    rows = [
        ("a", "dynamic", 0, 0, 1, 1.0),
        ("a", "dynamic", 0, 1, 3, 0.6),  # seed 0: (1 + 1.8) / 4 = 0.7
        ("a", "dynamic", 1, 0, 1, 0.9),
        ("a", "dynamic", 1, 1, 3, 0.9),  # seed 1: 0.9
        ("a", "student", 0, 0, 4, 0.5),
        ("b", "dynamic", 0, 0, 2, 0.9),
        ("b", "dynamic", 0, 1, 0, 0.0),  # a fold without the class
        ("b", "student", 0, 0, 2, 1.0),
    ]
    gains = class_gains(pd.DataFrame(rows, columns=columns)).set_index("class_name")
    assert gains.index.tolist() == ["b", "a"]  # by Dynamic-STE
    assert gains.loc["a", "dynamic"] == pytest.approx(0.8)
    assert gains.loc["a", "gain"] == pytest.approx(0.3)
    assert gains.loc["b", "gain"] == pytest.approx(-0.1)
    assert gains["n_videos"].to_dict() == {"a": 4, "b": 2}


def test_confusion_counts_a_video_of_several_labels_where_it_was_right():
    table = pd.DataFrame(
        {
            "labels": [[0], [0], [1, 2], [2, 1], [0], [0], [1, 2], [2, 1]],
            "predicted": [0, 1, 2, 0, 0, 1, 2, 0],
            "seed": [0] * 4 + [1] * 4,
        }
    )
    counts = confusion(table, ["a", "b", "c"])
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]
    long = confusion_table(counts, ["a", "b", "c"])
    assert long["videos"].sum() == 4  # of one seed
    assert long[long["true_class"] == "a"]["share"].tolist() == [0.5, 0.5]
    pairs = [(pair["true_class"], pair["predicted_class"]) for pair in confused_pairs(long)]
    assert sorted(pairs) == [("a", "b"), ("c", "a")]


def test_of_many_classes_those_that_gain_and_lose_most_are_drawn():
    names = [f"class {i:03d}" for i in range(200)]
    gain = np.linspace(0.4, -0.4, 200)
    gains = pd.DataFrame({"class_name": names, "n_videos": 1, "student": 0.5, "dynamic": 0.5 + gain, "gain": gain})
    chart = class_chart(gains, name="x", title="t", about="At 20 + 5.")
    text = " ".join(svg_of(chart.light).itertext())
    assert "class 000" in text
    assert "class 199" in text
    assert "class 100" not in text
    assert len(chart.data) == 200
    assert "100 of 200 classes" in chart.caption


def frames(video: str, model: str, probabilities: list[float], branch: str = "student") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "video_id": video,
            "model": model,
            "branch": branch,
            "timestamp": np.arange(len(probabilities), dtype=float),
            "true_class": "hug",
            "true_probability": probabilities,
        }
    )


def test_telling_videos_are_two_gains_and_a_loss():
    tables = []
    for video, dynamic in (("a", 0.2), ("b", 0.9), ("c", 0.6), ("d", 0.8)):
        tables += [frames(video, "student", [0.4, 0.6]), frames(video, "dynamic", [dynamic] * 3)]
        tables.append(frames(video, "dynamic", [0.0], branch="teacher"))  # the teacher's own frames do not count
    tables.append(frames("only", "dynamic", [1.0]))
    scores = pd.concat(tables)
    assert mean_gains(scores).round(6).to_dict() == {"b": 0.4, "d": 0.3, "c": 0.1, "a": -0.3}
    assert telling_videos(scores) == ["b", "d", "a"]
    assert telling_videos(scores[scores["video_id"] == "b"]) == ["b"]


@pytest.mark.parametrize("pictures", [0, 3])
def test_a_timeline_names_its_teacher_frames_and_draws_with_and_without_pictures(pictures):
    jpeg = BytesIO()
    Image.new("RGB", (160, 90), "red").save(jpeg, "JPEG")
    scores = pd.concat(
        [
            frames("v", "student", [0.1, 0.2, 0.3]),
            frames("v", "dynamic", [0.4, 0.5, 0.6]),
            frames("v", "dynamic", [0.9, 0.9], branch="teacher"),
        ]
    )
    made = timeline(scores, "v", pictures=[(float(i), jpeg.getvalue()) for i in range(pictures)], name="n", about="At.")
    assert "0.30 above Student's" in made.chart.caption
    assert "2 frames that the teacher saw" in made.chart.caption
    assert len(made.pictures) == pictures
    assert len(made.chart.data) == 8
    image = np.asarray(Image.open(BytesIO(made.chart.png)).convert("RGB")).astype(int)
    red = (image[..., 0] > 200) & (image[..., 1] < 60) & (image[..., 2] < 60)
    assert (red.mean() > 0.05) == bool(pictures)


def test_names_of_any_kind_are_drawn_as_they_are():
    def draw(figure, look, narrow):
        axes = figure.subplots()
        axes.set_yticks(range(len(ODD)), [plain(name) for name in ODD])

    chart = Chart(draw, name="n", title="t", caption="c", alt="a", data=pd.DataFrame(), height=2)
    for uri in (chart.light, chart.dark, chart.light_narrow, chart.dark_narrow):
        text = list(svg_of(uri).itertext())
        assert "<script>alert(1)</script>" in text
        assert '$x^2$ & "so on" \'' in text
        assert "日本語" in text
        assert "bell\\x07" in text
        assert "w" * 29 + "…" in text
    assert chart.light != chart.dark
    assert Image.open(BytesIO(chart.png)).width > 1000


def test_the_curve_is_figure_4_or_the_experiment_with_most_settings():
    rows = pd.DataFrame(
        [("default", "dynamic", 20, 5), ("sweep", "dynamic", 20, 5), ("sweep", "dynamic", 28, 7)],
        columns=["experiment", "model", "n_s", "n_t"],
    ).assign(recipe="lite")
    assert curve_experiment(rows) == "sweep"
    assert curve_experiment(rows.assign(experiment=["figure4", "sweep", "sweep"])) == "figure4"


@pytest.mark.parametrize(
    ("dataset", "metric", "ours"),
    [("activitynet-1.3", "map", True), ("activitynet-1.3", "top1", False), ("made-up", "map", False)],
)
def test_ours_stand_among_the_published_only_on_their_data_set_and_metric(tmp_path, dataset, metric, ours):
    experiments = {"figure4": [ste("dynamic", 20, 5), ste("dynamic", 28, 7), single("student", 20)]}
    folder = write_run(tmp_path / "r", experiments=experiments, dataset=dataset, recipe="efficientnet", seeds=2)
    results = pd.read_parquet(folder / "results.parquet")
    chart = cost_curve(results, dataset=dataset, metric=metric, name="n", about=dataset)
    assert ("Filled: our Dynamic-STE" in chart.caption) == ours
    published = chart.data[chart.data["published"]]
    assert set(published["method"]) >= {"AdaFrame", "AR-Net", "Teacher", "Dynamic-STE"}
    assert set(published["backbone"]) == {"EfficientNet", "ResNet"}
    assert published[published["method"] == "Dynamic-STE"]["map"].tolist() == [0.812]
    assert chart.data[~chart.data["published"]]["gmacs_measured"].tolist() == pytest.approx([2.0, 5.0, 7.0])
    assert {"Measured", "Published, ActivityNet 1.3"} <= set(svg_of(chart.light).itertext())


def test_file_names_hold_no_path():
    assert file_stem("../../etc/passwd") == "etc_passwd"
    assert file_stem("日本語") == "unnamed"
    assert len(file_stem("x" * 999)) == 80
