"""Errors for people: one line, and a remedy that comes through whatever carries errors between processes."""

import pickle
import re

import pytest
from dask.distributed import Client, LocalCluster

from dynaprop.pipeline.errors import IN_PYTHON, DynapropError, InfrastructureError, UsageError


def fail(kind: type[DynapropError]) -> None:
    raise kind("stores/x is in use", remedy="wait")


@pytest.mark.parametrize("kind", [DynapropError, UsageError, InfrastructureError])
def test_the_remedy_comes_through_pickle(kind):
    error = kind("no copy\nyet;", remedy="transcode", target="my videos", options={"short_side": 16})
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error)
    assert str(again) == r"no copy\nyet; transcode 'my videos' with short_side=16"
    assert (again.problem, again.remedy, again.values) == (error.problem, "transcode", error.values)


def test_the_remedy_comes_from_a_worker_of_dask():
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
        pytest.raises(UsageError, match=r"^stores/x is in use; give wait=True to wait for it$") as raised,
    ):
        client.submit(fail, UsageError).result()
    assert raised.value.remedy == "wait"


def test_an_error_made_of_another_ones_message_says_what_to_do_nevertheless():
    error = UsageError("stores/x is damaged", remedy="repair")
    again = type(error)(f"run x: {error}", remedy="report elsewhere")
    assert str(again) == (
        "run x: stores/x is damaged; verify and repair the dataset; another output puts the report elsewhere"
    )


def test_a_long_message_keeps_its_remedy():
    message = str(DynapropError("stores/" + 5000 * "x", remedy="repair"))
    assert (
        len(message) == 1000 and message.startswith("stores/x") and message.endswith("; verify and repair the dataset")
    )


def test_braces_are_no_places_for_values():
    assert str(DynapropError("{target} {0}", remedy="repair")) == "{target} {0}; verify and repair the dataset"


def test_values_as_python_has_them():
    error = UsageError("x", remedy="keep by training", options={"recipe": "a b", "n_s": 9, "seeds": range(4)})
    assert str(error) == "x; training with recipe='a b', n_s=9, seeds=range(0, 4) keeps it"
    choices = UsageError("x", remedy="choose frames", choices=[{"n_t": 2}, {"n_s": 1, "n_t": 6}])
    assert str(choices) == "x; say which: n_t=2 or n_s=1, n_t=6"


def test_no_words_for_python_name_options():
    assert not [words for words in IN_PYTHON.values() if re.search(r"--[a-z]|`dynaprop ", words)]
