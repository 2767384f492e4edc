"""Every line of MODELS as an ONNX file: onnxruntime answers as PyTorch does, on real faces where they are here."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from facerwkv.cli import app
from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.normalise import normalise
from facerwkv.data.transforms import EvalTransform, TransformConfig
from facerwkv.export import Exported, export_onnx
from facerwkv.inference.explain import explain
from facerwkv.inference.predictor import Predictor, load
from facerwkv.mixers.rwkv1 import FOLDED_TOKENS
from facerwkv.models import graph
from facerwkv.models.checkpoint import load_checkpoint, save_checkpoint
from facerwkv.models.facerwkv import FaceRWKV
from facerwkv.models.folder import Checkpoint
from facerwkv.models.graph import TOLERANCE, drawn_images, logits_of
from facerwkv.models.onnx import INPUT, Description, OnnxModel, Runtime, read_onnx
from facerwkv.models.zoo import CONFIG, MODELS, create_model
from tests.threads import forked, side_by_side

SIDE = 48
QUICK = ("facerwkv_small",)
OWN_SIZE = ("facerwkv_small", "facerwkv4_small", "facerwkv5_small", "facerwkv6_small", "facerwkv7_small")
FEW, LARGE = 10, 20_000_000  # images for a model with more parameters than that
CARD = {"licence": "research only: a test", "data": {"source": "fer2013:/home/me/fer2013", "boxes": "/home/me/a.csv"}}
BOXES = [(4, 6, 40, 50), (50, 10, 120, 90)]


def checkpoint(name: str, **options) -> Checkpoint:
    """An untrained model whose parts all matter: no mixer of ours and no norm is left at the zeros it starts from."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=len(EXPRESSIONS), **options)
    config, both = model.config, model.config.two_inputs
    ours = isinstance(model, FaceRWKV)
    scale = 0.5 / config.width**0.5 if ours else 0.05  # with it logits stay as large as a trained model's
    with torch.no_grad():
        for weight in model.parameters():
            if ours or weight.ndim < 2:
                weight.add_(torch.randn_like(weight) * scale)
    transform = TransformConfig(
        image_size=config.image_size,
        crop="both" if both else "face",
        no_box="centre" if both else "whole",
        in_chans=config.in_chans // 2 if both else config.in_chans,
        mean=(0.5,),
        std=(0.25,),
    )
    settle(model, normalise(drawn_images(transform), transform))
    return Checkpoint(model.eval(), name, EXPRESSIONS, transform, 1.5)


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> None:
    """Batch norms take the statistics of these images: by those that they start with, all logits would be 0."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for part in norms:
        part.momentum = 1.0
    if norms:
        model.train()(images)


def small(name: str) -> dict:
    """Options for images of FER2013's size, where a model of ours is made for larger ones."""
    config = MODELS[name].config
    if not hasattr(config, "patch_size") or config.image_size == (SIDE, SIDE):
        return {}
    return {"image_size": (SIDE, SIDE), "patch_size": 3 if config.stem.startswith("resnet") else 8}


def tiny(**fields) -> Checkpoint:
    options = {"image_size": (SIDE, SIDE), "patch_size": 12, "width": 32, "depth": 2, "heads": 2}
    return replace(checkpoint("facerwkv4_small", **options), card=CARD, **fields)


def every_line() -> list:
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MODELS]


@pytest.fixture(scope="module", params=every_line())
def exported(request, tmp_path_factory) -> tuple[Checkpoint, OnnxModel]:
    original = checkpoint(request.param, **small(request.param))
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(original, path)
    model = read_onnx(path, "cpu").model
    path.unlink()
    return original, model


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Exported:
    return export_onnx(tiny(), tmp_path_factory.mktemp("export") / "new" / "tiny.onnx")


@pytest.fixture
def tiny_file(written) -> Path:
    return Path(written.file)


@pytest.fixture(scope="session")
def faces(shared) -> list[np.ndarray]:
    """100 test faces of FER2013, uint8 (48, 48, 3)."""
    mosaic = Image.open(shared / "data" / "fer2013" / "private_test.png").crop((0, 0, 100 * SIDE, SIDE))
    return np.split(np.asarray(mosaic.convert("RGB")), 100, 1)


def noise(seed: int, height: int = 100, width: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_logits_on_real_faces(exported, faces):
    original, model = exported
    count = FEW if sum(weight.numel() for weight in original.model.parameters()) > LARGE else len(faces)
    shown = EvalTransform(original.transform)
    batches = torch.from_numpy(np.stack([shown(face) for face in faces[:count]])).split(33)
    expected = torch.cat([logits_of(original, batch) for batch in batches])
    found = torch.cat([torch.from_numpy(model(batch.numpy())) for batch in batches])
    spread = expected.std(0).max()  # untrained, some answer much the same to every image
    assert (found - expected).abs().max() <= min(TOLERANCE, spread / 100)


@pytest.mark.slow
def test_half_of_the_shipped_model_on_an_oblong_grid(tmp_path):
    half = checkpoint("facerwkv_fer_tiny", depth=2, image_size=(32, 40))
    assert export_onnx(half, tmp_path / "model.onnx").difference <= TOLERANCE


@pytest.mark.slow
def test_more_tokens_than_rwkv1_is_folded_for(tmp_path):
    large = checkpoint("facerwkv_small", image_size=(320, 320), patch_size=8)
    assert large.model.blocks[0].time_mix.tokens == 1600 > FOLDED_TOKENS
    assert export_onnx(large, tmp_path / "model.onnx").difference <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_SIZE)
def test_images_of_the_models_own_size(name, tmp_path):
    assert export_onnx(checkpoint(name), tmp_path / "model.onnx").difference <= TOLERANCE


def test_what_is_said_of_a_file_that_was_written(written, tiny_file):
    assert written.to_dict() == {
        "file": str(tiny_file),
        "model": "facerwkv4_small",
        "licence": "research only: a test",
        "bytes": tiny_file.stat().st_size,
        "difference": written.difference,
    }
    assert 0 <= written.difference <= TOLERANCE
    assert [path.name for path in tiny_file.parent.iterdir()] == ["tiny.onnx"]


def test_the_metadata_hold_the_checkpoint_as_json(tiny_file):
    found = {entry.key: json.loads(entry.value) for entry in onnx.load(tiny_file).metadata_props}
    assert found.keys() == Description.model_fields.keys()
    assert found == {
        "facerwkv": 1,
        "model": "facerwkv4_small",
        "labels": list(EXPRESSIONS),
        "transform": tiny().transform.model_dump(mode="json"),
        "temperature": 1.5,
        "licence": "research only: a test",
        "card": {"licence": "research only: a test", "data": {"source": "fer2013", "boxes": "a.csv"}},
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["batch", 48, 48, 3],
            "range": [0, 255],
            "colours": "RGB",
        },
    }
    again = read_onnx(tiny_file, "cpu")
    for name in ("name", "labels", "transform", "temperature"):
        assert getattr(again, name) == getattr(tiny(), name)


@pytest.mark.parametrize(
    ("crop", "in_chans", "colours"),
    [("face", 1, "grey"), ("scene", 3, "RGB"), ("both", 3, "RGB of the scene, then RGB of the face")],
)
def test_the_metadata_say_the_colours(crop, in_chans, colours):
    transform = TransformConfig(image_size=(32, 64), crop=crop, in_chans=in_chans)
    said = Description.of(tiny(transform=transform), {}).input
    assert (said["colours"], said["shape"]) == (colours, ["batch", 32, 64, transform.channels])


def test_nothing_of_this_computer_is_in_the_file(tiny_file):
    data = tiny_file.read_bytes()
    assert [word for word in (b"/home", b".py", bytes(Path.cwd()), bytes(tiny_file.parent)) if word in data] == []


def test_the_batch_may_have_any_size(tiny_file):
    model = read_onnx(tiny_file, "cpu").model
    images = np.stack([noise(seed, SIDE, SIDE) for seed in range(5)])
    together = model(images)
    assert onnx.load(tiny_file).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert np.allclose(together, np.concatenate([model(image[None]) for image in images]), atol=1e-5)
    assert model(images[:0]).shape == (0, 7)


@pytest.mark.parametrize("mode", ["face", "scene"])
def test_prediction_answers_as_with_pytorch(tiny_file, mode):
    images = [noise(seed) for seed in range(3)]
    ours = Predictor(tiny(), "cpu", lambda rgb: BOXES).predict(images, mode=mode)
    theirs = Predictor(read_onnx(tiny_file), "cpu", lambda rgb: BOXES).predict(images, mode=mode)
    for one, other in zip(ours, theirs, strict=True):
        assert [face.box for face in one.faces] == [face.box for face in other.faces]
        for a, b in zip(one.faces, other.faces, strict=True):
            assert a.probs == pytest.approx(b.probs, abs=1e-4)


def test_two_real_faces(tiny_file, shared, tmp_path):
    save_checkpoint(tmp_path, tiny())
    images = shared / "media" / "couple.jpg"
    ours, theirs = load(tmp_path, "cpu").predict(images), load(tiny_file, "cpu", engine="onnx").predict(images)
    assert len(ours.faces) == 2
    for a, b in zip(ours.faces, theirs.faces, strict=True):
        assert (a.box, a.label) == (b.box, b.label)
        assert a.probs == pytest.approx(b.probs, abs=1e-4)


def test_the_commands(tiny_file, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "tiny", tiny())
    Image.fromarray(noise(0)).save(tmp_path / "noise.png")
    monkeypatch.setattr(graph, "_traced", lambda *_: tiny_file.read_bytes())
    arguments = ["export", "--model", tmp_path / "tiny", "--out", tmp_path / "tiny.onnx", "--format", "onnx", "--json"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert (done.exit_code, json.loads(done.stdout)["file"]) == (0, str(tmp_path / "tiny.onnx"))
    predict = ["predict", str(tmp_path / "noise.png"), "--mode", "scene", "--device", "cpu", "--json"]
    found = [
        CliRunner().invoke(app, [*predict, "--model", str(tmp_path / name), "--engine", engine])
        for name, engine in (("tiny", "torch"), ("tiny.onnx", "onnx"))
    ]
    assert [done.exit_code for done in found] == [0, 0]
    (ours,), (theirs,) = (json.loads(done.stdout.splitlines()[0])["faces"] for done in found)
    assert ours["probs"] == pytest.approx(theirs["probs"], abs=1e-4)


def test_repr_names_what_computes(tiny_file):
    assert repr(load(tiny_file, "cpu")) == "facerwkv4_small (7 labels) on onnxruntime's CPUExecutionProvider"


@pytest.mark.parametrize("engine", get_args(Runtime))
def test_threads_share_an_exported_model_and_copies_and_forked_processes_answer_alike(tiny_file, engine, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # a fork copies only one
    images, predictor = [noise(seed, 60 + seed) for seed in range(16)], load(tiny_file, "cpu", engine=engine)
    ask = lambda number, each=predictor: each.predict(images[number], mode="scene").faces  # noqa: E731
    fresh = pickle.loads(pickle.dumps(predictor))
    expected = [ask(number) for number in range(16)]
    assert side_by_side(ask, 16) == expected
    for each in (fresh, copy.deepcopy(predictor), pickle.loads(pickle.dumps(predictor))):
        assert ask(3, each) == expected[3]
    assert forked(lambda: [ask(number) for number in range(16)] == expected) == "right"
    assert ask(3) == expected[3]


def test_a_file_whose_answers_differ_is_not_left_behind(tiny_file, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_text("an earlier one")
    monkeypatch.setattr(graph, "_traced", lambda *_: tiny_file.read_bytes())
    other = tiny()
    other.model.classifier.bias.data[2] += 2e-4
    with pytest.raises(InputError, match=r"logits for facerwkv4_small differ from PyTorch's by 2.0e-04, and 1e-04 is"):
        export_onnx(other, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "an earlier one"


def test_a_model_that_answers_nan_is_not_written(tmp_path):
    broken = tiny()
    next(broken.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(InputError, match="facerwkv4_small answers with NaN or infinity: its weights are broken"):
        export_onnx(broken, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "message"),
    [("model.pt", r"model\.pt must end in \.onnx"), ("file/model.onnx", r"Cannot write .*model\.onnx")],
)
def test_a_name_that_cannot_be_written_is_refused(tmp_path, out, message):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        export_onnx(tiny(), tmp_path / out)


def test_a_missing_package_is_named_with_its_extra(tiny_file, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r'needs onnxscript, not installed here: pip install "facerwkv\[train\]"'):
        export_onnx(tiny(), tmp_path / "model.onnx")


def test_a_size_that_the_model_does_not_take_is_said_in_its_own_words(tmp_path):
    odd = tiny(transform=TransformConfig(image_size=(50, 48)))
    with pytest.raises(InputError, match="50 x 48 pixels cannot be cut into patches of 12 x 12"):
        export_onnx(odd, tmp_path / "model.onnx")


def test_images_of_another_size_or_type_are_refused(tiny_file):
    model = read_onnx(tiny_file).model
    with pytest.raises(InputError, match=r"takes uint8 images of 48 x 48 x 3, not uint8 of 48 x 40 x 3"):
        model(np.zeros((1, 48, 40, 3), np.uint8))
    with pytest.raises(InputError, match=r"not float32 of 48 x 48 x 3"):
        model(np.zeros((1, 48, 48, 3), np.float32))


def foreign(path: Path, metadata: dict[str, str]) -> None:
    """An ONNX file that gives back its input."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 7]) for name in (INPUT, "logits")]
    graph = helper.make_graph([helper.make_node("Identity", [INPUT], ["logits"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)


def described(**changes) -> dict[str, str]:
    return Description.of(tiny(), {}).metadata() | {key: json.dumps(value) for key, value in changes.items()}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "none that `facerwkv export` wrote"),
        ({"labels": "no JSON"}, "none that `facerwkv export` wrote: its metadata lack card, "),
        (described() | {"labels": "no JSON"}, "metadata.labels is not JSON"),
        (described(facerwkv=2), "metadata.facerwkv: Input should be less than or equal to 1"),
        (described(labels="anger"), "metadata.labels: Input should be a valid array"),
        (described(temperature=0), "metadata.temperature: Input should be greater than or equal to 0.001"),
        (described(transform={"crop": "nose"}), "metadata.transform.crop"),
        (described(), "is damaged: its graph has .*tensor\\(float\\).*its description says .*tensor\\(uint8\\)"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, metadata, message):
    foreign(tmp_path / "other.onnx", metadata)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "other.onnx", "cpu")


@pytest.mark.parametrize("content", [b"", b"I am a text.", b"\x08\x0a" * 99])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.onnx"):
        load(tmp_path / "broken.onnx", "cpu")


def test_half_a_file_is_refused(tiny_file, tmp_path):
    data = tiny_file.read_bytes()
    (tmp_path / "half.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"half\.onnx cannot be run by onnxruntime .* It is damaged"):
        load(tmp_path / "half.onnx", "cpu")


def test_weights_that_lie_in_other_files_are_not_read(tiny_file, tmp_path, monkeypatch):
    apart = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save(onnx.load(tiny_file), tmp_path / "outside.onnx", **apart)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"outside\.onnx cannot be run by onnxruntime"):
        load(tmp_path / "outside.onnx", "cpu")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("gone.onnx", {}, r"There is no file gone\.onnx. Write it: facerwkv export --model NAME --out gone\.onnx"),
        ("plain", {"engine": "onnx"}, r"plain was not packed for onnxruntime, .* facerwkv export --model plain"),
        ("gone.onnx", {"engine": "torch"}, r"gone\.onnx runs in onnxruntime"),
        ("gone.onnx", {"engine": "tf"}, "engine is 'tf'; choose one of torch, torch-bfloat16, onnx"),
        ("there.onnx", {"device": "mps"}, "onnxruntime has no device 'mps' here. Choose auto or one of: .*cpu"),
    ],
)
def test_a_wrong_model_for_the_engine_is_a_sentence(tmp_path, monkeypatch, model, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").touch()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / CONFIG).touch()
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=message):
        load(model, **options)


def test_an_exported_model_is_no_checkpoint(tiny_file):
    with pytest.raises(InputError, match=r"tiny\.onnx is an exported model, which predict alone can run"):
        load_checkpoint(tiny_file)


def test_an_exported_model_has_no_gradients_to_explain(tiny_file):
    with pytest.raises(InputError, match="An exported facerwkv4_small has no gradients and no tokens"):
        explain(load(tiny_file, "cpu"), noise(0), "gradient")


@pytest.mark.slow
def test_8_bit_products_make_the_file_half_and_seldom_change_a_label(tmp_path):
    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    export_onnx("facerwkv_fer_tiny", plain)
    exported = export_onnx("facerwkv_fer_tiny", small, "toy:train=28,val=7,test=7")
    assert small.stat().st_size < 0.5 * plain.stat().st_size
    assert 1e-3 < exported.difference < 1
    images = drawn_images(load_checkpoint("facerwkv_fer_tiny").transform).numpy()
    labels = [read_onnx(path, "cpu").model(images).argmax(1).tolist() for path in (plain, small)]
    assert sum(a != b for a, b in zip(*labels, strict=True)) <= 1
