"""A network's tensors are found under the names that training left; no other tensors are taken for them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from dynaprop.pipeline.backbones.fit import build_network, fit_network
from dynaprop.pipeline.backbones.state_dict import _is_foreign
from dynaprop.pipeline.backbones.timm_networks import load_network
from dynaprop.pipeline.backbones.weights import Weights, find_weights
from dynaprop.pipeline.errors import DynapropError

MODEL = "test_resnet"
Tensors = dict[str, torch.Tensor]


def trained(model: str = MODEL, seed: int = 1, **options: Any) -> torch.nn.Module:
    """A network whose normalisations do something, with its classifier."""
    torch.manual_seed(seed)
    network = timm.create_model(model, **options).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.01 * torch.rand_like(tensor))
    return network


def behind(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without(end: str, tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(end)}


def load(path: Path, model: str = MODEL, size: int | None = None) -> torch.nn.Module:
    return load_network(model, find_weights(str(path), model), size)


def features(network: torch.nn.Module, size: int = 64) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)))


WHOLE = trained()
TENSORS = WHOLE.state_dict()
_bare = copy.deepcopy(WHOLE)
_bare.reset_classifier(0)
EXPECTED = features(_bare)
BARE = _bare.state_dict()
EPOCH = {"epoch": 3, "lr": [0.1], "best": 0.5, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "groups": []}}

SAVED: dict[str, Callable[[], dict[str, Any]]] = {
    "as it is": lambda: BARE,
    "with a classifier": lambda: TENSORS,
    **{
        f"behind {prefix}": lambda prefix=prefix: behind(prefix, TENSORS)  # type: ignore[misc]
        for prefix in (
            "module.",
            "_orig_mod.",
            "model.",
            "backbone.",
            "student.",
            "module._orig_mod.",
            "model.backbone.",
        )
    },
    **{
        f"in {wrapper}": lambda wrapper=wrapper: {wrapper: TENSORS, **EPOCH}  # type: ignore[misc]
        for wrapper in ("state_dict", "model", "model_state_dict", "teacher", "student", "net")
    },
    "in state_dict > model": lambda: {"state_dict": {"model": TENSORS}},
    "in model > state_dict": lambda: {"model": {"state_dict": TENSORS}, **EPOCH},
    "as DINO has it": lambda: {
        "teacher": behind("backbone.", BARE) | {"head.mlp.0.weight": torch.zeros(5, 5)},
        **EPOCH,
    },
    "without counters": lambda: without("num_batches_tracked", TENSORS),
    "with counters as floats": lambda: {
        name: tensor.float() if name.endswith("tracked") else tensor for name, tensor in TENSORS.items()
    },
    "with counters of another shape": lambda: {
        name: tensor.reshape(1) if name.endswith("tracked") else tensor for name, tensor in TENSORS.items()
    },
    "twice the same": lambda: {"teacher": TENSORS, "student": {name: tensor.clone() for name, tensor in BARE.items()}},
    **{
        f"in {key} beside a moving average": lambda key=key: {  # type: ignore[misc]
            f"{key}_ema": trained(seed=2).state_dict(),
            key: TENSORS,
        }
        for key in ("model", "state_dict")
    },
    "beside other things": lambda: {"state_dict": behind("model.", TENSORS) | {"loss.weight": torch.ones(3)}, **EPOCH},
    "in double precision": lambda: {name: t.double() if t.is_floating_point() else t for name, t in TENSORS.items()},
}


@pytest.mark.parametrize("kind", SAVED)
def test_weights_are_loaded_whoever_saved_them(tmp_path, kind):
    torch.save(SAVED[kind](), tmp_path / "w.pth.tar")
    network = load(tmp_path / "w.pth.tar")
    torch.testing.assert_close(features(network), EXPECTED, rtol=0, atol=0)
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "backbone.", "student.", "module.backbone."])
def test_prefixes_in_safetensors_too(tmp_path, prefix):
    save_file(behind(prefix, without("num_batches_tracked", TENSORS)), tmp_path / "w.safetensors")
    assert torch.equal(features(load(tmp_path / "w.safetensors")), EXPECTED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_half_precision_is_computed_with_in_single(tmp_path, dtype, suffix):
    halves = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in BARE.items()}
    path = tmp_path / f"w{suffix}"
    torch.save(halves, path) if suffix == ".pth" else save_file(halves, path)
    network = load(path)
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    rounded = copy.deepcopy(_bare).to(dtype).float()
    assert torch.equal(features(network), features(rounded))
    assert not torch.equal(features(network), EXPECTED)


@pytest.mark.parametrize(
    ("saved", "named"),
    [
        (lambda other: {"student": TENSORS, "teacher": other}, "student, teacher"),
        (
            lambda other: {"ema": behind("module.", TENSORS), "net": behind("module.", other)},
            r"ema > module\.\*, net > ",
        ),
        (lambda other: {**TENSORS, "model": {"epoch": 3}, "ema": other}, "the top level, ema"),
        (lambda other: {"state_dict": behind("module.", TENSORS), "state_dict_ema": other}, "state_dict > module"),
        (lambda other: behind("encoder_q.", TENSORS) | behind("encoder_k.", other), r"encoder_q\.\*, encoder_k\.\*"),
    ],
)
def test_of_several_sets_of_weights_none_is_guessed(tmp_path, saved, named):
    torch.save(saved(trained(seed=2).state_dict()), tmp_path / "w.pth")
    with pytest.raises(DynapropError, match=rf"w\.pth holds several sets of these weights \({named}.*\): save the one"):
        load(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("saved", "first"),
    [
        (lambda: {}, "conv1.0.weight"),
        (lambda: {"epoch": 3}, "conv1.0.weight"),
        (lambda: without("layer1.0.conv1.weight", TENSORS), "layer1.0.conv1.weight"),
        (lambda: behind("module.", without("layer1.0.conv1.weight", TENSORS)), "layer1.0.conv1.weight"),
        (lambda: TENSORS | {"bn1.weight": torch.ones(7)}, "bn1.weight"),
        (lambda: TENSORS | {"bn1.weight": torch.ones_like(TENSORS["bn1.weight"]).long()}, "bn1.weight"),
        (lambda: {name.replace("bn1", "norm1"): tensor for name, tensor in TENSORS.items()}, "bn1.weight"),
        (lambda: trained("test_efficientnet").state_dict(), "conv1.0.weight"),
    ],
)
def test_a_tensor_that_is_missing_or_another_models_is_an_error(tmp_path, saved, first):
    torch.save(saved(), tmp_path / "w.pth")
    with pytest.raises(DynapropError, match=rf"not weights of timm's {MODEL} \(\d+ tensors differ, e\.g\. {first}\)"):
        load(tmp_path / "w.pth")


ODD: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "float8": (lambda tensor: tensor.to(torch.float8_e4m3fn), r"of torch\.float8_e4m3fn"),
    "meta": (lambda tensor: tensor.to("meta"), "on torch's meta device, without its numbers"),
    "nested": (lambda tensor: torch.nested.nested_tensor([tensor, tensor]), "nested"),
    "jagged": (lambda tensor: torch.nested.nested_tensor([tensor, tensor], layout=torch.jagged), "nested"),
}


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_without_numbers_of_their_own_are_refused(tmp_path, kind, in_order):
    make, why = ODD[kind]
    torch.save(TENSORS | {"bn1.weight": make(TENSORS["bn1.weight"])}, tmp_path / "w.pth")
    message = rf"w\.pth: not weights of timm's {MODEL} \(1 tensors differ, e\.g\. bn1\.weight, which is {why}\)"
    with pytest.raises(DynapropError, match=message):
        load_network(MODEL, Weights("package:x", tmp_path / "w.pth", "", in_order=in_order))


def test_quantised_weights_are_refused_in_safetensors_too(tmp_path):
    save_file({name: t.to(torch.float8_e4m3fn) for name, t in TENSORS.items()}, tmp_path / "w.safetensors")
    with pytest.raises(DynapropError, match=r"e\.g\. conv1\.0\.weight, which is of torch\.float8_e4m3fn\)"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "bn1.running_var"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, name, value):
    broken = {key: tensor.clone() for key, tensor in TENSORS.items()}
    broken[name].view(-1)[-1] = value
    torch.save({"model": behind("module.", broken)}, tmp_path / "w.pth")
    save_file(broken, tmp_path / "w.safetensors")
    for path in (tmp_path / "w.pth", tmp_path / "w.safetensors"):
        with pytest.raises(DynapropError, match=rf"{path.name}: {name} holds numbers that are not finite"):
            load(path)
    with pytest.raises(DynapropError, match=rf"{name} holds numbers that are not finite"):  # as a package's are loaded
        load_network(MODEL, Weights("package:x", tmp_path / "w.pth", "", in_order=False))
    torch.save(broken, tmp_path / "p.pth")
    with pytest.raises(DynapropError, match=rf"p\.pth: {name} holds numbers that are not finite"):
        load_network(MODEL, Weights("package:x", tmp_path / "p.pth", "", in_order=True))


def test_a_classifier_that_is_not_finite_is_nobodys_business(tmp_path):
    torch.save(TENSORS | {"fc.weight": torch.full_like(TENSORS["fc.weight"], torch.nan)}, tmp_path / "w.pth")
    assert torch.equal(features(load(tmp_path / "w.pth")), EXPECTED)


# What else lies behind the prefix.


@pytest.mark.parametrize(
    ("model", "deeper", "block"),
    [
        ("resnet18", "resnet34", r"layer1\.2\.conv1\.weight"),
        ("tf_efficientnet_b0", "tf_efficientnet_b1", r"blocks\.0\.1\.conv_dw\.weight"),
        pytest.param("tf_efficientnet_lite0", "tf_efficientnet_lite1", r"blocks\.1\.2\.", marks=pytest.mark.slow),
        pytest.param(
            "swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", r"layers\.2\.", marks=pytest.mark.slow
        ),
        pytest.param("cait_xxs24_224", "cait_xxs36_224", r"blocks\.24\.", marks=pytest.mark.slow),
    ],
)
def test_weights_of_a_deeper_model_are_not_loaded_in_part(tmp_path, model, deeper, block):
    tensors = timm.create_model(deeper).state_dict()
    torch.save({"net": behind("module.", tensors)}, tmp_path / "w.pth")
    with pytest.raises(DynapropError, match=rf"not weights of timm's {model} \(\d+ tensors differ, e\.g\. {block}"):
        load(tmp_path / "w.pth", model)


@pytest.mark.parametrize(
    "model",
    [
        *("test_resnet", "test_vit", "test_efficientnet", "mobilenetv3_small_050", "levit_128s"),
        *(
            pytest.param(model, marks=pytest.mark.slow)
            for model in [
                *("resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "volo_d1_224", "vgg11"),
                *("deit_tiny_distilled_patch16_224", "beit_base_patch16_224", "convnext_atto", "densenet121"),
            ]
        ),
    ],
)
def test_a_classifier_is_never_taken_for_a_block_more(tmp_path, model):
    tensors = timm.create_model(model).state_dict()
    torch.save({"net": behind("module.", tensors)}, tmp_path / "w.pth")
    network = load(tmp_path / "w.pth", model).state_dict()
    assert all(torch.equal(network[name], tensor) for name, tensor in tensors.items() if name in network)


@pytest.mark.parametrize(
    "name", ["conv1.0.weight_scale", "layer1.0.conv1.lora_A", "layer1.0.conv1.lora_A.weight", "layer1.0.conv1.bias"]
)
def test_a_layer_with_a_tensor_more_is_not_the_networks(tmp_path, name):
    torch.save({"net": behind("module.", TENSORS | {name: torch.ones(1)})}, tmp_path / "w.pth")
    with pytest.raises(DynapropError, match=rf"not weights of timm's {MODEL} \(1 tensors differ, e\.g\. {name}\)"):
        load(tmp_path / "w.pth")


def test_what_no_layer_has_to_do_with_is_left(tmp_path):
    """Heads of other trainings, and tensors that have no name."""
    names = ("fc.0.weight", "head.mlp.0.weight", "decoder.0.weight", 7)
    torch.save(TENSORS | {name: torch.ones(1) for name in names}, tmp_path / "w.pth")
    assert torch.equal(features(load(tmp_path / "w.pth")), EXPECTED)


def test_a_buffer_that_is_computed_and_was_saved_is_left():
    """As BEiT's authors saved it."""
    layer = torch.nn.Linear(2, 2)
    layer.register_buffer("relative_position_index", torch.zeros(1), persistent=False)
    network = torch.nn.ModuleDict({"rel_pos_bias": layer})
    assert not _is_foreign(network, "rel_pos_bias.relative_position_index")
    assert _is_foreign(network, "rel_pos_bias.scale")


# Weights that were made at a model's own size.

RESAMPLED = [
    *(("test_vit3", 112), ("test_coatnet", 96), ("test_maxvit", 128)),
    *(
        pytest.param(model, size, marks=pytest.mark.slow)
        for model, size in [
            *(("deit_tiny_patch16_224", 112), ("vit_tiny_patch16_224", 112)),
            *(("flexivit_small", 112), ("vit_srelpos_small_patch16_224", 112)),
            *(("deit3_small_patch16_224", 112), ("eva02_tiny_patch14_224", 112), ("beit_base_patch16_224", 112)),
            *(("swin_tiny_patch4_window7_224", 112), ("swin_s3_tiny_224", 112), ("swinv2_cr_tiny_224", 112)),
            *(("swinv2_tiny_window8_256", 112), ("tnt_s_legacy_patch16_224", 112), ("vitamin_small_224", 112)),
            *(("coatnet_pico_rw_224", 96), ("maxvit_pico_rw_256", 96), ("vit_tiny_r_s16_p8_224", 96)),
            *(
                ("vit_small_patch14_dinov2", 112),
                ("vit_base_patch16_clip_224", 112),
                ("vit_base_patch16_siglip_224", 112),
            ),
            *(("vit_base_patch16_siglip_gap_224", 112), ("eva02_base_patch16_clip_224", 112)),
        ]
    ),
]


@pytest.mark.parametrize(("model", "size"), RESAMPLED)
def test_embeddings_of_positions_are_resampled_as_timm_does_it(tmp_path, model, size, recwarn):
    """Against timm's own way from a file to a network of another size."""
    assert fit_network(model, size).img_size == size
    path = tmp_path / "w.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in trained(model).state_dict().items()}, path)
    expected = timm.create_model(
        model, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, num_classes=0, img_size=size
    ).eval()
    recwarn.clear()
    network = load(path, model, size)
    assert not network.training
    assert [str(warning.message) for warning in recwarn] == []
    tensors, others = network.state_dict(), expected.state_dict()
    assert list(tensors) == list(others)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in others.items())
    assert torch.equal(features(network, size), features(expected, size))


def test_resampled_weights_may_have_a_prefix_a_wrapper_and_half_precision(tmp_path):
    tensors = trained("test_vit3").state_dict()
    torch.save({"teacher": behind("backbone.", {name: t.half() for name, t in tensors.items()})}, tmp_path / "w.pth")
    torch.save({name: t.half().float() for name, t in tensors.items()}, tmp_path / "plain.pth")
    network, plain = (load(tmp_path / name, "test_vit3", 112) for name in ("w.pth", "plain.pth"))
    assert torch.equal(features(network, 112), features(plain, 112))


def test_weights_made_at_the_size_are_taken_as_they_are(tmp_path):
    """As a fine-tuning at 112 pixels leaves them."""
    made = trained("test_vit3", img_size=112, num_classes=0)
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    network = load(tmp_path / "w.safetensors", "test_vit3", 112)
    assert torch.equal(features(network, 112), features(made, 112))
    with pytest.raises(DynapropError, match=r"not weights of timm's test_vit3 \(1 tensors differ, e\.g\. pos_embed\)"):
        load(tmp_path / "w.safetensors", "test_vit3", 160)


@pytest.mark.parametrize(
    ("model", "other"),
    [
        ("test_vit3", "test_vit2"),
        pytest.param("vit_tiny_patch16_224", "vit_tiny_patch16_384", marks=pytest.mark.slow),
        pytest.param("vit_small_patch16_224", "vit_small_patch32_224", marks=pytest.mark.slow),
        pytest.param("deit_tiny_patch16_224", "deit_small_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_weights_of_another_model_are_not_resampled(tmp_path, model, other):
    """timm would also make patches of another size fit."""
    torch.save(trained(other).state_dict(), tmp_path / "w.pth")
    with pytest.raises(DynapropError, match=rf"not weights of timm's {model} \(\d+ tensors differ"):
        load(tmp_path / "w.pth", model, 112)


@pytest.mark.parametrize(
    ("model", "tensor"),
    [
        ("gmlp_ti16_224", r"blocks\.0\.mlp_channels\.gate\.proj\.weight"),
        pytest.param("convit_tiny", "pos_embed", marks=pytest.mark.slow),
        pytest.param("levit_128s", r"stages\.\S+", marks=pytest.mark.slow),
    ],
)
def test_what_timm_cannot_resample_is_an_error_that_names_the_tensor(tmp_path, model, tensor):
    torch.save(trained(model).state_dict(), tmp_path / "w.pth")
    message = rf"w\.pth: weights of timm's {model} at its own size, which timm cannot resample for 112 x 112 pixels "
    with pytest.raises(DynapropError, match=rf"{message}\({tensor}\); give the backbone its own size"):
        load(tmp_path / "w.pth", model, 112)
    assert features(load(tmp_path / "w.pth", model, 224), 224).shape[0] == 2  # at their own size they are as ever


def test_a_network_without_a_file_is_drawn_the_same_each_time():
    first, second = (load_network("test_vit3", find_weights("random", "test_vit3"), 112) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    torch.manual_seed(0)
    expected = timm.create_model("test_vit3", num_classes=0, img_size=112).eval()
    assert torch.equal(features(first, 112), features(expected, 112))


def test_a_network_of_its_own_size_is_the_one_that_timm_draws():
    for model, size in (("test_vit3", 160), ("test_vit", 160), ("test_resnet", 64), ("test_efficientnet", 112)):
        torch.manual_seed(5)
        ours = build_network(model, fit_network(model, size).img_size)
        torch.manual_seed(5)
        plain = timm.create_model(model, num_classes=0).eval()
        assert torch.equal(features(ours, size), features(plain, size))
