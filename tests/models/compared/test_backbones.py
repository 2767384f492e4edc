import pytest
import torch

from facerwkv.core.errors import InputError
from facerwkv.models.compared.backbones import AlexNet
from facerwkv.models.zoo import create_model, model_line


def test_any_model_of_timm_by_its_name():
    model = create_model("timm:mobilenetv3_small_050", num_classes=3, in_chans=1, img_size=(48, 48)).eval()
    assert model(torch.rand(2, 1, 48, 48)).shape == (2, 3)
    assert model.config.architecture == "mobilenetv3_small_050"


def test_a_timm_model_s_own_image_size():
    assert model_line("timm:efficientnet_b3").config.image_size == (288, 288)


def test_a_name_that_timm_does_not_know():
    with pytest.raises(InputError, match=r"no model 'resnet51'.*resnet50"):
        model_line("timm:resnet51")


def test_weights_that_timm_does_not_know():
    with pytest.raises(InputError, match=r"timm's resnet50 has no weights called 'nonsense'; it has .*a1_in1k"):
        model_line("timm:resnet50.nonsense")


def test_alexnet_is_torchvision_s():
    from torchvision.models import alexnet

    ours, theirs = create_model("alexnet", num_classes=1000).eval(), alexnet().eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, 96, 80)
    torch.testing.assert_close(ours(x), theirs(x))


def test_alexnet_says_which_images_are_too_small():
    with pytest.raises(InputError, match="63 x 63 pixels or more, not 48 x 48"):
        create_model("alexnet", img_size=48)
    model = create_model("alexnet", img_size=63)
    assert isinstance(model, AlexNet)
    assert model(torch.rand(1, 3, 63, 63)).shape == (1, 7)


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_imagenet_weights_without_a_network(name, monkeypatch):
    def refused(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("timm.create_model", refused)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refused)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refused)
    with pytest.raises(InputError, match=r"could not be fetched \(Network is unreachable\).*model.pretrained=false"):
        create_model(name, pretrained=True)


def test_our_own_models_have_no_imagenet_weights():
    with pytest.raises(InputError, match="pretrained=False"):
        create_model("patt_lite", pretrained=True)


def test_what_else_timm_s_model_takes():
    kwargs = {"patch_size": 8, "class_token": False, "global_pool": "avg"}
    model = create_model("vit_tiny", img_size=48, model_kwargs=kwargs).eval()
    assert model.forward_features(torch.rand(2, 3, 48, 48)).shape == (2, 36, 192)


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        (
            "vit_tiny",
            {"patch_siz": 8},
            r"vit_tiny_patch16_224 does not take model_kwargs \{'patch_siz': 8\}: .*'patch_siz'",
        ),
        ("vit_tiny", {"class_token": False}, "Token pooling needs the class token"),
        ("alexnet", {"depth": 3}, "AlexNet is torchvision's and takes no model_kwargs"),
    ],
)
def test_what_timm_s_model_does_not_take(name, kwargs, said):
    with pytest.raises(InputError, match=said):
        create_model(name, img_size=64, model_kwargs=kwargs)
