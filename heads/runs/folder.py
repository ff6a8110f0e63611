"""Results on disk: a run folder with parquet files, written unit by unit, so that an interrupted run goes on.

runs/<run>/results.parquet        a row a setting, split and seed: key columns, metrics, costs
runs/<run>/predictions.parquet    a row a video under the same key: labels, predicted class, scores
runs/<run>/per_class.parquet      a row a class under the same key: average precision, recall
runs/<run>/frame_scores.parquet   a row a frame under the same key, of the first seed
runs/<run>/units/                 what one training unit measured; the files above are made of them (`unit_folder`)
runs/<run>/notes/                 what to know of labels and split before believing a number, a file a kind of split
runs/<run>/leaks/                 which videos on both sides of a split show the same, a file a kind of split (`leaks`)
runs/<run>/asked/                 what sweeps asked for: a row stands once under each experiment that asked for it
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pandas as pd

from dynaprop.heads.runs.checkpoint import check_checkpoint
from dynaprop.heads.runs.collected import collect_tables
from dynaprop.heads.runs.kept import Kept, kept_at
from dynaprop.heads.runs.rows import (
    ASPECTS,
    KEY,
    METRICS,
    SCHEMA_VERSION,
    SETTING,
    TABLES,
    TYPES,
    Asked,
    Measured,
    UnitTables,
    read_asked,
    rows_in,
    settings_in,
)
from dynaprop.heads.runs.unit_folder import DamagedUnit, UnitFolder, finished_units, remove_forgotten, write_unit
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.io.leftovers import remove_leftovers
from dynaprop.pipeline.io.paths import StoragePath, matching
from dynaprop.pipeline.io.sealed import publish_record, read_notes, read_record, read_sealed, write_record
from dynaprop.pipeline.io.side_by_side import side_by_side
from dynaprop.pipeline.io.update import update_file


class RunFolder:
    """The folder of one run; any number of processes may write to it at once.

    What is in it is checked whenever it is read. A damaged table is made anew from the units; a damaged unit is left
    out, so that who wants its rows measures them again.

    Args:
        path: ``runs/<run>``.
        on_note: called with a line for people: what is damaged, for whom is waited.
    """

    def __init__(self, path: StoragePath, *, on_note: Callable[[str], None] = lambda _: None) -> None:
        self.path = path
        self._units = path / "units"
        self._asked = path / "asked"
        self._listener = on_note
        self._said: set[str] = set()

    def describe(self, settings: Mapping[str, object]) -> None:
        """Write what the run is about to ``run.json``."""
        publish_record(self.path / "run.json", settings)

    def ask(self, asked: Asked, *, adding: bool = False) -> None:
        """Note that an experiment wants these rows.

        The same settings of other seeds add to what it wanted on this split before; other settings replace it, unless
        ``adding``.
        """
        path = self._asked / f"{_safe(asked.experiment)}-{_safe(asked.split)}.json"

        def merged() -> tuple[Asked | None, Asked]:
            before = self._asked_before(path)
            if before is None or (before.settings != asked.settings and not adding):
                return before, asked
            settings = tuple(dict.fromkeys((*before.settings, *asked.settings)))
            return before, replace(asked, seeds=tuple(sorted({*before.seeds, *asked.seeds})), settings=settings)

        def is_current() -> bool:
            before, after = merged()
            return before == after

        update_file(
            path,
            lambda temporary: write_record(temporary, asdict(merged()[1])),
            is_current=is_current,
            on_note=self._on_note,
        )

    def asked(self) -> list[Asked]:
        """What experiments asked for, as far as it can be read."""
        found = (self._asked_before(path) for path in matching(self._asked, "*.json"))
        return [one for one in found if one is not None]

    def note(self, split: str, notes: Sequence[str]) -> None:
        """Keep what a person should know of the labels and of this kind of split (see ``label_notes``)."""
        publish_record(self._notes(split), {"notes": list(notes)})

    def notes(self, split: str) -> list[str]:
        """What ``note`` has kept; runs of earlier versions have nothing.

        Raises:
            DynapropError: it is damaged.
        """
        path = self._notes(split)
        try:
            return [str(note) for note in read_record(path)["notes"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError):
            raise DynapropError(f"{path} is damaged; `dynaprop sweep` writes it anew") from None

    def write(self, unit: str, tables: UnitTables) -> None:
        """Store a finished unit, whole or not at all."""
        frames = {}
        for name in TABLES:
            if (frame := getattr(tables, name)) is not None:
                frame = frame.assign(run_id=self.path.name, schema_version=SCHEMA_VERSION)
                frames[name] = frame.astype({column: kind for column, kind in TYPES.items() if column in frame})
        write_unit(self._units, _safe(unit), frames)

    def measured(self) -> set[Measured]:
        """The rows of all finished units; one that is damaged is deleted, and said."""
        units = finished_units(self._units)
        return set().union(*side_by_side(self.path, self._rows_of_unit, units))

    def last_measured(self) -> float:
        """When the newest unit was finished, seconds since 1970; 0 without any."""
        times = []
        for unit in finished_units(self._units):
            with suppress(FileNotFoundError):  # another process finds it damaged
                times.append(unit.finished_at())
        return max(times, default=0.0)

    def metrics(self, row: Measured) -> dict[str, float]:
        """The metrics of one row that is there.

        Raises:
            KeyError: it is not.
        """
        for unit in finished_units(self._units):
            for _, part in unit.read("results").groupby(ASPECTS, dropna=False, sort=False):
                if rows_in(part) == {row}:
                    return {name: float(part[name].iloc[0]) for name in METRICS if pd.notna(part[name].iloc[0])}
        raise KeyError(row)

    def collect(self) -> None:
        """Bring the run's tables up to date, see `collect_tables`; a unit that is damaged is deleted, and said."""
        remove_leftovers(self.path, below=True, earlier=True)
        remove_forgotten(self._units)
        while finished_units(self._units):  # else the tables alone were passed on, or they are all that is left
            try:
                collect_tables(self.path, on_note=self._on_note)
            except DamagedUnit as damage:
                self._discard(damage)
            else:
                return

    def refresh(self) -> None:
        """``collect`` for who only reads: where a unit is damaged, or nothing can be written, the tables stay."""
        if not finished_units(self._units):
            return
        try:
            collect_tables(self.path, on_note=self._on_note)
        except DynapropError as error:
            self._on_note(f"{self.path}: the tables may lack what was measured: {error}")

    def rows_of(self, asked: Asked, table: str = "results", *, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The collected rows of what an experiment asked for.

        Args:
            asked: the experiment.
            table: a name in ``TABLES``.
            columns: beside the key; all where None.

        Raises:
            DynapropError: the table is damaged or not there.
        """
        wanted = None if columns is None else [*KEY, *columns]
        filters = [("experiment", "==", asked.experiment), ("split", "==", asked.split), ("seed", "in", asked.seeds)]
        rows = read_table(self.path, table, columns=wanted, filters=filters)
        lines = rows[SETTING].drop_duplicates()
        lines = lines[[setting in asked.settings for setting in settings_in(lines)]]
        return rows.merge(lines, on=SETTING)

    def checkpoint(self, measured: Measured) -> StoragePath:
        """Where the model behind a row is kept, without suffix."""
        fold = "" if measured.fold is None else measured.fold
        return self.path / "checkpoints" / _safe(f"{measured.split}{fold}-seed{measured.seed}") / measured.setting.name

    def kept(self) -> list[Kept]:
        """The models that are there as checkpoints."""
        found = matching(self.path / "checkpoints", "*/*.json")
        return [one for one in map(kept_at, found) if one is not None]

    def of_kept(self, kept: Kept, table: str) -> pd.DataFrame:
        """The collected rows of a kept model's setting and kind of split: all seeds and folds, each once.

        Args:
            kept: the model.
            table: ``results`` or ``per_class``.
        """
        if not (self.path / f"{table}.parquet").exists():
            return pd.DataFrame(columns=KEY)
        rows = read_table(self.path, table, filters=[("split", "==", kept.split)])
        rows = rows[[setting.name == kept.name for setting in settings_in(rows)]]
        return rows.drop_duplicates(["seed", "fold", *(["class_name"] if "class_name" in rows else [])])

    def problems(self) -> list[str]:
        """What of the run's files cannot be believed: units, tables, what was asked for, and what the run is about."""
        found: list[str] = []

        def check(read: Callable[[], object]) -> None:
            try:
                read()
            except InfrastructureError:
                raise
            except (OSError, ValueError, DynapropError) as error:
                found.append(str(error))

        for unit in finished_units(self._units):
            check(partial(_read_all, unit))
        for name in TABLES:
            if (path := self.path / f"{name}.parquet").exists():
                check(partial(read_notes, path))
        for path in (
            self.path / "run.json",
            *matching(self._asked, "*.json"),
            *matching(self.path / "notes", "*.json"),
            *matching(self.path / "leaks", "*.json"),
        ):
            check(partial(read_record, path))
        for kept in self.kept():
            check(partial(check_checkpoint, kept.path.with_suffix("")))
        return found

    def _on_note(self, line: str) -> None:
        if line not in self._said:  # what is damaged is met with more than once
            self._said.add(line)
            self._listener(line)

    def _notes(self, split: str) -> StoragePath:
        return self.path / "notes" / f"{_safe(split)}.json"

    def _rows_of_unit(self, unit: UnitFolder) -> set[Measured]:
        try:
            return rows_in(_read_all(unit)["results"])
        except DamagedUnit as damage:
            self._discard(damage)
            return set()

    def _discard(self, damage: DamagedUnit) -> None:
        sweeps = sorted({file.name.rpartition("-")[0] for file in matching(self._asked, "*.json")})
        damage.unit.discard()
        self._on_note(
            f"{damage}; these results are left out, and training or sweeping again measures them "
            f"(asked for so far: {', '.join(sweeps) or 'nothing'})"
        )

    def _asked_before(self, path: StoragePath) -> Asked | None:
        if not path.exists():
            return None
        try:
            return read_asked(path)
        except DynapropError:
            self._on_note(f"{path} is damaged: what was asked for by it before is forgotten")
            return None


def _read_all(unit: UnitFolder) -> dict[str, pd.DataFrame]:
    return {table: unit.read(table) for table in unit.tables(TABLES)}


def read_table(run: StoragePath, table: str, **options: Any) -> pd.DataFrame:
    """A table of a run's folder, or of it what is asked for, checked.

    Args:
        run: the folder.
        table: a name in ``TABLES``.
        options: of `dynaprop.pipeline.io.sealed.read_sealed`.

    Raises:
        DynapropError: it is not there, damaged, or cannot be read.
    """
    path = run / f"{table}.parquet"
    try:
        return read_sealed(path, **options).to_pandas()
    except FileNotFoundError:
        raise DynapropError(f"{path} is not there; `dynaprop sweep` writes it") from None
    except (OSError, ValueError):
        raise DynapropError(f"{path} is damaged; `dynaprop sweep` writes it anew") from None


def read_settings(run: StoragePath) -> dict[str, Any]:
    """What a run is about: its ``run.json``, checked.

    Raises:
        DynapropError: it is not there, or damaged.
    """
    path = run / "run.json"
    try:
        return read_record(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DynapropError(f"{path} is not there: {run} is no run folder") from None
    except (OSError, ValueError):
        raise DynapropError(f"{path} is damaged; `dynaprop sweep` writes it anew") from None


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)
