"""How processes share cores."""

import pytest

from dynaprop.pipeline.machine import most_on_a_core

LEFT, RIGHT = set(range(32)), set(range(32, 64))


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([], 1),
        ([("a", LEFT | RIGHT)] * 8, 8),
        ([("a", {core}) for core in LEFT], 1),
        ([("a", LEFT)] * 4 + [("a", RIGHT)] * 4, 4),
        ([("a", {0, 1}), ("a", {1, 2}), ("a", {2, 3})], 2),
        ([("a", LEFT)] * 2 + [("b", LEFT)] * 3, 3),
        ([("a", None)] * 3 + [("b", LEFT)] * 2, 3),
        ([("a", None), ("a", LEFT), ("a", RIGHT)], 2),
    ],
)
def test_processes_are_divided_by_those_that_share_a_core(processes, expected):
    """The whole machine, Slurm's own cores, dask-cuda's next to a GPU, a chain, and two machines; None may be any."""
    assert most_on_a_core(processes) == expected
