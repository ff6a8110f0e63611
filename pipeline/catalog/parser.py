"""catalog.yaml: everything that has a name, read once by one strict parser into frozen specs."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dynaprop.pipeline.catalog.datasets import (
    INLINE,
    BackboneSpec,
    ClusterSpec,
    DatasetSpec,
    Entry,
    RecipeSpec,
    SweepSpec,
)
from dynaprop.pipeline.catalog.fields import is_folder
from dynaprop.pipeline.catalog.formats import GroupFile
from dynaprop.pipeline.errors import UsageError, did_you_mean

__all__ = [
    "BackboneSpec",
    "Catalog",
    "ClusterSpec",
    "DatasetSpec",
    "RecipeSpec",
    "SweepSpec",
    "find_catalog",
    "folder_dataset",
    "load_catalog",
]

E = TypeVar("E", bound=Entry)

_COPIES = re.compile(r"(?P<original>.+):(?P<short_side>[1-9][0-9]{0,3})p", re.DOTALL)
_MOST_NODES = 100_000  # of the document, aliases written out
GROUPS = "groups.csv"
"""In a folder of videos without an entry: the group of each video."""

_SECTIONS = ("datasets", "backbones", "recipes", "sweeps", "clusters")


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The entries of one catalog file by name."""

    path: Path
    datasets: Mapping[str, DatasetSpec]
    backbones: Mapping[str, BackboneSpec]
    recipes: Mapping[str, RecipeSpec]
    sweeps: Mapping[str, SweepSpec]
    clusters: Mapping[str, ClusterSpec]

    def dataset(self, name: str) -> DatasetSpec:
        """Raises UsageError if there is none of this name, as the other look-ups do."""
        return _look_up(self.path, "dataset", self.datasets, name)

    def backbone(self, name: str) -> BackboneSpec:
        return _look_up(self.path, "backbone", self.backbones, name)

    def recipe(self, name: str) -> RecipeSpec:
        return _look_up(self.path, "recipe", self.recipes, name)

    def sweep(self, name: str) -> SweepSpec:
        return _look_up(self.path, "sweep", self.sweeps, name)

    def cluster(self, name: str) -> ClusterSpec:
        """``inline`` is there without an entry, too."""
        if name == INLINE:
            return ClusterSpec(name=INLINE)
        spec = _look_up(self.path, "cluster", self.clusters, name)
        spec.scheduler()  # refused before the work begins
        return spec

    def sweeps_of(self, name: str) -> tuple[SweepSpec, ...]:
        """The sweep of this name, or those that it includes."""
        sweep = self.sweep(name)
        return tuple(self.sweeps[included] for included in sweep.include) or (sweep,)

    def dataset_or_folder(self, name_or_path: str | Path) -> DatasetSpec:
        """Return the entry of this name or at this root, else a spec for the folder of videos there.

        A name wins over a folder of the same name; ``./name`` is always the folder. Either one followed by ``:256p``
        stands for its transcoded copies of short side 256: a dataset of its own, named ``name.256p``, with its own
        store and results, so that features of copies and of originals never mix. Its ``root`` here is still that of the
        labels; ``dynaprop.pipeline.copies.table`` knows where the copies are.

        Raises:
            UsageError: neither an entry nor a folder.
        """
        name = str(name_or_path)
        if (spec := self._find(name)) is not None:
            return spec
        if (copies := _COPIES.fullmatch(name)) is not None:
            name = copies["original"]
            if (spec := self._find(name)) is not None:
                return self._copies(spec, int(copies["short_side"]))
        what = "a file, not a folder" if os.access(Path(name), os.F_OK) else "no folder"
        raise UsageError(
            f"{name!r}: {what}, and no dataset of {self.path} has this name{did_you_mean(name, list(self.datasets))}"
        )

    def copies_named(self, name: str) -> DatasetSpec | None:
        """The transcoded copies of an entry that have this name as a dataset (``weizmann.256p``); None if none have."""
        original, _, side = name.rpartition(".")
        copies = _COPIES.fullmatch(f"{original}:{side}")
        if copies is None or name in self.datasets or original not in self.datasets:
            return None
        return self.datasets[original].copies(int(copies["short_side"]))

    def _find(self, name: str) -> DatasetSpec | None:
        if name in self.datasets:
            return self.datasets[name]
        path = Path(name)
        if not name or not is_folder(path):
            return None
        root = os.path.realpath(path)
        at_root = (spec for spec in self.datasets.values() if os.path.realpath(spec.root) == root)
        return next(at_root, None) or folder_dataset(path)

    def _copies(self, spec: DatasetSpec, short_side: int) -> DatasetSpec:
        copies = spec.copies(short_side)
        taken = {name.casefold() for name in self.datasets}
        if copies.name.casefold() in taken:
            raise UsageError(
                f"{self.path}: dataset {copies.name!r} has the name that the copies of {spec.name!r} would have; "
                "rename one of the two"
            )
        return copies


def folder_dataset(path: Path) -> DatasetSpec:
    """Return a spec for any folder of videos by class; its name differs from that of every other folder.

    A ``groups.csv`` in it names the groups, without being asked for: it would be forgotten with one command of several.
    """
    root = path.resolve()
    slug = re.sub(r"[^a-z0-9]+", "-", root.name.lower())[:40].strip("-") or "folder"
    groups = GroupFile(file=Path(GROUPS)) if os.path.lexists(root / GROUPS) else None
    return DatasetSpec(name=f"{slug}-{sha256(os.fsencode(root)).hexdigest()[:8]}", root=root, groups=groups)


def find_catalog(path: Path | None = None) -> Path:
    """Return the catalog to read: `path`, else $DYNAPROP_CATALOG, ./catalog.yaml, or the one that comes with dynaprop.

    Raises:
        UsageError: the catalog that was asked for does not exist.
    """
    if path is not None:
        return _existing(path, "check the path")
    if from_environment := os.environ.get("DYNAPROP_CATALOG"):
        return _existing(Path(from_environment), "DYNAPROP_CATALOG names it: correct or unset the variable")
    checkout = Path(__file__).resolve().parents[2]
    installed = Path(sys.prefix) / "share" / "dynaprop"  # where a wheel puts its copy
    for candidate in (Path("catalog.yaml"), checkout / "catalog.yaml", installed / "catalog.yaml"):
        if candidate.is_file():
            return candidate
    raise UsageError("no catalog.yaml here or beside the package; name one with DYNAPROP_CATALOG")


def load_catalog(path: Path | None = None) -> Catalog:
    """Read and check a whole catalog; see `find_catalog` for which.

    Raises:
        UsageError: the first thing that is wrong, in one line: file, entry, key and what to do.
    """
    file = find_catalog(path)
    document = _read_yaml(file)
    for section in document:
        if section not in _SECTIONS:
            hint = did_you_mean(section, list(_SECTIONS)) if isinstance(section, str) else ""
            raise UsageError(f"{file}: unknown section {_short(section)}{hint}")
    catalog = Catalog(
        path=file,
        datasets=_entries(file, document, "datasets", DatasetSpec),
        backbones=_entries(file, document, "backbones", BackboneSpec),
        recipes=_entries(file, document, "recipes", RecipeSpec),
        sweeps=_entries(file, document, "sweeps", SweepSpec),
        clusters=_entries(file, document, "clusters", ClusterSpec),
    )
    for recipe in catalog.recipes.values():
        for key in ("student", "teacher"):
            backbone = getattr(recipe, key)
            if backbone not in catalog.backbones:
                hint = did_you_mean(backbone, list(catalog.backbones))
                raise UsageError(f"{recipe.place(key)}: no backbone {backbone!r}{hint}")
    for sweep in catalog.sweeps.values():
        for key, noun, known in (("recipes", "recipe", catalog.recipes), ("include", "sweep", catalog.sweeps)):
            for name in getattr(sweep, key):
                if name not in known:
                    raise UsageError(f"{sweep.place(key)}: no {noun} {name!r}{did_you_mean(name, list(known))}")
        if any(catalog.sweeps[name].include for name in sweep.include):
            raise UsageError(f"{sweep.place('include')}: the sweeps that it names must not include others")
    return catalog


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: 1e-4 is a number, and a key that is there twice is a mistake."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


# YAML 1.1, which PyYAML reads, takes 1e-4 for text because it has no point.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read_yaml(file: Path) -> dict[Any, Any]:
    try:
        loader = _Loader(file.read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        _refuse_bombs(file, node)
        document = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8 text; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise UsageError(f"{file}{line}: {_one_line(problem)}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML's own constructors raise these for values such as the date 2020-99-99 or `!!int ''`.
        raise UsageError(f"{file}: not YAML ({_one_line(error)})") from None
    if not isinstance(document, dict):
        raise UsageError(
            f"{file}: should be a mapping with the sections {', '.join(_SECTIONS)}, not {_short(document)}"
        )
    return document


def _refuse_bombs(file: Path, root: yaml.Node | None) -> None:
    """Refuse aliases of aliases before anybody writes them out: ten lines of them can mean a billion values."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = _MOST_NODES  # of a node that contains itself, too
            children = [] if isinstance(node, yaml.ScalarNode) else node.value
            sizes[id(node)] = 1 + sum(
                sum(map(size, child)) if isinstance(child, tuple) else size(child) for child in children
            )
        return sizes[id(node)]

    if root is not None and size(root) > _MOST_NODES:
        raise UsageError(f"{file}: its aliases stand for more than {_MOST_NODES:,} values; write the entries out")


def _entries(file: Path, document: dict[Any, Any], section: str, kind: type[E]) -> Mapping[str, E]:
    entries = document.get(section)
    if entries is None:
        return MappingProxyType({})
    if not isinstance(entries, dict):
        raise UsageError(f"{file}: section {section!r} should be a mapping of names to entries, not {_short(entries)}")
    seen: dict[str, str] = {}
    for name in entries:
        if isinstance(name, str) and (other := seen.setdefault(name.casefold(), name)) != name:
            raise UsageError(
                f"{file}: {kind.noun} {name!r}: differs from {other!r} in upper and lower case only, "
                "which not every disk tells apart; rename one of the two"
            )
    return MappingProxyType({name: _entry(file, name, entry, kind) for name, entry in entries.items()})


def _entry(file: Path, name: Any, entry: Any, kind: type[E]) -> E:
    where = f"{file}: {kind.noun} {_short(name)}"
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: should be a mapping of keys, not {_short(entry)}")
    for key in sorted(kind.given_by_parser & entry.keys()):
        why = (
            "the target NAME:256p stands for copies" if key == "short_side" else "an entry is named by where it stands"
        )
        raise UsageError(f"{where}: unknown key {key!r} ({why}); delete it")
    try:
        return kind.model_validate({**entry, "name": name, "source": str(file)})
    except ValidationError as error:
        raise UsageError(f"{where}{_explain(error.errors()[0])}") from None


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "path_type": "a path",
    "is_instance_of": "a path",
}


def _explain(error: ErrorDetails) -> str:
    """Return ``, key 'k': what is wrong``, for the first problem that pydantic found in an entry."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    place = list(error["loc"])
    if len(place) > 1 and place[0] == "annotations":
        del place[1]  # pydantic names the format there, which is no key
    if kind == "missing" and isinstance(place[-1], str):
        missing = place.pop()
        problem = f"needs the key {missing!r}"
    elif kind in ("missing", "too_long", "too_short"):
        place = place[:-1] if kind == "missing" else place
        problem = f"has the wrong number of values: {_short(value)}"
    elif kind == "union_tag_not_found":
        problem = "needs the key 'format'"
    elif kind == "union_tag_invalid":
        known = re.findall(r"'([^']*)'", context["expected_tags"])
        problem = f"unknown format {context['tag']!r}{did_you_mean(context['tag'], known)}"
    elif kind == "literal_error":
        hint = did_you_mean(value, re.findall(r"'([^']*)'", context["expected"])) if isinstance(value, str) else ""
        problem = f"should be {context['expected']}, not {_short(value)}{hint if 'mean' in hint else ''}"
    elif kind == "refused":
        problem = error["msg"]
    elif kind in _EXPECTED:
        problem = f"should be {_EXPECTED[kind]}, not {_short(value)}"
    else:
        problem = f"{error['msg'].replace('Input should', 'should')}, not {_short(value)}"
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    return _one_line(f", key {path!r}: {problem}" if path else f": {problem}")


def _look_up(file: Path, noun: str, entries: Mapping[str, E], name: str) -> E:
    if name not in entries:
        raise UsageError(f"{file}: no {noun} {name!r}{did_you_mean(name, list(entries))}")
    return entries[name]


def _existing(file: Path, remedy: str) -> Path:
    if not file.is_file():
        raise UsageError(f"{file}: no such catalog; {remedy}")
    return file


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _short(value: object) -> str:
    try:
        text = "nothing" if value is None else repr(value)
    except ValueError:  # Python writes no decimal number of more than 4300 digits
        text = "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
