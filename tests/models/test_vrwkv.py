import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.mixers.vrwkv import quad_shift
from facerwkv.models.vrwkv import convert_vrwkv, load_vrwkv
from facerwkv.models.zoo import create_model

MIXES = {"att": "kvr", "ffn": "kr"}
LINEARS = {"att": ("key", "value", "receptance", "output"), "ffn": ("key", "value", "receptance")}


def public_weights(width=8, depth=2, classes=5, patches=6, post=False, key_norm=False):
    """A made-up state dict with OpenGVLab's key names and shapes."""
    shapes = {"patch_embed.projection.weight": (width, 3, 16, 16), "patch_embed.projection.bias": (width,)}
    shapes |= {"pos_embed": (1, patches, width), "head.fc.weight": (classes, width), "head.fc.bias": (classes,)}
    norms = ["ln1", "layers.0.ln0", *(f"layers.{n}.ln{i}" for n in range(depth) for i in (1, 2))]
    shapes |= {f"{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}
    for n in range(depth):
        shapes |= {f"layers.{n}.att.spatial_{kind}": (width,) for kind in ("decay", "first")}
        for half, letters in MIXES.items():
            shapes |= {f"layers.{n}.{half}.spatial_mix_{letter}": (1, 1, width) for letter in letters}
            shapes |= {f"layers.{n}.{half}.{linear}.weight": (width, width) for linear in LINEARS[half]}
        shapes |= {f"layers.{n}.ffn.key.weight": (4 * width, width), f"layers.{n}.ffn.value.weight": (width, 4 * width)}
        if post:
            shapes |= {f"layers.{n}.gamma{i}": (width,) for i in (1, 2)}
        if key_norm:
            for half, size in (("att", width), ("ffn", 4 * width)):
                shapes |= {f"layers.{n}.{half}.key_norm.{kind}": (size,) for kind in ("weight", "bias")}
    generator = torch.Generator().manual_seed(0)
    return {key: 0.5 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def public_forward(weights, x, depth=2):
    """What OpenGVLab's model computes from such weights, pre-norm or post-norm with scales."""

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def mixed(x, name):
        mu = weights[name]
        return x * mu + quad_shift(x, (2, 3)) * (1 - mu)

    def attend(x, at):
        k, v, r = (
            mixed(x, f"{at}.spatial_mix_{name[0]}") @ weights[f"{at}.{name}.weight"].T
            for name in ("key", "value", "receptance")
        )
        time = torch.arange(6)
        lag = (time[:, None] - time).abs()[..., None]
        w, u = weights[f"{at}.spatial_decay"] / 6, weights[f"{at}.spatial_first"] / 6
        y = (torch.softmax(k[:, None] + torch.where(lag > 0, (1 - lag) * w, u), 2) * v[:, None]).sum(2)
        y = norm(y, f"{at}.key_norm") if f"{at}.key_norm.bias" in weights else y
        return (torch.sigmoid(r) * y) @ weights[f"{at}.output.weight"].T

    def channels(x, at):
        k = (mixed(x, f"{at}.spatial_mix_k") @ weights[f"{at}.key.weight"].T).relu() ** 2
        k = norm(k, f"{at}.key_norm") if f"{at}.key_norm.bias" in weights else k
        r = mixed(x, f"{at}.spatial_mix_r") @ weights[f"{at}.receptance.weight"].T
        return torch.sigmoid(r) * (k @ weights[f"{at}.value.weight"].T)

    x = functional.conv2d(
        x, weights["patch_embed.projection.weight"], weights["patch_embed.projection.bias"], stride=16
    )
    x = norm(x.flatten(2).mT + weights["pos_embed"], "layers.0.ln0")
    for n in range(depth):
        for number, half, part in ((1, "att", attend), (2, "ffn", channels)):
            at, layer = f"layers.{n}.ln{number}", f"layers.{n}"
            if f"{layer}.gamma1" in weights:
                x = x + weights[f"{layer}.gamma{number}"] * norm(part(x, f"{layer}.{half}"), at)
            else:
                x = x + part(norm(x, at), f"{layer}.{half}")
    return norm(x, "ln1").mean(1) @ weights["head.fc.weight"].T + weights["head.fc.bias"]


KINDS = {
    "vrwkv_tiny": {},
    "vrwkv_small": {"post": True},
    "vrwkv_base": {"post": True},
    "vrwkv_key_norm": {"post": True, "key_norm": True},
}


def small(name):
    mixer = {"mixer": name} if name == "vrwkv_key_norm" else {}
    name = "vrwkv_small" if mixer else name
    return create_model(name, num_classes=5, img_size=(32, 48), width=8, depth=2, **mixer).eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
@pytest.mark.parametrize("name", KINDS)
def test_a_public_checkpoint_loads_and_gives_what_it_gives_there(name, suffix, tmp_path):
    model, weights, x = small(name), public_weights(**KINDS[name]), torch.randn(2, 3, 32, 48)
    path = tmp_path / f"public{suffix}"
    stored = {key if key.startswith("head") else f"backbone.{key}": value for key, value in weights.items()}
    if suffix == ".npz":
        import numpy as np

        np.savez(path, **{key: value.numpy() for key, value in stored.items()})
    elif suffix == ".pth":
        torch.save({"state_dict": stored}, path)
    else:
        save_file(stored, path)
    load_vrwkv(model, path)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), public_forward(weights, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_every_name_is_converted_once(name):
    converted, own = convert_vrwkv(public_weights(**KINDS[name])), small(name).state_dict()
    assert {key: value.shape for key, value in converted.items()} == {key: value.shape for key, value in own.items()}


def test_a_head_without_fc_is_the_same_head():
    weights = {"head.weight": torch.ones(5, 8)}
    assert list(convert_vrwkv(weights)) == ["classifier.weight"]


def test_other_models_weights_are_named():
    with pytest.raises(InputError, match=r"'blocks\.0\.attn\.qkv\.weight' is not a weight of Vision-RWKV"):
        convert_vrwkv({"blocks.0.attn.qkv.weight": torch.ones(1)})


def test_a_pickle_that_holds_more_than_weights_is_not_opened(tmp_path):
    (tmp_path / "vrwkv.pth").write_bytes(pickle.dumps({"state_dict": Path("anything that runs")}))
    with pytest.raises(InputError, match=r"vrwkv\.pth is damaged or contains more than weights"):
        load_vrwkv(small("vrwkv_tiny"), tmp_path / "vrwkv.pth")


@pytest.mark.parametrize(("name", "scale"), [("vrwkv_small", 1.0), ("vrwkv_base", 1e-5)])
def test_scales_start_where_the_published_models_have_them(name, scale):
    for block in small(name).blocks:
        for mix in (block.time_mix, block.channel_mix):
            assert mix.scale.unique().tolist() == [pytest.approx(scale)]


def test_a_fresh_model_knows_no_places_and_drops_blocks_as_published():
    model = create_model("vrwkv_base", width=8)
    assert not model.position.table.any()
    assert [round(getattr(block.drop_path, "drop_prob", 0.0), 3) for block in model.blocks][::11] == [0, 0.5]


def test_it_has_no_recurrent_form():
    model = small("vrwkv_tiny")
    with pytest.raises(InputError, match=r"'vrwkv'.*no recurrent form"):
        model.stream(model.embed(torch.rand(1, 3, 32, 48))[0])


def test_larger_images_resize_the_position_bicubically():
    model = small("vrwkv_tiny")
    torch.nn.init.normal_(model.position.table)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 5)
