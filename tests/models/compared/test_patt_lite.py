import pytest
import torch

from facerwkv.models.zoo import create_model


def images(batch=4):
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_parameters_as_keras_counts_them():
    model = create_model("patt_lite")
    statistics = [buffer for name, buffer in model.named_buffers() if "running" in name]
    assert sum(tensor.numel() for tensor in (*model.parameters(), *statistics)) == 1_102_664
    inside = [t for part in (model.backbone,) for t in (*part.parameters(), *part.buffers()) if t.ndim]
    assert sum(tensor.numel() for tensor in inside) == 821_952
    assert sum(parameter.numel() for parameter in model.patches.parameters()) == 272_128


def test_four_patches_of_a_image():
    assert create_model("patt_lite").eval().forward_features(images(1)).shape == (1, 256, 2, 2)


@pytest.mark.parametrize(("variant", "shape"), [("patches", (4, 4, 4)), ("as_published", (4, 4))])
def test_attention_sums_to_one(variant, shape):
    model = create_model("patt_lite", variant=variant).eval()
    with torch.inference_mode():
        _, weights = model.attend(model.forward_features(images()))
    assert weights.shape == shape
    torch.testing.assert_close(weights.sum(-1), torch.ones(shape[:-1]))


def test_as_published_the_answer_depends_on_the_rest_of_the_batch_and_ours_does_not():
    shifts = {}
    for variant in ("patches", "as_published"):
        torch.manual_seed(0)
        model = create_model("patt_lite", variant=variant).eval()
        with torch.inference_mode():
            together, alone = model(images())[:1], model(images()[:1])
        shifts[variant] = ((together - alone).abs().max() / alone.abs().max()).item()
    assert shifts["patches"] < 1e-4
    assert shifts["as_published"] > 1e-2
