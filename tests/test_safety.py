"""Safe by construction: what is read cannot run code, and no name or link leads out of the folder it belongs in.

Elsewhere: label lines that are absolute or hold `..` (tests/pipeline/annotations), tampered checkpoints
(tests/heads/runs/test_checkpoint.py), pictures that are links (tests/pipeline/video/test_frame_folder.py), mutated
label files and catalogs (tests/pipeline/annotations/test_fuzz.py).
"""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from pydantic import ValidationError

from dynaprop.heads.report.chart import file_stem
from dynaprop.pipeline.annotations import Annotations, Video, read_annotations
from dynaprop.pipeline.backbones.feature_key import feature_key
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.decoders import read_frames
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.annotations.test_fuzz import FORMATS
from tests.pipeline.audit import audited
from tests.pipeline.stand_ins import CHANNELS, Content, StandInBackbone, StandInPool
from tests.pipeline.videos import write_video

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    file for folder in ("pipeline", "heads", "flows", "bench") for file in (REPOSITORY / folder).rglob("*.py")
)


# What the code may not do.

_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "cv2", "imageio"}
_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.save", "torch.jit.load"),
    *("np.load", "numpy.load", "pd.read_pickle", "pandas.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all"),
}
_LOADERS = {"yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader", "yaml.CLoader", "yaml.CUnsafeLoader"}
_DOORS = {  # the only files that open videos and pictures so
    "av.open": {
        *("pipeline/video/container.py", "pipeline/sample_dataset/generate.py", "pipeline/video/transcode.py"),
        *("bench/decode_readers.py", "bench/decode_videos.py", "bench/extraction_speed.py", "bench/transcode_speed.py"),
        "bench/altered_videos.py",
    },
    "decord.VideoReader": {"pipeline/video/decoders.py", "bench/decode_readers.py"},
    "Image.open": {"pipeline/video/frame_folder.py", "heads/report/timeline.py"},  # the latter thumbnails of our own
}


def dangers(source: str, name: str) -> Iterator[str]:
    """Yield what a file does that it may not do.

    Args:
        source: its code.
        name: its path below the repository.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"imports {module}" for module in modules if module.split(".")[0] in _MODULES)
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                yield from (f"imports {one}" for one in names & {*_CALLS, *_LOADERS, *_DOORS, "torch.load"})
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in _LOADERS:
            yield f"uses {ast.unparse(node)}"
        elif isinstance(node, ast.Constant) and node.value == "0.0.0.0":
            yield "names all of the machine's addresses"
        elif isinstance(node, ast.Call):
            yield from _dangerous_call(node, name)


def _dangerous_call(call: ast.Call, name: str) -> Iterator[str]:
    function = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if function in _CALLS or function.endswith((".to_pickle", ".read_pickle")):
        yield f"calls {function}"
    if name not in _DOORS.get(function, {name}):
        yield f"calls {function}, which is for {', '.join(sorted(_DOORS[function]))}"
    if function == "torch.load" and keywords.get("weights_only") != "True":
        yield "calls torch.load without weights_only=True"
    if "allow_pickle" in keywords or keywords.get("shell", "False") != "False":
        yield f"calls {function} with allow_pickle or shell"
    if function in ("flow", "task") and keywords.get("persist_result") != "False":
        yield f"a {function} without persist_result=False: Prefect would pickle what it returns if told to persist"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(REPOSITORY).as_posix())
def test_the_code_does_nothing_dangerous(file: Path) -> None:
    assert list(dangers(file.read_text(), file.relative_to(REPOSITORY).as_posix())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.savez(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "class L(yaml.Loader): pass",
        "from yaml import load",
        "subprocess.run(command, shell=True)",
        "os.system('ls')",
        "eval(text)",
        "frame.to_pickle(path)",
        "av.open(path)",
        "decord.VideoReader(path)",
        "serve(host='0.0.0.0')",
        "@task(name='x')\ndef f(): pass",
    ],
)
def test_what_is_dangerous_is_seen(source: str) -> None:
    assert len(list(dangers(source, "pipeline/new.py"))) == 1


def test_the_yaml_loader_is_a_safe_one() -> None:
    from yaml import SafeLoader

    from dynaprop.pipeline.catalog.parser import _Loader

    assert issubclass(_Loader, SafeLoader)


def test_prefects_server_listens_on_this_machine_alone() -> None:
    from prefect.settings import get_current_settings

    assert get_current_settings().server.api.host == "127.0.0.1"


# Names on the terminal.

_PRINTERS = {
    "flows/terminal/printing.py",
    "flows/terminal/interrupts.py",
}  # the latter at the very end, and only its own words
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def sinks(source: str, name: str) -> Iterator[str]:
    """Yield where a file writes to the terminal or into a log by other ways than `printing` and `printable`."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        function = ast.unparse(call.func)
        method = function.rpartition(".")[2]
        if name not in _PRINTERS and (
            function in ("print", "pprint", "os.write", "warnings.warn", "Console")
            or method in ("echo", "secho", "print_exc", "print_exception", "pprint")
            or (method == "print" and "." in function)
            or (method in ("write", "writelines") and re.search("stdout|stderr", function))
        ):
            yield f"line {call.lineno}: {function} prints; dynaprop.flows.terminal.printing does"
        if function in ("sys.exit", "SystemExit") and any(_is_text(part) for part in call.args):
            yield f"line {call.lineno}: {function} prints its text raw"
        is_log = method in _LEVELS and re.search("log", function.rpartition(".")[0], re.IGNORECASE) is not None
        if is_log and not all(_is_harmless(part) for part in call.args):
            yield f"line {call.lineno}: {function} of what is not printable(...)"


def _is_harmless(part: ast.expr) -> bool:
    return isinstance(part, ast.Constant) or (isinstance(part, ast.Call) and ast.unparse(part.func) == "printable")


def _is_text(part: ast.expr) -> bool:
    if isinstance(part, ast.JoinedStr):
        values = [value.value for value in part.values if isinstance(value, ast.FormattedValue)]
        return not all(_is_harmless(value) for value in values)
    return isinstance(part, ast.Constant) and isinstance(part.value, str)


@pytest.mark.parametrize(
    "file",
    [file for file in SOURCES if file.relative_to(REPOSITORY).parts[0] != "bench"],
    ids=lambda file: file.relative_to(REPOSITORY).as_posix(),
)
def test_one_place_prints(file: Path) -> None:
    assert list(sinks(file.read_text(), file.relative_to(REPOSITORY).as_posix())) == []


@pytest.mark.parametrize(
    "source",
    [
        "print(name)",
        "typer.echo(f'failed: {name}')",
        "click.secho(name)",
        "sys.stderr.write(name)",
        "sys.stdout.buffer.write(name)",
        "console.print(name)",
        "Console(width=160)",
        "traceback.print_exc()",
        "warnings.warn(name)",
        "sys.exit(f'error: {name}')",
        "log.info(name)",
        "get_run_logger().warning('failed: %s', name)",
        "logging.getLogger('x').error(f'failed: {name}')",
    ],
)
def test_what_prints_is_seen(source: str) -> None:
    assert len(list(sinks(source, "flows/new.py"))) == 1


# Text files.


def locale_readers(source: str) -> Iterator[str]:
    """Yield where texts are read or written in whatever encoding the locale has."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or any(keyword.arg == "encoding" for keyword in call.keywords):
            continue
        function = ast.unparse(call.func)
        options = [ast.unparse(part) for part in [*call.args, *(keyword.value for keyword in call.keywords)]]
        is_binary = any(re.fullmatch(r"'[rwaxb+]*b[rwaxb+]*'", option) for option in options)
        opens = function in ("open", "os.fdopen", "tempfile.NamedTemporaryFile") or re.search(
            r"(path|file|Path\(.*\))\.open$", function
        )
        if function.endswith((".read_text", ".write_text")) or (opens and not is_binary):
            yield f"line {call.lineno}: {function} without encoding"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(REPOSITORY).as_posix())
def test_texts_do_not_depend_on_the_locale(file: Path) -> None:
    assert list(locale_readers(file.read_text())) == []


@pytest.mark.parametrize(
    "source",
    ["path.read_text()", "path.write_text(x)", "open(x)", "open(x, 'w')", "Path(x).open('a')", "os.fdopen(1, 'w')"],
)
def test_what_depends_on_the_locale_is_seen(source: str) -> None:
    assert len(list(locale_readers(source))) == 1


# Videos.


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
    ],
)
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_playlist_that_took_a_videos_place_is_not_followed(tmp_path: Path, playlist: str, decoder: str) -> None:
    """The probe saw the video, the decoder finds a playlist that names another one."""
    other = write_video(tmp_path / "other.mp4", frames=30)
    (tmp_path / "video.mp4").write_text(playlist.format(path=other))
    request = FrameRequest(str(tmp_path / "video.mp4"), np.array([0, 5]), np.array([0.0, 0.5]), 0.0, False)
    with pytest.raises(VideoError, match="unreadable"):
        list(read_frames(request, decoder))


# Label files.

# A line of each format for a video `run/evil.mp4` or a folder `run/evil`.
_LINES = {
    "list": "run/{}.mp4 run\n",
    "mmaction2": "run/{}.mp4 1\n",
    "ucf101": "run/{}.mp4 2\n",
    "arnet-activitynet": "run/{},3,1\n",
    "arnet-mini-kinetics": "run/{} 3 1\n",
    "mmaction2-frames": "run/{} 3 1\n",
    "kinetics": "run,{},0,10,train\n",
    "hmdb51": "{}.mp4 1\n",
}


def dataset(folder: Path, name: str, video: str) -> DatasetSpec:
    """A dataset of a format whose list names one more video."""
    files, keys = FORMATS[name]
    labels = folder / "labels"
    labels.mkdir()
    for file, data in files.items():
        (labels / file).write_bytes(data)
    if name in _LINES:
        file = next(labels / file for file in ("train.txt", "train.csv", "run_test_split1.txt") if file in files)
        file.write_text(file.read_text() + _LINES[name].format(video))
    (folder / "root" / "run").mkdir(parents=True)
    (folder / "root" / "run" / "v_run_g01_c01.mp4").touch()
    return DatasetSpec.model_validate({"name": "x", "root": str(folder / "root"), "annotations": keys})


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "activitynet"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_out_of_the_root_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    """Of a listed video, of a folder of frames, or of a folder above them."""
    spec = dataset(tmp_path, name, "evil")
    outside = tmp_path / "outside"
    outside.mkdir()
    stem = "evil_000000_000010" if name == "kinetics" else "evil"
    (outside / f"{stem}.mp4").touch()
    (outside / "img_00001.jpg").touch()
    if kind == "file":
        (spec.root / "run" / f"{stem}.mp4").symlink_to(outside / f"{stem}.mp4")
    else:
        (spec.root / "run" / "evil").symlink_to(outside)
    if name == "list" and kind == "folder":  # it looks at no more than the listed files
        (tmp_path / "labels" / "train.txt").write_text("run/evil/evil.mp4 run\n")
    with pytest.raises(UsageError, match=r"this link leaves|does not lie inside"):
        read_annotations(spec)


@pytest.mark.parametrize("name", list(_LINES))
@pytest.mark.parametrize("video", ["../../outside/evil", "/etc/evil", "a/../../../evil", "evil/../../../x"])
def test_a_listed_path_does_not_leave_the_root(tmp_path: Path, name: str, video: str) -> None:
    spec = dataset(tmp_path, name, video)
    if name != "hmdb51" and name != "kinetics":
        file = tmp_path / "labels" / "train.txt"
        file.write_text(file.read_text().replace("run//", "/").replace("run/..", ".."))
    with pytest.raises(UsageError, match=r"does not lie inside|is no video id"):
        read_annotations(spec)


@pytest.mark.parametrize("video", ["../../outside/evil", "/etc/evil", "a/b", "nul\0", "\ud800", ""])
def test_an_id_of_activitynet_is_a_file_name(tmp_path: Path, video: str) -> None:
    import json

    database = json.loads(FORMATS["activitynet"][0]["videos.json"])
    database["database"][video] = database["database"]["x"]
    spec = dataset(tmp_path, "activitynet", "")
    (tmp_path / "labels" / "videos.json").write_text(json.dumps(database))
    with pytest.raises(UsageError, match="is no video id"):
        read_annotations(spec)


# Names that become folders and files.

_BAD_NAMES = ["", ".", "..", "a/b", "a\\b", "../a", "/a", "a\0", "a\n", "é", "-a", ".a", "a b", "x" * 101]


@pytest.mark.parametrize("name", _BAD_NAMES)
def test_a_dataset_is_named_like_a_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="folders are named after it"):
        DatasetSpec(name=name, root=tmp_path)


@pytest.mark.parametrize("model", [*_BAD_NAMES, "resnet18.a.b", "resnet18./../../x", "hf-hub:a/b"])
def test_a_model_is_named_like_a_folder(model: str) -> None:
    """The store's arrays and ledgers are named after it."""
    with pytest.raises(ValidationError, match="folders are named after it"):
        BackboneSpec(name="x", model=model, size=32, weights="random")


def test_a_tag_that_a_model_lacks_is_wrong_use() -> None:
    with pytest.raises(UsageError, match=r"backbone 'x': Invalid pretrained tag \(bogus\) for resnet18"):
        feature_key(backbone="x", model="resnet18.bogus", size=32, weights="random")


@pytest.mark.parametrize("section", ["datasets", "backbones", "recipes", "sweeps"])
def test_names_that_a_disk_may_not_tell_apart_are_refused(tmp_path: Path, section: str) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text(f"{section}: {{Birds: {{}}, other: {{}}, birds: {{}}}}")
    with pytest.raises(UsageError, match="'birds': differs from 'Birds' in upper and lower case only"):
        load_catalog(file)


def test_figures_of_two_sweeps_are_two_files() -> None:
    names = ["a", "a_", "a__", "a.", "a-b", "a_b", "a__b", "x" * 99 + "a", "x" * 99 + "b"]
    assert len({file_stem(name) for name in names}) == len(names)
    assert all(set(file_stem(name)).isdisjoint("/\\\0") for name in ("../x", "a/b", "\0", "..\\x"))


def test_ids_do_not_become_paths(tmp_path: Path) -> None:
    """Whatever ids are, an extraction writes below the home folder alone, and keeps them apart."""
    ids = ["../../evil", "/etc/evil", "a\nb", "\u00e9", "e\u0301", "A", "a", "x" * 300, "-rf", "con", "\u202e"]
    videos = []
    for serial, video_id in enumerate(sorted(ids)):
        path = tmp_path / f"{serial}.mp4"
        Content(serial, frames=3).write(path, time=serial)
        videos.append(Video(id=video_id, path=path))
    spec = DatasetSpec(name="x", root=tmp_path, min_clips=1)
    home = tmp_path / "home"
    written = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(Path(os.path.abspath(os.fsdecode(arguments[0]))))  # noqa: PTH100
        if event in ("os.rename", "os.link"):
            written.append(Path(os.path.abspath(os.fsdecode(arguments[1]))))  # noqa: PTH100

    with (
        mock.patch("dynaprop.pipeline.extract.dataset.DecodePool", lambda **_: StandInPool()),
        mock.patch("dynaprop.pipeline.backbones.timm_networks.channels", lambda *_: CHANNELS),
        mock.patch("dynaprop.pipeline.backbones.backbone.FrameBackbone", StandInBackbone),
        mock.patch("dynaprop.pipeline.backbones.timm_networks.gmacs_per_frame", lambda *_: 0.0),
        Extraction(
            dataset=spec,
            annotations=Annotations(videos=tuple(videos), class_names=()),
            backbones=[BackboneSpec(name="b", model="test_efficientnet", size=2, weights="random")],
            home=home,
            device="cpu",
        ) as work,
    ):
        with audited(note):
            for shard in work.plan(work.changes()).shards:
                work.extract_shard(shard)
        assert work.summary().usable == len(ids)
        (key,) = work.key_names.values()
        assert sorted(work.store.ledger(key).read()["video_id"]) == sorted(ids)
    assert written and all(path.is_relative_to(home) for path in written)
