"""What finished trainings leave in a run: a table each of what was measured, and a record that vouches for them.

units/<unit>.<moment>-<random>/        results.parquet and the others
units/<unit>.<moment>-<random>.json    names them; written last

Two commands that train the same unit at once leave a folder each, whole by itself. Earlier versions wrote
``units/<unit>/`` with a ``done.json`` in it, without checksums.
"""

import re
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pandas as pd

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.atomic import remove_folder, writing
from dynaprop.pipeline.io.paths import StoragePath, children, matching
from dynaprop.pipeline.io.sealed import publish_record, publish_sealed, read_notes, read_record, read_sealed

_EARLIER = "done.json"
_FORGOTTEN = timedelta(days=2).total_seconds()


@dataclass(frozen=True)
class UnitFolder:
    """One finished unit."""

    path: StoragePath
    record: StoragePath

    def tables(self, known: Collection[str]) -> list[str]:
        """Names of its tables.

        Args:
            known: all that there can be.

        Raises:
            DamagedUnit: its record is damaged.
            DynapropError: it cannot be read.
        """
        with self._believing(self.record):
            record = read_record(self.record)
        if "tables" in record:
            return [name for name in known if name in record["tables"]]
        return [name for name in known if (self.path / f"{name}.parquet").exists()]

    def read(self, table: str, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One of its tables, or some columns of it, checked.

        Raises:
            DamagedUnit: it is damaged.
            DynapropError: it cannot be read.
        """
        with self._believing(path := self.path / f"{table}.parquet"):
            return read_sealed(path, columns=columns).to_pandas()

    def check(self, known: Collection[str]) -> None:
        """Make sure that all of its tables are whole; arguments and errors as of ``tables``."""
        for table in self.tables(known):
            with self._believing(path := self.path / f"{table}.parquet"):
                read_notes(path)

    def finished_at(self) -> float:
        """Seconds since 1970."""
        return self.record.stat().st_mtime

    def discard(self) -> None:
        """It counts no more."""
        with writing(self.path):
            self.record.unlink(missing_ok=True)
            remove_folder(self.path)

    @contextmanager
    def _believing(self, path: StoragePath) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise DamagedUnit(self, f"{path} is not there") from None
        except ValueError as error:
            raise DamagedUnit(self, str(error)) from None
        except OSError as error:  # who may not read is told nothing of damage
            raise DynapropError(f"{error.filename or path} cannot be read: {error.strerror}") from None


class DamagedUnit(DynapropError):
    """What a finished training left cannot be believed."""

    def __init__(self, unit: UnitFolder, reason: str) -> None:
        super().__init__(reason)
        self.unit = unit


def write_unit(units: StoragePath, name: str, tables: Mapping[str, pd.DataFrame]) -> UnitFolder:
    """Store what a training has measured, whole or not at all.

    Raises:
        DynapropError: it cannot be written.
    """
    folder = units / f"{name}.{time.time_ns():x}-{secrets.token_hex(4)}"
    record = folder.with_name(f"{folder.name}.json")
    for table, frame in tables.items():
        publish_sealed(folder / f"{table}.parquet", frame)
    publish_record(record, {"unit": name, "tables": sorted(tables)})
    return UnitFolder(folder, record)


def finished_units(units: StoragePath) -> list[UnitFolder]:
    """All units of a run that are done, the newest first; those of earlier versions last, by name."""
    found = []
    records, folders = _entries(units)
    for name in sorted(records.keys() | folders.keys()):
        record = records.get(name) or units / name / _EARLIER
        if name in records or record.exists():
            found.append(UnitFolder(units / name, record))
    return sorted(found, key=lambda unit: _moment(unit.path.name), reverse=True)


def remove_forgotten(units: StoragePath) -> None:
    """Delete what trainings left that were killed days ago while they wrote.

    A process that has slept for so long finds its unit damaged when it wakes up, and not half of it believed.
    """
    done = {unit.path for unit in finished_units(units)}
    for folder in _entries(units)[1].values():
        if folder not in done:
            files = [file.stat().st_mtime for file in matching(folder, "*")]
            if files and max(files) < time.time() - _FORGOTTEN:
                with writing(folder):
                    remove_folder(folder)


def _moment(name: str) -> int:
    """When a unit was written, as its name says; 0 where it does not."""
    found = re.search(r"\.([0-9a-f]{12,})-[0-9a-f]{8}$", name)
    return int(found[1], 16) if found else 0


def _entries(units: StoragePath) -> tuple[dict[str, StoragePath], dict[str, StoragePath]]:
    """Records and folders by the unit's name, from one listing."""
    try:
        found = [path for path in children(units) if not path.name.startswith(".")]
    except FileNotFoundError:
        found = []
    records = {path.stem: path for path in found if path.suffix == ".json"}
    return records, {path.name: path for path in found if path.suffix != ".json"}
