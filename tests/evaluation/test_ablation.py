"""A model with parts switched off: the variants are what they are called, and the whole model is left alone."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from facerwkv.core.errors import InputError
from facerwkv.evaluation.ablation import Ablation, Variants
from facerwkv.mixers import MIXERS
from facerwkv.models.zoo import create_model

UNDECAYED = [name for name, mixer in MIXERS.items() if mixer.time_mix.undecayed and name != "rwkv7"]
"""What RWKV-7 removes from its state depends on the order of the tokens, decay or none."""
SIZE = {"image_size": (8, 12), "patch_size": 4, "width": 32, "heads": 2, "depth": 2, "pool": "mean"}


def model_of(mixer):
    torch.manual_seed(0)
    model = create_model("facerwkv4_small", mixer=mixer, **SIZE).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def by_name(model, images):
    variants = Variants(model, "it")
    with torch.inference_mode():
        return dict(zip(variants.names, variants(images).unbind(1), strict=True))


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_variant_is_the_model_without_that_part(mixer):
    model, images = model_of(mixer), torch.rand(2, 3, 8, 12)
    with torch.inference_mode():
        before = model(images)
        found = by_name(model, images)
        assert torch.equal(model(images), before)
        tokens = model.embed(images)[0]
        bare = model.classifier(model.pool(model.norm(tokens)))
        torch.testing.assert_close(found["all blocks"], bare)
        without = deepcopy(model)
        without.blocks[1].channel_mix.forward = lambda x, grid: torch.zeros_like(x)
        torch.testing.assert_close(found["block 1: channel mix"], without(images))
        for block in model.blocks:
            block.time_mix.forward = lambda x, *others: torch.zeros_like(x)
        torch.testing.assert_close(found["all time mixes"], model(images))


@pytest.mark.parametrize("mixer", ["vrwkv", "vrwkv_flat"])
def test_without_decay_and_bonus_and_with_values_averaged_it_is_its_own_control(mixer):
    model, images = model_of(mixer), torch.rand(2, 3, 8, 12)
    found = by_name(model, images)
    for variant, control in (("decay and bonus", "vrwkv_flat"), ("values averaged", "vrwkv_mean")):
        other = create_model("facerwkv4_small", mixer=control, **SIZE).eval()
        fixed = {name for name, parameter in other.named_parameters() if not parameter.requires_grad}
        other.load_state_dict({k: v for k, v in model.state_dict().items() if k not in fixed}, strict=False)
        with torch.inference_mode():
            torch.testing.assert_close(found[variant], other(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixer", UNDECAYED)
def test_what_is_undecayed_forgets_nothing_and_prefers_nobody(mixer):
    model = create_model("facerwkv4_small", mixer=mixer, scan="both", **SIZE).double()
    mix = model.blocks[1].time_mix
    for name, parameter in mix.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        if name.startswith("mix_"):  # and read no neighbour
            torch.nn.init.constant_(parameter, 0.0 if mixer == "rwkv6" else 1.0)
    for name, value in mix.undecayed.items():
        mix.get_parameter(name).data.fill_(value)
    if mixer == "rwkv6":
        torch.nn.init.zeros_(mix.mix_up)
    x, order = torch.randn(1, 6, 32, dtype=torch.float64), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(mix(x[:, order], (2, 3)), mix(x, (2, 3))[:, order], rtol=1e-8, atol=1e-10)


def test_rows_are_compared_image_by_image(tmp_path):
    whole, targets = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    ablation = Ablation.of(whole, {"none": whole, "some": np.eye(3)[[0, 0, 0, 1]]}, targets)
    none, some = ablation.rows
    assert (ablation.accuracy, none.accuracy, some.accuracy) == (0.75, 0.75, 0.5)
    assert (none.difference.value, none.p, none.changed) == (0.0, 1.0, 0.0)
    assert (some.difference.value, some.p, some.changed) == (-0.25, 1.0, 0.75)
    ablation.save(tmp_path)
    assert Ablation.load(tmp_path) == ablation


def test_a_model_without_mixers_is_refused():
    with pytest.raises(InputError, match="it has no blocks of mixers to switch off; leave ablate out"):
        Variants(torch.nn.Linear(2, 2), "it")
