"""The graph beside a checkpoint's weights: onnxruntime answers with both as PyTorch does with the weights."""

import copy
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import load_file, save_file

import facerwkv
from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.transforms import EvalTransform, TransformConfig
from facerwkv.export import export_onnx
from facerwkv.inference.explain import explain
from facerwkv.inference.predictor import Predictor
from facerwkv.models.checkpoint import load_checkpoint, save_checkpoint
from facerwkv.models.folder import GRAPH, WEIGHTS, Checkpoint
from facerwkv.models.graph import drawn_images, logits_of, save_packed
from facerwkv.models.onnx import open_session, read_onnx, read_packed
from facerwkv.models.zoo import CONFIG, SHIPPED, create_model, shipped
from tests.models.damage import broken_files
from tests.threads import forked, side_by_side

LARGEST = 10_000_000  # bytes of a shipped folder


def tiny(seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    model = create_model("facerwkv_fer_tiny", width=16, depth=2, image_size=(16, 16), patch_size=8, num_classes=7)
    transform = TransformConfig(image_size=(16, 16), crop="face", in_chans=1, mean=(0.5,), std=(0.25,))
    return Checkpoint(model.eval(), "facerwkv_fer_tiny", EXPRESSIONS, transform, 1.5, {"licence": "Apache-2.0"})


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    save_packed(folder, tiny(), half=True)
    return folder


@pytest.fixture
def packed(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "packed"))


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_model_s_logits_are_pytorch_s(name):
    checkpoint = load_checkpoint(name)
    images = drawn_images(checkpoint.transform)
    found = read_packed(SHIPPED / name).model(images.numpy())
    assert np.abs(found - logits_of(checkpoint, images).numpy()).max() < 1e-3
    assert sum(file.stat().st_size for file in (SHIPPED / name).iterdir()) < LARGEST


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_a_shipped_model_s_labels_are_pytorch_s(name, shared):
    """On all of FER2013's PrivateTest but for at most one image of a thousand."""
    folder = shared / "data" / "fer2013"
    with (folder / "labels.csv").open() as file:
        count = sum(row["usage"] == "PrivateTest" for row in csv.DictReader(file))
    mosaic = np.asarray(Image.open(folder / "private_test.png").convert("RGB"))
    rows = mosaic.reshape(len(mosaic) // 48, 48, -1, 48, 3).swapaxes(1, 2).reshape(-1, 48, 48, 3)[:count]
    checkpoint, light = load_checkpoint(name), read_packed(SHIPPED / name).model
    images = np.stack([EvalTransform(checkpoint.transform)(face) for face in rows])
    expected = torch.cat([logits_of(checkpoint, batch) for batch in torch.from_numpy(images).split(64)]).numpy()
    found = np.concatenate([light(batch) for batch in np.split(images, range(64, len(images), 64))])
    assert np.abs(found - expected).max() < 1e-3
    assert (found.argmax(1) != expected.argmax(1)).mean() <= 1e-3


def test_what_is_packed_runs_in_onnxruntime_and_answers_as_in_pytorch(packed):
    light, ours = facerwkv.load(packed, "cpu"), facerwkv.load(packed, "cpu", engine="torch")
    assert [each.model.runs_on for each in (light, ours)] == ["onnxruntime's CPUExecutionProvider", "cpu"]
    assert light.model.patches == ours.model.patches == (2, 2)
    images = [np.random.default_rng(seed).integers(0, 256, (30, 20, 3), dtype=np.uint8) for seed in range(5)]
    for options in ({}, {"tta": "flip"}):
        for one, other in zip(*(each.predict(images, mode="scene", **options) for each in (light, ours)), strict=True):
            assert one.faces[0].probs == pytest.approx(other.faces[0].probs, abs=1e-5)


def test_products_may_have_16_bits(packed):
    exact, short = (facerwkv.load(packed, "cpu", engine=engine) for engine in ("torch", "torch-bfloat16"))
    images = drawn_images(tiny().transform).numpy()
    difference = np.abs(short.model(images) - exact.model(images)).max()
    assert (short.model.runs_on, 0 < difference < 0.05) == ("cpu, bfloat16", True), difference
    assert np.array_equal(short.model(images), copy.deepcopy(short).model(images))
    with pytest.raises(InputError, match="runs in onnxruntime"):
        facerwkv.load("gone.onnx", engine="torch-bfloat16")


def test_probabilities_are_pytorch_s(packed):
    logits = torch.randn(9, 7, generator=torch.Generator().manual_seed(0)) * 5
    found = Predictor(read_packed(packed)).probabilities(logits.numpy())
    assert np.abs(found - (logits / 1.5).softmax(-1).numpy()).max() < 1e-6


def test_threads_and_forked_processes_share_a_packed_model(packed):
    predictor = facerwkv.load(packed, "cpu")
    images = [np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8) for seed in range(16)]
    ask = lambda number: predictor.predict(images[number], mode="scene").faces  # noqa: E731
    expected = [ask(number) for number in range(16)]
    assert side_by_side(ask, 16) == expected
    assert forked(lambda: [ask(number) for number in range(16)] == expected) == "right"


def test_gradients_of_a_packed_model_come_from_pytorch(packed):
    light, ours = facerwkv.load(packed, "cpu"), facerwkv.load(packed, "cpu", engine="torch")
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for method in ("gradient", "occlusion"):
        (one,), (other,) = (explain(each, image, method, mode="scene") for each in (light, ours))
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_what_was_packed_is_exported_without_pytorch(packed, tmp_path, monkeypatch):
    monkeypatch.setattr("facerwkv.export.has_pytorch", lambda: False)
    exported = export_onnx(packed, tmp_path / "model.onnx")
    assert (exported.difference, str(exported).partition(" MB, ")[2]) == (None, "as it was packed. Licence: Apache-2.0")
    images = drawn_images(tiny().transform).numpy()
    ours, theirs = read_packed(packed), read_onnx(tmp_path / "model.onnx")
    assert np.array_equal(ours.model(images), theirs.model(images))
    assert (ours.labels, ours.transform, ours.card) == (theirs.labels, theirs.transform, theirs.card)
    with pytest.raises(InputError, match="is an exported model already: copy its file"):
        export_onnx(theirs, tmp_path / "again.onnx")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, GRAPH])
def test_a_packed_file_that_is_not_whole_is_named(packed, name):
    for how in broken_files(packed / name):
        with pytest.raises(InputError) as refused:
            read_packed(packed).model(np.zeros((1, 16, 16, 1), np.uint8))
        assert str(packed) in str(refused.value), how
    read_packed(packed)


def test_a_graph_of_another_network_is_refused(packed):
    described = json.loads((packed / CONFIG).read_text())
    described["transform"]["mean"] = [0.25]
    (packed / CONFIG).write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"graph\.onnx was made for another config\.json than the one beside it"):
        facerwkv.load(packed, "cpu")


def test_weights_that_only_pytorch_reads_are_named(packed):
    weights = {name: weight.bfloat16() for name, weight in load_file(packed / WEIGHTS).items()}
    save_file(weights, packed / WEIGHTS)
    described = json.loads((packed / CONFIG).read_text()) | {"weights": None}
    (packed / CONFIG).write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"Only PyTorch reads the weights in .*BF16.*: pip install"):
        read_packed(packed)


def test_new_weights_take_the_place_of_the_old_ones_in_both_engines(packed):
    save_checkpoint(packed, tiny(1))
    images = drawn_images(tiny().transform)
    assert np.abs(read_packed(packed).model(images.numpy()) - logits_of(tiny(1), images).numpy()).max() < 1e-4


def test_a_graph_that_is_newer_than_onnxruntime_says_what_to_type():
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("images", "logits")]
    graph = helper.make_graph([helper.make_node("Unheard", ["images"], ["logits"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(InputError, match=r"new\.onnx cannot be run .* later version: pip install --upgrade"):
        open_session(model.SerializeToString(), Path("new.onnx"))
