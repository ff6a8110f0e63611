"""Figure 5: the true class's probability over time, frame by frame, Student against Dynamic-STE."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from dynaprop.heads.evaluation.summary import PAPER_NAMES
from dynaprop.heads.report.chart import MARKERS, Chart, Look, grid_of, plain

LEFT, RIGHT, LEFT_NARROW = 0.075, 0.99, 0.13
"""Where the time axis begins and ends, as shares of the picture's width: the page sets the thumbnails over it."""

Picture = tuple[float, bytes]
"""Seconds, and a JPEG."""


@dataclass(frozen=True)
class Timeline:
    """One video: its chart, and pictures to set above it."""

    video_id: str
    chart: Chart
    pictures: tuple[Picture, ...]


def mean_gains(scores: pd.DataFrame) -> pd.Series:
    """Mean true-class probability over student frames, Dynamic-STE minus Student, by video id, largest first.

    Args:
        scores: rows of ``frame_scores.parquet`` of one setting of each model.
    """
    frames = scores[(scores["branch"] == "student") & scores["model"].isin(["student", "dynamic"])]
    means = frames.groupby(["video_id", "model"])["true_probability"].mean().unstack("model")
    means = means.reindex(columns=["student", "dynamic"]).dropna()
    return (means["dynamic"] - means["student"]).sort_values(ascending=False, kind="stable")


def telling_videos(scores: pd.DataFrame) -> list[str]:
    """The two videos where Dynamic-STE gains most over Student, and the one where it loses most."""
    order = [str(video) for video in mean_gains(scores).index]
    return list(dict.fromkeys([*order[:2], *order[-1:]]))


def timeline(scores: pd.DataFrame, video_id: str, *, pictures: Sequence[Picture], name: str, about: str) -> Timeline:
    """Draw one video.

    Args:
        scores: rows of ``frame_scores.parquet`` of one setting of each model.
        video_id: the video.
        pictures: (seconds, JPEG), evenly spaced; empty where the file is gone.
        name: stem of the chart's files.
        about: the settings in words.
    """
    rows = scores[scores["video_id"] == video_id].sort_values("timestamp")
    frames = rows[(rows["branch"] == "student") & rows["model"].isin(["student", "dynamic"])]
    marks = rows[(rows["branch"] == "teacher") & (rows["model"] == "dynamic")]["timestamp"].unique()
    true_class = str(frames["true_class"].iloc[0])
    end = max(float(rows["timestamp"].max()), 1e-3)

    def lines(figure: Figure, look: Look, narrow: bool, bottom: float, top: float) -> None:
        left = LEFT_NARROW if narrow else LEFT
        axes = figure.add_axes((left, bottom, RIGHT - left, top - bottom))
        for model in ("student", "dynamic"):
            line = frames[frames["model"] == model]
            axes.plot(
                line["timestamp"],
                line["true_probability"],
                color=look.models[model],
                marker=MARKERS[model],
                markersize=4,
                linewidth=1.6,
                label=PAPER_NAMES[model],
                clip_on=False,
            )
        colour = look.models["teacher"]
        axes.plot(
            marks, np.full(len(marks), -0.06), "^", color=colour, markersize=6, clip_on=False, label="teacher's frames"
        )
        axes.vlines(marks, 0, 1, color=colour, linewidth=0.8, linestyle=":", zorder=1)
        axes.set_xlim(-0.02 * end, 1.02 * end)
        axes.set_ylim(-0.1, 1.02)
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_xlabel("seconds")
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            fontsize=8 if narrow else 9,
            borderaxespad=0.1,
            handlelength=1.4,
            columnspacing=1,
        )
        grid_of(axes, look, axis="y")

    def draw(figure: Figure, look: Look, narrow: bool) -> None:
        figure.set_layout_engine("none")
        lines(figure, look, narrow, 0.2, 0.87)

    def with_pictures(figure: Figure, look: Look, narrow: bool) -> None:
        figure.set_layout_engine("none")
        figure.text(LEFT, 0.95, plain(f"{true_class}: {video_id}", 80), size=10)
        lines(figure, look, narrow, 0.14, 0.56)
        for index, (seconds, jpeg) in enumerate(pictures):
            width = (RIGHT - LEFT) / len(pictures)
            axes = figure.add_axes((LEFT + index * width, 0.66, 0.96 * width, 0.26))
            axes.imshow(np.asarray(Image.open(BytesIO(jpeg))))
            axes.set_title(f"{seconds:.1f} s", size=8)
            axes.axis("off")

    means = frames.groupby("model")["true_probability"].mean()
    gap = means.get("dynamic", np.nan) - means.get("student", np.nan)
    caption = f"{about} Dotted lines mark the {len(marks)} frames that the teacher saw."
    if not np.isnan(gap):
        course = "above" if gap >= 0 else "below"
        caption += f" Dynamic-STE's mean probability of the true class is {abs(gap):.2f} {course} Student's."
    alt = f"Probability of {true_class} in each student frame of {video_id} over {end:.1f} seconds. {caption}"
    chart = Chart(
        draw,
        name=name,
        title=true_class,
        caption=caption,
        alt=alt,
        data=rows.reset_index(drop=True),
        height=2.5,
        draw_png=with_pictures if pictures else None,
        png_height=4.2 if pictures else None,
    )
    return Timeline(video_id, chart, tuple(pictures))
