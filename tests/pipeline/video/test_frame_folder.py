"""Folders of pictures as videos: what is read, against the video that they were taken from, and what is refused."""

import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.decoders import read_frames, resize_frame
from dynaprop.pipeline.video.frame_folder import FrameFolder, picture_format, read_picture
from dynaprop.pipeline.video.identity import folder_identity
from dynaprop.pipeline.video.probe import Probe, probe_frame_folder, probe_video
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.videos import all_frames

FRAMES = FrameFolder(template="image_{:05d}.png", first=1, fps=10.0)


def write_frames(folder: Path, frames: FrameFolder, pictures: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / frames.name(frames.first + index))
    return folder


def grey(count: int, size: tuple[int, int] = (24, 16)) -> list[np.ndarray]:
    """Pictures whose grey level tells their index."""
    return [np.full((size[1], size[0], 3), 3 * index, np.uint8) for index in range(count)]


def request(folder: Path, frames: FrameFolder) -> FrameRequest:
    probe = probe_frame_folder(folder, frames)
    grid = clip_grid(probe.timestamps, probe.duration, min_clips=8)
    return FrameRequest(str(folder), grid.frames, grid.timestamps, 0.0, True, frames)


def refused(folder: Path, frames: FrameFolder) -> tuple[str, str]:
    with pytest.raises(VideoError) as caught:
        probe_frame_folder(folder, frames)
    return caught.value.kind, caught.value.detail


def test_probe(tmp_path):
    write_frames(tmp_path, FRAMES, grey(25))
    for other in ("image_00026.jpg", "image_26.png", "image_00000.png", "notes.txt", "image_٠٠٠٢٦.png"):
        (tmp_path / other).write_bytes(b"")
    probe = probe_frame_folder(tmp_path, FRAMES)
    np.testing.assert_array_equal(probe.timestamps, np.arange(25) / 10)
    assert (probe.start, probe.duration, probe.estimated) == (0.0, 2.5, True)
    assert (probe.width, probe.height, probe.codec, probe.container, probe.decoder) == (
        24,
        16,
        "png",
        "frames",
        "frames",
    )


def test_the_wanted_pictures_and_no_others_are_read(tmp_path):
    write_frames(tmp_path, FRAMES, grey(25))
    wanted = request(tmp_path, FRAMES)
    for number in {*range(25)} - {*wanted.frames.tolist()}:
        (tmp_path / FRAMES.name(number + 1)).write_bytes(b"not opened")
    steps = []
    got = [frame for _, frame in read_frames(wanted, "frames", on_frame=lambda: steps.append(1))]
    assert [frame[0, 0, 0] for frame in got] == [3 * index for index in wanted.frames]
    assert len(steps) == len(got) == 8


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{:05d}.jpg", ["00001.jpg", "00002.jpg"]),
        ("{}.jpg", ["1.jpg", "2.jpg"]),
        ("v 1 {0:03}", ["v 1 001", "v 1 002"]),
        ("img_{:02d}_.png", ["img_01_.png", "img_02_.png"]),
    ],
)
def test_names(template, names):
    frames = FrameFolder(template=template, first=1, fps=25)
    assert [frames.name(number) for number in (1, 2)] == names
    assert [frames.number(name) for name in names] == [1, 2]
    assert [frames.number(name) for name in ("0" + names[0], names[0] + "x", "", ".jpg", names[0][1:])] == [None] * 5


def test_numbers_may_outgrow_their_digits():
    assert FrameFolder(template="{:02d}.jpg", first=0, fps=1).number("100.jpg") == 100


@pytest.mark.parametrize(
    "template",
    [
        "image.jpg",
        "{:05d}/{:05d}.jpg",
        "a/{:05d}.jpg",
        "{:999999999d}.jpg",
        "{:x}.jpg",
        "{0.real}.jpg",
        "{!r}",
        "{",
        "",
    ],
)
def test_templates_that_are_none(template):
    with pytest.raises(ValueError, match=r"one number in it|write the number as"):
        FrameFolder(template=template, first=1, fps=25)


@pytest.mark.parametrize("figures", [{"fps": 0}, {"fps": float("nan")}, {"first": -1}, {"n_frames": -1}])
def test_figures_that_make_no_sense(figures):
    with pytest.raises(ValueError, match="should"):
        replace(FRAMES, **figures)


class TestCount:
    """What is missing keeps its place; the times of the others are their numbers."""

    @pytest.mark.parametrize(
        ("missing", "announced", "note"),
        [
            ([4, 7], None, "image_00004.png is missing, 7 of 9 are there"),
            ([4, 7], 9, "image_00004.png is missing, 7 of 9 are there"),
            ([1], 9, "image_00001.png is missing, 8 of 9 are there"),
            ([1], None, "image_00001.png is missing, 8 of 9 are there"),
            ([9], 9, "image_00009.png is missing, 8 of 9 are there"),
            ([], 12, "image_00010.png is missing, 9 of 12 are there"),
        ],
    )
    def test_a_gap_is_named_and_nothing_moves(self, tmp_path, missing, announced, note):
        write_frames(tmp_path, FRAMES, grey(9))
        for number in missing:
            (tmp_path / FRAMES.name(number)).unlink()
        probe = probe_frame_folder(tmp_path, replace(FRAMES, n_frames=announced))
        expected = announced or 9
        np.testing.assert_array_equal(probe.timestamps, np.arange(expected) / 10)
        assert (probe.duration, probe.note) == (expected / 10, note)
        assert probe.share == pytest.approx((9 - len(missing)) / expected)

    def test_next_to_none_of_what_is_announced(self, tmp_path):
        """No list decides how much memory is taken."""
        write_frames(tmp_path, FRAMES, grey(9))
        kind, detail = refused(tmp_path, replace(FRAMES, n_frames=10**9))
        assert (kind, detail) == ("missing_frames", "image_00010.png is missing, 9 of 1000000000 are there")
        Image.fromarray(grey(1)[0]).save(tmp_path / "image_123456789.png")
        assert refused(tmp_path, FRAMES)[0] == "missing_frames"

    def test_more_than_announced_are_not_used(self, tmp_path):
        """Published results on a list are results on the frames that it announces."""
        write_frames(tmp_path, FRAMES, grey(9))
        (tmp_path / "image_00008.png").unlink()  # behind the last announced one: no gap
        probe = probe_frame_folder(tmp_path, replace(FRAMES, n_frames=6))
        assert (probe.n_frames, probe.share, probe.note) == (6, 1.0, "")

    def test_nothing_there(self, tmp_path):
        assert refused(tmp_path, FRAMES) == ("no_frames", "no picture image_00001.png or later in the folder")
        assert refused(tmp_path / "gone", FRAMES)[0] == "unreadable"
        (tmp_path / "file").touch()
        assert refused(tmp_path / "file", FRAMES)[0] == "unreadable"

    @pytest.mark.parametrize(("on_disk", "first"), [(0, 1), (1, 0)])
    @pytest.mark.parametrize("hole", [None, 5])
    def test_numbered_from_another_number_than_first(self, tmp_path, on_disk, first, hole):
        """Each picture would be taken for its neighbour."""
        frames = replace(FRAMES, first=first, n_frames=9)
        write_frames(tmp_path, replace(FRAMES, first=on_disk), grey(9))
        if hole:
            (tmp_path / FRAMES.name(hole)).unlink()
        kind, detail = refused(tmp_path, frames)
        assert kind == "missing_frames"
        lacking, there = ("image_00009.png", "image_00000.png") if first else ("image_00000.png", "image_00009.png")
        assert detail == (
            f"{lacking} is missing and {there} is there: are the pictures numbered from {on_disk}? "
            f"then write `first: {on_disk}`"
        )
        assert probe_frame_folder(tmp_path, replace(frames, first=on_disk)).n_frames == 9

    def test_a_picture_0_beside_all_that_count_is_noted(self, tmp_path):
        write_frames(tmp_path, replace(FRAMES, first=0), grey(10))
        probe = probe_frame_folder(tmp_path, replace(FRAMES, n_frames=9))
        assert probe.share == 1
        assert probe.note == "image_00000.png is there, too, before the first one that counts (`first: 1`)"

    def test_the_first_pictures_may_be_broken(self, tmp_path):
        write_frames(tmp_path, FRAMES, grey(9))
        (tmp_path / "image_00001.png").write_bytes(b"")
        (tmp_path / "image_00002.png").write_bytes(b"<svg/>")
        probe = probe_frame_folder(tmp_path, FRAMES)
        assert (probe.n_frames, probe.codec, probe.width, probe.height) == (9, "png", 24, 16)
        for path in tmp_path.iterdir():
            path.write_bytes(b"")
        assert refused(tmp_path, FRAMES)[0] == "unreadable"


class TestPictures:
    def test_formats_and_modes(self, tmp_path):
        red = Image.new("RGB", (8, 6), (204, 0, 0))
        red.save(tmp_path / "a.bmp")
        red.convert("RGBA").save(tmp_path / "a.png")
        red.convert("P").save(tmp_path / "p.png")
        red.save(tmp_path / "a.webp", lossless=True)
        red.save(tmp_path / "a.jpg", quality=100)
        red.convert("CMYK").save(tmp_path / "c.jpg", quality=100)
        for name in ("a.bmp", "a.png", "p.png", "a.webp", "a.jpg", "c.jpg"):
            picture = read_picture(tmp_path, name)
            assert (picture.shape, picture.dtype) == ((6, 8, 3), np.uint8)
            assert np.abs(picture.astype(int) - (204, 0, 0)).max() <= 6, name

    def test_exif_orientation_is_applied(self, tmp_path):
        """As a video's display matrix is; the ledger's width and height are those of what is shown."""
        pixels = np.zeros((4, 8, 3), np.uint8)
        pixels[:, :4] = 255
        exif = Image.Exif()
        exif[0x0112] = 6  # the top of the scene is on the right: turn clockwise
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(read_picture(tmp_path, "a.png"), np.rot90(pixels, -1))
        assert picture_format(tmp_path, "a.png") == ("png", 4, 8)

    def test_other_sizes_are_resized_like_the_first(self, tmp_path):
        write_frames(tmp_path, FRAMES, [*grey(8), *grey(1, (50, 40))])
        wanted = request(tmp_path, replace(FRAMES, fps=1))
        shapes = [frame.shape for _, frame in read_frames(wanted, "frames")]
        assert shapes == [(16, 24, 3)] * 8 + [(40, 50, 3)]

    @pytest.mark.parametrize("content", [b"", b"<svg/>", b"GIF89a\x01\0\x01\0\0\0\0;", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
    def test_only_formats_of_frames_are_opened(self, tmp_path, content):
        """Pillow would run Ghostscript for an EPS."""
        (tmp_path / "image_00001.png").write_bytes(content)
        assert refused(tmp_path, FRAMES)[0] == "unreadable"

    def test_a_decompression_bomb(self, tmp_path):
        """A few bytes that say they are 30,000 x 30,000 pixels, and so many that Pillow alone would not mind."""
        for side in (30000, 8500):
            (tmp_path / "image_00001.png").write_bytes(empty_png(side))
            kind, detail = refused(tmp_path, FRAMES)
            assert kind == "decode"
            assert detail.startswith("image_00001.png")

    def test_16_bits_a_channel(self, tmp_path):
        """Pillow would cut all above 255."""
        Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "image_00001.png")
        assert refused(tmp_path, FRAMES)[0] == "decode"

    def test_a_truncated_picture(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
        for name in ("a.png", "a.jpg"):
            Image.fromarray(noise).save(tmp_path / name)
            data = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(data[: len(data) // 2])
            with pytest.raises(VideoError) as caught:
                read_picture(tmp_path, name)
            assert caught.value.kind == "decode"
            assert caught.value.detail.startswith(name)

    def test_links_stay_inside_the_folder(self, tmp_path):
        write_frames(tmp_path / "secret", FRAMES, grey(1))
        write_frames(tmp_path / "video", FRAMES, grey(1))
        (tmp_path / "video" / "image_00002.png").symlink_to("image_00001.png")
        assert read_picture(tmp_path / "video", "image_00002.png").shape == (16, 24, 3)
        (tmp_path / "video" / "image_00003.png").symlink_to(tmp_path / "secret" / "image_00001.png")
        with pytest.raises(VideoError, match=r"unreadable: image_00003\.png is no file of this folder"):
            read_picture(tmp_path / "video", "image_00003.png")
        (tmp_path / "video" / "image_00004.png").symlink_to("gone.png")
        with pytest.raises(VideoError, match=r"missing_frames: image_00004\.png is missing"):
            read_picture(tmp_path / "video", "image_00004.png")

    def test_what_is_no_file_is_not_opened(self, tmp_path):
        """Opening a pipe would wait for ever, in the parent too, which identifies the folder."""
        os.mkfifo(tmp_path / "image_00001.png")
        assert refused(tmp_path, FRAMES)[0] == "unreadable"
        assert folder_identity(tmp_path, FRAMES, [0]).size == 0


def empty_png(side: int) -> bytes:
    """The header of a PNG of so many pixels a side, and no pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + data + struct.pack(">I", 0) + end + struct.pack(">I", zlib.crc32(end))


class TestIdentity:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        return write_frames(tmp_path / "v", FRAMES, grey(6))

    def test_it_changes_with_what_is_seen(self, folder):
        seen = [folder_identity(folder, FRAMES, [0, 5, 8])]

        def changed() -> bool:
            now = folder_identity(folder, FRAMES, [0, 5, 8])
            seen.append(now)
            return now.content not in [identity.content for identity in seen[:-1]] and now.stamp != seen[-2].stamp

        Image.fromarray(grey(7)[6]).save(folder / "image_00007.png")
        assert changed(), "added"
        (folder / "image_00003.png").unlink()
        assert changed(), "removed"
        (folder / "image_00007.png").rename(folder / "image_00009.png")
        assert changed(), "renamed"
        for name in ("image_00001.png", "image_00009.png"):
            Image.new("RGB", (5, 5), (1, 2, 3)).save(folder / name)
            os.utime(folder / name, ns=(1, 1))  # replaced by an older one
            assert changed(), name

    def test_it_does_not_change_with_times_or_files_that_are_not_used(self, folder):
        before = folder_identity(folder, FRAMES, [0, 5]).content
        (folder / "thumbs.db").touch()
        (folder / "image_00001.png").touch()
        (folder / "image_00003.png").write_bytes(b"shown by no clip")
        assert folder_identity(folder, FRAMES, [0, 5]).content == before
        announced = replace(FRAMES, n_frames=6)
        Image.fromarray(grey(7)[6]).save(folder / "image_00007.png")
        assert folder_identity(folder, announced, [0, 5]).content == before

    def test_only_what_is_used_is_opened_and_looked_up(self, folder, monkeypatch):
        looked_up, stat = set(), os.stat

        def spy(path, **options):
            looked_up.add(Path(path).name)
            return stat(path, **options)

        monkeypatch.setattr(os, "stat", spy)
        folder_identity(folder, FRAMES, [0, 3])
        assert {name for name in looked_up if name.endswith("png")} == {"image_00001.png", "image_00004.png"}


def test_a_child_reads_folders_and_files_alike(tmp_path):
    write_frames(tmp_path / "good", FRAMES, grey(25))
    write_frames(tmp_path / "gap", FRAMES, grey(25))
    wanted, spoilt = (request(tmp_path / name, FRAMES) for name in ("good", "gap"))
    (tmp_path / "gap" / FRAMES.name(int(spoilt.frames[2]) + 1)).unlink()
    with DecodePool(workers=1, deadline=20) as pool:
        probe, holed, no_video = pool.probe(
            [str(tmp_path / "good"), str(tmp_path / "gap"), str(tmp_path / "good")], [FRAMES, FRAMES, None]
        )
        assert isinstance(probe, Probe) and isinstance(holed, Probe)
        assert (probe.n_frames, probe.share, holed.n_frames, holed.share) == (25, 1, 25, 24 / 25)
        assert isinstance(no_video, VideoError)
        assert no_video.kind == "unreadable"
        good, gap = pool.decode([wanted, spoilt], [16], ["frames", "frames"])
        pictures = [resize_frame(frame, 16) for _, frame in read_frames(wanted, "frames")]
        np.testing.assert_array_equal([frames[0] for _, frames in good], pictures)
        assert (good.outcome.decoder, good.outcome.attempts, good.outcome.error) == ("frames", 1, None)
        assert [clip for clip, _ in gap] == [0, 1, *range(3, len(spoilt.frames))]
        assert (gap.outcome.decoder, gap.outcome.attempts, gap.outcome.error) == ("frames", 1, None)
        assert gap.outcome.missing == (2,)


def test_a_broken_picture_is_passed_over_and_none_at_all_is_an_error(tmp_path):
    write_frames(tmp_path, FRAMES, grey(25))
    wanted = request(tmp_path, FRAMES)
    pictures = [tmp_path / FRAMES.name(int(index) + 1) for index in wanted.frames]
    pictures[1].write_bytes(pictures[1].read_bytes()[:60])
    with DecodePool(workers=1, deadline=20) as pool:
        (stream,) = pool.decode([wanted], [16], ["frames"])
        assert [clip for clip, _ in stream] == [0, *range(2, len(wanted.frames))]
        assert (stream.outcome.error, stream.outcome.missing) == (None, (1,))
        for picture in pictures:
            picture.write_bytes(picture.read_bytes()[:50])
        (stream,) = pool.decode([wanted], [16], ["frames"])
        assert list(stream) == []
    assert (stream.outcome.decoder, stream.outcome.attempts, stream.outcome.error.kind) == ("frames", 2, "decode")


def test_a_real_video_and_its_frames_give_the_same_features(data_root, tmp_path):
    """One UT-Interaction clip as AVI and as the PNGs that PyAV makes of it, through the whole extraction."""
    source = sorted((data_root / "ut-interaction" / "videos").rglob("*.avi"))[0]
    pictures = all_frames(source)
    seconds = probe_video(source).timestamps
    frames = FrameFolder(template="{:04d}.png", first=7, fps=1 / seconds[1], n_frames=len(pictures))
    write_frames(tmp_path / "videos" / "folder", frames, pictures)
    (tmp_path / "videos" / "file.avi").write_bytes(source.read_bytes())
    videos = (
        Video(id="file", path=tmp_path / "videos" / "file.avi"),
        Video(id="folder", path=tmp_path / "videos" / "folder", frames=frames),
    )
    stored = {}
    for video in videos:
        dataset = DatasetSpec(name=video.id, root=tmp_path / "videos", min_clips=12, shard_rows=40, max_clips=40)
        with Extraction(
            dataset=dataset,
            annotations=Annotations(videos=(video,), class_names=()),
            backbones=[BackboneSpec(name="s", model="test_efficientnet", size=64, weights="random")],
            home=tmp_path,
            device="cpu",
            workers=1,
        ) as work:
            for shard in work.plan(work.changes()).shards:
                work.extract_shard(shard)
            summary = work.summary()
            assert (summary.usable, summary.failed) == (1, {})
            assert not work.changes()
            (row,) = work.store.ledger(summary.keys["s"]).read().itertuples()
            stored[video.id] = row.timestamps, work.store.read_shard(summary.keys["s"], 0)[: row.n_clips]
            assert row.decoder == ("frames" if video.frames else "pyav")
    np.testing.assert_allclose(stored["folder"][0], stored["file"][0], rtol=1e-12)
    assert len(stored["file"][1]) >= 12
    assert np.isfinite(stored["file"][1]).all()
    np.testing.assert_array_equal(stored["folder"][1].view(np.uint16), stored["file"][1].view(np.uint16))
