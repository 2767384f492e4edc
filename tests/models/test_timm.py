"""What a user of timm does with our models: every line of MODELS, and the shipped ones with timm's own data config."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from facerwkv.data.normalise import normalise
from facerwkv.data.transforms import EvalTransform
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.zoo import MODELS, shipped
from tests.models.test_models import OURS, every_facerwkv, images_of, shrunk


@pytest.mark.parametrize("name", OURS)
def test_timm_s_own_checks_of_a_configuration_hold(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    cfg, weights = model.pretrained_cfg, model.state_dict()
    assert weights[f"{cfg['classifier']}.weight"].shape[0] == model.num_classes == cfg["num_classes"]
    if isinstance(cfg["first_conv"], str):
        assert weights[f"{cfg['first_conv']}.weight"].shape[1] in (cfg["input_size"][0], cfg["input_size"][0] // 2)
    assert len(cfg["mean"]) == len(cfg["std"]) == cfg["input_size"][0]
    assert (cfg["license"] == "apache-2.0") is (name not in shipped())


@every_facerwkv
def test_timm_gives_features_of_every_size_without_being_told_which(name):
    options = shrunk(name)
    model = timm.create_model(name, features_only=True, in_chans=1, **options)
    maps = model(images_of(name, colours=1))
    assert [one.shape[1] for one in maps] == model.feature_info.channels()
    assert [one.shape[-2:] for one in maps] == [(2, 3)] * min(3, MODELS[name].config.depth)


@pytest.mark.parametrize("name", shipped())
def test_timm_s_pretrained_models_are_the_checkpoints(name):
    stored = load_checkpoint(name)
    assert name in timm.list_models(pretrained=True)
    model = timm.create_model(name, pretrained=True).eval()
    cfg = timm.data.resolve_data_config({}, model=model)
    height, width = stored.transform.image_size
    assert (cfg["mean"], cfg["std"], cfg["input_size"]) == (
        stored.transform.mean,
        stored.transform.std,
        (1, height, width),
    )
    assert (model.pretrained_cfg["label_names"], model.pretrained_cfg["license"]) == (
        stored.labels,
        stored.card["licence"],
    )
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    given = timm.data.create_transform(**cfg)(Image.fromarray(rgb).convert("L"))[None]
    ours = normalise(torch.from_numpy(EvalTransform(stored.transform)(rgb))[None], stored.transform)
    torch.testing.assert_close(given, ours, rtol=0, atol=1e-6)
    with torch.inference_mode():
        expected = stored.model(ours)
        torch.testing.assert_close(model(given), expected, rtol=1e-4, atol=1e-4)
        colour = timm.create_model(name, pretrained=True, in_chans=3).eval()
        cfg = timm.data.resolve_data_config({}, model=colour)
        assert (cfg["input_size"], len(cfg["mean"])) == ((3, height, width), 3)
        seen = colour(timm.data.create_transform(**cfg)(Image.fromarray(rgb))[None])
        torch.testing.assert_close(seen, expected, rtol=0.02, atol=0.02)  # its grey is not rounded to bytes
        twice = given.repeat_interleave(2, 2).repeat_interleave(2, 3)
        larger = timm.create_model(name, pretrained=True, img_size=96).eval()
        torch.testing.assert_close(larger(twice), model(twice), rtol=1e-3, atol=1e-3)
        assert torch.equal(timm.create_model(name, pretrained=True, global_pool="avg").eval()(given), model(given))
        features = timm.create_model(name, pretrained=True, num_classes=0).eval()(given)
        assert torch.equal(features, model.forward_head(model.forward_features(given), pre_logits=True))
    maps = timm.create_model(name, pretrained=True, features_only=True)(given)
    assert maps[-1].shape[1] == model.num_features
    assert timm.create_model(name, pretrained=True, num_classes=3)(given).shape == (1, 3)
