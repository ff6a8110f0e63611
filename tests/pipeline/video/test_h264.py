"""What H.264's own bits say, against what encoders were told to make."""

import time
from pathlib import Path

import numpy as np
import pytest

from dynaprop.pipeline.video.container import VideoFile
from dynaprop.pipeline.video.entry_points import closed_groups, may_save
from dynaprop.pipeline.video.h264 import DISPOSABLE, INDEPENDENT, H264Stream
from tests.pipeline.coded_frames import encode
from tests.pipeline.corpus import OPEN_GOP

CLOSED = {"bf": "2", "g": "10", "x264-params": "scenecut=0"}


def seen(path: Path) -> tuple[H264Stream, list[int]]:
    """The stream after all packets, and the numbers of those that hold an IDR picture."""
    with VideoFile(path) as video:
        h264 = H264Stream(video.stream.codec_context.extradata)
        return h264, [n for n, packet in enumerate(video.packets()) if h264.look(packet) == INDEPENDENT]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".h264"])
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("libx264", "yuv420p", {"profile": "baseline"}),
        ("libx264", "yuv420p", {"profile": "high", "preset": "slow"}),
        ("libx264", "yuv422p10le", {}),
        ("libx264", "yuv444p", {}),
        ("libx264", "gray", {}),
        ("libx264", "yuv420p", {"x264-params": "cqm=jvt"}),  # scaling lists
    ],
)
def test_frames_alone_are_known_as_such(tmp_path, suffix, codec, pix_fmt, options):
    path = encode(
        tmp_path / f"a{suffix}",
        frames=21,
        codec=codec,
        pix_fmt=pix_fmt,
        options={"g": "10", "sc_threshold": "0"} | options,
    )
    h264, entries = seen(path)
    assert h264.progressive
    assert entries == [0, 10, 20]
    assert h264.steady or suffix == ".ts"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_where_fields_may_come_is_known(tmp_path, suffix, data_root):
    assert not seen(encode(tmp_path / f"a{suffix}", options={"x264-params": "tff=1"}))[0].progressive
    assert not seen(data_root / "odd-videos" / "paff-field.mkv")[0].progressive


def test_orientation_in_the_bitstream_is_seen(data_root, tmp_path):
    assert seen(data_root / "odd-videos" / "sei90.mp4")[0].oriented
    assert not seen(data_root / "odd-videos" / "vflip.mp4")[0].oriented
    assert not seen(encode(tmp_path / "a.mp4"))[0].oriented


def test_nonsense_is_no_picture():
    empty_set = bytes([1, 0x4D, 0x40, 0x0A, 0xFF, 0xE1, 0, 0, 1, 0, 0])
    for extradata in (None, b"", b"\x01", b"\x01\x4d\x40\x0a\xff\xe1\xff\xff", empty_set, bytes(40)):
        h264 = H264Stream(extradata)
        assert not h264.progressive
        for packet in (b"", bytes(50), b"\xff" * 50, b"\x00\x00\x01", b"\x00\x00\x01\x67\x00"):
            assert h264.look(packet) is None


def test_endless_numbers_are_given_up_at_once():
    """Time that grows with the square of a made-up set's length would be a way to stop a decode child."""
    began = time.process_time()
    zeros, ones = bytes(10**6) + b"\x01", b"\xff" * 10**6
    for unit in (b"\x67\x4d\x40\x0a" + zeros, b"\x06" + ones, b"\x01" + zeros):
        H264Stream(None).look(b"\x00\x00\x01" + unit)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("options", "disposable"),
    [
        ({"bf": "2", "b_strategy": "0", "x264-params": "b-pyramid=none:scenecut=0"}, {1, 2}),  # of each three
        ({"bf": "3", "b_strategy": "0", "x264-params": "b-pyramid=strict:scenecut=0"}, {1, 3}),  # of each four
        ({"bf": "0"}, set()),
    ],
)
def test_disposable_are_the_frames_that_the_encoder_predicted_nothing_from(tmp_path, options, disposable):
    path = encode(tmp_path / "a.mp4", frames=25, options={"g": "250"} | options)
    with VideoFile(path) as video:
        h264 = H264Stream(video.stream.codec_context.extradata)
        found = {
            round(packet.pts * video.time_base * 10) for packet in video.packets() if h264.look(packet) == DISPOSABLE
        }
    period = int(options["bf"]) + 1
    assert found == {frame for frame in range(24) if frame % period in disposable}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("options", "entries"),
    [
        (CLOSED, [0, 10, 20, 30, 40, 50]),
        (OPEN_GOP | {"g": "10"}, [0]),
        ({"g": "60"}, [0]),
        ({"g": "10", "x264-params": "intra-refresh=1"}, [0]),
        (CLOSED | {"x264-params": "tff=1"}, [0]),
    ],
)
def test_groups_begin_where_nothing_before_is_needed(tmp_path, suffix, options, entries):
    path = encode(tmp_path / f"a{suffix}", options=options)
    with VideoFile(path) as video:
        groups = closed_groups(video)
    assert [group.packet for group in groups] == entries
    np.testing.assert_allclose([group.time for group in groups][1:], np.array(entries[1:]) / 10, atol=0.09)


def test_groups_are_looked_for_where_there_may_be_some(tmp_path):
    with VideoFile(encode(tmp_path / "a.mp4", options={"g": "10"})) as video:
        assert [may_save(video, [0.0, last]) for last in (0.3, 0.9, 1.0, 5.9)] == [False, False, True, True]
    for other in (encode(tmp_path / "b.mp4", options={"g": "60"}), encode(tmp_path / "c.mp4", codec="mpeg4")):
        with VideoFile(other) as video:
            assert not may_save(video, [0.0, 5.9])
