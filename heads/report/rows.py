"""The run folders that a report is made of: checked, joined, and read table by table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynaprop.heads.evaluation.chance import LEVELS, with_levels
from dynaprop.heads.evaluation.summary import PAPER_NAMES, whole_seeds
from dynaprop.heads.runs.folder import RunFolder, read_settings, read_table
from dynaprop.heads.runs.rows import KEY
from dynaprop.pipeline.annotations.video_index import comparable
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.paths import StoragePath

VARIANT = ["fusion_s", "fusion_t", "losses"]
"""Columns that tell the variants of one model apart (Tables 4 and 5)."""

_NEEDED = ["top1", "map", "gflops_paper", "gmacs_measured", "n_s_used", "n_t_used", "n_videos", "n_missing"]
_ORDER = ("table1", "table2", "table3", "default", "baselines", "sweep", "table4", "table5", "figure4", "train")
_MAIN = ("table3", "default", "baselines", "sweep", "table1", "table2", "figure4")


@dataclass(frozen=True)
class Part:
    """Rows that may be averaged and compared: one dataset, one kind of split."""

    dataset: str
    split: str

    @property
    def title(self) -> str:
        names = {"test": "test split", "val": "validation split", "stratified": "stratified split"}
        return names.get(self.split, self.split.replace("-fold", " folds"))


class Runs:
    """Results of run folders.

    Where two of them share a dataset and the name of a recipe, the recipe is called by its run as well, so that their
    rows are never averaged.

    Args:
        folders: ``runs/<run>``, each once.

    Raises:
        DynapropError: a folder without results, or with files that cannot be read.
    """

    def __init__(self, folders: Sequence[StoragePath]) -> None:
        self.folders = list(dict.fromkeys(folder.resolve() for folder in folders))
        self.settings = {folder: _settings(folder) for folder in self.folders}
        tables = {folder: self._read(folder, "results") for folder in self.folders}
        self._held = {
            folder: set(zip(table["dataset"], table["split"], strict=True)) for folder, table in tables.items()
        }
        recipes = pd.concat(
            [table[["dataset", "recipe"]].drop_duplicates().assign(run=folder) for folder, table in tables.items()]
        )
        shared = recipes.groupby(["dataset", "recipe"])["run"].transform("size") > 1
        told_apart = len({folder.name for folder in self.folders}) == len(self.folders)
        self._names = {
            (row.run, row.recipe): f"{row.recipe} ({row.run.name if told_apart else row.run})"
            if several
            else row.recipe
            for row, several in zip(recipes.itertuples(), shared, strict=True)
        }
        results = pd.concat([self._named(folder, table) for folder, table in tables.items()], ignore_index=True)
        self.results = whole_seeds(results)
        self.unfinished = len(self.results) < len(results)
        """Whether seeds were left out that lack a fold."""
        if self.results.empty:
            raise DynapropError(f"{self.folders[0]}: no seed has all its folds yet; `dynaprop sweep` goes on with them")

    def parts(self) -> list[Part]:
        """Datasets and kinds of split, the ones with most test videos first."""
        by = ["dataset", "split"]
        one = self.results.drop_duplicates([*by, "fold"]).groupby(by, sort=False)["n_videos"].sum()
        return [Part(*key) for key in one.sort_values(ascending=False, kind="stable").index]

    def rows(self, part: Part) -> pd.DataFrame:
        """Results of one part."""
        return self.results[(self.results["dataset"] == part.dataset) & (self.results["split"] == part.split)]

    def predictions(self, part: Part, experiment: str, *, scores: bool) -> pd.DataFrame:
        """Predictions of one experiment; the scores, which are most of the bytes, only on demand."""
        columns = [*KEY, "video_id", "labels", "predicted", *(["scores"] if scores else [])]
        return self._joined("predictions", part, experiment, columns)

    def per_class(self, part: Part, experiment: str) -> pd.DataFrame:
        """Per-class results of one experiment."""
        return self._joined("per_class", part, experiment, None)

    def frame_scores(self, part: Part) -> pd.DataFrame:
        """Scores frame by frame of the part's main experiment, without the top 5; empty where no run has them."""
        columns = [*KEY, "video_id", "timestamp", "branch", "true_class", "true_probability"]
        return self._joined("frame_scores", part, main_experiment(self.rows(part)), columns)

    def frames_of(self, part: Part, videos: Sequence[str]) -> pd.DataFrame:
        """The same of some videos, with the top 5."""
        wanted = [("video_id", "in", list(videos))]
        return self._joined("frame_scores", part, main_experiment(self.rows(part)), None, wanted)

    def classes(self, part: Part) -> list[str]:
        """The class names of a dataset.

        Raises:
            DynapropError: the runs know different classes, so that their rows cannot be compared.
        """
        lists = {
            folder: [comparable(str(name)) for name in self.settings[folder].get("classes", [])]
            for folder in self._of(part)
        }
        first, *others = lists
        for other in others:
            if lists[other] != lists[first]:
                raise DynapropError(f"{other}: other classes than {first}; give each a report of its own")
        return list(lists[first])

    def notes(self, part: Part) -> list[str]:
        """What to know of the labels and the split, each once."""
        return list(dict.fromkeys(note for folder in self._of(part) for note in RunFolder(folder).notes(part.split)))

    def missing(self, dataset: str) -> list[str]:
        """Ids of the dataset's videos, of training and test alike, that a run could not use."""
        lists = (self.settings[f].get("missing", []) for f in self.folders if self.settings[f]["dataset"] == dataset)
        return sorted({str(video) for ids in lists for video in ids})

    def holds(self, folder: StoragePath, part: Part) -> bool:
        """Whether a run has results of a part."""
        return (part.dataset, part.split) in self._held[folder]

    def _of(self, part: Part) -> list[StoragePath]:
        return [folder for folder in self.folders if self.settings[folder]["dataset"] == part.dataset]

    def _joined(
        self,
        table: str,
        part: Part,
        experiment: str,
        columns: list[str] | None,
        wanted: Sequence[tuple[str, str, Any]] = (),
    ) -> pd.DataFrame:
        wanted = [("dataset", "==", part.dataset), ("split", "==", part.split), *wanted]
        wanted += [("experiment", "==", experiment)]
        frames = [
            self._named(folder, self._read(folder, table, columns=columns, filters=wanted))
            for folder in self._of(part)
            if table != "frame_scores" or (folder / f"{table}.parquet").exists()  # runs of older versions lack them
        ]
        frames = [frame for frame in frames if len(frame)]
        if not frames:
            return pd.DataFrame(columns=columns or KEY)
        joined = pd.concat(frames, ignore_index=True)
        return joined if table == "frame_scores" else whole_seeds(joined)

    def _named(self, folder: StoragePath, table: pd.DataFrame) -> pd.DataFrame:
        names = {recipe: name for (run, recipe), name in self._names.items() if run == folder}
        types = {"fusion_s": "boolean", "fusion_t": "boolean"}
        return table.assign(recipe=table["recipe"].replace(names)).astype(types)

    @staticmethod
    def _read(folder: StoragePath, table: str, **options: Any) -> pd.DataFrame:
        path = folder / f"{table}.parquet"
        frame = read_table(folder, table, **options)
        if table == "results" and frame.empty:
            raise DynapropError(f"{path} has no rows; run `dynaprop sweep` first")
        needed = KEY + (_NEEDED if table == "results" else [])
        if lacking := [name for name in needed if name not in frame]:
            raise DynapropError(f"{path} lacks {', '.join(lacking)}: it is no table of a run")
        if table == "results" and not set(LEVELS) <= set(frame.columns):  # of an earlier version
            frame = with_levels(frame, Runs._read(folder, "per_class"), KEY)
        if "class_name" in frame:
            frame = frame.assign(class_name=frame["class_name"].map(comparable))
        if unknown := sorted(set(frame["model"]) - set(PAPER_NAMES)):
            raise DynapropError(f"{path}: unknown model {unknown[0]!r}; a newer version of dynaprop wrote it")
        return frame


def _settings(folder: StoragePath) -> dict[str, Any]:
    settings = read_settings(folder)
    lists = (settings.get(key, []) for key in ("classes", "missing"))
    if "dataset" not in settings or not all(isinstance(one, list) for one in lists):
        raise DynapropError(f"{folder / 'run.json'} is damaged; `dynaprop sweep` writes it anew")
    return settings


def experiments(rows: pd.DataFrame) -> list[str]:
    """The experiments of some results in the order of the paper, unknown ones last."""
    found = sorted(rows["experiment"].unique())
    return sorted(found, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


def main_experiment(rows: pd.DataFrame) -> str:
    """The experiment whose Dynamic-STE and Student are looked at class by class and frame by frame."""
    found = experiments(rows[rows["model"] == "dynamic"]) or experiments(rows)
    return min(found, key=lambda name: _MAIN.index(name) if name in _MAIN else len(_MAIN))


def lean_dynamic(rows: pd.DataFrame) -> dict[str, Any] | None:
    """Frames of the cheapest full Dynamic-STE among these rows, as ``{"n_s", "n_t"}``; None without any."""
    full = rows[is_full(rows)]
    if full.empty:
        return None
    cheapest = full.sort_values(["gmacs_measured", "n_s"]).iloc[0]
    return {"n_s": int(cheapest["n_s"]), "n_t": int(cheapest["n_t"])}


def is_full(rows: pd.DataFrame) -> pd.Series:
    """Which rows are the whole Dynamic-STE: both fusions, all three losses."""
    fused = rows["fusion_s"].fillna(False) & rows["fusion_t"].fillna(False)
    return (rows["model"] == "dynamic") & fused & (rows["losses"] == "vid+frm+cos")
