"""Probe and decode on real files, against PyAV reading every frame."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.video.container import VideoError, VideoFile
from dynaprop.pipeline.video.decoders import read_frames, resize_frame
from dynaprop.pipeline.video.intact_frames import decode_frames
from dynaprop.pipeline.video.probe import probe_video
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.coded_frames import encode, packet_places
from tests.pipeline.corpus import CASES
from tests.pipeline.videos import all_frames, write_video


def request(path: Path, min_clips: int = 8) -> tuple[FrameRequest, str]:
    probe = probe_video(path)
    grid = clip_grid(probe.timestamps, probe.duration, min_clips=min_clips)
    return FrameRequest.of_file(path, probe, grid.frames), probe.decoder


@pytest.mark.parametrize("decoder", ["pyav", "decord", "full"])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "12", "bf": "2"}),
        ("b.mkv", "libx264", {"g": "250"}),
        ("c.avi", "mpeg4", {"bf": "0"}),
        ("d.webm", "libvpx-vp9", {}),
    ],
)
def test_every_decoder_gives_the_frames_that_all_frames_give(tmp_path, decoder, name, codec, options):
    path = write_video(tmp_path / name, frames=50, codec=codec, options=options)
    wanted, own = request(path)
    assert own == "pyav"
    reference = all_frames(path)
    assert probe_video(path).n_frames == len(reference) == 50
    for (_, frame), index in zip(read_frames(wanted, decoder), wanted.frames, strict=True):
        np.testing.assert_array_equal(frame, reference[index])


def test_variable_frame_rate_goes_by_time(tmp_path):
    """30 frames at once, then one a second: clip i is the last frame at or before second i."""
    times = [10 * i for i in range(30)] + [1000 * i for i in range(1, 8)]
    path = write_video(tmp_path / "vfr.mkv", frames=len(times), fps=1000, times=times, options={"bf": "0"})
    wanted, _ = request(path, min_clips=1)
    np.testing.assert_allclose(wanted.timestamps, np.arange(7), atol=2e-3)  # the last frame is 10 ms long
    reference = all_frames(path)
    got = [frame for _, frame in read_frames(wanted, "pyav")]
    assert wanted.frames.tolist() == [0, *range(30, 36)]
    for frame, index in zip(got, wanted.frames, strict=True):
        np.testing.assert_array_equal(frame, reference[index])


def test_ut_interaction_is_read_as_pyav_presents_it(data_root):
    """XVID with packed B-frames: decord counts wrongly there, so the probe must count by decoding."""
    for path in sorted((data_root / "ut-interaction" / "videos").rglob("*.avi"))[::12]:
        wanted, decoder = request(path, min_clips=20)
        reference = all_frames(path)
        assert decoder == "pyav"
        assert wanted.estimated
        assert probe_video(path).n_frames == len(reference)
        for (_, frame), index in zip(read_frames(wanted, decoder), wanted.frames, strict=True):
            np.testing.assert_array_equal(frame, reference[index])


def test_weizmann_is_read_by_decord_as_by_pyav(data_root):
    for path in sorted((data_root / "weizmann").rglob("*.avi"))[::15]:
        wanted, _ = request(path, min_clips=20)
        for (_, ours), (_, theirs) in zip(read_frames(wanted, "decord"), read_frames(wanted, "pyav"), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_frame_that_is_not_there_is_named(tmp_path):
    wanted, _ = request(write_video(tmp_path / "a.mp4"))
    beyond = FrameRequest(**{**vars(wanted), "timestamps": wanted.timestamps + 100})
    with pytest.raises(VideoError) as caught:
        list(read_frames(beyond, "pyav"))
    assert caught.value.kind == "missing_frames"


def test_what_is_predicted_from_a_damaged_frame_is_not_shown(tmp_path):
    """A P-frame is damaged; the B-frames before it in time refer to it, and so does all up to the next key frame."""
    path = tmp_path / "a.mp4"
    CASES["zeroed-p-frame.mp4"].build(path)
    with VideoFile(path) as video:
        lost = [round(time * 10) for time, frame in decode_frames(video) if frame is None]
    assert lost == [*range(21, 30)]  # the packet is that of frame 24, after key frame 20; 30 is the next one


def test_frames_that_were_flushed_last_have_their_times(tmp_path):
    path = write_video(tmp_path / "a.mp4", options={"bf": "3"})
    with VideoFile(path) as video:
        times = [time for time, frame in decode_frames(video) if frame is not None]
    np.testing.assert_allclose(times, np.arange(30) / 10)


def test_damage_that_decord_conceals_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    CASES["flipped-in-a-few.mp4"].build(path)
    wanted, _ = request(path)
    with pytest.raises(VideoError, match="decord") as caught:
        list(read_frames(wanted, "decord"))
    assert caught.value.kind == "mismatch"


@pytest.mark.parametrize("decoder", ["pyav", "full", "decord"])
def test_a_frame_of_another_shape_than_the_probe_saw_is_refused(tmp_path, decoder):
    wanted, _ = request(encode(tmp_path / "a.mp4", size=(64, 48), rotation=90))
    assert wanted.size == (64, 48)
    with pytest.raises(VideoError, match=r"mismatch: the frame at 0\.00 s is 64 x 48 .* the probe saw 48 x 64"):
        list(read_frames(replace(wanted, size=(48, 64)), decoder))


def test_a_stream_may_go_on_in_another_size(tmp_path):
    path = tmp_path / "a.ts"
    CASES["concatenated.ts"].build(path)
    wanted, _ = request(path, min_clips=20)
    assert len({frame.shape for _, frame in read_frames(wanted, "pyav")}) == 2


def test_a_stream_that_the_probe_chose_and_that_is_gone_is_named(tmp_path):
    wanted, _ = request(write_video(tmp_path / "a.mp4"))
    with pytest.raises(VideoError, match="mismatch: stream 3, which the probe chose"):
        list(read_frames(replace(wanted, stream=3), "pyav"))


def test_frames_out_of_order_are_refused(tmp_path):
    """ASF has the times of decoding; whoever takes them for those of presentation is told."""
    path = encode(tmp_path / "a.asf", options={"bf": "2", "b_strategy": "0"})
    wanted, _ = request(path, min_clips=20)
    assert wanted.estimated
    with pytest.raises(VideoError, match="mismatch: frames do not come in the order of their times"):
        list(read_frames(replace(wanted, estimated=False), "pyav"))


@pytest.mark.parametrize("name", sorted(CASES))
def test_frames_that_nobody_needs_change_nothing(tmp_path, name):
    """Every file of the corpus, a few clips of each: what is left out is not missing anywhere."""
    path = tmp_path / "a" / Path(name).name
    path.parent.mkdir()
    CASES[name].build(path)
    try:
        wanted, decoder = request(path, min_clips=7)
        full = dict(read_frames(wanted, "full"))
    except VideoError:
        return
    found = dict(read_frames(wanted, decoder))
    assert full.keys() <= found.keys()
    for clip, frame in full.items():
        np.testing.assert_array_equal(found[clip], frame)


def test_a_file_that_may_not_be_read_is_unreadable(tmp_path, monkeypatch):
    """Not by its mode, as root may read everything."""
    path = write_video(tmp_path / "a.mp4")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(VideoError, match="Permission denied") as caught:
        probe_video(path)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_the_share_is_what_the_sample_table_announces_and_the_file_has(tmp_path, part):
    path = encode(tmp_path / "a.mp4", frames=100, form_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: sum(packet_places(path)[int(100 * part) - 1])])
    probe = probe_video(path)
    assert (probe.share, probe.n_frames, probe.decoder) == (pytest.approx(part), 100 * part, "pyav")


def test_real_videos_are_all_there(data_root):
    """XVID's packed B-frames make fewer frames than packets: nothing is missing for that."""
    videos = sorted((data_root / "ut-interaction" / "videos").rglob("*.avi"))
    videos += sorted((data_root / "weizmann").rglob("*.avi"))
    assert len(videos) == 210
    assert {probe_video(path).share for path in videos} == {1.0}


def test_resize_is_the_whole_frame_bicubic():
    frame = np.random.default_rng(0).integers(0, 255, (40, 70, 3), dtype=np.uint8)
    expected = Image.fromarray(frame).resize((112, 112), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize_frame(frame, 112), np.asarray(expected))


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", "unreadable"), (b"no video at all\n" * 100, "unreadable"), (None, "unreadable")]
)
def test_files_that_are_no_videos(tmp_path, content, kind):
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError) as caught:
        probe_video(path)
    assert caught.value.kind == kind


def test_a_playlist_under_a_videos_name_is_not_followed(tmp_path):
    """FFmpeg would open what the playlist names, whatever the file is called."""
    target = write_video(tmp_path / "private.mp4")
    for text in (f"ffconcat version 1.0\nfile {target}\n", f"#EXTM3U\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n"):
        disguised = tmp_path / "innocent.mp4"
        disguised.write_text(text)
        with pytest.raises(VideoError) as caught:
            probe_video(disguised)
        assert caught.value.kind == "unreadable"
