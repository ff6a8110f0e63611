"""The benchmarks measure what they say, on tiny videos and networks."""

import sys

import pytest

from bench.cache_speed import measure_store, measure_training
from bench.decode_readers import FOREIGN, OURS, READERS, compare, read_all
from bench.decode_speed import measure_decode, readme_table
from bench.extraction_speed import copy_videos, measure_extraction
from bench.forward_speed import measure_forward
from bench.growth import measure
from bench.manifest_size import ManifestSize, extrapolate, measure_manifest
from bench.plan import DatasetSize, plans
from bench.predict_speed import measure_predict
from bench.scale import fill, measure_tasks
from bench.shard_tasks import WARM_UP
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from tests.pipeline.videos import write_video

CLIPS = 20
BACKBONES = [
    BackboneSpec(name="s", model="test_efficientnet", size=32, weights="random"),
    BackboneSpec(name="t", model="test_resnet", size=48, weights="random"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where a copied dataset of four videos was extracted by the benchmark, with the dataset and what was measured."""
    folder = tmp_path_factory.mktemp("bench")
    for label in "ab":
        write_video(folder / "source" / label / "one.mp4", frames=40, seed=ord(label))
    copy_videos(DatasetSpec(name="source", root=folder / "source"), folder / "videos", 4)
    dataset = DatasetSpec(name="bench", root=folder / "videos", min_clips=CLIPS, max_clips=CLIPS, shard_rows=2 * CLIPS)
    told: list[str] = []
    speed = measure_extraction(
        dataset, BACKBONES, home=folder / "home", plain_videos=1, device="cpu", on_step=told.append
    )
    return folder / "home", dataset, speed, told


def test_extraction_is_compared_with_its_parts_and_the_plain_loop(home):
    _, dataset, speed, told = home
    assert sorted(path.name for path in dataset.root.rglob("*.mp4")) == ["0_one.mp4"] * 2 + ["1_one.mp4"] * 2
    assert (speed.clips, speed.shards) == (2 * CLIPS, 2)
    assert len(told) == 12
    parts = (speed.decode, speed.student, speed.teacher, speed.write, speed.extraction, speed.plain, speed.start)
    assert all(seconds > 0 for seconds in parts)
    forward = speed.student + speed.teacher
    assert speed.efficiency == pytest.approx((speed.decode + forward) / speed.extraction)


def test_training_from_store_memory_and_videos(home):
    folder, dataset, *_ = home
    speed = measure_training(dataset, BACKBONES, home=folder, repetitions=1, decoded_videos=2, device="cpu")
    assert speed.videos == 4
    assert 0 < speed.in_memory < speed.from_videos


def test_forward_in_other_ways(home):
    folder, dataset, *_ = home
    speed = measure_forward(dataset, BACKBONES, home=folder, repetitions=1, device="cpu")
    assert min(speed.torch, speed.half) > 0
    assert speed.precision == "bf16"
    assert 0.9 < speed.cosine < 1


def test_a_split_is_written_and_read(home):
    speed = measure_store(BACKBONES, shards=2, repetitions=1)
    assert speed.mebibytes == pytest.approx(2 * 2 * 25 * 80 * 1280 * 2 / 2**20)
    assert all(seconds > 0 for seconds in (speed.write, speed.write_memmap, speed.read, speed.read_memmap))


def test_bookkeeping_of_many_videos(capsys):
    point = measure(2000)
    assert (point.videos, point.shards) == (2000, 26)
    assert all(seconds > 0 for seconds in (point.plan, point.resume, point.verify, point.list))
    assert "synthetic" in capsys.readouterr().out


def test_shard_tasks_by_a_server_of_their_own():
    point = measure_tasks(20, 0.0)
    times, server = point.times, point.server
    assert (times.tasks, len(times.tenths)) == (20, 10)
    assert min(times.dask, times.prefect, times.median, *times.tenths) > 0
    assert times.overhead(times.prefect) == pytest.approx(1e3 * times.prefect / 20)
    assert (server.completed, server.missing) == (20 + WARM_UP, 0)
    assert (server.refused, server.locked, server.dropped, server.errors) == (0, 0, 0, 0)
    assert server.looks > 0 and server.mib > 0 and server.database_mib > 0


def test_a_plan_counts_and_packs_clips_as_an_extraction_does():
    plan = plans(DatasetSize("short", videos=100, hours=100 * 10 / 3600, equal=True))[0]
    assert (plan.clips, plan.shard_rows, plan.shards) == (100 * 25, 2048, 2)  # min_clips each, 81 videos a shard
    assert plan.gigabytes(2560) == pytest.approx(2 * 2048 * 2560 * 2 / 1e9), "shards are stored whole"
    longer = plans(DatasetSize("long", videos=3, hours=3.0, equal=True))[0]
    assert (longer.clips, longer.shards) == (3 * 1024, 2)  # max_clips each


def test_the_size_of_manifests():
    size = measure_manifest(200, 30)
    assert (size.videos, size.clips) == (200, 30)
    assert min(size.plan, size.plan_mib, size.load, size.load_mib) > 0
    sizes = [
        ManifestSize(videos, clips, videos * (1 + clips), 0, 0, 0) for videos, clips in ((10, 2), (50, 2), (50, 7))
    ]
    assert extrapolate(sizes, "plan", videos=90, clips=4) == pytest.approx(90 * (1 + 4))


def test_a_section_is_filled_between_its_markers(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("a\n<!-- b -->\nold\n<!-- /b -->\nc\n")
    fill(document, "b", ["new", "lines"])
    assert document.read_text() == "a\n<!-- b -->\nnew\nlines\n<!-- /b -->\nc\n"
    with pytest.raises(RuntimeError, match="0 sections 'd'"):
        fill(document, "d", [])


def test_predict_is_compared_with_the_work_that_it_cannot_spare(tmp_path):
    video = write_video(tmp_path / "video.mp4", frames=40)
    speed = measure_predict(video, (BACKBONES[0], BACKBONES[1]), n_s=4, n_t=1, repetitions=1)
    assert min(speed.predict, speed.decode, speed.forward) > 0
    assert speed.ratio == pytest.approx(speed.predict / (speed.decode + speed.forward))


def test_decoders_are_compared_on_the_same_frames(tmp_path):
    real = [write_video(tmp_path / "real.mp4", frames=60, fps=30)]
    speed = measure_decode(tmp_path / "videos", real, files=1, seconds=2, repetitions=1)
    assert [kind.ordinary for kind in speed.kinds] == [True] * 5 + [False] * 2
    for kind in speed.kinds:
        assert kind.wanted == min(25, 20 if "10 FPS" in kind.kind else 25)
        for name, times in kind.readers.items():
            assert (times.seconds is None) == bool(times.remark)
            if name not in FOREIGN:
                assert times.equal == kind.wanted or times.remark, (kind.kind, name)
        assert min(kind.readers[OURS].seconds, kind.readers["plain PyAV"].ratio) > 0
    lines = readme_table(speed).splitlines()
    assert len(lines) == 2 + len(speed.kinds)
    ratio = speed.kinds[0].readers["plain PyAV"].ratio
    assert f"| {ratio:.2f} x |" in lines[2]


def test_a_decoder_that_is_wrong_or_absent_is_seen_to_be(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setitem(READERS, "decord", lambda request: [(clip, frame + 1) for clip, frame in read_all(request)])
    wanted, readers = compare([str(write_video(tmp_path / "video.mp4", frames=40))], repetitions=1)
    assert (wanted, readers["decord"].equal, readers[OURS].equal) == (25, 0, 25)
    assert readers["decord"].ratio > 0, "it is timed all the same"
    assert (readers["torchcodec"].seconds, readers["torchcodec"].remark) == (None, "not installed")
