"""The catalog's parser: what it accepts, and that every mistake is one line that says where it is and what to do."""

import inspect
import os
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dynaprop.pipeline.annotations import READERS
from dynaprop.pipeline.catalog.catalog import Catalog, folder_dataset
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.formats import AnnotationFormat, FolderFormat, PathListFormat
from dynaprop.pipeline.catalog.parser import find_catalog, load_catalog
from dynaprop.pipeline.catalog.recipes import FinetuneSpec
from dynaprop.pipeline.errors import UsageError

REPOSITORY = Path(__file__).resolve().parents[3]

SMALL = {
    "datasets": {"birds": {"root": "videos/birds"}},
    "backbones": {
        "light": {"model": "test_efficientnet", "size": 112, "weights": "random"},
        "heavy": {"model": "test_resnet", "size": 224, "weights": "random"},
    },
    "recipes": {"pair": {"student": "light", "teacher": "heavy"}},
    "sweeps": {
        "short": {"rows": [{"models": ["teacher", "dynamic"], "frames": [[8, 2]]}], "seeds": 2},
        "both": {"include": ["short"]},
    },
    "clusters": {"pool": {"processes": 2}},
}


def _row(**changes: object) -> dict[str, object]:
    """Changes of the sweep: its one row with these keys."""
    return {"rows": [{"models": ["dynamic"], **changes}]}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DYNAPROP_CATALOG", "DYNAPROP_DATA", "DYNAPROP_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(tmp_path: Path, section: str, name: str, /, **changes: object) -> Catalog:
    """Load the small catalog with keys of one entry changed; None deletes a key."""
    document = yaml.safe_load(yaml.safe_dump(SMALL))
    entry = document[section][name]
    for key, value in changes.items():
        entry.pop(key, None)
        if value is not None:
            entry[key] = value
    return load_catalog(write(tmp_path, yaml.safe_dump(document)))


def refused(function: object, *args: object, **kwargs: object) -> str:
    """Return the message of the UsageError, which must be one line."""
    with pytest.raises(UsageError) as caught:
        function(*args, **kwargs)  # type: ignore[operator]
    message = str(caught.value)
    assert "\n" not in message
    assert "pydantic" not in message
    return message


class TestShippedCatalog:
    def test_names(self) -> None:
        catalog = load_catalog(REPOSITORY / "catalog.yaml")
        assert {"sample", "ut-interaction", "weizmann", "activitynet-1.3", "mini-kinetics"} <= set(catalog.datasets)
        assert {"ucf101", "hmdb51", "kinetics-400"} <= set(catalog.datasets)
        assert set(catalog.recipes) == {"lite", "lite-small", "efficientnet", "resnet"}
        assert next(iter(catalog.recipes)) == "lite"
        paper = {"table1", "table2", "table3", "table4", "table5", "figure4"}
        assert {sweep.name for sweep in catalog.sweeps_of("all")} == paper
        assert set(catalog.sweeps) == paper | {"all", "default", "baselines"}

    def test_the_comment_names_every_key_of_finetune_with_its_default(self) -> None:
        text = (REPOSITORY / "catalog.yaml").read_text()
        comment = " ".join(text[text.index("# `finetune: {...}`") : text.index("\nrecipes:\n")].split())
        for name, field in FinetuneSpec.model_fields.items():
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            shown = {True: "true", False: "false"}.get(default, default) if isinstance(default, bool) else default
            text = name if default is None else f"{name} {shown}".replace("0.0001", "1e-4")
            assert text in comment, text

    def test_recipes_are_the_papers(self) -> None:
        # Section 4.1 of the paper, and the settings that the design adds where it is silent.
        recipes = load_catalog(REPOSITORY / "catalog.yaml").recipes
        for recipe in (recipes["lite"], recipes["efficientnet"], recipes["resnet"]):
            values = recipe.model_dump(exclude={"name", "student", "teacher", "finetune"})
            assert values == {
                "n_s": 20,
                "n_t": 5,
                "gamma": 4,
                "key_dim": 256,
                "lambda_frm": 0.5,
                "lambda_cos": 0.5,
                "epochs": 40,
                "lr": 1e-4,
                "milestones": (15, 30),
                "batch_size": 32,
            }
        lite = recipes["lite"]
        small = recipes["lite-small"].model_copy(update={"name": "lite", "batch_size": 32, "finetune": lite.finetune})
        assert small == lite

    def test_published_cost_gives_the_papers_totals(self) -> None:
        # Tables 1 and 3: 20 student and 5 teacher frames cost 11.0 GFLOPs (EfficientNet) and 30.5 (ResNet).
        catalog = load_catalog(REPOSITORY / "catalog.yaml")
        for name, total in (("efficientnet", 11.0), ("resnet", 30.5)):
            recipe = catalog.recipe(name)
            costs = (catalog.backbone(recipe.student).gflops_paper, catalog.backbone(recipe.teacher).gflops_paper)
            assert costs[0] is not None and costs[1] is not None
            assert recipe.n_s * costs[0] + recipe.n_t * costs[1] == pytest.approx(total)
        assert catalog.backbone("lite0-112").gflops_paper is None

    def test_headline_metric_follows_the_paper(self) -> None:
        catalog = load_catalog(REPOSITORY / "catalog.yaml")
        assert catalog.dataset("activitynet-1.3").metric == "map"
        assert catalog.dataset("mini-kinetics").metric == "top1"

    def test_roots_follow_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert load_catalog(REPOSITORY / "catalog.yaml").dataset("weizmann").root == tmp_path / "data/weizmann"
        monkeypatch.setenv("DYNAPROP_DATA", "/disk")
        assert load_catalog(REPOSITORY / "catalog.yaml").dataset("weizmann").root == Path("/disk/weizmann")

    def test_published_datasets_are_read_in_their_own_formats(self) -> None:
        datasets = load_catalog(REPOSITORY / "catalog.yaml").datasets
        assert {name: datasets[name].annotations.format for name in datasets} == {
            "sample": "folder",
            "weizmann": "folder",
            "ut-interaction": "list",
            "j-hmdb": "folder",
            "activitynet-1.3": "activitynet",
            "mini-kinetics": "arnet-mini-kinetics",
            "kinetics-400": "kinetics",
            "ucf101": "ucf101",
            "hmdb51": "hmdb51",
        }

    def test_only_the_sample_is_generated(self) -> None:
        generated = {n: s.generate for n, s in load_catalog(REPOSITORY / "catalog.yaml").datasets.items() if s.generate}
        assert list(generated) == ["sample"]
        assert generated["sample"].videos_per_class == 8


class TestSearch:
    def test_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert find_catalog().resolve() == REPOSITORY / "catalog.yaml"
        (tmp_path / "catalog.yaml").touch()
        assert find_catalog() == Path("catalog.yaml")
        (tmp_path / "other.yaml").touch()
        monkeypatch.setenv("DYNAPROP_CATALOG", "other.yaml")
        assert find_catalog() == Path("other.yaml")
        (tmp_path / "explicit.yaml").touch()
        assert find_catalog(tmp_path / "explicit.yaml") == tmp_path / "explicit.yaml"

    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "nowhere.yaml: no such catalog" in refused(find_catalog, Path("nowhere.yaml"))
        monkeypatch.setenv("DYNAPROP_CATALOG", "gone.yaml")
        message = refused(find_catalog)
        assert "gone.yaml" in message and "DYNAPROP_CATALOG" in message


class TestValues:
    def test_defaults(self, tmp_path: Path) -> None:
        spec = load(tmp_path, "datasets", "birds").dataset("birds")
        assert spec.root == tmp_path / "videos/birds"
        assert spec.annotations == FolderFormat()
        assert (spec.max_clips, spec.shard_rows, spec.metric) == (1024, 2048, "top1")

    def test_specs_are_frozen(self, tmp_path: Path) -> None:
        catalog = load(tmp_path, "datasets", "birds")
        with pytest.raises(ValidationError, match="frozen"):
            catalog.dataset("birds").min_clips = 3  # type: ignore[misc]
        with pytest.raises(TypeError):
            catalog.datasets["more"] = catalog.dataset("birds")  # type: ignore[index]

    def test_number_without_a_point_is_a_number(self, tmp_path: Path) -> None:
        # YAML 1.1 reads 1e-4 as text, 1.0e-4 as a number.
        path = write(tmp_path, yaml.safe_dump(SMALL).replace("student: light", "student: light\n    lr: 3e-4"))
        assert load_catalog(path).recipe("pair").lr == 3e-4

    def test_whole_number_where_any_number_is_meant(self, tmp_path: Path) -> None:
        spec = load(tmp_path, "datasets", "birds", clip_seconds=2).dataset("birds")
        assert spec.clip_seconds == 2.0

    @pytest.mark.parametrize(("given", "seeds"), [(1, (0,)), (3, (0, 1, 2)), ([7, 5], (7, 5))])
    def test_seeds(self, tmp_path: Path, given: object, seeds: tuple[int, ...]) -> None:
        assert load(tmp_path, "sweeps", "short", seeds=given).sweep("short").seeds == seeds

    def test_inline_is_there_and_is_none(self, tmp_path: Path) -> None:
        catalog = load(tmp_path, "clusters", "pool")
        inline = catalog.cluster("inline")
        assert (inline.processes, inline.address, inline.cuda) == (None, None, False)
        text = "clusters: {inline: {processes: 2}}"
        assert "is this process itself and has no keys" in refused(load_catalog, write(tmp_path, text))

    def test_address_from_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        catalog = load(tmp_path, "clusters", "pool", processes=None, address="${SCHEDULER}", resources={"GPU": 1})
        message = f"{tmp_path / 'catalog.yaml'}: cluster 'pool', key 'address': "
        assert refused(catalog.cluster, "pool").startswith(f"{message}the environment variable SCHEDULER is not set")
        monkeypatch.setenv("SCHEDULER", "10.0.0.1:8786")
        assert refused(catalog.cluster, "pool").startswith(f"{message}should be that of a Dask scheduler")
        monkeypatch.setenv("SCHEDULER", "tls://scheduler.lab:8786")
        assert catalog.cluster("pool").scheduler() == "tls://scheduler.lab:8786"

    def test_list_format(self, tmp_path: Path) -> None:
        keys = {"format": "list", "classes": "../classes.txt", "test": "../test.txt"}
        form = load(tmp_path, "datasets", "birds", annotations=keys).dataset("birds").annotations
        assert form == PathListFormat(classes=Path("../classes.txt"), test=Path("../test.txt"))

    def test_weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for weights in ("timm", "random", "package:some_package"):
            backbone = load(tmp_path, "backbones", "light", weights=weights).backbone("light")
            assert backbone.weights == backbone.require_weights() == weights
        monkeypatch.setenv("WEIGHTS", "checkpoints")
        backbone = load(tmp_path, "backbones", "light", weights="${WEIGHTS:-x}/b0.safetensors").backbone("light")
        assert backbone.weights == str(tmp_path / "checkpoints/b0.safetensors")
        message = refused(backbone.require_weights)
        assert "backbone 'light', key 'weights': no file" in message and "catalog.yaml" in message
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/b0.safetensors").touch()
        assert backbone.require_weights() == backbone.weights
        monkeypatch.setenv("BUCKET", "s3://bucket")
        for weights in ("s3://bucket/a/b0.safetensors", "${BUCKET}/a/b0.safetensors"):
            backbone = load(tmp_path, "backbones", "light", weights=weights).backbone("light")
            assert backbone.weights == backbone.require_weights() == "s3://bucket/a/b0.safetensors"

    def test_empty_section_has_no_entries(self, tmp_path: Path) -> None:
        catalog = load_catalog(write(tmp_path, "datasets:\n"))
        assert not catalog.datasets and not catalog.sweeps

    def test_merge_keys(self, tmp_path: Path) -> None:
        text = "datasets:\n  a: &a {root: x, min_clips: 5}\n  b: {<<: *a, min_clips: 6}\n  c: {<<: *a}\n"
        catalog = load_catalog(write(tmp_path, text))
        assert [catalog.dataset(name).min_clips for name in "abc"] == [5, 6, 5]

    def test_every_format_has_a_reader_with_the_same_keys(self) -> None:
        formats = {
            name: form
            for form in get_args(get_args(AnnotationFormat)[0])
            for name in get_args(form.model_fields["format"].annotation)
        }
        assert formats.keys() == READERS.keys()
        for name, form in formats.items():
            keys = set(form.model_fields) - {"format"} | {"root"}
            parameters = inspect.signature(READERS[name]).parameters
            given = getattr(READERS[name], "keywords", {})  # of a partial: what its format always says
            assert set(parameters) - given.keys() == keys


class TestEnvironment:
    @pytest.mark.parametrize(
        ("value", "root"),
        [(None, "/fallback/x"), ("", "/fallback/x"), ("/disk", "/disk/x"), ("/a b$c", "/a b$c/x")],
    )
    def test_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, root: str) -> None:
        if value is not None:
            monkeypatch.setenv("VIDEOS", value)
        spec = load(tmp_path, "datasets", "birds", root="${VIDEOS:-/fallback}/x").dataset("birds")
        assert str(spec.root) == root

    def test_unset(self, tmp_path: Path) -> None:
        message = refused(load, tmp_path, "datasets", "birds", root="${VIDEOS_THAT_ARE_NOT_SET}/x")
        assert "VIDEOS_THAT_ARE_NOT_SET is not set" in message
        assert "dataset 'birds', key 'root'" in message

    @pytest.mark.parametrize("root", ["$HOME/x", "${HOME", "${HOME:=x}", "${A:-${B}}", "$(pwd)", "${}", "${1}"])
    def test_other_forms(self, tmp_path: Path, root: str) -> None:
        assert "only ${NAME} and ${NAME:-default} are understood" in refused(
            load, tmp_path, "datasets", "birds", root=root
        )

    def test_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/somebody")
        spec = load(tmp_path, "datasets", "birds", root="~/x").dataset("birds")
        assert spec.root == Path("/home/somebody/x")
        assert "unknown user" in refused(load, tmp_path, "datasets", "birds", root="~nobody-of-this-name/x")


@pytest.mark.parametrize(
    ("section", "name", "changes", "expected"),
    [
        ("datasets", "birds", {"min_clip": 3}, "dataset 'birds': unknown key 'min_clip' (did you mean 'min_clips'?)"),
        ("datasets", "birds", {"root": None}, "dataset 'birds': needs the key 'root'"),
        ("datasets", "birds", {"root": 5}, "key 'root': should be a path, not 5"),
        ("datasets", "birds", {"root": " "}, "key 'root': should be a path, not an empty text"),
        ("datasets", "birds", {"min_clips": "80"}, "key 'min_clips': should be a whole number, not '80'"),
        ("datasets", "birds", {"min_clips": 1.5}, "key 'min_clips': should be a whole number, not 1.5"),
        ("datasets", "birds", {"min_clips": True}, "key 'min_clips': should be a whole number, not True"),
        ("datasets", "birds", {"min_clips": 0}, "key 'min_clips': should be greater than or equal to 1, not 0"),
        ("datasets", "birds", {"min_clips": 2000}, "min_clips (2000) should be at most max_clips (1024)"),
        ("datasets", "birds", {"max_clips": 4096}, "max_clips (4096) should be at most shard_rows (2048)"),
        ("datasets", "birds", {"clip_seconds": float("nan")}, "key 'clip_seconds': should be a finite number"),
        ("datasets", "birds", {"test_fraction": 1.0}, "key 'test_fraction': should be less than 1"),
        ("datasets", "birds", {"metric": "mapp"}, "should be 'top1' or 'map', not 'mapp' (did you mean 'map'?)"),
        ("datasets", "birds", {"metric": []}, "key 'metric': should be 'top1' or 'map', not []"),
        ("datasets", "birds", {"group": "(a"}, "key 'group': '(a' is no regular expression"),
        ("datasets", "birds", {"group": "a+"}, "key 'group': 'a+' captures nothing"),
        ("datasets", "birds", {"groups": {}}, "key 'groups': needs the key 'file'"),
        ("datasets", "birds", {"groups": "a.csv"}, "key 'groups': should be a mapping of keys, not 'a.csv'"),
        ("datasets", "birds", {"groups": {"file": "a", "clip": "x"}}, "key 'groups': unknown key 'clip'"),
        ("datasets", "birds", {"groups": {"file": "a", "video": 1}}, "key 'groups.video': should be text, not 1"),
        ("datasets", "birds", {"groups": {"file": "a", "video": "group"}}, "'video' and 'group' name one column"),
        ("datasets", "birds", {"group": "(a)", "groups": {"file": "a"}}, "has both 'group' and 'groups': keep"),
        ("datasets", "birds", {"annotations": {"format": "lst"}}, "unknown format 'lst' (did you mean 'list'?)"),
        ("datasets", "birds", {"annotations": {"format": 3}}, "key 'annotations': unknown format '3'"),
        ("datasets", "birds", {"annotations": {"train": "x"}}, "key 'annotations': needs the key 'format'"),
        ("datasets", "birds", {"annotations": "folder"}, "key 'annotations': should be a mapping of keys"),
        (
            "datasets",
            "birds",
            {"annotations": {"format": "list", "train": "x"}},
            "key 'annotations': needs the key 'classes'",
        ),
        (
            "datasets",
            "birds",
            {"annotations": {"format": "list", "classes": "x"}},
            "needs a list: one of the keys 'train', 'val' and 'test'",
        ),
        (
            "datasets",
            "birds",
            {"annotations": {"format": "list", "classes": "x", "trian": "y"}},
            "key 'annotations': unknown key 'trian' (did you mean 'train'?)",
        ),
        *(
            ("datasets", "birds", {"annotations": form}, f"key 'annotations': {expected}")
            for form, expected in (
                ({"format": "activitynet"}, "needs the key 'file'"),
                ({"format": "kinetics", "classes": "x"}, "needs a list: one of the keys 'train', 'val' and 'test'"),
                (
                    {"format": "arnet-activitynet", "classes": "x", "train": "y"},
                    "needs the key 'fps': a folder of frames does not say how many a second they are",
                ),
                (
                    {"format": "arnet-mini-kinetics", "train": "y", "fps": 25},
                    "needs the key 'classes': its lists name classes by number, and copies of one dataset differ",
                ),
                ({"format": "mmaction2", "train": "y"}, "needs the key 'classes': its lists name classes by number"),
                (
                    {"format": "mmaction2", "classes": "x", "train": "y", "frames": "img_{:05d}.jpg"},
                    "needs the key 'fps': a folder of frames",
                ),
                (
                    {"format": "mmaction2", "classes": "x", "train": "y", "fps": 25},
                    "'fps', 'first' and 'offset' are about folders of frames",
                ),
                ({"format": "ucf101", "train": "y"}, "needs the key 'classes'"),
                ({"format": "ucf101", "classes": "x"}, "needs a list: one of the keys 'train' and 'test'"),
                ({"format": "ucf101", "classes": "x", "val": "y"}, "unknown key 'val'"),
                ({"format": "hmdb51"}, "needs the key 'splits'"),
            )
        ),
        *(
            (
                "datasets",
                "birds",
                {"annotations": {"format": "mmaction2", "classes": "x", "train": "y", "fps": 25, "frames": frames}},
                f"key 'annotations.frames': should be the name of a frame such as img_{{:05d}}.jpg, not {frames!r}",
            )
            for frames in ("img.jpg", "{:05d}{:d}.jpg", "../{:05d}.jpg", "{:05d}.txt", "{:5000d}.jpg", "{x.y}.jpg")
        ),
        ("datasets", "birds", {"generate": {"seed": -1}}, "key 'generate.seed': should be greater than or equal to 0"),
        ("datasets", "birds", {"generate": 3}, "key 'generate': should be a mapping of keys, not 3"),
        ("datasets", "birds", {"name": "x"}, "unknown key 'name'"),
        ("datasets", "birds", {"short_side": 256}, "unknown key 'short_side' (the target NAME:256p stands for copies)"),
        ("datasets", "birds", {"source": "x"}, "unknown key 'source'"),
        ("datasets", "birds", {"note": 3}, "key 'note': should be text, not 3"),
        ("backbones", "light", {"size": "112"}, "backbone 'light', key 'size': should be a whole number, not '112'"),
        ("backbones", "light", {"weights": "tim"}, "not 'tim' (did you mean 'timm'?)"),
        ("backbones", "light", {"weights": "weights/b0.pkl"}, "a path or URL ending in .safetensors, .pth, .pt"),
        (
            "backbones",
            "light",
            {"weights": "https://host/b0.pth"},
            "key 'weights': https://host/b0.pth: stores can lie",
        ),
        ("backbones", "light", {"weights": "s3://bucket/b0.pkl"}, "a path or URL ending in .safetensors, .pth, .pt"),
        ("backbones", "light", {"weights": "package:"}, "key 'weights': should be package:NAME"),
        ("backbones", "light", {"mean": [0.5, 0.5]}, "key 'mean': has the wrong number of values: [0.5, 0.5]"),
        ("backbones", "light", {"mean": 0.5}, "key 'mean': should be a list, not 0.5"),
        ("backbones", "light", {"std": [0.5, 0.5, 0]}, "key 'std[2]': should be greater than 0, not 0"),
        ("backbones", "light", {"std": [0.5, 0.5, "x"]}, "key 'std[2]': should be a number, not 'x'"),
        (
            "recipes",
            "pair",
            {"student": "ligt"},
            "recipe 'pair', key 'student': no backbone 'ligt' (did you mean 'light'?)",
        ),
        ("recipes", "pair", {"teacher": "heavyy"}, "recipe 'pair', key 'teacher': no backbone 'heavyy'"),
        ("recipes", "pair", {"lr": 0}, "key 'lr': should be greater than 0"),
        ("recipes", "pair", {"lr": "fast"}, "key 'lr': should be a number, not 'fast'"),
        ("recipes", "pair", {"milestones": [30, 15]}, "key 'milestones': should rise from one epoch to the next"),
        ("recipes", "pair", {"milestones": 15}, "key 'milestones': should be a list, not 15"),
        ("recipes", "pair", {"finetune": {"lr": 0}}, "key 'finetune.lr': should be greater than 0"),
        ("recipes", "pair", {"finetune": {"epochs": 3}}, "unknown key 'epochs' (did you mean"),
        ("recipes", "pair", {"finetune": {"scale": [1, 0.5]}}, "key 'scale' should be [smallest, largest]"),
        ("recipes", "pair", {"finetune": {"scale": [0, 1]}}, "key 'finetune.scale[0]': should be greater than 0"),
        ("recipes", "pair", {"finetune": {"batch_norm": "off"}}, "key 'finetune.batch_norm': should be"),
        ("recipes", "pair", {"epoch": 4}, "unknown key 'epoch' (did you mean 'epochs'?)"),
        ("sweeps", "short", {"rows": [{"models": ["teacer"]}]}, "key 'rows[0].models[0]'"),
        ("sweeps", "short", {"rows": [{"models": ["teacer"]}]}, "(did you mean 'teacher'?)"),
        ("sweeps", "short", {"rows": [{"models": []}]}, "key 'rows[0].models': has the wrong number of values: []"),
        ("sweeps", "short", {"rows": [{"models": ["teacher", "teacher"]}]}, "'models' lists the same value twice"),
        ("sweeps", "short", _row(frames=[[8]]), "key 'rows[0].frames[0]': has the wrong number of values: [8]"),
        ("sweeps", "short", _row(frames=[[8, 2, 1]]), "key 'rows[0].frames[0]': has the wrong number of values"),
        ("sweeps", "short", _row(frames=[8, 2]), "key 'rows[0].frames[0]': should be a list, not 8"),
        ("sweeps", "short", _row(frames=[[8, -1]]), "'rows[0].frames[0][1]': should be greater than or equal to 0"),
        ("sweeps", "short", _row(frames=[[8, 0]]), "dynamic cannot be measured at [8, 0], which is [n_s, n_t]"),
        ("sweeps", "short", _row(fusion=["all"]), "key 'rows[0].fusion[0]'"),
        ("sweeps", "short", _row(losses=["vid+kd"]), "key 'rows[0].losses[0]'"),
        ("sweeps", "short", {"rows": [{"models": ["teacher"], "losses": ["vid"]}]}, "only dynamic has loss sets"),
        ("sweeps", "short", {"rows": [{"models": ["teacher"], "frame": [[8, 2]]}]}, "(did you mean 'frames'?)"),
        ("sweeps", "short", {"rows": None}, "needs either rows or, to run other sweeps, include"),
        ("sweeps", "short", {"include": ["both"]}, "needs either rows or"),
        ("sweeps", "short", {"recipes": ["pai"]}, "key 'recipes': no recipe 'pai' (did you mean 'pair'?)"),
        ("sweeps", "both", {"include": ["shorts"]}, "key 'include': no sweep 'shorts' (did you mean 'short'?)"),
        ("sweeps", "both", {"include": ["both"]}, "must not include others"),
        ("sweeps", "both", {"seeds": 5}, "key 'seeds': the sweeps that it includes have their own"),
        ("sweeps", "short", _row(frames=[[10**24, 2]]), "should be less than or equal to 100000"),
        ("sweeps", "short", {"seeds": [2**40]}, "key 'seeds[0]': should be less than"),
        ("recipes", "pair", {"n_s": 999999999999}, "key 'n_s': should be less than or equal to 100000"),
        ("recipes", "pair", {"key_dim": 10**9}, "key 'key_dim': should be less than or equal to 65536"),
        ("recipes", "pair", {"epochs": 10**12}, "key 'epochs': should be less than or equal to 1000000"),
        ("recipes", "pair", {"batch_size": 10**12}, "key 'batch_size': should be less than or equal to 1000000000"),
        ("recipes", "pair", {"finetune": {"clips": 10**12}}, "key 'finetune.clips': should be less than or equal to"),
        ("backbones", "light", {"size": 100_000}, "key 'size': should be less than or equal to 4096"),
        ("datasets", "birds", {"shard_rows": 10**12}, "key 'shard_rows': should be less than or equal to"),
        ("datasets", "birds", {"clip_seconds": 1e-320}, "key 'clip_seconds': should be greater than or equal to"),
        ("clusters", "pool", {"processes": 10**6}, "key 'processes': should be less than or equal to 4096"),
        ("sweeps", "short", {"seeds": 0}, "key 'seeds': should be a number of seeds (1 to 1000)"),
        ("sweeps", "short", {"seeds": True}, "key 'seeds': should be a number of seeds"),
        ("sweeps", "short", {"seeds": [1, "2"]}, "key 'seeds[1]': should be a whole number, not '2'"),
        ("clusters", "pool", {"processes": 0}, "key 'processes': should be greater than or equal to 1"),
        ("clusters", "pool", {"processes": None}, "needs one of processes, address and cuda"),
        ("clusters", "pool", {"cuda": True}, "needs one of processes, address and cuda, not processes and cuda"),
        ("clusters", "pool", {"resources": {"GPU": 0}}, "key 'resources.GPU': should be greater than 0"),
        ("clusters", "pool", {"process": 2}, "unknown key 'process' (did you mean 'processes'?)"),
    ],
)
def test_wrong_entry(tmp_path: Path, section: str, name: str, changes: dict[str, object], expected: str) -> None:
    message = refused(load, tmp_path, section, name, **changes)
    assert message.startswith(f"{tmp_path / 'catalog.yaml'}: {section[:-1]} {name!r}")
    assert expected in message


def _bomb(form: str) -> str:
    """Eleven lines of nine aliases of the line before: 9^10 values."""
    lines = ["a0: &a0 {b: c}", *(f"a{n}: &a{n} " + form % ", ".join([f"*a{n - 1}"] * 9) for n in range(1, 11))]
    return "\n".join([*lines, "datasets: {x: *a10}"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "should be a mapping with the sections"),
        ("- a\n- b\n", "should be a mapping with the sections"),
        ("just text", "should be a mapping with the sections"),
        ("dataset: {}", "unknown section 'dataset' (did you mean 'datasets'?)"),
        ("5: {}", "unknown section 5"),
        ("datasets: [a]", "section 'datasets' should be a mapping of names to entries, not ['a']"),
        ("datasets: {a: }", "dataset 'a': should be a mapping of keys, not nothing"),
        ("datasets: {a: [1]}", "dataset 'a': should be a mapping of keys, not [1]"),
        ("datasets: {a/b: {root: x}}", "key 'name': should be letters, digits"),
        ("datasets: {..: {root: x}}", "key 'name': should be letters, digits"),
        ("datasets: {2020: {root: x}}", "key 'name': should be text, not 2020"),
        ("datasets:\n  a: {root: x}\n  b: {root: y}\n  a: {root: z}\n", ":4: the key 'a' is there twice"),
        ("datasets:\n  a:\n    root: x\n    root: y\n", ":4: the key 'root' is there twice"),
        ("datasets:\n  a: {root: x\n", ":3: "),
        ("datasets:\n\ta: 1\n", ":2: while scanning for the next token, found character '\\t'"),
        ("a: &x [*x]\n", "its aliases stand for more than 100,000 values"),
        (_bomb("[%s]"), "its aliases stand for more than 100,000 values"),
        (_bomb("{<<: [%s]}"), "its aliases stand for more than 100,000 values"),
        ("a: !!int ''", "not YAML"),
        ("a: !!timestamp x", "not YAML"),
        (f"? 0x{'f' * 5000}\n: 1", "unknown section a huge number"),
        (f"datasets:\n  ? 0x{'f' * 5000}\n  : {{root: x}}", "dataset a huge number"),
        (f"datasets: {{a: 0x{'f' * 5000}}}", "not a huge number"),
        ("a: b: c", ":1: mapping values are not allowed here"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("datasets: *nothing", "found undefined alias"),
        ("a: 1\n---\nb: 2\n", ":2: expected a single document in the stream, but found another document"),
        ("a: 2020-99-99", "not YAML"),
        ("a: \x01", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_wrong_file(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    message = refused(load_catalog, path)
    assert message.startswith(str(path))
    assert expected in message


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_bytes(b"datasets: {a: {root: \xff\xfe}}")
    assert refused(load_catalog, path) == f"{path}: is not UTF-8 text; save it as UTF-8"


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_bytes(b"\xef\xbb\xbfdatasets: {a: {root: x}}\r\n")
    assert list(load_catalog(path).datasets) == ["a"]


_YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    section=st.sampled_from(sorted(SMALL)),
    key=st.sampled_from(["root", "size", "weights", "frames", "lr", "annotations"]),
    value=_YAML_VALUES,
)
def test_any_value_is_accepted_or_refused_in_one_line(tmp_path: Path, section: str, key: str, value: object) -> None:
    try:
        load(tmp_path, section, next(iter(SMALL[section])), **{key: value})
    except UsageError as error:
        assert len(str(error).splitlines()) == 1


class TestLookUp:
    def test_found(self, tmp_path: Path) -> None:
        catalog = load(tmp_path, "datasets", "birds")
        assert catalog.dataset("birds").name == "birds"
        assert catalog.backbone(catalog.recipe("pair").student).model == "test_efficientnet"
        assert catalog.sweep("short").rows[0].frames == ((8, 2),)

    @pytest.mark.parametrize(
        ("kind", "name", "meant"),
        [
            ("dataset", "brids", "birds"),
            ("backbone", "heavi", "heavy"),
            ("recipe", "par", "pair"),
            ("sweep", "shor", "short"),
            ("cluster", "pol", "pool"),
        ],
    )
    def test_near_names(self, tmp_path: Path, kind: str, name: str, meant: str) -> None:
        message = refused(getattr(load(tmp_path, "datasets", "birds"), kind), name)
        assert message == f"{tmp_path / 'catalog.yaml'}: no {kind} {name!r} (did you mean {meant!r}?)"

    def test_root_is_looked_for_when_it_is_used(self, tmp_path: Path) -> None:
        spec = load(tmp_path, "datasets", "birds", note="from\nthe zoo").dataset("birds")
        message = refused(spec.require_root)
        assert message.startswith(f"{tmp_path / 'catalog.yaml'}: dataset 'birds', key 'root': no folder {spec.root};")
        assert message.endswith("(from the zoo)")
        spec.root.mkdir(parents=True)
        assert spec.require_root() == spec.root


class TestDatasetOrFolder:
    def test_name_wins_and_a_path_is_a_folder(self, tmp_path: Path) -> None:
        catalog = load(tmp_path, "datasets", "birds")
        (tmp_path / "birds").mkdir()
        assert catalog.dataset_or_folder("birds") is catalog.dataset("birds")
        assert catalog.dataset_or_folder("./birds").root == tmp_path / "birds"

    def test_root_of_an_entry_is_the_entry(self, tmp_path: Path) -> None:
        catalog = load(tmp_path, "datasets", "birds")
        catalog.dataset("birds").root.mkdir(parents=True)
        (tmp_path / "link").symlink_to(catalog.dataset("birds").root)
        assert catalog.dataset_or_folder("videos/birds") is catalog.dataset("birds")
        assert catalog.dataset_or_folder(tmp_path / "link") is catalog.dataset("birds")

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("brids", "no folder, and no dataset of"), ("file.txt", "a file, not a folder"), ("", "no dataset of")],
    )
    def test_neither(self, tmp_path: Path, name: str, expected: str) -> None:
        (tmp_path / "file.txt").touch()
        message = refused(load(tmp_path, "datasets", "birds").dataset_or_folder, name)
        assert expected in message
        assert "birds" in message

    def test_folder_that_cannot_be_looked_at(self, tmp_path: Path) -> None:
        assert "no folder" in refused(load(tmp_path, "datasets", "birds").dataset_or_folder, "x" * 300)


class TestCopies:
    def test_of_an_entry(self, tmp_path: Path) -> None:
        catalog = load(tmp_path, "datasets", "birds", min_clips=7)
        birds, copies = catalog.dataset("birds"), catalog.dataset_or_folder("birds:256p")
        assert (copies.name, copies.short_side, birds.short_side) == ("birds.256p", 256, None)
        assert copies.model_copy(update={"name": "birds", "short_side": None}) == birds == copies.original()
        assert birds.original() == birds
        assert catalog.copies_named("birds.256p") == copies
        for name in ("birds", "birds:256p", "birds.256", "birds.0256p", "beasts.256p", ".256p", "256p"):
            assert catalog.copies_named(name) is None

    def test_of_a_folder(self, tmp_path: Path) -> None:
        catalog = load(tmp_path, "datasets", "birds")
        folder = tmp_path / "my videos"
        folder.mkdir()
        copies = catalog.dataset_or_folder(f"{folder}:64p")
        assert copies.name == f"{folder_dataset(folder).name}.64p"
        assert copies.original() == folder_dataset(folder)
        catalog.dataset("birds").root.mkdir(parents=True)
        assert catalog.dataset_or_folder("./videos/birds:64p").name == "birds.64p"

    def test_a_folder_of_the_whole_name_wins(self, tmp_path: Path) -> None:
        catalog = load(tmp_path, "datasets", "birds")
        (tmp_path / "birds:256p").mkdir()
        assert catalog.dataset_or_folder("birds:256p").root == tmp_path / "birds:256p"

    @pytest.mark.parametrize(
        "name", ["birds:256", "birds:p", "birds:0p", "birds:-2p", "birds:2.5p", ":256p", "birds: 2p"]
    )
    def test_no_copies(self, tmp_path: Path, name: str) -> None:
        assert "no dataset of" in refused(load(tmp_path, "datasets", "birds").dataset_or_folder, name)

    def test_a_mistaken_name(self, tmp_path: Path) -> None:
        message = refused(load(tmp_path, "datasets", "birds").dataset_or_folder, "brids:256p")
        assert "'brids': no folder" in message
        assert "did you mean 'birds'" in message

    def test_a_name_that_is_taken(self, tmp_path: Path) -> None:
        document = {**SMALL, "datasets": {"birds": {"root": "x"}, "Birds.256P": {"root": "y"}}}
        catalog = load_catalog(write(tmp_path, yaml.safe_dump(document)))
        assert "the copies of 'birds' would have" in refused(catalog.dataset_or_folder, "birds:256p")
        assert catalog.dataset_or_folder("birds:128p").name == "birds.128p"
        assert catalog.copies_named("Birds.256P") is None


class TestFolderDataset:
    def test_same_folder_same_name(self, tmp_path: Path) -> None:
        folder = tmp_path / "My Videos (2)"
        folder.mkdir()
        spec = folder_dataset(Path("My Videos (2)"))
        assert spec == folder_dataset(folder) == folder_dataset(folder / ".." / folder.name)
        assert spec.root == folder
        assert spec.name.startswith("my-videos-2-")
        assert spec.place("root") == f"dataset {spec.name!r}, key 'root'"

    @pytest.mark.parametrize("name", ["..hidden", "été", "视频", "a" * 200, "-x", "UPPER", os.fsdecode(b"\xff\xfe")])
    def test_name_is_a_safe_folder_name(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        spec = folder_dataset(tmp_path / name)
        assert isinstance(spec, DatasetSpec)  # which checks the name
        assert len(spec.name) <= 50 and spec.name == spec.name.lower()

    def test_different_folders_different_names(self, tmp_path: Path) -> None:
        paths = [tmp_path / a / b for a in ("x", "y") for b in ("videos", "Videos", "vidéos")]
        for path in paths:
            path.mkdir(parents=True)
        assert len({folder_dataset(path).name for path in paths}) == len(paths)
