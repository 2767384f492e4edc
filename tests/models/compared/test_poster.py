import pytest
import torch

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.transforms import TransformConfig
from facerwkv.models.checkpoint import load_checkpoint, save_checkpoint
from facerwkv.models.folder import Checkpoint
from facerwkv.models.zoo import create_model

STORED, OUTPUT_LAYER, LANDMARK_HEAD = 58_316_594, 12_846_336, 95_744


def images(batch=2, side=224):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_what_never_runs_is_left_out():
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in create_model("poster_v2").parameters())
    assert count == 43_753_941
    # What the published checkpoint holds besides: two heads, and 1.62 million in the transformer.
    assert STORED - count - OUTPUT_LAYER - LANDMARK_HEAD == 1_620_573


def test_attention_sums_to_one_at_every_level():
    model = create_model("poster_v2").eval()
    sums = []
    for level in model.levels:
        level.attend = lambda *inputs, attend=level.attend: sums.append(attend(*inputs)) or sums[-1]
    with torch.inference_mode():
        model(images(1))
    assert [tuple(weights.shape) for weights, _ in sums] == [(1, 2, 784, 784), (1, 4, 196, 196), (1, 8, 49, 49)]
    for weights, _ in sums:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_biases_follow_places_and_not_their_order():
    level = create_model("poster_v2").levels[2]
    assert level.places[0, 0] == level.places[48, 48]  # a cell to itself
    assert level.places[0, 1] == level.places[40, 41] != level.places[1, 0]
    assert level.places.unique().numel() == 13**2


@pytest.mark.slow
def test_a_frozen_landmark_network_stands_still():
    model = create_model("poster_v2", landmarks="frozen").train()
    model(images(2, 64)).sum().backward()
    assert model.landmarks.conv1.bn.num_batches_tracked == 0
    assert all(parameter.grad is None for parameter in model.landmarks.parameters())
    assert model.face.input_layer[0].weight.grad is not None


def test_weights_start_as_the_published_code_has_them():
    model = create_model("poster_v2")
    for weight, std in ((model.cls, 0.02), (model.position, 0.02), (model.blocks[0].mlp.fc1.weight, 0.01)):
        assert weight.std().item() == pytest.approx(std, rel=0.1)
    bound = model.levels[2].kv.in_features ** -0.5  # PyTorch's own start
    assert bound / 2 < model.levels[2].kv.weight.abs().max() <= bound


@pytest.mark.parametrize(("part", "extra"), [("face", "output_layer.3.weight"), ("landmarks", "conv_6_dw.conv.weight")])
def test_public_weights_load_by_their_names(part, extra, tmp_path):
    model = create_model("poster_v2")
    weights = {f"module.{key}": value + 1 for key, value in getattr(model, part).state_dict().items()}
    torch.save({"epoch": 3, "state_dict": weights | {f"module.{extra}": torch.zeros(2)}}, tmp_path / "public.pth.tar")
    built = create_model("poster_v2", parts={part: str(tmp_path / "public.pth.tar")}).train()
    learns = {name: next(getattr(built, name).parameters()).requires_grad for name in ("face", "landmarks")}
    assert learns == {"face": True, "landmarks": part != "landmarks"}  # frozen, as published, where it has its weights
    assert built.landmarks.training == (part != "landmarks")
    loaded = getattr(built, part).state_dict()
    assert all(torch.equal(loaded[key], weights[f"module.{key}"]) for key in loaded)


def test_the_public_names():
    model = create_model("poster_v2")
    assert {"input_layer.0.weight", "body1.0.res_layer.1.weight", "body3.13.res_layer.4.running_var"} <= set(
        model.face.state_dict()
    )
    assert {"conv1.conv.weight", "conv_23.conv_dw.bn.weight", "conv_3.model.3.project.conv.weight"} <= set(
        model.landmarks.state_dict()
    )


def test_wrong_weights_are_named(tmp_path):
    file = str(tmp_path / "other.pth")
    torch.save({"input_layer.0.weight": torch.zeros(3), "head.weight": torch.zeros(2)}, file)
    with pytest.raises(InputError, match=r"another model's weights: .*is missing.*; and \d+ more"):
        create_model("poster_v2", parts={"face": file})
    with pytest.raises(InputError, match=r"no part 'nose'.*face, landmarks"):
        create_model("poster_v2", parts={"nose": file})
    with pytest.raises(InputError, match=r"No weights in nowhere\.pth"):
        create_model("poster_v2", parts={"face": "nowhere.pth"})
    with pytest.raises(InputError, match="resnet18 has no parts"):
        create_model("resnet18", parts={"face": file})


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


@pytest.mark.parametrize("held", [Bomb(), [torch.zeros(2)], {"epoch": 3}])
def test_a_file_with_more_than_weights_is_not_opened(held, tmp_path, capsys):
    torch.save(held, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=r"odd\.pth"):
        create_model("poster_v2", parts={"face": str(tmp_path / "odd.pth")})
    assert capsys.readouterr().out == ""


def test_a_loaded_one_has_its_places_which_no_file_has(tmp_path):
    model = create_model("poster_v2", landmarks="frozen").eval()
    save_checkpoint(tmp_path, Checkpoint(model, "poster_v2", EXPRESSIONS, TransformConfig(image_size=(224, 224))))
    loaded = dict(load_checkpoint(tmp_path).model.named_buffers())
    assert all(torch.equal(value, loaded[name]) for name, value in model.named_buffers())
