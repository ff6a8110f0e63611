"""Flow `reproduce`: it goes on where it failed, and its parameters reach the flows that it consists of."""

import pytest

from dynaprop.pipeline.errors import DynapropError
from tests.flows.test_commands import counts

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_second_run_goes_on_where_the_first_failed(dynaprop, workplace, monkeypatch):
    from dynaprop.heads.experiments.units import Units

    train = Units.train
    failures = [DynapropError("the disk is full")]

    def fail_once(self, unit, **keywords):
        if failures:
            raise failures.pop()
        train(self, unit, **keywords)

    monkeypatch.setattr(Units, "train", fail_once)
    first = dynaprop("run", "tiny", "--sweep", "few")
    assert first.code == 1
    assert first.err.splitlines()[-1] == "error: the disk is full"
    assert counts(first.err)[0] == 15
    assert not list(workplace.rglob("report.html"))
    second = dynaprop("run", "tiny", "--sweep", "few")
    assert second.code == 0, second.err
    assert counts(second.err) == (0, 0)
    assert "results are there already" in second.err
    (page,) = workplace.rglob("report.html")
    table, results, told = (second.out.find(part) for part in ("tiny, lite, few", "results: ", f"report:  {page}"))
    assert 0 <= table < results < told
    assert "dynaprop run tiny --experiment few" in page.read_text()


def test_what_cannot_be_trained_on_is_not_extracted(dynaprop, workplace):
    for video in [*(workplace / "videos").rglob("*.mp4")]:
        video.rename(workplace / "videos" / f"{video.parent.name}-{video.name}")
    refused = dynaprop("run", "videos")
    assert refused.code == 2 and "the videos have no labels" in refused.err
    assert "probe" not in refused.err and not list(workplace.rglob("*.parquet"))


def test_parameters_reach_the_flows(workplace, monkeypatch):
    from prefect import flow

    from dynaprop.flows.reproduce import reproduce
    from dynaprop.heads.experiments.units import RunReport

    called = {}

    def recorder(name):
        @flow(name=name, persist_result=False)
        def record(dataset: str, **keywords: object) -> list[RunReport]:
            called[name] = {"dataset": dataset, **keywords}
            return [RunReport("runs/one", ())]

        return record

    for name in ("extract_features", "train_heads", "evaluate_sweep"):
        monkeypatch.setattr(f"dynaprop.flows.reproduce.{name}", recorder(name))
    monkeypatch.setattr("dynaprop.flows.commands.run.print_reports", lambda *_, **__: None)
    monkeypatch.setattr("dynaprop.flows.reproduce.report", lambda runs, **keywords: (runs, keywords))
    given = {
        "recipe": "other",
        "sweep": "two",
        "folds": 3,
        "seeds": (4, 7),
        "device": "cpu",
        "retry_failed": True,
        "workers": 1,
        "deadline": 30.0,
        "wait": True,
        "cluster": "two",
        "catalog": str(workplace / "catalog.yaml"),
    }
    page = reproduce("tiny", **given)
    extracting = ("recipe", "device", "retry_failed", "workers", "deadline", "wait", "cluster", "catalog")
    assert called["extract_features"] == {"dataset": "tiny", **{name: given[name] for name in extracting}}
    training = {name: given[name] for name in ("recipe", "folds", "device", "catalog")}
    assert called["train_heads"] == {"dataset": "tiny", **training, "seeds": (0,)}
    assert called["evaluate_sweep"] == {"dataset": "tiny", **training, "sweep": "two", "seeds": (4, 7)}
    assert "['runs/one']" in page
    assert given["catalog"] in page
    used = {name for call in called.values() for name in call}
    assert used == set(reproduce.parameters.properties), "a parameter that no flow gets"
