"""Backbones of the catalog: frozen networks, by name, input and weights."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from dynaprop.pipeline.backbones.weights_file import WEIGHT_SUFFIXES, is_weights_file
from dynaprop.pipeline.catalog.entry import Entry
from dynaprop.pipeline.catalog.fields import Positive, PositiveTriple, Triple, absolute_path, expand_variables, refuse
from dynaprop.pipeline.errors import UsageError, did_you_mean
from dynaprop.pipeline.io.paths import storage_path


class BackboneSpec(Entry):
    """A timm model at one resolution with given weights."""

    noun: ClassVar[str] = "backbone"

    model: str
    """timm's name."""
    size: Annotated[int, Field(ge=1, le=4096)]
    """Side of the square input in pixels."""
    weights: str
    """``package:NAME``, ``timm`` (its hub), ``random`` (tests only), or an absolute path or URL of a weights file."""
    gflops_paper: Positive | None = None
    """Published multiply-adds a frame, in units of 10^9; None where the paper has no figure."""
    mean: Triple | None = None
    std: PositiveTriple | None = None
    """Normalisation of the input; timm's own where None."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of the forward pass, half ones by autocast; the features of each have a key of their own."""

    @field_validator("model")
    @classmethod
    def _is_model_name(cls, model: str) -> str:
        if not re.fullmatch(r"\w+(\.\w+)?", model, re.ASCII) or len(model) > 100:
            raise refuse(
                "should be timm's name, of letters, digits, '_' and one '.' at most: folders are named after it"
            )
        return model

    @field_validator("weights")
    @classmethod
    def _weights_source(cls, weights: str) -> str:
        if weights in ("timm", "random") or re.fullmatch(r"package:\w+", weights):
            return weights
        text = expand_variables(weights)
        try:
            path = storage_path(text) if "://" in text else absolute_path(weights)
        except UsageError as error:
            raise refuse(f"{error}") from None
        if not is_weights_file(path.name):
            hint = did_you_mean(weights, ["timm", "random"]) if len(weights) < 10 else ""
            raise refuse(
                f"should be package:NAME, timm, random or a path or URL ending in {', '.join(WEIGHT_SUFFIXES)}, "
                f"not {weights!r}{hint}"
            )
        return str(path)

    def require_weights(self) -> str:
        """Return ``weights`` once a file that it names is known to exist.

        Raises:
            UsageError: there is no such file.
        """
        if Path(self.weights).is_absolute() and not Path(self.weights).is_file():
            raise UsageError(f"{self.place('weights')}: no file {self.weights}; put it there or change the key")
        return self.weights
