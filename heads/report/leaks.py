"""What the report says of videos on both sides of a split that show the same."""

from dataclasses import asdict, dataclass

import pandas as pd

from dynaprop.heads.report.chart import file_stem
from dynaprop.heads.report.rows import Part, Runs
from dynaprop.heads.runs.leaks import Leaks, how_looked_for, in_words, read_leaks

_SHOWN = 50


@dataclass(frozen=True)
class LeakList:
    """Of one run."""

    name: str
    """Stem of the table's file."""
    sentence: str
    how: str
    """What was compared, and from which cosine on."""
    shown: str
    """Heading of the list."""
    rows: list[dict[str, str]]
    """``first``, ``second``, ``kind``, ``cosine``, ``classes`` of the first pairs."""
    table: pd.DataFrame
    """All pairs that the run has kept."""


def leak_lists(runs: Runs, part: Part, *, several: str) -> list[LeakList]:
    """The lists of a part's runs; runs that say the same are one.

    Args:
        runs: the results.
        part: which of them.
        several: what tells the part from others in names of files.
    """
    folders = [folder for folder in runs.folders if runs.holds(folder, part)]
    lists = []
    for folder in folders:
        named = f" ({folder.name})" if len(folders) > 1 else ""
        stem = f"leaks{several}" + (f"-{file_stem(folder.name)}" if len(folders) > 1 else "")
        lists.append(_leak_list(read_leaks(folder, part.split), stem, named))
    return lists


def _leak_list(leaks: Leaks | None, name: str, named: str) -> LeakList:
    if leaks is None:
        text = f"It was not looked for videos that are on both sides of the split{named}."
        return LeakList(name, text, "`dynaprop train` and `dynaprop sweep` do so.", "", [], pd.DataFrame())
    found = leaks.found
    if not leaks.count:
        text = f"No two videos on both sides of the split are the same file{' or near-identical' * (found.n_near == 0)}"
        return LeakList(name, f"{text}{named}: none found.", how_looked_for(found), "", [], pd.DataFrame())
    verb = "lies" if leaks.count == 1 else "lie"
    text = f"{in_words(leaks)} {verb} on both sides of the split{named}: scores on such videos tell little of new ones."
    differ = sum(leaks.labels_differ(pair) for pair in found.listed)
    if differ:
        text += f" {differ:,} of the listed have other classes."
    pairs = [asdict(pair) | {"classes": _classes(leaks, pair.first, pair.second)} for pair in found.listed]
    rows = [
        {
            **{side: pair[side] + _at(pair[f"{side}_seconds"]) for side in ("first", "second")},
            "kind": pair["kind"],
            "cosine": "" if pair["cosine"] is None else f"{pair['cosine']:.2f}",
            "classes": pair["classes"],
        }
        for pair in pairs[:_SHOWN]
    ]
    shown = f"{'All' if len(rows) == leaks.count else f'The first {len(rows):,} of'} {leaks.count:,} pairs"
    return LeakList(name, text, how_looked_for(found), shown, rows, pd.DataFrame(pairs))


def _at(seconds: float | None) -> str:
    return "" if seconds is None else f", at {seconds:.1f} s"


def _classes(leaks: Leaks, first: str, second: str) -> str:
    classes = [", ".join(leaks.classes.get(video, ())) or "none" for video in (first, second)]
    return classes[0] if classes[0] == classes[1] else " / ".join(classes)
