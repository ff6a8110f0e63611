"""Label files of full size, with the layout and the counts of the published ones and made-up contents."""

import json
import random
import string
from pathlib import Path

ACTIVITYNET = {"training": 10_024, "validation": 4_926, "testing": 5_044}  # videos of version 1.3
MINI_KINETICS = {"train": 121_215, "val": 9_867}  # rows of AR-Net's lists
N_CLASSES = 200
_ID = string.ascii_letters + string.digits + "-_"


def class_names() -> list[str]:
    """200 names, some of several words."""
    return [f"{'playing the ' if number % 3 else ''}action {number:03d}" for number in range(N_CLASSES)]


def write_activitynet(file: Path, *, seed: int = 0) -> dict[str, dict]:
    """Write a json as ActivityNet 1.3's; return its database."""
    rng = random.Random(seed)
    leaves = class_names()
    taxonomy = [{"parentName": None, "nodeName": "Root", "nodeId": 0, "parentId": None}]
    for number in range(1, 6):
        taxonomy.append({"parentName": "Root", "nodeName": f"Top {number}", "nodeId": number, "parentId": 0})
    for number, leaf in enumerate(leaves, start=6):
        taxonomy.append({"parentName": "Top 1", "nodeName": leaf, "nodeId": number, "parentId": 1})
    database = {}
    for subset, count in ACTIVITYNET.items():
        for number in range(count):
            video_id = _youtube_id(rng)
            duration = round(rng.uniform(5, 240), 2)
            annotations = []
            if subset != "testing":
                label = leaves[number % N_CLASSES]
                for segment in range(rng.randint(1, 4)):
                    start = round(duration * segment / 4, 6)
                    annotations.append({"segment": [start, round(start + duration / 5, 6)], "label": label})
                if number % 2000 == 7:  # a second label, which few videos have
                    annotations.append({"segment": [0.0, 1.0], "label": leaves[(number + 1) % N_CLASSES]})
            database[video_id] = {
                "duration": duration,
                "subset": subset,
                "resolution": "320x240",
                "url": f"https://www.youtube.com/watch?v={video_id}",
                "annotations": annotations,
            }
    file.write_text(json.dumps({"version": "VERSION 1.3", "taxonomy": taxonomy, "database": database}))
    return database


def write_mini_kinetics(folder: Path, *, seed: int = 0) -> dict[str, list[str]]:
    """Write lists as AR-Net's of Mini-Kinetics, and a class list; return the listed folders by part."""
    rng = random.Random(seed)
    names = class_names()
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    folders: dict[str, list[str]] = {}
    for part, count in MINI_KINETICS.items():
        rows = []
        folders[part] = []
        for number in range(count):
            label, start = number % N_CLASSES, rng.randint(0, 300)
            path = f"images/{part}/{names[label]}/{_youtube_id(rng)}_{start:06d}_{start + 10:06d}"
            folders[part].append(path)
            rows.append(f"{path} {rng.randint(100, 300)} {label}\n")
        (folder / f"mini_{part}_videofolder.txt").write_text("".join(rows))
    return folders


def _youtube_id(rng: random.Random) -> str:
    return "".join(rng.choices(_ID, k=11))
