import pytest
import torch
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.kernels.wkv6 import wkv6
from facerwkv.mixers.config import MixerConfig
from facerwkv.mixers.rwkv6 import EagleChannelMix, EagleTimeMix, FinchChannelMix, FinchTimeMix, HeadNorm

CONFIG = MixerConfig(width=8, depth=3, heads=2, time_mix_dim=8, hidden=None, tokens=24)
BOTH = MixerConfig(8, 3, 2, 8, None, 24, scan="both")
TIME_MIXES = pytest.mark.parametrize("time_mix", [EagleTimeMix, FinchTimeMix])
CHANNEL_MIXES = pytest.mark.parametrize("channel_mix", [EagleChannelMix, FinchChannelMix])
GRID = (4, 6)
CHANNEL = torch.arange(8)


def build(kind, config=CONFIG, layer=1):
    """A mixer with random weights, also where training starts from zeros."""
    torch.manual_seed(0)
    module = kind(config, layer).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def tokens(length=24):
    return torch.randn(2, length, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def before(x):
    return functional.pad(x, (0, 0, 1, 0))[:, :-1]


def finish(mix, r, k, v, g, log_decay):
    """From what the streams read to the output, in the words of the paper."""
    u = mix.time_first.view(2, 4)
    r, k, v, w = (x.unflatten(-1, (2, 4)) for x in (mix.receptance(r), mix.key(k), mix.value(v), log_decay))
    y, _ = wkv6(r, k, v, w, u, implementation="reference")
    y = functional.group_norm(y.flatten(2).flatten(0, 1) / 8, 2, mix.norm.weight, mix.norm.bias, eps=1e-5)
    return mix.output(y.unflatten(0, (2, 24)) * functional.silu(mix.gate(g)))


def test_eagle_is_what_the_paper_writes():
    mix, x = build(EagleTimeMix), tokens()
    read = [mu * x + (1 - mu) * before(x) for mu in mix.mix_streams]
    expected = finish(mix, *read, (-mix.time_decay.exp()).expand_as(x))
    torch.testing.assert_close(mix(x, GRID), expected, rtol=1e-10, atol=1e-12)


def test_finch_is_what_the_paper_writes():
    mix, x = build(FinchTimeMix), tokens()
    change = before(x) - x
    hidden = torch.tanh((x + change * mix.mix_base) @ mix.mix_down).chunk(5, -1)
    extra = [part @ up for part, up in zip(hidden, mix.mix_up, strict=True)]
    *read, d = (x + change * (m + more) for m, more in zip(mix.mix_streams, extra, strict=True))
    log_decay = -(mix.time_decay + torch.tanh(d @ mix.time_decay_down) @ mix.time_decay_up).exp()
    torch.testing.assert_close(mix(x, GRID), finish(mix, *read, log_decay), rtol=1e-10, atol=1e-12)


def test_finch_without_its_low_rank_parts_is_eagle():
    finch, eagle = build(FinchTimeMix), build(EagleTimeMix)
    for part in (finch.mix_down, finch.time_decay_down):
        torch.nn.init.zeros_(part)
    shared = {name: value for name, value in finch.state_dict().items() if name in eagle.state_dict()}
    eagle.load_state_dict(shared | {"mix_streams": 1 - finch.mix_streams[:4]})
    torch.testing.assert_close(finch(tokens(), GRID), eagle(tokens(), GRID))


@TIME_MIXES
def test_one_scan_is_causal_and_two_see_the_future(time_mix):
    x = tokens()
    changed = x.clone()
    changed[:, 13:] += 1
    forward, both = build(time_mix), build(time_mix, BOTH)
    torch.testing.assert_close(forward(changed, GRID)[:, :13], forward(x, GRID)[:, :13], rtol=1e-10, atol=1e-12)
    assert ((both(changed, GRID) - both(x, GRID))[:, 12].abs() > 1e-9).all()


@TIME_MIXES
def test_streaming_keeps_a_state_of_constant_size(time_mix):
    module, state, sizes = build(time_mix), None, set()
    for piece in tokens().split(1, 1):
        _, state = module.stream(piece, state)
        sizes.add((state["wkv"].shape, state["last"].shape))
    assert sizes == {(torch.Size([2, 2, 4, 4]), torch.Size([2, 8]))}


@TIME_MIXES
def test_two_scans_do_not_stream(time_mix):
    with pytest.raises(InputError, match=r"scan 'both' needs all tokens at once.*scan='forward'"):
        build(time_mix, BOTH).stream(tokens(), None)


@TIME_MIXES
@pytest.mark.parametrize("config", [CONFIG, BOTH], ids=["forward", "both"])
def test_a_fresh_time_mix_changes_nothing(time_mix, config):
    assert not time_mix(config, 0)(tokens().float(), GRID).any()


@CHANNEL_MIXES
def test_a_fresh_channel_mix_changes_nothing(channel_mix):
    assert not channel_mix(CONFIG, 0)(tokens().float(), GRID).any()


@CHANNEL_MIXES
def test_the_hidden_width_is_three_and_a_half_times_the_width_in_steps_of_32(channel_mix):
    widths = {128: 448, 192: 672, 200: 672, 8: 32}
    assert {
        width: channel_mix(MixerConfig(width, 2, 2, width, None, 4), 0).key.out_features for width in widths
    } == widths
    assert channel_mix(MixerConfig(8, 2, 2, 8, 20, 4), 0).key.out_features == 20


def test_initial_values_at_the_second_of_three_layers():
    rho, tau = 0.5, 2 / 3
    eagle, finch = EagleTimeMix(CONFIG, 1), FinchTimeMix(CONFIG, 1)
    for mix in (eagle, finch):
        torch.testing.assert_close(mix.time_decay.data, -6 + 5 * (CHANNEL / 7) ** 1.35)
        zigzag = 0.1 * (torch.tensor([1, 2, 0, 1, 2, 0, 1, 2]) - 1)
        torch.testing.assert_close(mix.time_first.data, rho * (1 - CHANNEL / 7) + zigzag)
        torch.testing.assert_close(mix.norm.weight.data, torch.full((8,), (2 / 3) ** 0.7))
    ramp = CHANNEL / 8
    mixes = [ramp ** (tau / 2), ramp**tau, ramp**tau + 0.3 * rho, ramp ** (tau / 2)]
    torch.testing.assert_close(eagle.mix_streams.data, torch.stack(mixes))
    torch.testing.assert_close(finch.mix_streams.data, 1 - torch.stack([*mixes, mixes[1]]))
    torch.testing.assert_close(finch.mix_base.data, 1 - mixes[1])
    torch.testing.assert_close(EagleChannelMix(CONFIG, 1).mix_key.data, ramp**tau)
    torch.testing.assert_close(FinchChannelMix(CONFIG, 1).mix_key.data, ramp ** (tau**3))


@TIME_MIXES
def test_matrices_start_orthogonal_and_small_where_upstream_has_them_small(time_mix):
    mix = time_mix(CONFIG, 1)
    for linear, scale in ((mix.receptance, 1), (mix.value, 1), (mix.key, 0.1), (mix.gate, 0.1)):
        torch.testing.assert_close(linear.weight @ linear.weight.T, scale**2 * torch.eye(8), atol=1e-6, rtol=0)


@CHANNEL_MIXES
def test_the_channel_mix_starts_with_a_gain_of_1_though_it_widens(channel_mix):
    weight = channel_mix(CONFIG, 1).key.weight
    torch.testing.assert_close(weight.T @ weight, torch.eye(8), atol=1e-6, rtol=0)


@TIME_MIXES
def test_bfloat16_autocast_runs(time_mix):
    mix, x = build(time_mix).float(), tokens().float()
    with torch.autocast("cpu", torch.bfloat16):
        y = mix(x.bfloat16(), GRID)
    assert (y.float() - mix(x, GRID)).norm() < 0.1 * y.float().norm()


@TIME_MIXES
def test_the_kernel_s_implementation_can_be_chosen(time_mix):
    mix = build(time_mix)
    expected = mix(tokens(), GRID)
    mix.implementation = "reference"
    torch.testing.assert_close(mix(tokens(), GRID), expected)
    mix.implementation = "none"
    with pytest.raises(InputError, match="Unknown implementation 'none'"):
        mix(tokens(), GRID)


def test_the_norm_is_a_group_norm():
    norm, y = HeadNorm(CONFIG, 1).double(), tokens().unflatten(-1, (2, 4))
    expected = functional.group_norm(y.flatten(2).flatten(0, 1), 2, norm.weight, norm.bias, eps=64e-5)
    torch.testing.assert_close(norm(y), expected.view(2, 24, 8))


@TIME_MIXES
def test_bad_shapes_are_refused_in_words(time_mix):
    with pytest.raises(InputError, match="depth of at least 2, not 1"):
        time_mix(MixerConfig(8, 1, 2, 8, None, 24), 0)
    with pytest.raises(InputError, match="time_mix_dim 4 must be the width 8"):
        time_mix(MixerConfig(8, 3, 2, 4, None, 24), 0)
    with pytest.raises(InputError, match="100 is not divisible by 3 heads"):
        time_mix(MixerConfig(100, 3, 3, 100, None, 24), 0)
