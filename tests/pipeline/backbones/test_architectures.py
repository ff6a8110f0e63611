"""Architectures of all families at 112 pixels, the smallest of each, with random weights.

They are tried on torch's meta device; `make test-slow` runs them on real frames, in torch and compiled.
"""

from collections.abc import Collection

import numpy as np
import pytest
import timm
import torch

from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.feature_key import feature_key
from dynaprop.pipeline.backbones.fit import fit_network
from dynaprop.pipeline.backbones.timm_networks import channels
from dynaprop.pipeline.backbones.torch_network import TorchNetwork
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.video.decoders import resize_frame
from tests.pipeline.videos import all_frames

ANY = """
resnet18 tf_efficientnet_b0 tf_efficientnetv2_b0 mobilenetv3_small_050 mobilenetv4_conv_small convnext_atto
convnextv2_atto regnetx_002 densenet121 vgg11 inception_v3 xception41 pvt_v2_b0 mvitv2_tiny fastvit_t8 ghostnet_050
dm_nfnet_f0 poolformer_s12 lcnet_035 edgenext_xx_small mobilevit_xxs mobilevitv2_050 tiny_vit_5m_224
xcit_nano_12_p16_224 crossvit_tiny_240 twins_svt_small nextvit_small repvit_m0_9 starnet_s1 test_vit mnasnet_small
cspdarknet53 res2net50_14w_8s repvgg_a0 efficientvit_b0 davit_tiny focalnet_tiny_srf inception_next_atto
mambaout_femto efficientvit_m0 swiftformer_xs sequencer2d_s skresnet18
"""
BUILT = """
vit_tiny_patch16_224 deit_tiny_patch16_224 deit3_small_patch16_224 beit_base_patch16_224 beitv2_base_patch16_224
eva02_tiny_patch14_224 vit_base_patch16_clip_224 flexivit_small vit_base_patch16_siglip_224 vit_small_patch14_dinov2
swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 levit_128s cait_xxs24_224 convit_tiny
mixer_s16_224 resmlp_12_224 gmlp_ti16_224 visformer_tiny pit_ti_224 nest_tiny volo_d1_224 tnt_s_legacy_patch16_224
vit_srelpos_small_patch16_224 vitamin_small_224 test_vit3
"""
OF_224 = """
vit_small_patch32_224 dla46_c hrnet_w18_small resnetaa34d coatnet_pico_rw_224 hiera_tiny_224 gcvit_xxtiny resnet50_clip
"""
MULTIPLES = "it takes multiples of 32, such as 96, 128, 160"
ARCHITECTURES = {
    **dict.fromkeys(ANY.split(), "any"),  # taken as timm has them
    **dict.fromkeys(BUILT.split(), "built"),  # for this size
    **dict.fromkeys(OF_224.split(), f"{MULTIPLES}, 224"),  # refused, and the end of what is said
    **dict.fromkeys(["maxvit_pico_rw_256", "botnet26t_256"], f"{MULTIPLES}, 256"),
    "efficientformer_l1": "it takes 224, for example",
    "halonet26t": "it takes 256, for example",
}
_LARGE = """
vgg11 xception41 dm_nfnet_f0 cspdarknet53 nextvit_small davit_tiny focalnet_tiny_srf sequencer2d_s mvitv2_tiny
res2net50_14w_8s densenet121 hrnet_w18_small inception_v3 beitv2_base_patch16_224 crossvit_tiny_240 swinv2_cr_tiny_224
resnet50_clip nest_tiny tnt_s_legacy_patch16_224
"""
LARGE = {*_LARGE.split()}
"""Those that take a second or more to build."""


@pytest.fixture(autouse=True)
def _patience(monkeypatch) -> None:
    """A busy machine finds as many sizes as an idle one."""
    monkeypatch.setattr("dynaprop.pipeline.backbones.fit._SEARCH_SECONDS", 60)


def outcome(model: str, size: int) -> tuple[str, str]:
    """ "any", "built" or the end of the message; and a line of the table."""
    try:
        fit = fit_network(model, size)
    except UsageError as error:
        said = str(error)
        assert said.startswith(f"timm's {model} takes no frames of {size} x {size} pixels; ") and said.isprintable()
        return said.partition("; ")[2], f"{model:32} {size:4}  refused: {said.partition('; ')[2]}"
    how = "any" if fit.img_size is None else "built"
    assert fit.img_size in (None, size)
    return how, f"{model:32} {size:4}  {how:6} {fit.channels:5} channels {fit.gmacs:8.3f} GMACs"


@pytest.mark.parametrize(
    "models",
    [
        pytest.param(ARCHITECTURES.keys() - LARGE, id="small"),
        pytest.param(LARGE, id="large", marks=pytest.mark.slow),
    ],
)
def test_architectures_of_all_families_on_the_meta_device(models: Collection[str]) -> None:
    assert len(ARCHITECTURES.keys() - LARGE) >= 40
    found = {model: outcome(model, 112) for model in ARCHITECTURES if model in models}
    print("\n" + "\n".join(line for _, line in found.values()))
    assert {model: how for model, (how, _) in found.items()} == {model: ARCHITECTURES[model] for model in found}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_architectures_on_real_frames_compiled_and_in_torch(data_root):
    """What comes out of a backbone against timm's network run by torch alone, built here."""
    video = next((data_root / "weizmann" / "jack").glob("*.avi"))
    pictures = np.stack([resize_frame(frame, 112) for frame in all_frames(video)[:20:5]])
    models = [model for model, how in ARCHITECTURES.items() if how in ("any", "built") and model not in LARGE]
    assert len(models) >= 40
    print()
    far, in_torch = {}, []
    for model in models:
        key, weights = feature_key(backbone="b", model=model, size=112, weights="random")
        notes: list[str] = []
        features = FrameBackbone(key=key, weights=weights, on_note=notes.append).features(pictures)
        options = {"img_size": 112} if ARCHITECTURES[model] == "built" else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = timm.create_model(model, num_classes=0, **options).eval()
        expected = TorchNetwork(network, mean=key.mean, std=key.std, device=torch.device("cpu")).start(pictures)()
        difference = np.linalg.norm(features - expected) / np.linalg.norm(expected)
        print(
            f"{outcome(model, 112)[1]}  {'in torch' if notes else 'compiled'}, difference {difference:.1e}", flush=True
        )
        assert features.shape == (4, channels(model, 112))
        if not difference <= 1e-3:
            far[model] = difference
        if notes:
            in_torch.append(model)
    assert far == {}
    assert in_torch == []
