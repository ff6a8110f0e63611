"""`dynaprop predict`: which action each video shows, what that cost, and which videos failed."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynaprop.flows.terminal.printing import answer
from dynaprop.flows.terminal.progress import say
from dynaprop.pipeline.annotations.passed_over import VIDEO_SUFFIXES
from dynaprop.pipeline.annotations.video_files import video_files
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.io.atomic import published, writing
from dynaprop.pipeline.printable import printable
from dynaprop.pipeline.video.container import VideoError

if TYPE_CHECKING:
    from dynaprop.heads.recognise.prediction import Prediction  # imports torch


def predict(
    model: str,
    videos: Sequence[str],
    *,
    n_s: int | None = None,
    n_t: int | None = None,
    seed: int | None = None,
    top: int = 5,
    as_json: bool = False,
    timeline: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    deadline: float = 60.0,
    catalog: str | None = None,
) -> int:
    """Recognise videos and print what they show, each as soon as it is known; failures go to stderr.

    Args:
        model: see `dynaprop.heads.recognise.load.load`.
        videos: files, and folders to search for files with the endings of videos.
        n_s, n_t, seed: which of a run's models; see `dynaprop.heads.recognise.load.load`.
        top: classes to name.
        as_json: print one object a line, also for videos that failed.
        timeline: PNG file to draw the video in, if it is one alone.
        device, workers, deadline, catalog: see `dynaprop.heads.recognise.load.load`.

    Returns:
        How many videos failed.

    Raises:
        UsageError: no such model, no videos at all, an empty name, or a timeline of several videos.
        DynapropError: the model is damaged, or the timeline cannot be written.
    """
    files, empty = find_videos(videos)
    asked = len(files) + len(empty)
    if timeline is not None and asked != 1:
        raise UsageError(f"--timeline draws one video, these are {asked}: name a single file")
    if timeline is not None and not timeline.lower().endswith(".png"):
        raise UsageError(f"--timeline {timeline}: it is drawn as PNG, so the name should end in .png")
    from dynaprop.heads.recognise.load import load  # imports torch, which takes seconds
    from dynaprop.heads.recognise.prediction import Prediction

    nothing = VideoError("no_video", "no videos in this folder")
    failed: Counter[str] = Counter()
    with load(
        model,
        n_s=n_s,
        n_t=n_t,
        seed=seed,
        device=device,
        workers=workers,
        deadline=deadline,
        catalog=catalog,
        on_note=say,
    ) as recogniser:
        folders = (Prediction(str(place), error=nothing) for place in empty)
        for prediction in chain(folders, recogniser.predictions(files, top=top)):
            if prediction.error is not None:
                failed[prediction.error.kind] += 1
                say(f"failed: {prediction.video}: {prediction.error}")
            if as_json:
                answer(json.dumps(as_record(prediction)))
            elif prediction.error is None:
                answer(*as_text(prediction).split("\n"))
        if timeline is not None and not failed:
            _draw(prediction, recogniser.class_names, Path(timeline).expanduser())
    if failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(failed.items()))
        say(f"{failed.total()} of {asked} videos failed: {kinds}")
    return failed.total()


def find_videos(places: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Files as they are named and the videos below folders, each once; and the folders that have none.

    Raises:
        UsageError: nothing but folders without videos, or one that cannot be read.
    """
    files: list[Path] = []
    empty: list[Path] = []
    if "" in places:  # an unset variable of a shell; as a path it would mean this folder
        raise UsageError("a video's name is empty: name files or folders")
    for place in map(Path, places):
        if not place.is_dir():
            files.append(place)
        elif found := video_files(place):
            files += [place / name for name in found]
        else:
            empty.append(place)
    if not files:
        where = ", ".join(map(str, empty))
        raise UsageError(f"{where}: no videos here (known extensions: {' '.join(VIDEO_SUFFIXES)})")
    return list(dict.fromkeys(files)), list(dict.fromkeys(empty))


def as_record(prediction: "Prediction") -> dict[str, Any]:
    """A prediction as JSON has it."""
    record: dict[str, Any] = {"video": os.fsencode(prediction.video).decode("utf-8", "replace")}
    if prediction.error is not None:
        return record | {"error": {"kind": prediction.error.kind, "detail": prediction.error.detail}}
    record |= {
        "class": prediction.label,
        "confidence": prediction.top[0][1],
        "top": [{"class": name, "probability": probability} for name, probability in prediction.top],
        "frames": prediction.frames,
        "gmacs": prediction.gmacs,
        "milliseconds": {**vars(prediction.milliseconds), "total": prediction.milliseconds.total},
    }
    return record


def as_text(prediction: "Prediction") -> str:
    """A prediction for people: the class, those behind it, and what it cost."""
    (label, confidence), *others = prediction.top
    behind = ", ".join(f"{printable(name)} {100 * probability:.1f}" for name, probability in others)
    frames = " + ".join(f"{count} {branch}" for branch, count in prediction.frames.items())
    spent = prediction.milliseconds
    stages = ", ".join(f"{name} {value:.0f}" for name, value in vars(spent).items() if value)
    lines = [f"{printable(prediction.video)}: {printable(label)} {100 * confidence:.1f} %"]
    lines += [f"  then {behind}"] if behind else []
    lines += [f"  {frames} frames, {prediction.gmacs:.2f} GMACs; {spent.total:.0f} ms: {stages}"]
    return "\n".join(lines)


def _draw(prediction: "Prediction", class_names: tuple[str, ...], path: Path) -> None:
    from dynaprop.heads.report.prediction_chart import prediction_chart  # imports matplotlib

    chart = prediction_chart(prediction, class_names)
    with writing(path), published(path) as temporary:
        temporary.write_bytes(chart.png)
    say(f"timeline: {path}")
