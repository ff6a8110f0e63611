"""catalog.yaml: everything that has a name, read once by one strict parser into frozen specs."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.catalog import Catalog
from dynaprop.pipeline.catalog.clusters import ClusterSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.entry import Entry
from dynaprop.pipeline.catalog.messages import explain, one_line, short
from dynaprop.pipeline.catalog.recipes import RecipeSpec
from dynaprop.pipeline.catalog.sweeps import SweepSpec
from dynaprop.pipeline.errors import UsageError, did_you_mean

E = TypeVar("E", bound=Entry)

_MOST_NODES = 100_000  # of the document, aliases written out

_SECTIONS = ("datasets", "backbones", "recipes", "sweeps", "clusters")


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
            raise UsageError(f"{file}: unknown section {short(section)}{hint}")
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
        raise UsageError(f"{file}{line}: {one_line(problem)}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML's own constructors raise these for values such as the date 2020-99-99 or `!!int ''`.
        raise UsageError(f"{file}: not YAML ({one_line(error)})") from None
    if not isinstance(document, dict):
        raise UsageError(f"{file}: should be a mapping with the sections {', '.join(_SECTIONS)}, not {short(document)}")
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
        raise UsageError(f"{file}: section {section!r} should be a mapping of names to entries, not {short(entries)}")
    seen: dict[str, str] = {}
    for name in entries:
        if isinstance(name, str) and (other := seen.setdefault(name.casefold(), name)) != name:
            raise UsageError(
                f"{file}: {kind.noun} {name!r}: differs from {other!r} in upper and lower case only, "
                "which not every disk tells apart; rename one of the two"
            )
    return MappingProxyType({name: _entry(file, name, entry, kind) for name, entry in entries.items()})


def _entry(file: Path, name: Any, entry: Any, kind: type[E]) -> E:
    where = f"{file}: {kind.noun} {short(name)}"
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: should be a mapping of keys, not {short(entry)}")
    for key in sorted(kind.given_by_parser & entry.keys()):
        why = (
            "the target NAME:256p stands for copies" if key == "short_side" else "an entry is named by where it stands"
        )
        raise UsageError(f"{where}: unknown key {key!r} ({why}); delete it")
    try:
        return kind.model_validate({**entry, "name": name, "source": str(file)})
    except ValidationError as error:
        raise UsageError(f"{where}{explain(error.errors()[0])}") from None


def _existing(file: Path, remedy: str) -> Path:
    if not file.is_file():
        raise UsageError(f"{file}: no such catalog; {remedy}")
    return file
