"""The corpus of bad and odd videos: every file has its outcome, and no frame is another one than it claims to be."""

import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from dynaprop.heads.features.loaded import load_features
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.decoding.stream import DecodeOutcome
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.store import names as cached_module
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.names import open_store
from dynaprop.pipeline.store.verify import verify_key
from dynaprop.pipeline.video.decoders import resize_frame
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.coded_frames import SIDE, encode, read_number
from tests.pipeline.corpus import CASES, build_corpus
from tests.pipeline.videos import all_frames

EXPECTED = yaml.safe_load(Path(__file__).parents[1].joinpath("corpus.yaml").read_text(encoding="utf-8"))
MIN_CLIPS = 20
BACKBONES = (
    BackboneSpec(name="s", model="test_efficientnet", size=32, weights="random"),
    BackboneSpec(name="t", model="test_resnet", size=64, weights="random"),
)
LEAVE_THE_ROOT = ("device.mp4", "kernel-file.mp4")
ABSENT = ("pipe.mp4", "dangling-link.mp4", "link-to-itself.mp4")
NO_FILES = ("directory.mp4", *ABSENT)  # nothing to extract


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, Path]:
    return build_corpus(tmp_path_factory.mktemp("corpus") / "odd")


@pytest.fixture(scope="module")
def pool():
    with DecodePool(workers=1, deadline=5) as pool:
        yield pool


def test_the_table_is_about_the_corpus():
    assert EXPECTED.keys() == CASES.keys()
    assert len(CASES) >= 40


def decoded(pool: DecodePool, request: FrameRequest, decoder: str, name: str) -> tuple[dict[int, int], DecodeOutcome]:
    """The number that each clip's frame carries, and how decoding ended."""
    (stream,) = pool.decode([request], [SIDE], [decoder])
    numbers = {clip: read_number(frames[0], grey=CASES[name].grey) for clip, frames in stream}
    assert stream.outcome is not None
    assert stream.outcome.error is None
    return {clip: numbers[clip] for clip in numbers if clip not in stream.outcome.missing}, stream.outcome


@pytest.mark.parametrize("name", CASES)
def test_every_file_has_its_outcome(corpus, pool, name):
    """Within 10 seconds; the frames tell by themselves which ones they are."""
    expected, began = EXPECTED[name], time.monotonic()
    (probe,) = pool.probe([str(corpus[name])])
    if not isinstance(probe, Probe):
        assert (expected["outcome"], expected["kind"], "frames" in expected) == ("failed", probe.kind, False)
        return
    grid = clip_grid(probe.timestamps, probe.duration, min_clips=MIN_CLIPS)
    request = FrameRequest.of_file(corpus[name], probe, grid.frames)
    numbers, outcome = decoded(pool, request, probe.decoder, name)
    assert time.monotonic() - began <= 10
    assert len(numbers) + len(outcome.missing) == len(grid)
    for clip, number in numbers.items():
        shown = [index for seconds, index in CASES[name].shown if seconds <= grid.timestamps[clip] + 2e-3]
        assert number == shown[-1], f"clip {clip} at {grid.timestamps[clip]:.2f} s"
    assert outcome.decoder == "pyav"
    found = {"frames": probe.n_frames, "clips": len(numbers)}
    assert found == {key: expected[key] for key in found}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("rotation-90.mp4", (80, 48)),
        ("rotation-180.mp4", (80, 48)),
        ("rotation-270.mp4", (80, 48)),
        ("rotation-90-odd-size.mov", (63, 47)),
        ("anamorphic.mp4", (85, 48)),  # 64 pixels, each 4/3 as wide as high
        ("header-8k.mp4", (85, 48)),  # 64 x 48 shown in the shape of 7680 x 4320
    ],
)
def test_the_probe_says_how_large_a_video_is_shown(corpus, pool, name, size):
    (probe,) = pool.probe([str(corpus[name])])
    assert isinstance(probe, Probe)
    assert (probe.width, probe.height) == size


def test_no_playlist_is_followed(corpus, pool):
    """What they name is a pipe that nobody writes to: whoever opened it would hang until the deadline."""
    trap = corpus["m3u8.mp4"].parent.parent / "trap"
    assert trap.is_fifo()
    playlists = [corpus[name] for name in ("m3u8.mp4", "ffconcat.mp4", "dash.mp4")]
    assert all(str(trap) in path.read_text() for path in playlists)
    assert {probe.kind for probe in pool.probe(map(str, playlists))} == {"unreadable"}


def test_links_out_of_the_root_are_refused(corpus):
    for name in LEAVE_THE_ROOT:
        root = corpus[name].parent.parent / f"root-of-{name}"
        (root / "a").mkdir(parents=True)
        (root / "a" / name).symlink_to(corpus[name].readlink())
        with pytest.raises(UsageError, match="this link leaves the dataset's folder"):
            read_annotations(DatasetSpec(name="links", root=root))


class Extracted:
    """The corpus and three good videos, extracted in one go."""

    def __init__(self, root: Path, home: Path) -> None:
        self.good = [encode(root / "good" / f"{index}.mp4", frames=25 + index) for index in range(3)]
        vanished = encode(root / "odd" / "vanished.mp4")
        self.dataset = DatasetSpec(name="corpus", root=root, min_clips=MIN_CLIPS, max_clips=40, shard_rows=200)
        self.annotations = read_annotations(self.dataset)
        vanished.unlink()
        with Extraction(
            dataset=self.dataset,
            annotations=self.annotations,
            backbones=BACKBONES,
            home=home,
            device="cpu",
            workers=2,
            deadline=5,
        ) as work:
            self.clips: list[int] = []
            plan = work.plan(work.changes())
            for shard in plan.shards:
                work.extract_shard(shard, on_clips=self.clips.append)
            self.clips_to_do = plan.clips_to_do
            self.summary = work.summary()
        self.store: FeatureStore = open_store(self.dataset, home)
        self.keys = self.summary.keys


@pytest.fixture(scope="module")
def extracted(tmp_path_factory) -> Extracted:
    folder = tmp_path_factory.mktemp("extracted")
    (folder / "videos" / "good").mkdir(parents=True)
    for name, path in build_corpus(folder / "videos" / "odd").items():
        if name in LEAVE_THE_ROOT:
            path.unlink()
    return Extracted(folder / "videos", folder)


def test_every_bad_video_is_explained_and_the_others_are_used(extracted):
    expected = {f"odd/{name}": want for name, want in EXPECTED.items() if name not in LEAVE_THE_ROOT + NO_FILES}
    kinds = {video: want["kind"] for video, want in expected.items() if want["outcome"] == "failed"}
    found = {video: error.kind for video, error in extracted.summary.failed.items()}
    assert found == kinds | {"odd/vanished.mp4": "unreadable"}
    partial = {video for video, want in expected.items() if want["outcome"] == "partial"}
    assert {video: error.kind for video, error in extracted.summary.partial.items()} == dict.fromkeys(
        partial, "missing_frames"
    )
    assert set(extracted.summary.absent) == {f"odd/{name}" for name in ABSENT}
    assert extracted.summary.usable == len(expected) - len(kinds) + len(extracted.good)
    assert sum(extracted.clips) == extracted.clips_to_do
    for key in extracted.keys.values():
        table = extracted.store.ledger(key).read().set_index("video_id")
        for video, want in expected.items():
            if "frames" in want:
                row = table.loc[video]
                assert row["status"] == want["outcome"]
                assert row["n_clips"] + row["n_missing"] == min(MIN_CLIPS, want["frames"])
                assert want["outcome"] == "failed" or row["n_clips"] == len(row["timestamps"]) == want["clips"]
        assert verify_key(extracted.store, key).problems == ()


def test_good_videos_and_what_is_there_of_partial_ones_have_the_right_features(extracted):
    """Against the plain way: all frames of the undamaged video by PyAV, one resize, the model."""
    loaded = load_features(
        extracted.store,
        extracted.annotations.videos,
        class_names=extracted.annotations.class_names,
        student_key=extracted.keys["s"],
        teacher_key=extracted.keys["t"],
    )
    assert len(loaded.split) == extracted.summary.usable
    plain = extracted.dataset.root / "odd" / "plain.mp4"
    sources = {f"good/{path.name}": path for path in extracted.good}
    sources |= {f"odd/{name}": plain for name in ("zeroed-tail.mp4", "zeroed-head.mp4", "truncated-after-36.mp4")}
    for backbone, features in ((BACKBONES[0], loaded.split.student), (BACKBONES[1], loaded.split.teacher)):
        key, weights = cached_module.locate_backbone(backbone)
        network = FrameBackbone(key=key, weights=weights)
        for video, source in sources.items():
            index = loaded.split.video_ids.index(video)
            rows = slice(loaded.split.starts[index], loaded.split.starts[index] + loaded.split.n_clips[index])
            frames = all_frames(source)
            squares = [
                resize_frame(frames[round(seconds * 10)], backbone.size) for seconds in loaded.split.timestamps[rows]
            ]
            wanted = network.features(np.stack(squares))
            assert np.abs(features[rows].numpy() - wanted).max() <= 2e-3 * np.abs(wanted).max()


def test_min_share_decides_what_is_used(extracted, tmp_path):
    dataset = extracted.dataset.model_copy(update={"min_share": 0.9})
    names = ("flipped-in-a-few.mp4", "truncated-after-54.mp4", "plain.mp4")
    videos = tuple(video for video in extracted.annotations.videos if video.path.name in names)
    with Extraction(
        dataset=dataset,
        annotations=type(extracted.annotations)(videos=videos, class_names=extracted.annotations.class_names),
        backbones=BACKBONES[:1],
        home=tmp_path,
        device="cpu",
        workers=1,
    ) as work:
        for shard in work.plan(work.changes()).shards:
            work.extract_shard(shard)
        summary = work.summary()
    assert summary.failed.keys() == {"odd/flipped-in-a-few.mp4"}
    assert summary.failed["odd/flipped-in-a-few.mp4"].detail == (
        "3 of 20 clips cannot be decoded, first at 2.70 s; min_share is 0.9"
    )
    assert summary.partial.keys() == {"odd/truncated-after-54.mp4"}
    assert summary.partial["odd/truncated-after-54.mp4"].detail == (
        "the file holds 91.7% of the frames that it announces"
    )
