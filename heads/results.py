"""Results on disk: a run folder with parquet files, written unit by unit, so that an interrupted run goes on.

runs/<run>/results.parquet        a row a setting, split and seed: key columns, metrics, costs
runs/<run>/predictions.parquet    a row a video under the same key: labels, predicted class, scores
runs/<run>/per_class.parquet      a row a class under the same key: average precision, recall
runs/<run>/frame_scores.parquet   a row a frame under the same key, of the first seed
runs/<run>/units/                 what one training unit measured; the files above are made of them
runs/<run>/asked/                 what sweeps asked for: a row stands once under each experiment that asked for it
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from heads.setting import MODELS, Setting
from pipeline.errors import DynapropError
from pipeline.files import parquet_source, publish_json, publish_parquet, published
from pipeline.object_path import StoragePath, matching

SCHEMA_VERSION = 1

KEY = [
    "dataset",
    "split",
    "fold",
    "experiment",
    "recipe",
    "model",
    "fusion_s",
    "fusion_t",
    "losses",
    "options_digest",
    "feature_key",
    "n_s",
    "n_t",
    "seed",
]
"""The columns that name a row; the same ones key the predictions."""

METRICS = [
    "top1",
    "top1_first_label",
    "map",
    "gflops_paper",
    "gmacs_measured",
    "n_s_used",
    "n_t_used",
    "n_videos",
    "n_missing",
    "seconds",
]

_TYPES = {
    **{"fold": "Int64", "fusion_s": "boolean", "fusion_t": "boolean", "experiment": "object"},
    **{"gflops_paper": "float64", "weight_s": "float64", "weight_t": "float64"},
}
"""Columns that may lack a value: without a type of their own they would differ from run to run."""

TABLES = ("results", "predictions", "per_class", "frame_scores")

_ROWS_AT_ONCE = 50_000
_SETTING = list(Setting.__dataclass_fields__)
_ASPECTS = ["split", "fold", "seed", *_SETTING]  # what tells the rows of one run folder apart, but for the experiment


@dataclass(frozen=True)
class UnitTables:
    """What one training unit adds to the run's files."""

    results: pd.DataFrame
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    frame_scores: pd.DataFrame | None = None


@dataclass(frozen=True)
class Measured:
    """One row that is there: a setting on one split at one seed."""

    split: str
    fold: int | None
    seed: int
    setting: Setting


@dataclass(frozen=True)
class Kept:
    """A model that a run has kept as a checkpoint."""

    path: StoragePath
    """Of its json."""
    split: str
    fold: int | None
    seed: int
    model: str
    """A name in ``MODELS``."""
    n_s: int
    n_t: int
    variant: str
    """What its setting's name says besides (Tables 4 and 5); empty for the whole model."""

    @property
    def name(self) -> str:
        """That of its setting."""
        return f"{self.model}-{self.n_s}+{self.n_t}{self.variant}"


@dataclass(frozen=True)
class Asked:
    """What an experiment consists of."""

    experiment: str
    split: str
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]


class RunFolder:
    """The folder of one run.

    Args:
        path: ``runs/<run>``.
    """

    def __init__(self, path: StoragePath) -> None:
        self.path = path
        self._units = path / "units"
        self._asked = path / "asked"

    def describe(self, settings: dict[str, object]) -> None:
        """Write what the run is about to ``run.json``."""
        publish_json(self.path / "run.json", settings)

    def ask(self, asked: Asked) -> None:
        """Note that an experiment wants these rows.

        The same settings of other seeds add to what it wanted on this split before; other settings replace it.
        """
        path = self._asked / f"{_safe(asked.experiment)}-{_safe(asked.split)}.json"
        if path.exists() and (before := _read_asked(path)).settings == asked.settings:
            asked = replace(asked, seeds=tuple(sorted({*before.seeds, *asked.seeds})))
        publish_json(path, asdict(asked))

    def write(self, unit: str, tables: UnitTables) -> None:
        """Store a finished unit; its marker is written last."""
        folder = self._units / _safe(unit)
        for name in TABLES:
            if (frame := getattr(tables, name)) is not None:
                frame = frame.assign(run_id=self.path.name, schema_version=SCHEMA_VERSION)
                frame = frame.astype({column: kind for column, kind in _TYPES.items() if column in frame})
                publish_parquet(folder / f"{name}.parquet", frame)
        publish_json(folder / "done.json", {"unit": unit})

    def measured(self) -> set[Measured]:
        """The rows of all finished units."""
        return set().union(*(_rows(_read(unit, "results")) for unit in self._finished()))

    def last_measured(self) -> float:
        """When the newest unit was finished, seconds since 1970; 0 without any."""
        return max((marker.stat().st_mtime for marker in matching(self._units, "*/done.json")), default=0.0)

    def metrics(self, row: Measured) -> dict[str, float]:
        """The metrics of one row that is there.

        Raises:
            KeyError: it is not.
        """
        for unit in self._finished():
            for _, part in _read(unit, "results").groupby(_ASPECTS, dropna=False, sort=False):
                if _rows(part) == {row}:
                    return {name: float(part[name].iloc[0]) for name in METRICS if pd.notna(part[name].iloc[0])}
        raise KeyError(row)

    def collect(self) -> None:
        """Join all finished units into the run's files.

        A row stands there once for every experiment that asked for it; what two units measured counts once.
        """
        asked = self._all_asked()
        for table in TABLES:
            seen: set[Measured] = set()
            frames = (_read(unit, table) for unit in self._finished() if (unit / f"{table}.parquet").exists())
            parts = (part for frame in frames for part in _parts(frame, asked, seen))
            _publish_parts(self.path / f"{table}.parquet", parts)

    def rows_of(self, asked: Asked, table: str = "results", *, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The collected rows of what an experiment asked for.

        Args:
            asked: the experiment.
            table: a name in ``TABLES``.
            columns: beside the key; all where None.
        """
        wanted = None if columns is None else [*KEY, *columns]
        filters = [("experiment", "==", asked.experiment), ("split", "==", asked.split), ("seed", "in", asked.seeds)]
        rows = pd.read_parquet(parquet_source(self.path / f"{table}.parquet"), columns=wanted, filters=filters)
        lines = rows[_SETTING].drop_duplicates()
        lines = lines[[setting in asked.settings for setting in _settings(lines)]]
        return rows.merge(lines, on=_SETTING)

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
        path = self.path / f"{table}.parquet"
        try:
            rows = pd.read_parquet(parquet_source(path), filters=[("split", "==", kept.split)])
        except FileNotFoundError:
            return pd.DataFrame(columns=KEY)
        except (pa.ArrowException, OSError, ValueError):
            raise DynapropError(f"{path} is damaged; `dynaprop sweep` writes it anew") from None
        rows = rows[[setting.name == kept.name for setting in _settings(rows)]]
        return rows.drop_duplicates(["seed", "fold", *(["class_name"] if "class_name" in rows else [])])

    def _finished(self) -> list[StoragePath]:
        return [marker.parent for marker in matching(self._units, "*/done.json")]

    def _all_asked(self) -> list[Asked]:
        return [_read_asked(file) for file in matching(self._asked, "*.json")]


def kept_at(path: StoragePath) -> Kept | None:
    """The kept model whose json is at a path, as `RunFolder.checkpoint` names it; None for any other file."""
    part = re.fullmatch(r"(?P<split>\d+-fold(?=\d)|.+?)(?P<fold>\d+)?-seed(?P<seed>\d+)", path.parent.name)
    setting = re.fullmatch(r"(?P<model>[a-z-]+)-(?P<n_s>\d+)\+(?P<n_t>\d+)(?P<variant>.*)\.json", path.name)
    if part is None or setting is None or setting["model"] not in MODELS:
        return None
    return Kept(
        path,
        split=part["split"],
        fold=None if part["fold"] is None else int(part["fold"]),
        seed=int(part["seed"]),
        model=setting["model"],
        n_s=int(setting["n_s"]),
        n_t=int(setting["n_t"]),
        variant=setting["variant"],
    )


def _read_asked(file: StoragePath) -> Asked:
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        settings = tuple(Setting(**setting) for setting in entry["settings"])
        return Asked(entry["experiment"], entry["split"], tuple(entry["seeds"]), settings)
    except (ValueError, KeyError, TypeError):
        raise DynapropError(f"{file} is damaged; delete it and run the sweep again that it is named after") from None


def _parts(frame: pd.DataFrame, asked: Sequence[Asked], seen: set[Measured]) -> Iterator[pd.DataFrame]:
    """Yield a unit's rows experiment by experiment, without what was seen before."""
    for _, part in frame.groupby(_ASPECTS, dropna=False, sort=False):
        (row,) = _rows(part)
        if row in seen:
            continue
        seen.add(row)
        experiments = {
            one.experiment
            for one in asked
            if row.split == one.split and row.seed in one.seeds and row.setting in one.settings
        }
        # Units of the first version of this layout name their own experiment.
        own = part["experiment"].dropna().unique()
        for experiment in sorted(experiments) or own:
            yield part.assign(experiment=experiment)[[*KEY, *(name for name in part if name not in KEY)]]


def _publish_parts(path: StoragePath, parts: Iterable[pd.DataFrame]) -> None:
    """Write tables one below the other, few in memory at a time: the predictions of many videos are large."""
    writer = None
    with published(path) as temporary:
        for frame in _gathered(parts):
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                writer = pq.ParquetWriter(temporary, table.schema, compression="zstd")
            writer.write_table(table.select(writer.schema.names).cast(writer.schema))
        if writer is not None:
            writer.close()
    if writer is None:
        path.unlink()


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


def _rows(frame: pd.DataFrame) -> set[Measured]:
    """The rows that a table speaks of."""
    keys = frame[_ASPECTS].drop_duplicates()
    return {
        Measured(row.split, None if pd.isna(row.fold) else int(row.fold), int(row.seed), setting)
        for row, setting in zip(keys.itertuples(), _settings(keys), strict=True)
    }


def _settings(frame: pd.DataFrame) -> list[Setting]:
    return [
        Setting(
            model=row.model,
            n_s=int(row.n_s),
            n_t=int(row.n_t),
            fusion_s=None if pd.isna(row.fusion_s) else bool(row.fusion_s),
            fusion_t=None if pd.isna(row.fusion_t) else bool(row.fusion_t),
            losses=row.losses,
        )
        for row in frame[_SETTING].itertuples()
    ]


def _read(unit: StoragePath, name: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(parquet_source(unit / f"{name}.parquet"))
    except (pa.ArrowException, OSError, ValueError):
        (unit / "done.json").unlink(missing_ok=True)
        sweeps = sorted({file.name.rpartition("-")[0] for file in unit.parents[1].glob("asked/*.json")})
        raise DynapropError(
            f"{unit}: results are damaged and are left out from now on; sweeping again trains what they held "
            f"(asked for so far: {', '.join(sweeps) or 'nothing'})"
        ) from None


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)
