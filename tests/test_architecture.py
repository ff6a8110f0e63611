"""docs/architecture.md names what there is: every path exists, every room is named, no walk goes to a file twice."""

import re

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
PATH = re.compile(r"`((?:pipeline|heads|flows)/[\w/.]*)`")


def test_every_path_exists():
    named = PATH.findall(PAGE)
    assert len(named) > 50
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_every_room_is_named():
    rooms = [file.parent for floor in ("pipeline", "heads", "flows") for file in (REPOSITORY / floor).glob("*/*.py")]
    assert {f"{room.relative_to(REPOSITORY).as_posix()}/" for room in rooms} <= set(PATH.findall(PAGE))


def test_no_walk_goes_to_a_file_twice():
    walks = PAGE.partition("## Walks")[2].partition("\n## ")[0].split("\n### ")[1:]
    assert len(walks) == 2
    for walk in walks:
        files = [PATH.findall(line)[0] for line in walk.splitlines() if re.match(r"\d+\. ", line)]
        assert len(files) > 10 and len(set(files)) == len(files)
