"""An extraction in a process of its own, for tests that kill it: `python -m tests.extract_process ROOT HOME`."""

import sys
from pathlib import Path

from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.io.paths import storage_path

BACKBONES = (
    BackboneSpec(name="s", model="test_efficientnet", size=112, weights="random"),
    BackboneSpec(name="t", model="test_resnet", size=224, weights="random"),
)


def dataset(root: Path) -> DatasetSpec:
    """Five short videos a shard."""
    return DatasetSpec(name="killed", root=root, min_clips=25, max_clips=25, shard_rows=125)


def main() -> None:
    """Extract all that is not done, on one thread; say when the work begins."""
    import torch

    torch.set_num_threads(1)
    spec, home = dataset(Path(sys.argv[1])), storage_path(sys.argv[2])
    with Extraction(
        dataset=spec, annotations=read_annotations(spec), backbones=BACKBONES, home=home, device="cpu"
    ) as work:
        print("begin", flush=True)
        plan = work.plan(work.changes())
        work.extract_shards(plan.shards)
        summary = work.summary()
    print(f"decoded {summary.decoded}", flush=True)


if __name__ == "__main__":
    main()
