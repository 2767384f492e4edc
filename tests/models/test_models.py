"""Every line of MODELS, built small where images are run through it."""

import subprocess
import sys

import pytest
import timm
import torch

from facerwkv.core.errors import InputError
from facerwkv.mixers import MIXERS
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.compared.caer_net import CAERNetConfig
from facerwkv.models.config import BackboneConfig, ModelConfig
from facerwkv.models.zoo import MODELS, create_model

PUBLISHED = {
    "facerwkv_small": 540_259,
    "facerwkv_medium": 2_817_303,
    "facerwkv_large": 14_784_039,
    "facerwkv_hybrid": 14_998_375,
    "facerwkv_hybrid_frozen": 14_998_375,
    "facerwkv_small_identity": 10_122_951,
    "facerwkv_small_fullwidth": 670_039,
    "facerwkv_medium_fullwidth": 3_852_519,
    "facerwkv_large_fullwidth": 20_986_263,
    "facerwkv4_small": 600_199,
    "facerwkv4_medium": 3_794_695,
    "facerwkv4_large": 21_363_207,
    "facerwkv5_small": 600_967,
    "facerwkv5_medium": 3_797_767,
    "facerwkv5_large": 21_372_423,
    "facerwkv6_small": 716_167,
    "facerwkv6_medium": 4_258_567,
    "facerwkv6_large": 22_754_823,
    "facerwkv7_small": 651_399,
    "facerwkv7_medium": 3_868_423,
    "facerwkv7_large": 21_584_391,
    "caer_net_s": 2_390_028,
    "transformer_small": 447_367,
    "transformer_medium": 2_112_263,
    "transformer_large": 10_657_287,
    "alexnet": 57_032_519,
    "vgg19": 139_598_919,
    "resnet152": 58_158_151,
    "vit_tiny": 5_525_767,
    "vit_small": 21_668_359,
    "vit_base": 85_804_039,
}
VISION_RWKV = {"vrwkv_tiny": 6_155_176, "vrwkv_small": 23_820_136, "vrwkv_base": 93_645_544}  # with 1000 classes
STEP = {"linear": 20, "resnet": 20, "resnet_frozen": 20}
FACERWKV = [name for name, line in MODELS.items() if isinstance(line.config, ModelConfig)]
OURS = [name for name, line in MODELS.items() if not isinstance(line.config, BackboneConfig)]
HEAVY = ("alexnet", "vgg19", "resnet152", "vit_base", "poster_v2")  # most of the time of all
every_model = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in MODELS]
)
every_facerwkv = pytest.mark.parametrize("name", FACERWKV)


def shrunk(name):
    """Options that give a model images of 2 x 3 patches; the larger ones become shallow and narrow."""
    config = MODELS[name].config
    if not isinstance(config, ModelConfig):
        return {"img_size": (64, 64)}
    if config.image_size == (48, 48):
        return {"img_size": (2 * config.patch_size, 3 * config.patch_size)}
    options = {"img_size": (40, 60), "depth": min(config.depth, 3)}
    if config.width > 256 and config.time_mix_dim in (None, config.width):
        options |= {"width": 192, "heads": 3}
    return options | ({"patch_size": 20} if config.patch_size == 16 else {})


def small(name, **options):
    return create_model(name, **{"in_chans": channels_of(name, 3)} | shrunk(name) | options).eval()


def channels_of(name, colours):
    """What a model is given of images with so many colours: some look at a scene and at a face."""
    return colours * (2 if isinstance(MODELS[name].config, CAERNetConfig) else 1)


def images_of(name, batch=2, colours=3):
    """Images of the size that `shrunk` gives the model."""
    return images(batch, *shrunk(name)["img_size"], channels_of(name, colours))


def images(batch=2, height=40, width=60, channels=3):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameters_are_as_published(name, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in create_model(name).parameters()) == count


@pytest.mark.parametrize(("name", "count"), VISION_RWKV.items())
def test_parameters_are_as_vision_rwkv_s(name, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in create_model(name, num_classes=1000).parameters()) == count


@every_model
def test_logits_and_a_gradient_for_every_trainable_parameter(name):
    model = small(name).train()
    logits = model(images_of(name))
    assert logits.shape == (2, MODELS[name].config.num_classes)
    for parameter in model.parameters():  # so that a start from zeros hides no path
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model(images_of(name)).square().sum().backward()
    without = [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []


@every_model
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(name):
    model, x = small(name), images_of(name, 3)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-4, atol=1e-5)


@every_model
def test_its_classifier_is_exchanged_as_timm_s_are(name):
    model, x = small(name, num_classes=5, in_chans=channels_of(name, 1)), images_of(name, colours=1)
    assert model.get_classifier().out_features == 5
    model.reset_classifier(3)
    assert (model(x).shape, model.num_classes) == ((2, 3), 3)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)
    features = model.forward_features(x)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)


@pytest.mark.parametrize("name", OURS)
def test_timm_builds_what_we_wrote(name):
    model = timm.create_model(name, num_classes=5, in_chans=channels_of(name, 1), **shrunk(name)).eval()
    assert model(images_of(name, colours=1)).shape == (2, 5)


NEEDS_TIMM = "facerwkv.models.compared.poster"
OTHERS = ("facerwkv.models.stem", "facerwkv.models.vrwkv", NEEDS_TIMM)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["facerwkv.models", *OTHERS])
def test_timm_knows_ours_whichever_is_imported_first(first):
    code = f"import sys, {first}; print('timm' in sys.modules); import timm; print(*timm.list_models())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, listed = done.stdout.splitlines()
    assert (loaded == "True") is (first == NEEDS_TIMM)
    assert {*OURS} <= {*listed.split()}


@every_facerwkv
def test_features_are_tokens(name):
    model = small(name)
    assert model.forward_features(images_of(name)).shape == (2, 6, model.config.width)


@every_facerwkv
def test_intermediates_are_the_blocks_outputs_as_maps(name):
    model = small(name)
    final, maps = model.forward_intermediates(images_of(name), norm=True)
    assert [tuple(one.shape) for one in maps] == [(2, model.config.width, 2, 3)] * model.config.depth
    torch.testing.assert_close(final, model.forward_features(images_of(name)))
    torch.testing.assert_close(maps[-1].flatten(2).mT, final)


def test_timm_gives_features_only():
    model = timm.create_model("facerwkv4_medium", features_only=True, out_indices=(1, 3), img_size=(40, 60))
    assert [tuple(one.shape) for one in model(images())] == [(2, 256, 2, 3)] * 2
    assert model.feature_info.reduction() == [20, 20]


def test_timm_lists_what_we_wrote():
    assert set(OURS) <= set(timm.list_models())


def test_timm_s_own_names_stay_timm_s():
    assert type(timm.create_model("resnet18", num_classes=2)).__module__ == "timm.models.resnet"


def test_pretrained_weights_are_refused_while_there_are_none():
    advice = "^facerwkv_small has no weights: train it, facerwkv train --model facerwkv_small, or choose"
    with pytest.raises(InputError, match=f"{advice}.*pretrained=False"):
        timm.create_model("facerwkv_small", pretrained=True)
    with pytest.raises(InputError, match=advice):
        load_checkpoint("facerwkv_small")


@pytest.mark.parametrize("name", [name for name in FACERWKV if MIXERS[MODELS[name].config.mixer].streams])
@pytest.mark.parametrize("pool", ["last", "mean"])
def test_token_by_token_gives_the_logits_of_the_whole(name, pool):
    torch.manual_seed(0)
    model = small(name, pool=pool)
    with torch.inference_mode():
        tokens, _ = model.embed(images())
        state = None
        for piece in tokens.split([1, 2, 3], 1):
            logits, state = model.stream(piece, state)
        torch.testing.assert_close(logits, model(images()), rtol=1e-4, atol=1e-5)


def test_tokens_that_do_not_belong_to_the_state_are_refused():
    model = small("facerwkv4_small")
    with torch.no_grad():
        tokens = model.embed(images())[0][:1]
        _, state = model.stream(tokens)
        for wrong, reason in (
            (tokens.expand(16, -1, -1), "of a batch of 1 on cpu, the tokens are a batch of 16 on cpu"),
            (tokens.to("meta"), "on cpu, the tokens are a batch of 1 on meta"),
            (tokens[0], r"stream takes tokens \(B, t, \d+\) from embed, not"),
            (tokens[..., :-1], r"stream takes tokens \(B, t, \d+\) from embed, not"),
        ):
            with pytest.raises(InputError, match=reason):
                model.stream(wrong, state)


def test_a_row_shift_does_not_stream():
    model = small("facerwkv_small", shift="row")
    with pytest.raises(InputError, match=r"shift 'row'.*no recurrent form; use one of .*forward, token"):
        model.stream(model.embed(images())[0])


def test_a_row_shift_follows_the_image_s_own_grid():
    model = small("facerwkv_small_fullwidth", shift="row", img_size=(60, 60))
    narrow = small("facerwkv_small_fullwidth", shift="row")
    weights = model.state_dict()
    for name, value in narrow.state_dict().items():
        if value.shape != weights[name].shape:
            weights[name] = weights[name][..., -6:] if name.endswith("time_w") else value
    narrow.load_state_dict(weights)
    torch.testing.assert_close(model(images()), narrow(images()))  # 2 x 3 tokens of a model made for 3 x 3
    with pytest.raises(InputError, match="9 tokens and was given 12"):
        model(images(height=60, width=80))


def test_attention_does_not_stream():
    model = small("facerwkv4_small", mixer="attention")
    with pytest.raises(InputError, match=r"'attention'.*no recurrent form"):
        model.stream(model.embed(images())[0])


@pytest.mark.parametrize("position", ["none", "unused", "learned", "2d"])
def test_positions_interpolate_to_other_sizes(position):
    model = small("facerwkv4_small", position=position)
    assert model(images(height=80, width=100)).shape == (2, 7)


def test_a_position_table_that_is_not_used_is_frozen_and_changes_nothing():
    model = small("facerwkv_small")
    assert not model.position.table.requires_grad
    before = model(images())
    torch.nn.init.zeros_(model.position.table)
    assert torch.equal(model(images()), before)


def test_a_learned_position_is_added_and_counted_alike():
    model = small("facerwkv_small", position="learned")
    assert model.position.table.requires_grad
    before = model(images())
    torch.nn.init.zeros_(model.position.table)
    assert not torch.equal(model(images()), before)


def test_an_image_that_the_patch_does_not_divide():
    with pytest.raises(InputError, match=r"48 x 60 pixels.*20 x 20"):
        small("facerwkv_small")(images(height=48))


def test_a_frozen_stem_stands_still_in_training():
    model = small("facerwkv_hybrid_frozen").train()
    model(images())
    assert model.stem.bn1.num_batches_tracked == 0
    assert not any(
        parameter.requires_grad for parameter in (*model.stem.conv1.parameters(), *model.stem.bn1.parameters())
    )


def test_the_authors_frozen_stem_lets_its_statistics_move():
    model = small("facerwkv_hybrid_frozen", stem="resnet_frozen_as_coded").train()
    model(images())
    assert model.stem.bn1.num_batches_tracked == 1
    assert not model.stem.conv1.weight.requires_grad


def test_the_stem_loads_torchvision_s_weights(shared):
    model = create_model("facerwkv_hybrid", stem_weights=str(shared / "weights" / "resnet50_stem_imagenet1k_v1.npz"))
    with torch.device("meta"):
        from torchvision.models import resnet50

        keys = resnet50().state_dict().keys()
    names = [name for name in model.stem.state_dict() if name.startswith(("conv1", "bn1"))]
    assert set(names) <= set(keys)
    assert model.stem.bn1.running_var.min() > 0
    assert not torch.equal(model.stem.bn1.running_mean, torch.zeros(64))


def test_the_stem_computes_what_torchvision_s_does(shared):
    from torchvision.models import resnet50

    source = shared / "weights" / "resnet50_stem_imagenet1k_v1.npz"
    stem = create_model("facerwkv_hybrid", stem_weights=str(source), img_size=40).stem.eval()
    theirs = resnet50()
    theirs.load_state_dict(stem.state_dict(), strict=False)
    blocks = torch.nn.Sequential(*list(theirs.children())[:4]).eval()
    torch.testing.assert_close(stem.features(images()), blocks(images()))


def test_the_stem_with_layer2_computes_what_torchvision_s_does(shared):
    from torchvision.models import resnet50

    source = shared / "weights" / "resnet50_stem_layer1_layer2_imagenet1k_v1.npz"
    options = {"stem": "resnet_layer2", "patch_size": 2, "in_chans": 3, "img_size": 48}
    stem = create_model("facerwkv_fer", stem_weights=str(source), **options).stem.eval()
    theirs = resnet50().eval()
    unexpected = theirs.load_state_dict(stem.state_dict(), strict=False).unexpected_keys
    assert unexpected == ["proj.weight", "proj.bias"]
    x = images(height=48, width=48)
    expected = theirs.layer2(theirs.layer1(theirs.relu(theirs.bn1(theirs.conv1(x)))))
    assert expected.shape == (2, 512, 12, 12)
    torch.testing.assert_close(stem.features(x), expected)


def test_a_stem_with_layer2_and_a_file_without(shared):
    source = shared / "weights" / "resnet50_stem_imagenet1k_v1.npz"
    with pytest.raises(InputError, match=r"lack layer1\.0\.conv1\.weight"):
        create_model("facerwkv_fer", stem="resnet_layer2", patch_size=2, stem_weights=str(source))


def test_stem_weights_that_are_nowhere():
    with pytest.raises(InputError, match=r"No weights in nowhere\.npz"):
        create_model("facerwkv_hybrid", stem_weights="nowhere.npz")
    with pytest.raises(InputError, match="no ResNet stem"):
        create_model("facerwkv_small", stem_weights="IMAGENET1K_V1")


def test_gradient_checkpointing_changes_no_gradient():
    model, gradients = small("facerwkv4_small"), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images()).square().sum().backward()
        gradients.append(model.stem.proj.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_no_weight_decay_names_tables_only():
    names = small("facerwkv_small", position="learned").no_weight_decay()
    assert {name.split(".")[-1] for name in names} == {"table", "time_w", "time_alpha", "time_beta", "time_gamma"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "rwkv9"}, "mixer: there is none called 'rwkv9'; choose rwkv1"),
        ({"shift": "row"}, "rwkv4 has no shift 'row'; use shift='token', or rwkv1"),
        ({"depht": 3}, "Unknown key 'depht'. Known keys there: image_size"),
        ({"drop_rate": 1.5}, "drop_rate"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        create_model("facerwkv4_small", **options)


def test_an_unknown_model_gets_names_like_it():
    with pytest.raises(InputError, match=r"Unknown model 'resnet9000'. Known models: .*resnet50.* models list"):
        create_model("resnet9000")
    with pytest.raises(InputError) as error:
        create_model("x" * 10_000)
    assert len(str(error.value)) < 400
