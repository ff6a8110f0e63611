"""The generated sample dataset: real H.264 files, so that everything can be tried without a download.

It is a smoke test and never evidence: `sample_scenes.py` draws it so that a frame says more at 224 px than at 112 px,
and few frames say much. The same parameters give the same frames (with the same NumPy, Pillow and x264, and up to
the last bit of a sine on other types of CPU).
"""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np

from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.leftovers import temporary_file
from dynaprop.pipeline.machine import usable_cores
from dynaprop.pipeline.main_guard import failed_for_want_of_guard, require_main_guard
from dynaprop.pipeline.sample_dataset.scenes import CLASS_NAMES, FRAME_SIZES, PERIODS, draw_shot, plan_shots

FPS = 10
GENERATOR = 2  # raise it whenever the same parameters give other frames: samples on disk are then made again
MARKER = "sample.json"
# One thread and a fixed preset: x264's output depends on the number of its threads.
X264_OPTIONS = {"preset": "superfast", "crf": "28", "g": "20", "threads": "1"}


@dataclass(frozen=True)
class SampleVideo:
    """A video still to be drawn."""

    name: str
    """Path relative to the sample's root: `<train|test>/<class>/<class>_<number>.mp4`."""
    class_name: str
    period: float
    """Of the fill's pattern, in pixels."""
    width: int
    height: int
    n_frames: int
    seed: tuple[int, ...]
    """Entropy of the video's own random generator, so that any process can draw it alone."""


def plan_sample(*, videos_per_class: int = 8, seed: int = 0, seconds: tuple[int, int] = (15, 40)) -> list[SampleVideo]:
    """List the sample's videos; three in eight of each class (at least one) are for testing.

    Raises UsageError for fewer than two videos a class (one to train, one to test), for a negative seed and for
    durations that are not `1 <= shortest <= longest`.
    """
    if videos_per_class < 2:
        raise UsageError(f"sample: videos_per_class is {videos_per_class}; use 2 or more (to train and to test)")
    if seed < 0:
        raise UsageError(f"sample: seed is {seed}; use 0 or more")
    shortest, longest = seconds
    if not 1 <= shortest <= longest:
        raise UsageError(f"sample: seconds is {seconds}; give (shortest, longest) with 1 <= shortest <= longest")
    n_test = max(1, round(videos_per_class * 3 / 8))
    videos = []
    for split, numbers in (("train", range(videos_per_class - n_test)), ("test", range(videos_per_class)[-n_test:])):
        rng = np.random.default_rng([seed, len(split)])
        # Both splits have all periods in equal parts, so that neither is finer, hence harder, by chance.
        ranks = rng.permutation(len(CLASS_NAMES) * len(numbers))
        periods = iter(np.geomspace(*PERIODS, len(ranks))[ranks].tolist())
        for class_index, class_name in enumerate(CLASS_NAMES):
            for number in numbers:
                width, height = FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
                videos.append(
                    SampleVideo(
                        name=f"{split}/{class_name}/{class_name}_{number:03d}.mp4",
                        class_name=class_name,
                        period=next(periods),
                        width=width,
                        height=height,
                        n_frames=int(rng.integers(shortest * FPS, longest * FPS, endpoint=True)),
                        seed=(seed, class_index, number),
                    )
                )
    return videos


def generate_sample(
    root: Path,
    *,
    videos_per_class: int = 8,
    seed: int = 0,
    seconds: tuple[int, int] = (15, 40),
    workers: int | None = None,
    on_video: Callable[[int, int], None] | None = None,
) -> None:
    """Write the sample below `root`, or only what an interrupted call left out, or nothing if it is all there.

    A video appears under its name only when it is whole, and `sample.json` says `finished` only when all of them are
    there. A sample of other parameters is replaced.

    Args:
        root: folder of the sample, created if need be; a folder that holds something else is refused.
        videos_per_class: three in eight of them (at least one) are for testing.
        seed: the same seed gives the same frames.
        seconds: shortest and longest duration of a video.
        workers: processes that draw and encode; by default one a usable core. With 1 the work stays in this process;
            with more, a script has to call this below `if __name__ == "__main__":`, as processes are spawned.
        on_video: called after each video with (videos that are there, videos in all).

    Raises:
        UsageError: a parameter is out of range, `root` is not a sample and not empty, or the script lacks its guard.
        DynapropError: a video cannot be encoded or written.
    """
    plan = plan_sample(videos_per_class=videos_per_class, seed=seed, seconds=seconds)
    if workers is not None and workers < 1:
        raise UsageError(f"sample: workers is {workers}; use 1 or more")
    parameters = {"generator": GENERATOR, "videos_per_class": videos_per_class, "seed": seed, "seconds": list(seconds)}
    wanted = {"parameters": parameters, "files": [video.name for video in plan]}
    try:
        found = _read_marker(root)
        if found is not None and found["parameters"] != parameters:
            _remove_listed(root, found["files"])
        missing = [video for video in plan if not (root / video.name).is_file()]
        if not missing and found == {**wanted, "finished": True}:
            return
        root.mkdir(parents=True, exist_ok=True)
        _write_marker(root, {**wanted, "finished": False})
        _write_missing(root, missing, len(plan), workers or usable_cores(), on_video)
        _write_marker(root, {**wanted, "finished": True})
    except (OSError, BrokenProcessPool) as error:
        if isinstance(error, BrokenProcessPool) and (unguarded := failed_for_want_of_guard()) is not None:
            raise unguarded from None
        raise DynapropError(f"sample: cannot write the videos below {root}: {error}; run it again to go on") from error


def write_video(root: Path, video: SampleVideo) -> None:
    """Draw and encode one video; it appears under its name only when it is whole."""
    target = root / video.name
    target.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(video.seed)
    with temporary_file(target.parent, target.name) as partial:
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FPS, options=X264_OPTIONS)
            stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
            for shot in plan_shots(rng, video.class_name, video.n_frames, FPS):
                for rgb in draw_shot(rng, shot, period=video.period, width=video.width, height=video.height):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
            container.mux(stream.encode(None))
        partial.replace(target)


def _write_missing(
    root: Path,
    missing: list[SampleVideo],
    total: int,
    workers: int,
    on_video: Callable[[int, int], None] | None,
) -> None:
    report = on_video or (lambda done, total: None)
    already = total - len(missing)
    if workers == 1 or len(missing) <= 1:
        for done, video in enumerate(missing, start=already + 1):
            write_video(root, video)
            report(done, total)
        return
    # Spawned, since the caller may have threads (torch's, Prefect's) that do not survive a fork.
    require_main_guard()
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=get_context("spawn")) as pool:
        try:
            futures = [pool.submit(write_video, root, video) for video in missing]
            for done, future in enumerate(as_completed(futures), start=already + 1):
                future.result()
                report(done, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read_marker(root: Path) -> dict[str, Any] | None:
    """Return the marker's contents, None in a new or empty folder; UsageError where something else lies."""
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
        if isinstance(marker, dict) and {"parameters", "files", "finished"} <= marker.keys():
            return marker
    except (FileNotFoundError, NotADirectoryError):
        if not root.exists() or (root.is_dir() and all(path.name.startswith(".") for path in root.iterdir())):
            return None
    except ValueError:  # not JSON, or not UTF-8
        pass
    raise UsageError(f"sample: {root} holds something that is not a generated sample; name a new or an empty folder")


def _write_marker(root: Path, contents: dict[str, Any]) -> None:
    with temporary_file(root, MARKER) as partial:
        partial.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
        partial.replace(root / MARKER)


def _remove_listed(root: Path, names: list[str]) -> None:
    """Remove an earlier sample's videos; only what the marker names and lies where samples have videos."""
    listed = set(names)
    for path in root.glob("*/*/*.mp4"):
        if path.relative_to(root).as_posix() in listed:
            path.unlink()
