"""Sweeps of the catalog: which models are trained and measured, and how often."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict, model_validator

from dynaprop.pipeline.catalog.entry import Entry
from dynaprop.pipeline.catalog.fields import FrameCounts, Seeds, StrictModel, refuse

ModelName = Literal["teacher", "student", "student-kd", "static-avg", "static-weighted", "dynamic", "dynamic-shuffled"]


class SweepRow(StrictModel):
    """Some models at some numbers of frames: every combination is a line of the table."""

    models: Annotated[tuple[ModelName, ...], Strict(False), Field(min_length=1)]
    frames: Annotated[tuple[FrameCounts, ...], Strict(False)] = ()
    """Pairs (n_s, n_t), 0 for a branch that the models lack; the recipe's own pair where empty."""
    fusion: Annotated[tuple[Literal["none", "student", "teacher", "both"], ...], Strict(False)] = ("both",)
    """Which branches have temporal fusion (Table 4)."""
    losses: Annotated[tuple[Literal["vid", "vid+frm", "vid+cos", "vid+frm+cos"], ...], Strict(False)] = ()
    """Loss sets of Dynamic-STE (Table 5); the whole one where empty."""

    @model_validator(mode="after")
    def _consistent(self) -> "SweepRow":
        for key in ("models", "frames", "fusion", "losses"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise refuse(f"key {key!r} lists the same value twice")
        for pair in self.frames:
            lacking = [name for name in self.models if not _suits(name, *pair)]
            if lacking:
                raise refuse(f"key 'frames': {lacking[0]} cannot be measured at {list(pair)}, which is [n_s, n_t]")
        if self.losses and not all(name.startswith("dynamic") for name in self.models):
            raise refuse("key 'losses': only dynamic has loss sets; give the other models a row of their own")
        return self


def _suits(model: str, n_s: int, n_t: int) -> bool:
    if model == "teacher":
        return n_s + n_t > 0
    return n_s > 0 and (n_t > 0 or model.startswith("student"))


class SweepSpec(Entry):
    """What is trained and measured: an experiment of the paper, or one of your own."""

    noun: ClassVar[str] = "sweep"

    rows: Annotated[tuple[SweepRow, ...], Strict(False)] = ()
    include: Annotated[tuple[str, ...], Strict(False)] = ()
    """Instead of rows: other sweeps, all of which are run."""
    recipes: Annotated[tuple[str, ...], Strict(False)] = ()
    """Recipes to run it for, those whose features are cached, where none is named."""
    seeds: Seeds = (0,)
    """In the file: a list, or a number n for the seeds 0 .. n-1."""

    @model_validator(mode="after")
    def _has_content(self) -> "SweepSpec":
        if bool(self.rows) == bool(self.include):
            raise refuse("needs either rows or, to run other sweeps, include")
        if self.include and (given := {"recipes", "seeds"} & self.model_fields_set):
            raise refuse(f"key {min(given)!r}: the sweeps that it includes have their own")
        if len(set(self.recipes)) < len(self.recipes):
            raise refuse("key 'recipes' lists the same value twice")
        if len(set(self.seeds)) < len(self.seeds):
            raise refuse("key 'seeds' lists the same value twice")
        return self
