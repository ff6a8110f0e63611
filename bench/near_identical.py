"""Which cosine makes two videos near-identical, by real videos: found copies against false alarms.

    python -m bench.near_identical [FOLDER]      # FOLDER keeps the altered videos; $DYNAPROP_HOME/altered by default

Needs J-HMDB, UT-Interaction and Weizmann below $DYNAPROP_DATA. Some videos of each are written once more in the ways of
`altered_videos.py`, all are extracted, and the cosine of every two videos is taken as `near_identical.py` does in
heads/features. Writes near_identical.json and the README's tables: how many altered videos are found beside their
originals, and which pairs of originals are called near-identical, by groups: J-HMDB's of one film or web video, many of
whose clips really show the same, UT-Interaction's of one sequence, Weizmann's of one person.
"""

import csv
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.altered_videos import ALTERATIONS, alter_video
from bench.machine import describe_machine
from bench.scale import fill
from dynaprop.heads.features.loaded import FeatureSplit, load_features
from dynaprop.heads.features.near_identical import THRESHOLD, Comparison
from dynaprop.pipeline.extract.required import require_features
from dynaprop.pipeline.store.names import open_store
from dynaprop.pipeline.workspace import files_home, open_workspace

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("DYNAPROP_DATA", "data"))
DATASETS = {  # folder of the videos, how many are altered, group of a video's id
    "J-HMDB": (DATA / "j-hmdb", 40, None),
    "UT-Interaction": (DATA / "ut-interaction" / "videos", 20, r"set\d+_\d+_(\d+)_"),
    "Weizmann": (DATA / "weizmann", 20, r"([a-z]+)\d*_[^/]*$"),
}
THRESHOLDS = (0.5, 0.55, 0.6, 0.62, 0.65, 0.7, 0.75)
SIZE = (5000, 20, 1280)  # videos, clips, channels: what the search is timed with


def main() -> None:
    os.environ.pop("DYNAPROP_DATA", None)  # plain folders, on the same clip grid as the altered videos
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else files_home() / "altered"
    datasets = {name: measure(name, folder / root.name) for name, (root, *_) in DATASETS.items()}
    data = {"threshold": THRESHOLD, "seconds": seconds(), "machine": describe_machine(), "datasets": datasets}
    (HERE / "near_identical.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    fill(HERE.parent / "README.md", "near-identical", readme_table(data))


def measure(name: str, altered: Path) -> dict[str, Any]:
    """Found copies by alteration and threshold, and pairs of originals by group and threshold."""
    root, count, pattern = DATASETS[name]
    videos = sorted(root.rglob("*.avi"))
    for video in videos[:: len(videos) // count][:count]:
        for alteration in ALTERATIONS:
            target = altered / video.parent.name / f"{alteration.replace(' ', '_')}__{video.stem}.mp4"
            if not target.exists():
                alter_video(video, target, alteration)
    split = joined(features(root), features(altered))
    pairs = Comparison(split).pairs(threshold=-1.0)
    names = tuple(alteration.replace(" ", "_") for alteration in ALTERATIONS)
    stems = [
        stem.partition("__") if stem.startswith(tuple(f"{name}__" for name in names)) else (stem, "", "")
        for stem in (Path(video).stem for video in split.video_ids)
    ]
    original = {stem[0]: index for index, stem in enumerate(stems) if not stem[2]}
    cosines = np.full((len(split), len(split)), np.nan, np.float32)
    cosines[pairs.first, pairs.second] = cosines[pairs.second, pairs.first] = pairs.cosine
    found = {}
    for alteration in ALTERATIONS:
        copies = [i for i, stem in enumerate(stems) if stem[2] and stem[0] == alteration.replace(" ", "_")]
        own = np.array([cosines[copy, original[stems[copy][2]]] for copy in copies])
        found[alteration] = spread(own)
    group = groups(root, pattern)
    ours = sorted(original.values())
    of = np.array([group[split.video_ids[index]] for index in ours])
    first, second = np.triu_indices(len(ours), 1)
    values, same = cosines[np.ix_(ours, ours)][first, second], of[first] == of[second]
    return {"videos": len(ours), "found": found, "same group": spread(values[same]), "other": spread(values[~same])}


def spread(cosines: np.ndarray) -> dict[str, Any]:
    """How many there are, how many reach each threshold, the smallest and the largest."""
    reached = {str(threshold): int((cosines >= threshold).sum()) for threshold in THRESHOLDS}
    return {"n": len(cosines), "reached": reached} | {
        name: round(float(of(cosines)), 3)
        for name, of in (("smallest", np.min), ("median", np.median), ("largest", np.max))
    }


def groups(root: Path, pattern: str | None) -> dict[str, str]:
    """Group of each video by id."""
    if pattern is None:
        with (root / "groups.csv").open(newline="", encoding="utf-8") as file:
            return {row["video"]: row["group"] for row in csv.DictReader(file)}
    ids = [path.relative_to(root).as_posix() for path in root.rglob("*.avi")]
    return {video: match[1] for video in ids if (match := re.search(pattern, video))}


def features(root: Path) -> FeatureSplit:
    """Features of a folder of videos by class, extracted where they are not there."""
    subprocess.run([sys.executable, "-m", "dynaprop.flows.cli", "extract", str(root)], check=True)
    workspace = open_workspace(str(root), "lite")
    keys = require_features(workspace)
    annotations = workspace.annotations()
    return load_features(
        open_store(workspace.dataset, workspace.home, read_only=True),
        annotations.videos,
        class_names=annotations.class_names,
        student_key=keys["teacher"],
        teacher_key=keys["teacher"],
    ).split


def joined(one: FeatureSplit, other: FeatureSplit) -> FeatureSplit:
    """Two sets of videos as one."""
    return replace(
        one,
        video_ids=one.video_ids + other.video_ids,
        labels=one.labels + other.labels,
        starts=np.concatenate([one.starts, other.starts + len(one.teacher)]),
        n_clips=np.concatenate([one.n_clips, other.n_clips]),
        teacher=torch.cat([one.teacher, other.teacher]),
        timestamps=np.concatenate([one.timestamps, other.timestamps]),
    )


def seconds() -> float:
    """Processor time of the search among ``SIZE`` made-up features, which other programs disturb little."""
    videos, clips, channels = SIZE
    features = torch.randn(videos * clips, channels, generator=torch.Generator().manual_seed(0)).half()
    split = FeatureSplit(
        video_ids=tuple(map(str, range(videos))),
        labels=((0,),) * videos,
        class_names=("a",),
        starts=np.arange(videos) * clips,
        n_clips=np.full(videos, clips),
        student=features,
        teacher=features,
        timestamps=np.zeros(videos * clips),
    )
    began = time.process_time()
    Comparison(split).pairs()
    return round(time.process_time() - began, 1)


def readme_table(data: dict[str, Any]) -> list[str]:
    """Found copies and false alarms at the threshold."""
    at, datasets = str(data["threshold"]), data["datasets"]
    lines = [f"| cosine ≥ {at} | {' | '.join(datasets)} |", "| --- |" + " ---: |" * len(datasets)]

    def line(title: str, cells: list[dict[str, Any]]) -> str:
        return f"| {title} | " + " | ".join(f"{cell['reached'][at]:,} of {cell['n']:,}" for cell in cells) + " |"

    for alteration in ALTERATIONS:
        lines.append(line(f"found: {alteration}", [each["found"][alteration] for each in datasets.values()]))
    lines.append(line("pairs of one group", [each["same group"] for each in datasets.values()]))
    lines.append(line("pairs of two groups", [each["other"] for each in datasets.values()]))
    videos, clips, channels = SIZE
    machine = data["machine"]
    return [
        *lines,
        "",
        f"The search among {videos:,} videos of {clips} clips and {channels:,} channels takes {data['seconds']:.0f} s "
        f"of processor time ({machine['processor']}, {machine['cores']} cores).",
    ]


if __name__ == "__main__":
    main()
