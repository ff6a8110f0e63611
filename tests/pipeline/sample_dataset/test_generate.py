"""The generated sample: what its files promise, that the seed fixes every frame, and that it is written whole."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.sample_dataset import generate as sample
from dynaprop.pipeline.sample_dataset.generate import MARKER, SampleVideo, generate_sample, plan_sample, write_video
from dynaprop.pipeline.sample_dataset.scenes import (
    CLASS_NAMES,
    DISTRACTORS,
    PATTERNS,
    TINTS,
    draw_shot,
    draw_sprite,
    plan_shots,
)

TINY = {"videos_per_class": 2, "seconds": (1, 2), "workers": 1}


def frames(path: Path) -> np.ndarray:
    """All frames of a video, [n, h, w, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny") / "sample"
    generate_sample(root, **TINY)
    return root


# What is promised of the default sample


def test_default_plan_is_64_untrimmed_videos_of_8_classes() -> None:
    plan = plan_sample()
    assert len(plan) == len({video.name for video in plan}) == 64
    per_class = Counter((video.name.split("/")[0], video.class_name) for video in plan)
    assert per_class == {("train", name): 5 for name in CLASS_NAMES} | {("test", name): 3 for name in CLASS_NAMES}
    assert len(CLASS_NAMES) == 8
    assert all(150 <= video.n_frames <= 400 for video in plan)
    assert {min(video.width, video.height) for video in plan} == {256}
    assert len({(video.width, video.height) for video in plan}) > 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_split_has_fine_and_coarse_patterns_alike(split: str) -> None:
    # 4.57 px is the Nyquist period of 256 -> 112 px: what is finer cannot reach the student.
    fine = [video.period < 2 * 256 / 112 for video in plan_sample() if video.name.startswith(split)]
    assert 0.3 < np.mean(fine) < 0.5


def test_plan_depends_on_the_seed() -> None:
    assert plan_sample(seed=3) == plan_sample(seed=3)
    assert plan_sample(seed=3) != plan_sample(seed=4)


@pytest.mark.parametrize("seed", range(20))
def test_shots_fill_the_video_and_show_the_class_part_of_the_time(seed: int) -> None:
    shots = plan_shots(np.random.default_rng(seed), "ring-stripes", 270, 10)
    assert sum(shot.n_frames for shot in shots) == 270
    assert all(shot.n_frames > 0 for shot in shots)
    shown = sum(shot.n_frames for shot in shots if shot.shape == "ring")
    assert 0.1 < shown / 270 < 0.4
    assert all(shot.pattern == "stripes" for shot in shots if shot.shape == "ring")
    assert {shot.shape for shot in shots} <= {"ring", None, *DISTRACTORS}, "no other class's object"
    assert any(shot.shape in DISTRACTORS for shot in shots)


@pytest.mark.parametrize("n_frames", [1, 5, 10, 31])
def test_even_the_shortest_video_shows_its_class(n_frames: int) -> None:
    shots = plan_shots(np.random.default_rng(0), "disc-checks", n_frames, 10)
    assert sum(shot.n_frames for shot in shots) == n_frames
    assert any(shot.shape == "disc" and shot.n_frames > 0 for shot in shots)


# The cue


def patterns_apart(shape: str, period: float, size: int) -> float:
    """Mean absolute difference of grey levels between the two patterns once a 256 px frame is resized to `size` px."""
    resized = []
    for pattern in PATTERNS:
        sprite = draw_sprite(np.random.default_rng(1), shape, pattern, period)
        frame = Image.new("RGB", (256, 256), (128, 128, 128))
        frame.paste(sprite, (40, 40), mask=sprite)
        resized.append(np.asarray(frame.resize((size, size), Image.Resampling.BICUBIC).convert("L"), np.float64))
    return float(np.abs(resized[0] - resized[1]).mean())


@pytest.mark.parametrize("shape", TINTS)
def test_fine_patterns_fade_at_112_px_and_coarse_ones_do_not(shape: str) -> None:
    assert patterns_apart(shape, 3.5, 112) < 0.4 * patterns_apart(shape, 3.5, 224)
    assert patterns_apart(shape, 12.0, 112) > 0.9 * patterns_apart(shape, 12.0, 224)


def test_distractors_have_the_tints_of_all_classes() -> None:
    rng = np.random.default_rng(0)
    means = []
    for _ in range(60):
        pixels = np.asarray(draw_sprite(rng, "hexagon", "stripes", 8.0))
        means.append(pixels[pixels[..., 3] == 255][:, :3].mean(axis=0))
    tints = np.array(list(TINTS.values()))
    nearest = np.abs(np.array(means)[:, None] - tints).sum(axis=2).argmin(axis=1)
    assert set(nearest) == {0, 1, 2, 3}


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="no shape 'blob'"):
        draw_sprite(np.random.default_rng(0), "blob", "stripes", 8.0)


# The files


def test_files_are_h264_at_10_fps_with_a_short_side_of_256(tiny: Path) -> None:
    plan = plan_sample(videos_per_class=2, seconds=(1, 2))
    found = {path.relative_to(tiny).as_posix() for path in tiny.rglob("*.mp4")}
    assert found == {video.name for video in plan}
    assert Counter(name.split("/")[0] for name in found) == {"train": 8, "test": 8}
    for video in plan:
        with av.open(str(tiny / video.name)) as container:
            stream = container.streams.video[0]
            decoded = list(container.decode(stream))
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == 10
            assert (stream.width, stream.height) == (video.width, video.height)
            assert min(stream.width, stream.height) == 256
            assert [float(frame.time) for frame in decoded] == pytest.approx([i / 10 for i in range(video.n_frames)])


def test_one_file_of_full_length(tmp_path: Path) -> None:
    video = min(plan_sample(), key=lambda video: video.n_frames)
    write_video(tmp_path, video)
    with av.open(str(tmp_path / video.name)) as container:
        assert 15 <= container.duration / av.time_base <= 40
        assert sum(1 for _ in container.decode(video=0)) == video.n_frames


def test_what_is_encoded_is_what_is_drawn(tiny: Path) -> None:
    video = plan_sample(videos_per_class=2, seconds=(1, 2))[0]
    rng = np.random.default_rng(video.seed)
    shots = plan_shots(rng, video.class_name, video.n_frames, 10)
    size = {"width": video.width, "height": video.height}
    drawn = np.stack([f for shot in shots for f in draw_shot(rng, shot, period=video.period, **size)]).astype(float)
    error = np.mean((drawn - frames(tiny / video.name)) ** 2)
    assert 10 * np.log10(255**2 / error) > 28, "peak signal-to-noise ratio, dB"


def test_same_seed_same_frames_whatever_the_workers(tiny: Path, tmp_path: Path) -> None:
    generate_sample(tmp_path, **TINY | {"workers": 2})
    assert contents(tmp_path) == contents(tiny)


def test_another_seed_gives_other_frames(tiny: Path, tmp_path: Path) -> None:
    video = plan_sample(videos_per_class=2, seconds=(1, 2))[0]
    write_video(tmp_path, replace(video, seed=(1, *video.seed[1:])))
    assert not np.array_equal(frames(tmp_path / video.name), frames(tiny / video.name))


# Whole or not at all


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the videos written, in order; the files hold the plan instead of a film."""
    names: list[str] = []

    def write(root: Path, video: SampleVideo) -> None:
        (root / video.name).parent.mkdir(parents=True, exist_ok=True)
        (root / video.name).write_text(repr(video))
        names.append(video.name)

    monkeypatch.setattr(sample, "write_video", write)
    return names


def test_second_call_does_nothing(tmp_path: Path, written: list[str]) -> None:
    generate_sample(tmp_path, **TINY)
    assert len(written) == 16
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    generate_sample(tmp_path, **TINY, on_video=lambda *_: pytest.fail("nothing is left to do"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_progress_counts_to_the_total(tmp_path: Path, written: list[str]) -> None:
    seen: list[tuple[int, int]] = []
    generate_sample(tmp_path, **TINY, on_video=lambda *counts: seen.append(counts))
    assert seen == [(done, 16) for done in range(1, 17)]


def test_interrupted_call_is_not_finished_and_the_next_goes_on(tmp_path: Path, written: list[str]) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_sample(tmp_path, **TINY, on_video=interrupt)
    assert json.loads((tmp_path / MARKER).read_text())["finished"] is False
    seen: list[tuple[int, int]] = []
    generate_sample(tmp_path, **TINY, on_video=lambda *counts: seen.append(counts))
    assert json.loads((tmp_path / MARKER).read_text())["finished"] is True
    assert len(written) == len(set(written)) == 16, "no video is drawn twice"
    assert seen == [(done, 16) for done in range(6, 17)]


def test_lost_video_is_drawn_again(tmp_path: Path, written: list[str]) -> None:
    generate_sample(tmp_path, **TINY)
    (tmp_path / written[3]).unlink()
    generate_sample(tmp_path, **TINY)
    assert written[16:] == [written[3]]


@pytest.mark.parametrize("change", [{"seed": 1}, {"videos_per_class": 3}, {"seconds": (1, 3)}])
def test_other_parameters_replace_the_sample(tmp_path: Path, written: list[str], change: dict) -> None:
    generate_sample(tmp_path / "changed", **TINY | {"videos_per_class": 4})
    (tmp_path / "changed/train/notes.txt").write_text("not a video of the sample")
    generate_sample(tmp_path / "changed", **TINY | change)
    (tmp_path / "changed/train/notes.txt").unlink()
    generate_sample(tmp_path / "fresh", **TINY | change)
    assert contents(tmp_path / "changed") == contents(tmp_path / "fresh")


def test_newer_generator_replaces_the_sample(
    tmp_path: Path, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_sample(tmp_path, **TINY)
    monkeypatch.setattr(sample, "GENERATOR", sample.GENERATOR + 1)
    generate_sample(tmp_path, **TINY)
    assert len(written) == 32


def test_failed_encoding_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "draw_shot", lambda *_, **__: iter([np.zeros((256, 256, 3), np.uint8), None]))
    with pytest.raises(Exception, match="None"):
        write_video(tmp_path, replace(plan_sample()[0], width=256, height=256))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_disk_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(root: Path, video: SampleVideo) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample, "write_video", full)
    with pytest.raises(DynapropError, match=r"^sample: cannot write .* No space left on device; run it again") as error:
        generate_sample(tmp_path, **TINY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("marker", [None, "not json", "[]", '{"seed": 0}'])
def test_other_contents_are_left_alone(tmp_path: Path, written: list[str], marker: str | None) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    if marker is not None:
        (tmp_path / MARKER).write_text(marker)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="is not a generated sample"):
        generate_sample(tmp_path, **TINY)
    assert contents(tmp_path) == before


def test_marker_cannot_name_files_outside(tmp_path: Path, written: list[str]) -> None:
    root, outside = tmp_path / "sample", tmp_path / "a/b/holiday.mp4"
    generate_sample(root, **TINY)
    outside.parent.mkdir(parents=True)
    outside.write_bytes(b"mine")
    marker = json.loads((root / MARKER).read_text())
    marker["files"].append("../a/b/holiday.mp4")
    (root / MARKER).write_text(json.dumps(marker))
    generate_sample(root, **TINY | {"seed": 1})
    assert outside.exists()


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sample").write_text("a file")
    with pytest.raises(UsageError, match="is not a generated sample"):
        generate_sample(tmp_path / "sample", **TINY)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"videos_per_class": 1}, "videos_per_class is 1; use 2 or more"),
        ({"seed": -1}, "seed is -1; use 0 or more"),
        ({"seconds": (0, 3)}, r"seconds is \(0, 3\)"),
        ({"seconds": (5, 3)}, r"seconds is \(5, 3\)"),
        ({"workers": 0}, "workers is 0; use 1 or more"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_written(tmp_path: Path, bad: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate_sample(tmp_path / "sample", **TINY | bad)
    assert not (tmp_path / "sample").exists()


def test_workers_stay_lean() -> None:
    """A spawned worker imports this module; torch would cost it seconds and half a gigabyte."""
    module = "dynaprop.pipeline.sample_dataset.generate"
    code = f"import sys, {module}; print({{'torch', 'zarr', 'pandas', 'prefect', 'decord'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
