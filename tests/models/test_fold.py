"""Inference forms of every line of MODELS give the model's own answers."""

import copy

import pytest
import torch

from facerwkv.core.errors import InputError
from facerwkv.data.normalise import normalise
from facerwkv.data.transforms import TransformConfig
from facerwkv.mixers import MIXERS, MixerConfig
from facerwkv.models.config import STEMS, ModelConfig
from facerwkv.models.facerwkv import FaceRWKV
from facerwkv.models.fold import LastToken, aot, compiled, fold
from facerwkv.models.zoo import MODELS, create_model

SIZE = (40, 60)
TRANSFORMS = {
    "plain": TransformConfig(image_size=SIZE),
    "imagenet": TransformConfig(image_size=SIZE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}
GREY = {
    "plain": TransformConfig(image_size=SIZE, in_chans=1),
    "half": TransformConfig(image_size=SIZE, in_chans=1, mean=(0.5,), std=(0.25,)),
}


def small(name, **options):
    """The model with random weights, also where training starts from zeros, and batch norms that do something."""
    torch.manual_seed(0)
    size = {"img_size": SIZE} if MODELS[name].config.patch_size in (20, 5) else {}
    model = create_model(name, **size | options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 2)
    return model


def images(model, batch=2):
    shape = (batch, *model.config.image_size, model.config.in_chans)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", [name for name, line in MODELS.items() if isinstance(line.config, ModelConfig)])
def test_a_folded_model_gives_the_model_s_answers(name):
    narrow = {"time_mix_dim": 2} if MODELS[name].config.time_mix_dim else {}
    model = small(name, width=64, depth=2, heads=2, **narrow)
    raw = images(model)
    with torch.inference_mode():
        for transform in (GREY if raw.shape[-1] == 1 else TRANSFORMS).values():
            x = normalise(raw, transform)
            logits = model(x)
            scale = max(1.0, logits.abs().max().item())
            for answer in (fold(model)(x), fold(model, transform)(raw), fold(model, transform)(raw.float())):
                assert (answer - logits).abs().max() <= 1e-5 * scale


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("pool", ["last", "mean", "flatten"])
@pytest.mark.parametrize("stem", ["linear", "conv", "residual", "vgg"])
def test_every_mixer_pool_and_stem_folds_in_float64(mixer, pool, stem):
    options = {"patch_size": 4, "width": 32, "heads": 2, "img_size": (8, 12)}
    model = small("facerwkv4_small", mixer=mixer, pool=pool, stem=stem, position="unused", **options).double()
    x = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stem", STEMS)
def test_no_stem_keeps_a_batch_norm(stem):
    model = small("facerwkv4_small", stem=stem, patch_size=4, img_size=(16, 32)).double()
    folded, x = fold(model), torch.rand(2, 3, 16, 32, dtype=torch.float64)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pool", ["last", "mean", "flatten"])
@pytest.mark.parametrize("size", [(8, 12), (12, 8), (4, 24)])
def test_a_row_shift_folds_on_any_grid(pool, size):
    options = {"patch_size": 4, "width": 32, "heads": 2, "img_size": size if pool == "flatten" else (8, 12)}
    model = small("facerwkv_small_fullwidth", shift="row", pool=pool, **options).double()
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-9, atol=1e-9)


def test_the_last_outputs_of_a_row_shift_take_all_tokens():
    config = MixerConfig(8, 2, 2, 8, None, 24, shift="row")
    mix = MIXERS["rwkv1"].time_mix(config, 0)
    for form in (mix, mix.folded()):
        with pytest.raises(InputError, match="shift 'row' needs all tokens at once"):
            form.last(torch.rand(2, 24, 8), 2)


@pytest.mark.parametrize("mixer", [name for name in MIXERS if hasattr(MIXERS[name].time_mix, "last")])
@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_last_outputs_are_forward_s(mixer, count, layer):
    mix = MIXERS[mixer].time_mix(MixerConfig(8, 2, 2, 8, None, 24), layer).double()
    for parameter in mix.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    shared = [{"value": torch.rand(2, 24, 8, dtype=torch.float64)}] if MIXERS[mixer].time_mix.shares and layer else []
    x = torch.rand(2, 24, 8, dtype=torch.float64)
    torch.testing.assert_close(mix.last(x, count, *shared), mix(x, (4, 6), *shared)[:, -count:])


def test_every_recurrent_mixer_can_give_its_last_outputs():
    assert {name for name in MIXERS if hasattr(MIXERS[name].time_mix, "last")} >= {
        "rwkv1", "rwkv4", "rwkv5", "rwkv6", "rwkv7", "attention"
    }  # fmt: skip


def test_the_published_small_model_drifts_by_less_than_1e_5():
    model = small("facerwkv_small", img_size=(400, 600))
    raw, transform = images(model, 1), TRANSFORMS["imagenet"]
    with torch.inference_mode():
        exact = copy.deepcopy(model).double()(normalise(raw, transform).double())
        assert (fold(model, transform)(raw) - exact).abs().max() <= 1e-5
        assert (fold(model)(normalise(raw, transform)) - exact).abs().max() <= 1e-5


def test_folding_leaves_the_model_as_it_was():
    model = small("facerwkv_hybrid_small").train()
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, TRANSFORMS["imagenet"])
    assert model.training
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_smaller_image_than_the_table_s():
    model = small("facerwkv_small")
    x = torch.rand(1, 3, 20, 60)
    torch.testing.assert_close(fold(model)(x), model(x))
    with pytest.raises(InputError, match="6 tokens and was given 9"):
        fold(model)(torch.rand(1, 3, 60, 60))


def test_an_image_that_the_patch_does_not_divide():
    with pytest.raises(InputError, match=r"48 x 60 pixels.*20 x 20"):
        fold(small("facerwkv4_small"))(torch.rand(1, 3, 48, 60))
    with pytest.raises(InputError, match=r"48 x 60 pixels.*20 x 20"):
        fold(small("facerwkv4_small"), TRANSFORMS["plain"])(torch.rand(1, 48, 60, 3))


def test_a_table_too_large_to_fold_is_left_as_it_is():
    model = small("facerwkv_small", img_size=(700, 700))
    assert type(fold(model).blocks[0].time_mix) is MIXERS["rwkv1"].time_mix
    x = torch.rand(1, 3, 700, 700)
    with torch.inference_mode():
        torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-5, atol=1e-5)


def test_only_a_head_that_reads_the_last_token_lets_the_others_go():
    assert isinstance(fold(small("facerwkv4_small")).blocks[-1], LastToken)
    assert not isinstance(fold(small("facerwkv4_small", pool="mean")).blocks[-1], LastToken)


def test_another_model_gets_the_normalisation():
    model, transform = torch.nn.Conv2d(3, 2, 3), TRANSFORMS["imagenet"]
    raw = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8)
    torch.testing.assert_close(fold(model, transform)(raw), model(normalise(raw, transform)))
    assert not isinstance(fold(model), FaceRWKV)


@pytest.mark.parametrize("form", [compiled, aot])
def test_without_a_compiler_one_is_asked_for(monkeypatch, form):
    import torch._inductor.cpp_builder as builder
    from torch._inductor.exc import InvalidCxxCompiler

    def nothing():
        raise InvalidCxxCompiler

    monkeypatch.setattr(builder, "get_cpp_compiler", nothing)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler"):
        form(small("facerwkv_small"), torch.rand(1, 3, *SIZE))


def test_a_library_s_name_ends_in_pt2(tmp_path):
    with pytest.raises(InputError, match=r"model\.so must end in \.pt2"):
        aot(small("facerwkv_small"), torch.rand(1, 3, *SIZE), tmp_path / "model.so")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["facerwkv_small", "facerwkv7_small"])
@pytest.mark.parametrize("form", [compiled, aot])
def test_compiled_forms_give_the_model_s_answers(form, name):
    model = small(name)
    raw, transform = images(model, 1), TRANSFORMS["imagenet"]
    with torch.inference_mode():
        logits = model(normalise(raw, transform))
        torch.testing.assert_close(form(fold(model, transform), raw)(raw), logits, rtol=1e-5, atol=1e-5)
