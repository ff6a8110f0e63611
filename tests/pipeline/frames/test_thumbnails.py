"""Thumbnails of small real files."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.frames.thumbnails import video_thumbnails
from dynaprop.pipeline.store.manifest import Manifest, ProbedVideo
from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.identity import FileIdentity, file_identity
from dynaprop.pipeline.video.probe import Probe
from tests.pipeline.coded_frames import encode
from tests.pipeline.videos import write_video


@pytest.fixture(scope="module")
def pool():
    with DecodePool(workers=1, deadline=30) as pool:
        yield pool


def manifest_of(pool: DecodePool, root, names: list[str]) -> Manifest:
    videos = []
    for name, probe in zip(names, pool.probe(str(root / name) for name in names), strict=True):
        assert isinstance(probe, Probe)
        grid = clip_grid(probe.timestamps, probe.duration, min_clips=20)
        videos.append(ProbedVideo(name, name, file_identity(root / name), probe, grid))
    return Manifest.empty(shard_rows=100).extended(videos)


def test_pictures_are_evenly_spaced_and_keep_the_videos_shape(pool, tmp_path):
    write_video(tmp_path / "-a b é.mp4", frames=60, seed=1)
    manifest = manifest_of(pool, tmp_path, ["-a b é.mp4"])
    record = manifest.current().iloc[0]
    found = video_thumbnails(manifest, ["-a b é.mp4"], root=tmp_path, pool=pool, count=6, width=80)
    pictures = found["-a b é.mp4"]
    times = [picture.timestamp for picture in pictures]
    # 20 clips in 6 parts: the clips at 1/12, 3/12, ... 11/12 of them.
    assert times == [record["timestamps"][clip] for clip in (1, 5, 8, 11, 15, 18)]
    images = [Image.open(BytesIO(picture.jpeg)) for picture in pictures]
    assert all(image.format == "JPEG" for image in images)
    assert {image.size for image in images} == {(80, round(80 * record["height"] / record["width"]))}
    assert len({np.asarray(image).tobytes() for image in images}) > 1


def test_a_turned_video_is_shown_upright(pool, tmp_path):
    encode(tmp_path / "a.mp4", rotation=90, size=(48, 80))
    manifest = manifest_of(pool, tmp_path, ["a.mp4"])
    pictures = video_thumbnails(manifest, ["a.mp4"], root=tmp_path, pool=pool, count=2, width=30)["a.mp4"]
    assert Image.open(BytesIO(pictures[0].jpeg)).size == (30, 50)


def test_frame_folders_have_pictures_too(pool, tmp_path):
    (tmp_path / "walk").mkdir()
    for number in range(1, 9):
        Image.new("RGB", (64, 32), (30 * number, 0, 0)).save(tmp_path / "walk" / f"image_{number:05d}.jpg")
    folder = FrameFolder(template="image_{:05d}.jpg", first=1, fps=4.0)
    (probe,) = pool.probe([str(tmp_path / "walk")], [folder])
    assert isinstance(probe, Probe)
    grid = clip_grid(probe.timestamps, probe.duration, min_clips=8)
    video = ProbedVideo("walk", "walk", FileIdentity(1, 1, ""), probe, grid, folder)
    manifest = Manifest.empty(shard_rows=100).extended([video])
    pictures = video_thumbnails(manifest, ["walk"], root=tmp_path, pool=pool, count=4, width=20)["walk"]
    assert [picture.timestamp for picture in pictures] == [0.25, 0.75, 1.25, 1.75]
    reds = [Image.open(BytesIO(picture.jpeg)).resize((1, 1)).getpixel((0, 0))[0] for picture in pictures]
    assert reds == pytest.approx([60, 120, 180, 240], abs=3)
    assert Image.open(BytesIO(pictures[0].jpeg)).size == (20, 10)


def test_a_video_with_fewer_clips_has_fewer_pictures(pool, tmp_path):
    write_video(tmp_path / "short.mp4", frames=2, seed=1)
    manifest = manifest_of(pool, tmp_path, ["short.mp4"])
    assert len(video_thumbnails(manifest, ["short.mp4"], root=tmp_path, pool=pool)["short.mp4"]) == 2


def test_what_is_gone_broken_or_unknown_is_left_out(pool, tmp_path):
    for name in ("gone.mp4", "broken.mp4", "good.mp4"):
        write_video(tmp_path / name, frames=20, seed=1)
    manifest = manifest_of(pool, tmp_path, ["gone.mp4", "broken.mp4", "good.mp4"])
    (tmp_path / "gone.mp4").unlink()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    found = video_thumbnails(
        manifest, ["gone.mp4", "broken.mp4", "good.mp4", "unknown"], root=tmp_path, pool=pool, count=3
    )
    assert list(found) == ["good.mp4"]
