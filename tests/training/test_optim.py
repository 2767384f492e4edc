import math

import pytest
import torch

from facerwkv.models.zoo import MODELS, create_model
from facerwkv.training.optim import balanced_weights, build_optimizer, lr_factor, parameter_groups
from facerwkv.training.recipe import OptimPart, Recipe, SchedulePart


def test_the_paper_s_schedule():
    factor = lr_factor(SchedulePart(name="cosine", warmup_epochs=1, warmup_factor=0.1), epochs=25, steps_per_epoch=100)
    assert factor(0) == pytest.approx(0.1)
    assert factor(50) == pytest.approx(0.55)
    assert factor(100) == 1
    assert factor(1300) == pytest.approx(0.5)
    assert factor(2500) == pytest.approx(0)
    assert all(factor(step) >= factor(step + 1) for step in range(100, 2500))


def test_the_authors_schedule_swings_with_a_period_of_twice_the_epochs_in_steps():
    factor = lr_factor(SchedulePart(name="as_coded", warmup_factor=0.1), epochs=25, steps_per_epoch=688)
    assert factor(0) == 0.1
    assert [factor(1 + 25 * half) for half in range(5)] == pytest.approx([1, 0, 1, 0, 1])
    assert factor(2) == pytest.approx((1 + math.cos(math.pi / 25)) / 2)
    assert sum(factor(step) for step in range(1, 5001)) / 5000 == pytest.approx(0.5)


def test_constant_after_the_warm_up():
    factor = lr_factor(SchedulePart(name="constant", warmup_epochs=0), epochs=3, steps_per_epoch=10)
    assert {factor(step) for step in range(30)} == {1.0}


def test_exponential_falls_once_an_epoch():
    factor = lr_factor(SchedulePart(name="exponential", warmup_epochs=0, gamma=0.5), epochs=3, steps_per_epoch=10)
    assert [factor(step) for step in (0, 9, 10, 19, 20, 29)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_caer_net_s_halves_its_rate_every_15_epochs():
    factor = lr_factor(Recipe.read("caer_net_s").schedule, epochs=50, steps_per_epoch=10)
    assert [factor(10 * epoch) for epoch in (0, 14, 15, 29, 30, 45)] == [1, 1, 0.5, 0.5, 0.25, 0.125]


def test_sam_steps_from_where_it_stands_with_the_gradient_found_up_the_slope():
    """For f = x^2 / 2 the gradient is x: 3 at 3, and 3.05 where SAM looks; Adam's first step is lr times its sign."""
    x = torch.nn.Parameter(torch.tensor([3.0, 0.0]))
    optimizer = build_optimizer_of([x], OptimPart(name="sam", lr=0.1, rho=0.05))
    seen = []

    def closure():
        optimizer.zero_grad()
        seen.append(x.detach().clone())
        value = x.square().sum() / 2
        value.backward()
        return value

    assert optimizer.step(closure).item() == 4.5
    assert torch.equal(seen[0], torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(seen[1], torch.tensor([3.05, 0.0]))
    torch.testing.assert_close(x.grad, torch.tensor([3.05, 0.0]))
    torch.testing.assert_close(x.detach(), torch.tensor([2.9, 0.0]))


def build_optimizer_of(parameters, part):
    return build_optimizer(torch.nn.ParameterList(parameters), part)


def test_weight_decay_falls_on_matrices_only():
    model = create_model("facerwkv_small", position="learned", img_size=40)
    decayed, spared = parameter_groups(model, 0.1, 1.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all(names[id(one)].endswith("weight") and one.ndim >= 2 for one in decayed["params"])
    assert {"position.table", "blocks.0.time_mix.time_w", "blocks.0.norm1.weight"} <= {
        names[id(one)] for one in spared["params"]
    }
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_decays_weights_of_linear_layers_and_convolutions_only(name):
    with torch.device("meta"):
        model = create_model(name)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.1, 1.0)
    decayed = {names[id(one)] for group in groups if group["weight_decay"] for one in group["params"]}
    matrices = (torch.nn.Linear, torch.nn.Conv2d)
    modules = {key: part for key, part in model.named_modules() if isinstance(part, matrices)}
    assert decayed == {f"{key}.weight" for key, part in modules.items() if part.weight.requires_grad}


@pytest.mark.parametrize(
    ("version", "decay"), [(5, "time_decay"), (6, "time_decay"), (7, "time_decay.base")], ids=["5", "6", "7"]
)
def test_the_decay_of_later_versions_learns_twice_as_fast(version, decay):
    model = create_model(f"facerwkv{version}_small", img_size=40)
    optimizer = build_optimizer(model, OptimPart(name="adam", lr=1e-3, weight_decay=0.1))
    decays = {id(block.time_mix.get_parameter(decay)) for block in model.blocks}
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert {rate for key, rate in rates.items() if key in decays} == {2e-3}
    assert {rate for key, rate in rates.items() if key not in decays} == {1e-3}
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_what_comes_from_imagenet_learns_slower(name):
    model = create_model("facerwkv_fer", stem="resnet_layer2", patch_size=2)
    optimizer = build_optimizer(model, OptimPart(name=name, lr=1e-3, weight_decay=0.1, stem_lr_scale=0.1))
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    rates = {names[id(one)]: group["lr"] for group in optimizer.param_groups for one in group["params"]}
    layers = ("stem.conv1.", "stem.bn1.", "stem.layer1.", "stem.layer2.")
    slow = {key for key, rate in rates.items() if rate == pytest.approx(1e-4)}
    assert slow == {key for key in names.values() if key.startswith(layers)}
    assert {rate for key, rate in rates.items() if key not in slow} == {1e-3}
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_what_is_frozen_is_not_optimised():
    model = create_model("facerwkv_hybrid_frozen", img_size=40)
    optimised = {id(one) for group in parameter_groups(model, 0.1, 1.0) for one in group["params"]}
    assert optimised == {id(one) for one in model.parameters() if one.requires_grad}


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_every_optimiser_is_built(name, kind):
    assert isinstance(build_optimizer(torch.nn.Linear(2, 2), OptimPart(name=name)), kind)


def test_balanced_weights_make_classes_count_alike():
    counts = torch.tensor([10, 30, 0, 60])
    weights = balanced_weights(counts)
    torch.testing.assert_close(weights * counts, torch.tensor([100 / 3, 100 / 3, 0, 100 / 3]))


def test_half_the_power_goes_half_the_way_to_balance():
    counts = torch.tensor([4.0, 16.0, 0.0])
    weights = balanced_weights(counts, 0.5)
    torch.testing.assert_close(weights[0] / weights[1], torch.tensor(2.0))
    torch.testing.assert_close((weights * counts).sum(), counts.sum())
    assert weights[2] == 0


def test_muon_trains_matrices_and_convolutions_and_adamw_the_rest():
    model = create_model("facerwkv4_small", image_size=(40, 60))
    optimizer = build_optimizer(model, OptimPart(name="muon", lr=0.02, fallback_lr_scale=0.1, weight_decay=0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    fallback = {names[id(p)] for group in optimizer.param_groups if group["use_fallback"] for p in group["params"]}
    muon = {names[id(p)] for group in optimizer.param_groups if not group["use_fallback"] for p in group["params"]}
    assert {"stem.proj.weight", "blocks.0.time_mix.key.weight", "head.0.weight"} <= muon
    assert {"classifier.weight", "blocks.1.time_mix.time_decay", "stem.norm.bias", "stem.proj.bias"} <= fallback
    assert muon | fallback == set(names.values())
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model(torch.rand(2, 3, 40, 60)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before["classifier.weight"], model.classifier.weight)
