"""The tables of a run, made of its finished units: `collect` brings them up to date, whoever else does so."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from dynaprop.heads.evaluation.chance import LEVELS, with_levels
from dynaprop.heads.runs.rows import ASPECTS, KEY, TABLES, Asked, Measured, read_asked, rows_in
from dynaprop.heads.runs.unit_folder import UnitFolder, finished_units
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.paths import StoragePath, matching
from dynaprop.pipeline.io.sealed import SealedTable, read_notes
from dynaprop.pipeline.io.update import update_file

_SOURCES = "sources"  # digest of the units and questions that a table was made of, kept in it
_ROWS_AT_ONCE = 50_000


def collect_tables(run: StoragePath, *, on_note: Callable[[str], None] = lambda _: None) -> None:
    """Join all finished units into a run's tables, as far as these are not what the units make of them.

    A row stands in a table once for every experiment that asked for it; of two units that measured it the newer counts.

    Args:
        run: the run's folder.
        on_note: see `update_file`.

    Raises:
        DamagedUnit: a unit cannot be believed; tables that it is part of are as they were.
        DynapropError: what was asked for is damaged, or the tables cannot be written.
    """
    for name in TABLES:
        table = _Collected(run, name)
        update_file(table.path, table.write, is_current=table.is_current, on_note=on_note)


def sources_of(run: StoragePath) -> str | None:
    """A digest of what a run's results are made of: another one where any came in; None where that is not known.

    Raises:
        DynapropError: the results are damaged.
    """
    path = run / "results.parquet"
    try:
        return read_notes(path).get(_SOURCES)
    except (OSError, ValueError):
        raise DynapropError(f"{path} is damaged; `dynaprop sweep` writes it anew") from None


@dataclass(frozen=True)
class _Collected:
    """One table of a run."""

    run: StoragePath
    name: str

    @property
    def path(self) -> StoragePath:
        return self.run / f"{self.name}.parquet"

    def is_current(self) -> bool:
        """Whether it is whole, and made of what there is now."""
        units, _, digest = self._sources()
        try:
            return read_notes(self.path).get(_SOURCES) == digest
        except FileNotFoundError:
            return not any(self.name in unit.tables(TABLES) for unit in units)
        except (OSError, ValueError):
            return False

    def write(self, path: Path) -> None:
        """Make it anew."""
        units, asked, digest = self._sources()
        if self.name == TABLES[0]:  # no row without what belongs to it in the other tables
            for unit in units:
                unit.check(TABLES)
        units = [unit for unit in units if self.name in unit.tables(TABLES)]
        newest: dict[Measured, UnitFolder] = {}
        for unit in units:
            for row in rows_in(unit.read(self.name, columns=ASPECTS)):
                newest.setdefault(row, unit)
        parts = (
            part
            for unit in sorted(units, key=lambda unit: unit.path.name)
            for part in _parts(self._read(unit), asked, {row for row, one in newest.items() if one == unit})
        )
        _write_parts(path, parts, notes={_SOURCES: digest})

    def _read(self, unit: UnitFolder) -> pd.DataFrame:
        frame = unit.read(self.name)
        if self.name == "results" and not set(LEVELS) <= set(frame.columns):  # of an earlier version
            return with_levels(frame, unit.read("per_class"), KEY)
        return frame

    def _sources(self) -> tuple[list[UnitFolder], list[Asked], str]:
        """What it is made of, and a digest of that."""
        units = finished_units(self.run / "units")
        asked = [read_asked(file) for file in matching(self.run / "asked", "*.json")]
        content = [self.name, [unit.path.name for unit in units], [asdict(one) for one in asked]]
        return units, asked, hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _parts(frame: pd.DataFrame, asked: Sequence[Asked], wanted: Set[Measured]) -> Iterator[pd.DataFrame]:
    """Yield some of a unit's rows experiment by experiment."""
    for _, part in frame.groupby(ASPECTS, dropna=False, sort=False):
        (row,) = rows_in(part)
        if row not in wanted:
            continue
        experiments = {
            one.experiment
            for one in asked
            if row.split == one.split and row.seed in one.seeds and row.setting in one.settings
        }
        # Units of the first version of this layout name their own experiment.
        own = part["experiment"].dropna().unique()
        for experiment in sorted(experiments) or own:
            yield part.assign(experiment=experiment)[[*KEY, *(name for name in part if name not in KEY)]]


def _write_parts(path: Path, parts: Iterable[pd.DataFrame], *, notes: Mapping[str, str]) -> None:
    """Write tables one below the other, few in memory at a time: the predictions of many videos are large."""
    gathered = _gathered(parts)
    first = next(gathered, pd.DataFrame(columns=KEY))
    table = pa.Table.from_pandas(first, preserve_index=False)
    with SealedTable(path, table.schema, notes=notes) as file:
        file.write(table)
        for frame in gathered:
            file.write(pa.Table.from_pandas(frame, preserve_index=False))


def _gathered(parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Join tables until they have so many rows that they are worth a row group of their own."""
    held: list[pd.DataFrame] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= _ROWS_AT_ONCE:
            yield pd.concat(held, ignore_index=True)
            held = []
    if held:
        yield pd.concat(held, ignore_index=True)
