"""One video as a model sees it: the probability of the class over time, and what the student took from the teacher."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dynaprop.heads.recognise.prediction import FrameTrack, Prediction
from dynaprop.heads.report.chart import MARKERS, Chart, Look, grid_of, plain
from dynaprop.heads.report.timeline import LEFT, RIGHT

_NAMES = {"student": "student's frames", "teacher": "teacher's frames"}


def prediction_chart(prediction: Prediction, class_names: tuple[str, ...]) -> Chart:
    """Draw a recognised video: its most probable class frame by frame and, of Dynamic-STE, the attention of eq. (1).

    Args:
        prediction: of a video that did not fail.
        class_names: the model's, in the order of its scores.

    Raises:
        ValueError: the video failed.
    """
    if prediction.label is None:
        raise ValueError(f"{prediction.video}: nothing to draw of a video that failed")
    label, confidence = prediction.top[0]
    index = class_names.index(label)
    tracks = [("student", prediction.student), ("teacher", prediction.teacher)]
    shown = [(branch, track) for branch, track in tracks if track is not None]
    end = max(*(float(track.timestamps.max()) for _, track in shown), 1e-3)
    attention = prediction.attention

    def draw(figure: Figure, look: Look, narrow: bool) -> None:
        figure.set_layout_engine("none")
        figure.text(LEFT, 0.94, plain(f"{label} {confidence:.0%}: {Path(prediction.video).name}", 90), size=10)
        low = 0.2 if attention is None else 0.47
        axes = figure.add_axes((LEFT, low, RIGHT - LEFT, 0.84 - low))
        for branch, track in shown:
            line = "-" if branch == "student" or len(shown) == 1 else "none"
            axes.plot(
                track.timestamps,
                track.probabilities[:, index],
                color=look.models["dynamic" if attention is not None and branch == "student" else branch],
                marker=MARKERS[branch],
                markersize=4 if branch == "student" else 6,
                linewidth=1.6,
                linestyle=line,
                label=_NAMES[branch],
                clip_on=False,
            )
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_xlim(-0.02 * end, 1.02 * end)
        axes.set_ylabel("probability")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, borderaxespad=0.1)
        grid_of(axes, look, axis="y")
        if attention is None:
            axes.set_xlabel("seconds")
        else:
            axes.tick_params(labelbottom=False)
            _draw_attention(figure, look, prediction, end)

    course = f"between {_least(shown, index):.2f} and {_most(shown, index):.2f}"
    return Chart(
        draw,
        name="timeline",
        title=label,
        caption=f"Probability of {label}, the most probable class, in each frame that the model looked at.",
        alt=f"Probability of {label} in each frame of {prediction.video} over {end:.1f} seconds, {course}.",
        data=_table(shown, label, index),
        height=2.5 if attention is None else 3.6,
    )


def _draw_attention(figure: Figure, look: Look, prediction: Prediction, end: float) -> None:
    """A row a teacher frame, a column a student frame, at the frames' own times."""
    from matplotlib.colors import LinearSegmentedColormap

    assert prediction.attention is not None and prediction.student is not None and prediction.teacher is not None
    axes = figure.add_axes((LEFT, 0.14, RIGHT - LEFT, 0.27))
    times = prediction.student.timestamps
    middles = (times[1:] + times[:-1]) / 2
    edges = np.concatenate([[times[0]], middles, [times[-1]]])
    if len(times) == 1:
        edges = np.array([-0.02 * end, 1.02 * end])
    n_t = len(prediction.teacher.timestamps)
    colours = LinearSegmentedColormap.from_list("attention", look.shades)
    darkest = max(2 / n_t, float(prediction.attention.max()))  # so that an even share is of middle darkness
    shares = prediction.attention.T
    axes.pcolormesh(edges, np.arange(n_t + 1) - 0.5, shares, cmap=colours, vmin=0, vmax=min(darkest, 1))
    rows = range(0, n_t, max(1, n_t // 4))
    axes.set_yticks(list(rows), [f"{prediction.teacher.timestamps[row]:.1f} s" for row in rows], fontsize=7)
    axes.set_xlim(-0.02 * end, 1.02 * end)
    axes.invert_yaxis()
    axes.set_ylabel("teacher", fontsize=8)
    even, most = 1 / n_t, float(prediction.attention.max())
    axes.set_xlabel(
        f"seconds; below, each student frame's attention to the teacher's: {even:.2f} is even, {most:.2f} most"
    )


def _table(shown: list[tuple[str, FrameTrack]], label: str, index: int) -> pd.DataFrame:
    parts = [
        {"branch": branch, "timestamp": track.timestamps, "class": label, "probability": track.probabilities[:, index]}
        for branch, track in shown
    ]
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)


def _least(shown: list[tuple[str, FrameTrack]], index: int) -> float:
    return min(float(track.probabilities[:, index].min()) for _, track in shown)


def _most(shown: list[tuple[str, FrameTrack]], index: int) -> float:
    return max(float(track.probabilities[:, index].max()) for _, track in shown)
