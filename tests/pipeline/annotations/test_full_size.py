"""Label files of full size are read to the published counts in the time and memory that are promised."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.annotations.activitynet import read_activitynet
from dynaprop.pipeline.annotations.frame_list import read_arnet_mini_kinetics
from tests.pipeline import full_size
from tests.pipeline.label_files import everything, touch


class TestFullSize:
    """The published counts, on made-up files of full size; the bounds are generous, figures stand in the commit."""

    def test_activitynet(self, tmp_path: Path) -> None:
        database = full_size.write_activitynet(tmp_path / "activity_net.v1-3.min.json")
        on_disk = list(database)[::100]
        for number, video_id in enumerate(on_disk):
            touch(tmp_path, f"part {number % 3}/v_{video_id}{('.mp4', '.mkv', '.webm')[number % 3]}")
        annotations, seconds = timed(read_activitynet, root=tmp_path, file=Path("activity_net.v1-3.min.json"))
        assert parts(annotations) == {"train": 10_024, "val": 4_926, "test": 5_044}
        assert annotations.class_names == tuple(sorted(full_size.class_names()))
        assert {video.id for video in annotations.videos} == {f"v_{video_id}" for video_id in on_disk}
        assert sum(len(video.labels) == 2 for video in everything(annotations).values()) == 9
        assert seconds < 20

    def test_mini_kinetics(self, tmp_path: Path) -> None:
        folders = full_size.write_mini_kinetics(tmp_path)
        for folder in folders["val"][::100]:
            (tmp_path / folder).mkdir(parents=True)
        annotations, seconds = timed(
            read_arnet_mini_kinetics,
            root=tmp_path,
            classes=Path("classes.txt"),
            fps=30.0,
            frames="{:05d}.jpg",
            first=1,
            train=Path("mini_train_videofolder.txt"),
            val=Path("mini_val_videofolder.txt"),
        )
        assert parts(annotations) == {"train": 121_215, "val": 9_867}
        assert len(annotations.class_names) == 200
        assert [video.id for video in annotations.videos] == sorted(folders["val"][::100])
        assert seconds < 30

    def test_memory(self, tmp_path: Path) -> None:
        full_size.write_activitynet(tmp_path / "labels.json")
        tracemalloc.start()
        try:
            read_activitynet(root=tmp_path, file=Path("labels.json"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2**30


def parts(annotations: Annotations) -> dict[str | None, int]:
    splits = [video.split for video in everything(annotations).values()]
    return {split: splits.count(split) for split in set(splits)}


def timed(reader: Callable[..., Annotations], **keys: Any) -> tuple[Annotations, float]:
    start = time.process_time()  # what others do on this machine does not count
    annotations = reader(**keys)
    return annotations, time.process_time() - start
