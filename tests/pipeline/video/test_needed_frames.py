"""What is left out while decoding, and what is counted, where files are less simple than they seem."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from dynaprop.pipeline.video.container import VideoError, VideoFile
from dynaprop.pipeline.video.decoders import read_frames, resize_frame
from dynaprop.pipeline.video.entry_points import closed_groups, may_save
from dynaprop.pipeline.video.probe import probe_video
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.coded_frames import SIDE, encode, packet_places, read_number
from tests.pipeline.shown_frames import shown_frames
from tests.pipeline.two_descriptions import join
from tests.pipeline.videos import all_frames

B_FRAMES = {"bf": "2", "b_strategy": "0", "x264-params": "scenecut=0:b-pyramid=none"}


def numbers(path: Path, frames: list[int], decoder: str = "pyav") -> dict[int, int]:
    """The number that each of these frames carries, by its index."""
    wanted = FrameRequest.of_file(path, probe_video(path), np.array(frames))
    return {frames[clip]: read_number(resize_frame(frame, SIDE)) for clip, frame in read_frames(wanted, decoder)}


@pytest.mark.parametrize("frames", [[5, 100, 101, 102, 103], [4, *range(60, 68)], [0, 19, 20, 21, 119]])
def test_neighbours_at_the_beginning_of_a_later_group(tmp_path, frames):
    path = encode(tmp_path / "a.mp4", frames=120, options=B_FRAMES | {"g": "20"})
    with VideoFile(path) as video:
        assert may_save(video, [frame / 10 for frame in frames])
    assert numbers(path, frames) == {frame: frame for frame in frames}


@pytest.mark.parametrize("second", ["qp=30", "qp=20:chroma-qp-offset=9", "qp=20:no-cabac=1", "qp=20:tff=1"])
@pytest.mark.parametrize("frames", [[5, 55], [5, 45, 55], [25, 42], [15, 59]])
def test_a_track_that_goes_on_with_another_description(tmp_path, second, frames):
    """Its parameter sets come with one packet: whoever leaves that out decodes the rest with the old ones."""
    options = {"g": "10", "bf": "0"}
    one = encode(tmp_path / "1.mp4", frames=30, options=options | {"x264-params": "scenecut=0:qp=20"})
    two = encode(tmp_path / "2.mp4", frames=30, options=options | {"x264-params": f"scenecut=0:{second}"})
    path = join(one, two, tmp_path / "a.mp4")
    reference = all_frames(path)
    assert len(reference) == 60
    wanted = FrameRequest.of_file(path, probe_video(path), np.array(frames))
    found = dict(read_frames(wanted, "pyav"))
    assert sorted(found) == list(range(len(frames)))
    for clip, frame in found.items():
        np.testing.assert_array_equal(frame, reference[frames[clip]])
    with VideoFile(path) as video:
        assert len(closed_groups(video)) == 1


def test_lost_frames_of_a_cut_are_counted_nowhere(tmp_path):
    """Leading packets, one of them damaged, before the first key frame; then the same again, so that times repeat."""
    path = encode(tmp_path / "a.ts", frames=40, options={"g": "12", "bf": "0", "x264-params": "scenecut=0"})
    data = path.read_bytes()
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    cut = bytearray(data[places[3] :])
    slice_header = cut.find(b"\x00\x00\x01\x41", places[5] - places[3])
    cut[slice_header + 4 : slice_header + 8] = b"\x00\x00\x02\xff"
    path.write_bytes(cut + data)
    probe = probe_video(path)
    assert probe.estimated
    shown = [read_number(resize_frame(frame, SIDE)) for frame in shown_frames(path, 0).frames]
    found = numbers(path, list(range(probe.n_frames)))
    assert len(found) > 60
    assert all(shown[index] == number for index, number in found.items())


def damaged_b_frame(tmp_path: Path) -> Path:
    """The fourth frame that no other one is predicted from is damaged, in a group of 60."""
    path = encode(tmp_path / "a.mp4", frames=60, options=B_FRAMES | {"g": "60", "coder": "cavlc"})
    data = bytearray(path.read_bytes())
    free = [(place, size) for place, size in packet_places(path) if data[place + 4] & 0x60 == 0 and size > 30]
    place, size = free[3]
    data[place + 10 : place + size] = bytes(byte ^ 0xA5 for byte in data[place + 10 : place + size])
    path.write_bytes(data)
    return path


def test_damage_that_nothing_is_predicted_from_hurts_one_frame(tmp_path):
    path = damaged_b_frame(tmp_path)
    found = numbers(path, list(range(60)))
    assert len(found) == 59
    assert all(index == number for index, number in found.items())
    (lost,) = set(range(60)) - found.keys()
    few = [frame for frame in (0, 10, 20, 30, 40, 50) if frame != lost]
    assert numbers(path, few) == numbers(path, few, "full") == {frame: frame for frame in few}


def test_nothing_is_asked_for_and_more_than_there_is(tmp_path):
    path = encode(tmp_path / "a.mp4", frames=30)
    wanted = FrameRequest.of_file(path, probe_video(path), np.array([0, 5]))
    nothing = replace(wanted, frames=np.array([], int), timestamps=np.array([]))
    with pytest.raises(VideoError, match="missing_frames: none of 0 clips"):
        list(read_frames(nothing, "pyav"))
    beyond = replace(wanted, frames=np.array([0, 99]))
    with pytest.raises(VideoError, match="decode: decord"):
        list(read_frames(beyond, "decord"))
