import pytest
import torch
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.kernels.wkv7 import wkv7
from facerwkv.mixers.config import MixerConfig
from facerwkv.mixers.rwkv7 import ChannelMix, LowRank, TimeMix

CONFIG = MixerConfig(width=8, depth=3, heads=2, time_mix_dim=8, hidden=None, tokens=24)
BOTH = MixerConfig(8, 3, 2, 8, None, 24, scan="both")
GRID = (4, 6)


def build(config=CONFIG, layer=1):
    """A time mix with random weights, also where training starts from zeros."""
    torch.manual_seed(0)
    module = TimeMix(config, layer).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def tokens(length=24, seed=1):
    return torch.randn(2, length, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_what_the_paper_writes():
    mix, x, first = build(), tokens(), tokens(seed=2)
    change = functional.pad(x, (0, 0, 1, 0))[:, :-1] - x
    x_r, x_w, x_k, x_v, x_a, x_g = (x + change * m for m in mix.mix_streams)
    r, k, v = mix.receptance(x_r), mix.key(x_k), mix.value(x_v)
    v = v + (first - v) * torch.sigmoid(mix.time_value.base + x_v @ mix.time_value.down @ mix.time_value.up)
    z = mix.time_decay.base + torch.tanh(x_w @ mix.time_decay.down) @ mix.time_decay.up
    log_decay = -torch.exp(-functional.softplus(-z) - 0.5)
    rate = torch.sigmoid(mix.time_rate.base + x_a @ mix.time_rate.down @ mix.time_rate.up)
    gate = torch.sigmoid(x_g @ mix.time_gate.down) @ mix.time_gate.up
    kk = functional.normalize((k * mix.time_removal).unflatten(-1, (2, 4)), dim=-1)
    k = k * (1 + (rate - 1) * mix.time_replacement)
    r, w, k, v, rate = (part.unflatten(-1, (2, 4)) for part in (r, log_decay, k, v, rate))
    y, _ = wkv7(r, w, k, v, -kk, kk * rate, implementation="reference")
    y = functional.group_norm(y.flatten(2).flatten(0, 1), 2, mix.norm.weight, mix.norm.bias, 64e-5).view(2, 24, 8)
    bonus = (r * k * mix.time_bonus.view(2, 4)).sum(-1, keepdim=True) * v
    expected = mix.output((y + bonus.flatten(2)) * gate)
    torch.testing.assert_close(mix(x, GRID, {"value": first}), expected, rtol=1e-10, atol=1e-12)


def test_the_first_layer_leaves_its_values_for_the_others():
    shared, mix = {}, build(layer=0)
    mix(tokens(), GRID, shared)
    change = functional.pad(tokens(), (0, 0, 1, 0))[:, :-1] - tokens()
    torch.testing.assert_close(shared["value"], mix.value(tokens() + change * mix.mix_streams[3]))
    left = shared["value"].clone()
    build(layer=1)(tokens(), GRID, shared)
    torch.testing.assert_close(shared, {"value": left})


def test_every_layer_but_the_first_learns_its_value_residual():
    for layer in range(3):
        residual = TimeMix(CONFIG, layer).time_value
        assert {parameter.requires_grad for parameter in residual.parameters()} == {layer > 0}
    first, later, shared = build(layer=0), build(layer=1), {}
    y = first(tokens(), GRID, shared)
    later(y, GRID, shared).sum().backward()
    for mix in (first, later):
        for name, parameter in mix.named_parameters():
            assert (mix is first and name.startswith("time_value")) or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("pieces", [[24], [1] * 24, [5, 1, 18]])
def test_layers_in_pieces_give_what_they_give_at_once(pieces):
    layers, states, outputs = [build(layer=0), build(layer=1)], [None, None], []
    shared, whole = {}, tokens()
    for layer in layers:
        whole = layer(whole, GRID, shared)
    for piece in tokens().split(pieces, 1):
        shared = {}
        for number, layer in enumerate(layers):
            piece, states[number] = layer.stream(piece, states[number], shared)
        outputs.append(piece)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-10, atol=1e-12)


def test_one_scan_is_causal_and_two_see_the_future():
    x = tokens()
    changed = x.clone()
    changed[:, 13:] += 1
    forward, both = build(), build(BOTH)
    torch.testing.assert_close(forward(changed, GRID)[:, :13], forward(x, GRID)[:, :13], rtol=1e-10, atol=1e-12)
    assert ((both(changed, GRID) - both(x, GRID))[:, 12].abs() > 1e-9).all()


def test_two_scans_do_not_stream():
    with pytest.raises(InputError, match=r"scan 'both' needs all tokens at once.*scan='forward'"):
        build(BOTH).stream(tokens(), None)


@pytest.mark.parametrize("config", [CONFIG, BOTH], ids=["forward", "both"])
def test_a_fresh_block_changes_nothing(config):
    assert not TimeMix(config, 0)(tokens().float(), GRID).any()
    assert not ChannelMix(config, 0)(tokens().float(), GRID).any()


def test_bfloat16_autocast_runs():
    mix, channel, x = build().float(), ChannelMix(CONFIG, 1), tokens().float()
    with torch.autocast("cpu", torch.bfloat16):
        y = mix(x.bfloat16(), GRID)
        channel(x.bfloat16(), GRID)
    assert (y.float() - mix(x, GRID)).norm() < 0.1 * y.float().norm()


def test_the_kernel_s_implementation_can_be_chosen():
    mix = build()
    expected = mix(tokens(), GRID)
    mix.implementation = "reference"
    torch.testing.assert_close(mix(tokens(), GRID), expected)
    mix.implementation = "none"
    with pytest.raises(InputError, match="Unknown implementation 'none'"):
        mix(tokens(), GRID)


@pytest.mark.parametrize(("width", "ranks"), [(8, [32, 32, 32]), (128, [32, 32, 64]), (256, [32, 32, 64])])
def test_ranks_of_the_low_rank_parts(width, ranks):
    parts = [LowRank(width, scale, torch.nn.Identity(), None) for scale in (2.5, 1.7, 5.0)]
    assert [part.down.shape[1] for part in parts] == ranks


def test_ranks_of_the_large_model():
    mix = TimeMix(MixerConfig(512, 6, 8, 512, None, 600), 0)
    parts = (mix.time_decay, mix.time_rate, mix.time_value, mix.time_gate)
    assert [part.down.shape[1] for part in parts] == [64, 64, 32, 128]


def test_initial_values_at_the_second_of_three_layers():
    mix, rho, tau = TimeMix(CONFIG, 1), 0.5, 2 / 3
    ramp, line = torch.arange(8) / 8, torch.arange(8) / 7 - 0.5
    zigzag = torch.tensor([-1, -1 / 9, 1 / 9, 1] * 2)
    decay = -6 + 6 * (torch.arange(8) / 7) ** (1 + rho**0.3) + 0.5 + 2.5 * zigzag
    torch.testing.assert_close(mix.time_decay.base.data, decay)
    torch.testing.assert_close(mix.time_rate.base.data, -0.19 + 0.3 * zigzag + 0.4 * line)
    torch.testing.assert_close(mix.time_value.base.data, 0.73 - 0.4 * line)
    torch.testing.assert_close(mix.time_removal.data, 0.71 - 0.1 * line)
    assert (mix.time_replacement.unique().tolist(), mix.time_bonus.unique().tolist()) == (
        pytest.approx([1.02]),
        pytest.approx([-0.04]),
    )
    powers = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
    torch.testing.assert_close(mix.mix_streams.data, torch.stack([1 - ramp ** (p * tau) for p in powers.values()]))
    torch.testing.assert_close(mix.norm.weight.data, torch.full((8,), (2 / 3) ** 0.7))
    torch.testing.assert_close(ChannelMix(CONFIG, 1).mix_key.data, 1 - ramp ** (tau**4))


def test_matrices_start_as_upstream_s_training_has_them():
    mix, channel = TimeMix(CONFIG, 1), ChannelMix(CONFIG, 1)
    for linear, scale in ((mix.receptance, 1), (mix.key, 0.1), (mix.value, 1), (channel.key, 1)):
        torch.testing.assert_close(linear.weight.T @ linear.weight, scale**2 * torch.eye(8), atol=1e-6, rtol=0)
    for part in (mix.time_decay, mix.time_rate, mix.time_value, mix.time_gate):
        assert not part.down.any()
        torch.testing.assert_close(part.up.T @ part.up, 0.04 * torch.eye(8), atol=1e-6, rtol=0)  # (0.1 sqrt(32 / 8))^2


def test_bad_shapes_are_refused_in_words():
    with pytest.raises(InputError, match="rwkv7's initialisation needs a depth of at least 2, not 1"):
        TimeMix(MixerConfig(8, 1, 2, 8, None, 24), 0)
    with pytest.raises(InputError, match="rwkv7 mixes at full width: time_mix_dim 4 must be the width 8"):
        TimeMix(MixerConfig(8, 3, 2, 4, None, 24), 0)
