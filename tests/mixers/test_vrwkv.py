import pytest
import torch
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.kernels.biwkv import biwkv
from facerwkv.mixers import MIXERS, MixerConfig
from facerwkv.mixers.vrwkv import quad_shift

CONFIG = MixerConfig(width=8, depth=3, heads=1, time_mix_dim=8, hidden=None, tokens=24)
GRID = (4, 6)
NAMES = pytest.mark.parametrize("name", ["vrwkv", "vrwkv_post", "vrwkv_key_norm"])


def build(name, half):
    torch.manual_seed(0)
    module = getattr(MIXERS[name], half)(CONFIG, 1).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def tokens():
    return torch.randn(2, 24, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def after(module, y):
    if not hasattr(module, "after"):
        return y
    return module.scale * functional.layer_norm(y, (8,), module.after.weight, module.after.bias)


@NAMES
def test_the_spatial_mix_is_what_the_paper_writes(name):
    mix, x = build(name, "time_mix"), tokens()
    k, v, r = (
        linear(mu * x + (1 - mu) * quad_shift(x, GRID))
        for linear, mu in ((mix.key, mix.mix_key), (mix.value, mix.mix_value), (mix.receptance, mix.mix_receptance))
    )
    y = biwkv(mix.time_decay / 24, mix.time_first / 24, k, v, implementation="reference")
    if name == "vrwkv_key_norm":
        y = functional.layer_norm(y, (8,), mix.norm.weight, mix.norm.bias)
    expected = after(mix, (torch.sigmoid(r) * y) @ mix.output.weight.T)
    torch.testing.assert_close(mix(x, GRID), expected, rtol=1e-10, atol=1e-12)


@NAMES
def test_the_channel_mix_is_what_the_paper_writes(name):
    mix, x = build(name, "channel_mix"), tokens()
    k, r = (mu * x + (1 - mu) * quad_shift(x, GRID) for mu in (mix.mix_key, mix.mix_receptance))
    hidden = mix.key(k).relu() ** 2
    if name == "vrwkv_key_norm":
        hidden = functional.layer_norm(hidden, (32,), mix.norm.weight, mix.norm.bias)
    expected = after(mix, torch.sigmoid(mix.receptance(r)) * mix.value(hidden))
    torch.testing.assert_close(mix(x, GRID), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["vrwkv_flat", "vrwkv_mean"])
def test_a_control_gives_every_token_one_mean(name):
    mix, x = MIXERS[name].time_mix(CONFIG, 1).double(), tokens()
    shifted = quad_shift(x, GRID)
    k, v, r = (
        linear(mu * x + (1 - mu) * shifted)
        for linear, mu in ((mix.key, mix.mix_key), (mix.value, mix.mix_value), (mix.receptance, mix.mix_receptance))
    )
    weights = torch.softmax(k, 1) if name == "vrwkv_flat" else torch.full_like(v, 1 / 24)
    expected = (torch.sigmoid(r) * (weights * v).sum(1, keepdim=True)) @ mix.output.weight.T
    torch.testing.assert_close(mix(x, GRID), expected, rtol=1e-10, atol=1e-12)
    fixed = {name for name, parameter in mix.named_parameters() if not parameter.requires_grad}
    assert fixed == {"time_decay", "time_first"} | ({"key.weight", "mix_key"} if name == "vrwkv_mean" else set())


def test_the_convolutional_control_costs_what_vision_rwkv_does():
    counts = [
        sum(
            p.numel()
            for half in ("time_mix", "channel_mix")
            for p in getattr(MIXERS[name], half)(CONFIG, 1).parameters()
            if p.ndim > 1
        )
        for name in ("vrwkv", "conv")
    ]
    assert counts[0] == counts[1]


def test_initial_values_at_the_second_of_three_layers():
    time, channel = MIXERS["vrwkv"].time_mix(CONFIG, 1), MIXERS["vrwkv"].channel_mix(CONFIG, 1)
    ramp = torch.arange(8) / 8
    torch.testing.assert_close(time.time_decay.data, -5 + 8 * (torch.arange(8) / 7) ** 1.35)
    torch.testing.assert_close(time.mix_value.data, ramp ** (2 / 3) + 0.15)
    torch.testing.assert_close(time.mix_receptance.data, ramp ** (1 / 3))
    for mix in (time.mix_key, channel.mix_key, channel.mix_receptance):
        torch.testing.assert_close(mix.data, ramp ** (2 / 3))


def test_matrices_start_truncated_normal():
    config = MixerConfig(width=128, depth=2, heads=1, time_mix_dim=128, hidden=None, tokens=4)
    for half in ("time_mix", "channel_mix"):
        for part in getattr(MIXERS["vrwkv_post"], half)(config, 0).modules():
            if isinstance(part, torch.nn.Linear):
                assert part.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_bad_shapes_are_refused_in_words():
    with pytest.raises(InputError, match="vrwkv mixes at full width: time_mix_dim 4 must be the width 8"):
        MIXERS["vrwkv"].time_mix(MixerConfig(8, 3, 2, 4, None, 24), 0)


@pytest.mark.parametrize(("decay", "form"), [(19.0, "sums"), (-19.0, "sums"), (21.0, "chunked")])
def test_a_graph_takes_running_sums_where_the_decays_allow_them(decay, form):
    mix, x = build("vrwkv", "time_mix"), tokens()
    torch.nn.init.constant_(mix.time_decay, decay)
    expected = mix(x, GRID)
    mix.implementation = mix.portable
    assert mix.implementation == form
    torch.testing.assert_close(mix(x, GRID), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", [name for name, mixer in MIXERS.items() if hasattr(mixer.time_mix, "implementation")])
def test_every_time_mix_with_an_implementation_has_one_for_graphs(name):
    assert MIXERS[name].time_mix.portable
