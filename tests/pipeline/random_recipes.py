"""What a random video is made of: a kind by turns, and by chance all that may go with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from tests.pipeline.orientations import ORIENTATIONS, Orientation
from tests.pipeline.random_kinds import KINDS, MOV, Kind

ANY_TIME = (*MOV, "matroska", "webm")
"""Containers that give every packet a time of its own."""
SEVERAL = (*MOV, "matroska")
"""Containers whose streams have flags."""
RATES = tuple(map(Fraction, ("24", "25", "30", "30000/1001")))


@dataclass(frozen=True)
class Recipe:
    """One random video."""

    number: int
    kind: Kind
    form: str
    options: Mapping[str, object]
    size: tuple[int, int]
    """As it is shown."""
    frames: int
    rate: Fraction
    times: tuple[int, ...] = ()
    """ms, where the rate varies."""
    cut: str = "none"
    """``key``: begins with a later key frame, ``clean``: and without what is shown before it, ``other``: begins with
    another frame, ``tail``: ends with one, ``bytes``: ends in the middle of one."""
    place: float = 0.0
    """Where the cut is, as a part of the whole."""
    start: str = "zero"
    """``ten``: at 10 s, ``hidden``: an edit list hides the beginning, ``no-list``: without any edit list."""
    flags: str = "own"
    """Of key frames: ``all`` packets have it, or only the ``first``."""
    orientation: Orientation = ORIENTATIONS[0]
    off: tuple[int, int, int, int] = (0, 0, 0, 0)
    """65536ths by which the matrix misses."""
    sei: str = ""
    """The orientation is in the stream, not in the container: in the ``first`` packet, or in ``every`` one."""
    decoy: str = "none"
    """``second``: behind, ``default``: before the stream with the default flag, ``thumbnail``: one picture before it,
    ``cover``: an attached one behind."""
    form_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Every packet's frame can be shown, and is."""
        entered = (self.cut == "clean" and not self.kind.slow) or (self.cut == "key" and self.kind.closed)
        misled = self.start == "hidden" and self.flags == "all"  # its demuxer begins amid a group
        return (self.cut == "none" or entered) and not misled

    @property
    def stream(self) -> int:
        """Index of the video among the streams."""
        return int(self.decoy in ("default", "thumbnail"))

    def __str__(self) -> str:
        own = " ".join(f"{key}={value}" for key, value in {**self.options, **self.form_options}.items())
        odd = [word for word in (self.cut, self.start, self.flags, self.decoy) if word not in ("none", "zero", "own")]
        odd += ["variable"] * bool(self.times) + [str(self.place)[:5]] * (self.cut != "none")
        turned = [self.orientation.name, f"sei {self.sei}" * bool(self.sei), f"off {self.off}" * any(self.off)]
        words = [str(self.number), self.kind.name, self.form, f"{self.frames} at {self.rate}", own, *odd, *turned]
        return " ".join(filter(None, words))


def random_recipe(number: int) -> Recipe:
    """The recipe of this number, the same one for ever."""
    rng = np.random.default_rng([2024, number])
    kind = KINDS[number % len(KINDS)]
    form = str(rng.choice(kind.forms))
    chosen: dict[str, object] = {"options": dict(kind.options(rng)), "frames": int(rng.integers(20, 60))}
    chosen |= {"size": kind.sizes[rng.integers(len(kind.sizes))], "rate": RATES[rng.integers(len(RATES))]}
    if rng.random() < 0.5:
        chosen |= {
            "cut": str(rng.choice(["key", "key", "clean", "other", "tail", "bytes"])),
            "place": float(rng.uniform(0.1, 0.9)),
        }
    if kind.variable and form in ANY_TIME and rng.random() < 0.25:
        gaps = rng.choice([20, 30, 40, 80, 200], chosen["frames"])
        chosen["times"] = (0, *np.cumsum(gaps)[:-1].tolist())
    if rng.random() < 0.3:
        chosen["flags"] = str(rng.choice(["all", "first"]))
    if rng.random() < 0.3 and form != "avi":  # which knows no start
        chosen["start"] = str(rng.choice(["ten", "hidden", "no-list"] if form in MOV else ["ten"]))
    if form in MOV and rng.random() < 0.15:
        chosen["form_options"] = {"movflags": "frag_keyframe+empty_moov"}
    chosen |= _orientation(kind, form, rng) | _company(form, rng)
    if chosen.get("cut") == "other" and (kind.name, form) == ("av1", "ivf"):
        chosen["cut"] = "key"  # its muxer takes nothing else
    if kind.name == "png" and chosen.get("flags") == "first":
        chosen["flags"] = "own"  # to its decoder the others are differences
    if "decoy" in chosen:
        chosen.pop("form_options", None)  # streams that begin apart are shifted when the first fragment has but one
    if kind.name == "h264-sei":
        chosen["sei"] = "first" if chosen.get("cut", "none") == "none" and rng.random() < 0.5 else "every"
    return Recipe(number=number, kind=kind, form=form, **chosen)


def _orientation(kind: Kind, form: str, rng: np.random.Generator) -> dict[str, object]:
    orientation, off = ORIENTATIONS[rng.integers(1, 8)], tuple(rng.integers(-1, 2, 4).tolist())
    if kind.name == "h264-sei":
        return {"orientation": orientation}
    if form not in SEVERAL or kind.disguise or rng.random() < 0.6:
        return {}
    return {"orientation": orientation, "off": off if form in MOV and rng.random() < 0.4 else (0, 0, 0, 0)}


def _company(form: str, rng: np.random.Generator) -> dict[str, object]:
    decoys = ["second", "default", "thumbnail"] if form in SEVERAL else ["second"] if form in ("mpegts", "avi") else []
    decoys += ["cover"] if form == "mp4" else []
    return {"decoy": str(rng.choice(decoys))} if decoys and rng.random() < 0.25 else {}
