"""Every line of MIXERS: shapes, gradients, recurrence, causality."""

from dataclasses import replace

import pytest
import torch

from facerwkv.core.errors import InputError
from facerwkv.mixers import MIXERS, MixerConfig

CONFIG = MixerConfig(width=8, depth=3, heads=2, time_mix_dim=8, hidden=None, tokens=24)
STREAMING = [name for name, mixer in MIXERS.items() if mixer.streams]
ONE_WAY = [name for name, mixer in MIXERS.items() if "both" not in mixer.time_mix.scans]
SEES_ALL = [name for name, mixer in MIXERS.items() if not mixer.streams and name not in ONE_WAY]
HALVES = ["time_mix", "channel_mix"]
BOTH = replace(CONFIG, scan="both")
ROW = replace(CONFIG, shift="row")
UNSHIFTED = {"rwkv4": 1.0, "rwkv5": 1.0, "rwkv6": 0.0, "rwkv7": 0.0, "vrwkv": 1.0}  # mixes that read no neighbour
TWO_WAYS = list(UNSHIFTED)
GRID = (4, 6)


def build(name, half, layer=0, config=CONFIG):
    """A mixer with random weights, also where training starts from zeros."""
    torch.manual_seed(0)
    module = getattr(MIXERS[name], half)(config, layer).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def tokens(length=24):
    return torch.randn(2, length, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", MIXERS)
def test_shape_and_a_gradient_for_every_parameter(name, half):
    module, x = build(name, half), tokens().requires_grad_()
    y = module(x, GRID)
    assert y.shape == x.shape
    (y.square().sum() + x.sum()).backward()
    for parameter_name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", MIXERS)
def test_mixed_precision_trains_with_nearly_the_same_gradients(name, half):
    results = []
    for enabled in (False, True):
        module, x = build(name, half).float(), tokens().float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = module(x, GRID)
        ((y.float() + x) * torch.cos(torch.arange(y.numel())).view_as(y)).sum().backward()
        grads = [x.grad, *(parameter.grad for parameter in module.parameters() if parameter.requires_grad)]
        assert all(grad.dtype == torch.float32 for grad in grads)
        results.append(torch.cat([grad.flatten() for grad in grads]))
    exact, rough = results
    assert (rough - exact).norm() <= 0.2 * exact.norm()


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("pieces", [[24], [1] * 24, [5, 1, 18]])
@pytest.mark.parametrize("name", STREAMING)
def test_in_pieces_it_gives_what_it_gives_at_once(name, half, pieces):
    module, x, state, outputs = build(name, half), tokens(), None, []
    for piece in x.split(pieces, 1):
        y, state = module.stream(piece, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), module(x, GRID), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", STREAMING)
def test_what_streams_is_causal(name, half):
    module, x = build(name, half), tokens()
    before = module(x, GRID)
    changed = x.clone()
    changed[:, 13:] += 1
    torch.testing.assert_close(module(changed, GRID)[:, :13], before[:, :13], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in MIXERS if name not in ONE_WAY])
def test_with_both_scans_a_token_sees_the_future(name):
    module, x = build(name, "time_mix", config=BOTH), tokens()
    before = module(x, GRID)
    x[:, 13:] += torch.arange(8)  # no norm takes this away
    assert (module(x, GRID)[:, 12] - before[:, 12]).abs().min() > 1e-9


@pytest.mark.parametrize("name", SEES_ALL)
def test_what_always_sees_all_does_not_ask_for_the_scan(name):
    assert torch.equal(build(name, "time_mix")(tokens(), GRID), build(name, "time_mix", config=BOTH)(tokens(), GRID))


def test_who_sees_all_and_who_only_the_past():
    assert {"attention", "vrwkv", "vrwkv_post", "vrwkv_key_norm"} <= set(SEES_ALL)
    assert {"rwkv1", "identity"} <= set(ONE_WAY)
    assert set(TWO_WAYS) <= set(MIXERS) - set(ONE_WAY)


@pytest.mark.parametrize("name", ONE_WAY)
def test_what_has_no_second_scan_names_what_has(name):
    with pytest.raises(InputError, match=f"{name} has no scan 'both'; use scan='forward', or .*rwkv4, .*rwkv7, "):
        build(name, "time_mix", config=BOTH)


def unshifted(name, config=BOTH):
    module = build(name, "time_mix", config=config)
    for key, parameter in module.named_parameters():
        if key.startswith("mix_"):
            torch.nn.init.constant_(parameter, UNSHIFTED[name])
    return module


@pytest.mark.parametrize("name", [name for name in TWO_WAYS if name != "rwkv7"])  # its token unlearns of its past only
def test_both_scans_of_mirrored_tokens_give_the_mirrored_outputs(name):
    module, x = unshifted(name), tokens()
    torch.testing.assert_close(module(x.flip(1), GRID).flip(1), module(x, GRID), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in TWO_WAYS if MIXERS[name].streams])
class TestBothScans:
    def test_the_last_token_has_no_future_and_sees_what_one_scan_shows(self, name):
        x = tokens()
        forward, both = (unshifted(name, config)(x, GRID) for config in (CONFIG, BOTH))
        torch.testing.assert_close(both[:, -1], forward[:, -1], rtol=1e-9, atol=1e-11)
        assert (both[:, 0] - forward[:, 0]).abs().max() > 1e-6

    def test_they_do_not_stream(self, name):
        with pytest.raises(InputError, match=r"scan 'both' needs all tokens at once.*scan='forward'"):
            build(name, "time_mix", config=BOTH).stream(tokens(), None)

    def test_every_parameter_has_a_gradient(self, name):
        module = build(name, "time_mix", config=BOTH)
        module(tokens(), GRID).square().sum().backward()
        for key, parameter in module.named_parameters():
            assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, key


def test_rwkv4_keeps_a_state_of_constant_size():
    module, state, sizes = build("rwkv4", "time_mix"), None, set()
    for piece in tokens().split(1, 1):
        _, state = module.stream(piece, state)
        sizes.add((state["wkv"].shape, state["last"].shape))
    assert sizes == {(torch.Size([2, 3, 8]), torch.Size([2, 8]))}


def test_rwkv1_uses_the_newest_weights_of_a_table_that_is_too_long():
    module = build("rwkv1", "time_mix")
    short = MIXERS["rwkv1"].time_mix(MixerConfig(8, 3, 2, 8, None, 10), 1).double()
    weights = module.state_dict() | {
        "time_w": module.time_w[:, -10:],
        "time_alpha": module.time_alpha[:, :10],
        "time_beta": module.time_beta[:, :10],
        "time_gamma": module.time_gamma[:10],
    }
    short.load_state_dict(weights)
    torch.testing.assert_close(module(tokens(10), (2, 5)), short(tokens(10), (2, 5)))


def test_rwkv1_names_both_lengths_when_its_table_is_too_short():
    with pytest.raises(InputError, match="24 tokens and was given 25"):
        build("rwkv1", "time_mix")(tokens(25), (5, 5))


def test_heads_must_divide_the_time_mix():
    with pytest.raises(InputError, match="time_mix_dim 9 is not divisible by 2 heads"):
        MixerConfig(8, 3, 2, 9, None, 24)


def test_a_fresh_rwkv4_block_changes_nothing():
    for half in HALVES:
        assert not getattr(MIXERS["rwkv4"], half)(CONFIG, 0)(tokens().float(), GRID).any()


def test_rwkv1_starts_as_upstream_at_full_width_and_as_the_authors_did_where_narrow():
    time, channel = (getattr(MIXERS["rwkv1"], half)(CONFIG, 0) for half in HALVES)
    linears = {"time": time, "channel": channel}
    zero = {"time.key", "time.receptance", "time.output", "channel.receptance", "channel.weight"}
    for half, mix in linears.items():
        for name, linear in mix.named_children():
            if isinstance(linear, torch.nn.Linear):
                assert not linear.bias.any()
                gain = 0 if f"{half}.{name}" in zero else max(1.0, linear.out_features / 8)
                torch.testing.assert_close(linear.weight.T @ linear.weight, gain * torch.eye(linear.in_features))
    narrow = replace(CONFIG, time_mix_dim=2)
    for half in HALVES:
        mix = getattr(MIXERS["rwkv1"], half)(narrow, 0)
        assert all(linear.weight.any() and linear.bias.any() for linear in mix.children() if hasattr(linear, "bias"))


def test_rwkv4_s_initial_values():
    mix = MIXERS["rwkv4"].time_mix(CONFIG, 1)
    channel = torch.arange(8) / 7
    torch.testing.assert_close(mix.time_decay.data, -5 + 8 * channel ** (0.7 + 1.3 * 0.5))
    expected = torch.tensor([0.3]).log() + 0.5 * (torch.tensor([1, 2, 0, 1, 2, 0, 1, 2]) - 1)
    torch.testing.assert_close(mix.time_first.data, expected)
    torch.testing.assert_close(mix.mix_value.data, (torch.arange(8) / 8) ** (2 / 3) + 0.15)


def test_rwkv4_needs_two_layers():
    with pytest.raises(InputError, match="depth of at least 2"):
        MIXERS["rwkv4"].time_mix(MixerConfig(8, 1, 2, 8, None, 24), 0)


@pytest.mark.parametrize("name", [name for name in MIXERS if "row" not in MIXERS[name].time_mix.shifts])
def test_what_knows_no_row_shift_names_what_does(name):
    with pytest.raises(InputError, match=r"has no shift 'row'; use shift='token', or rwkv1"):
        build(name, "time_mix", config=ROW)


@pytest.mark.parametrize("half", HALVES)
class TestRowShift:
    def test_a_row_s_first_token_reads_the_one_above_and_not_the_one_before(self, half):
        x = tokens()
        for shift, reads in (("token", [1, 0]), ("row", [0, 1])):
            module = build("rwkv1", half, config=replace(CONFIG, shift=shift))
            changed = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(projected(module, changed)[0, 6].sum(), changed)
            assert [int(gradient[0, place].any()) for place in (5, 0)] == reads

    def test_one_row_looks_at_nothing_else(self, half):
        module, x = build("rwkv1", half, config=ROW), tokens()
        shifted = torch.cat([torch.zeros_like(x[..., :4]), x[..., 4:]], -1)
        torch.testing.assert_close(projected(module, x, (1, 24)), module.key(shifted))

    def test_it_needs_all_tokens_at_once(self, half):
        with pytest.raises(InputError, match=r"shift 'row' needs all tokens at once; use shift='token'"):
            build("rwkv1", half, config=ROW).stream(tokens(), None)


def projected(module, x, grid=GRID):
    """The keys that a mixer makes of its tokens."""
    keys = []
    hook = module.key.register_forward_hook(lambda module, inputs, output: keys.append(output))
    module(x, grid)
    hook.remove()
    return keys[0]
