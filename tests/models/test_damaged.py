"""A checkpoint that is not whole is refused in one sentence; one that is replaced is the old one or the new one."""

import json
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.transforms import TransformConfig
from facerwkv.mixers import MIXERS
from facerwkv.models.checkpoint import load_checkpoint, save_checkpoint
from facerwkv.models.config import POSITIONS, STEMS
from facerwkv.models.folder import NEXT, WEIGHTS, Checkpoint
from facerwkv.models.onnx import Description, read_onnx
from facerwkv.models.zoo import CONFIG, SHIPPED, create_model, shipped
from tests.commands import facerwkv
from tests.models.damage import WRONG, broken_files, changed, fields

CARD = json.loads((SHIPPED / "facerwkv_ferplus" / CONFIG).read_text(encoding="utf-8"))["card"]
SHORT = {
    "name": "tiny",
    "licence": "research only: drawn faces",
    "weaknesses": ["It is tiny."],
    "validation": {"val_uar": 0.5, "epoch": 3},
    "data": {"source": "toy", "labels": [*EXPRESSIONS], "images": {"train": 5}, "dropped_leaks": 0, "problems": ["x"]},
    "metrics": {"test": {**CARD["metrics"]["test"], "per_class": {}, "confusion": [[1]], "labels": ["anger"]}},
    "recipe": {"about": "x", "init_from": None, "model": {"stem_weights": None}, "train": {"seed": 0}},
}
"""A card with one of everything that is read."""


def tiny(seed: int = 0, **card) -> Checkpoint:
    torch.manual_seed(seed)
    model = create_model("facerwkv4_small", img_size=(16, 16), patch_size=8, width=16, heads=2).eval()
    transform = TransformConfig(image_size=(16, 16), mean=(0.5,), std=(0.25,))
    return Checkpoint(model, "facerwkv4_small", EXPRESSIONS, transform, 1.5, {**SHORT, **card})


@pytest.fixture
def folder(tmp_path) -> Path:
    save_checkpoint(tmp_path, tiny())
    return tmp_path


@pytest.fixture
def exported(tmp_path) -> Path:
    """A file as `facerwkv export` writes it, its graph one product: of the pixels' means."""
    ends = (
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 16, 16, 3]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 7]),
    )
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weight"], ["logits"]),
    ]
    weight = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    values = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([1, 2]), "axes")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, Description.of(tiny(), SHORT).metadata())
    onnx.save(model, tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def refusal(read, path: Path, named: str = "") -> str:
    """What is said of the path, where `named` must occur; "" where it is read, and then its answers are finite."""
    text = ""
    try:
        found = read(path)
    except InputError as error:
        text = str(error)
    if text:
        assert 20 < len(text) < 2_500
        assert str(path) in text
        assert named in text
        return text
    transform, model = found.transform, found.model
    images = np.zeros((1, *transform.image_size, transform.channels), np.uint8)
    with torch.inference_mode():
        takes_bytes = hasattr(model, "session")
        answer = model(images) if takes_bytes else model(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    assert answer.shape == (1, len(found.labels))
    assert np.isfinite(answer).all()
    return ""


def walk(good: dict, write, read, values=WRONG[:10]) -> dict[tuple, list]:
    """Each field with each value: field → the values that were taken; how many there were is printed."""
    taken, cases = {}, 0
    for path in fields(good):
        name = next(str(key) for key in path[::-1] if isinstance(key, str))
        taken[path] = [wrong for wrong in values if not refusal(read, write(changed(good, path, wrong)), name)]
        cases += len(values)
    print(f"{cases} damaged fields, {cases - sum(map(len, taken.values()))} refused")
    return taken


def whatever_matters_is_refused(taken: dict[tuple, list]) -> None:
    """Of the names and the temperature nothing is taken that is not one; of the rest what fits the field."""
    assert all(not taken[(key,)] for key in ("model", "labels", "transform", "temperature"))
    assert {repr(wrong) for path, wrongs in taken.items() if path[0] != "card" for wrong in wrongs} <= {
        "None",
        "'1.5'",
        "-1",
        "1000000000",
    }
    huge = {path for path, wrongs in taken.items() if 10**9 in wrongs and path[0] != "card"}
    assert huge <= {("config", "layer_scale")}  # the scale from which training starts
    assert {path for path, wrongs in taken.items() if None in wrongs and path[0] != "card"} <= {
        ("config", "time_mix_dim"),
        ("config", "hidden"),
        ("weights",),
        ("licence",),
    }


def test_every_field_of_a_checkpoint_is_checked(folder):
    def write(values):
        (folder / CONFIG).write_text(json.dumps(values), encoding="utf-8")
        return folder

    taken = walk(json.loads((folder / CONFIG).read_text(encoding="utf-8")), write, load_checkpoint)
    assert not taken[("config",)] + taken[("format",)]
    whatever_matters_is_refused(taken)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_every_field_of_a_shipped_checkpoint_is_checked(name, tmp_path):
    shutil.copy(SHIPPED / name / WEIGHTS, tmp_path)

    def write(values):
        (tmp_path / CONFIG).write_text(json.dumps(values), encoding="utf-8")
        return tmp_path

    good = json.loads((SHIPPED / name / CONFIG).read_text(encoding="utf-8"))
    whatever_matters_is_refused(walk(good, write, load_checkpoint, WRONG[:10]))
    walk(good, write, load_checkpoint, WRONG[10:])


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_every_field_of_an_exported_file_is_checked(runtime, exported):
    model = onnx.load(exported)
    good = {entry.key: json.loads(entry.value) for entry in model.metadata_props}

    def write(values):
        del model.metadata_props[:]
        helper.set_model_props(model, {key: json.dumps(value) for key, value in values.items()})
        onnx.save(model, exported)
        return exported

    del good["input"]  # is not read
    read = partial(read_onnx, runtime=runtime)
    taken = walk(good, lambda values: write({"input": {}} | values), read, WRONG[:7])
    assert not taken[("facerwkv",)]
    whatever_matters_is_refused(taken)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_checkpoint_s_file_that_is_not_whole_is_named(folder, name):
    for how in broken_files(folder / name):
        assert refusal(load_checkpoint, folder, CONFIG if name == CONFIG and how != "gone" else ""), how
    assert not refusal(load_checkpoint, folder)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_exported_file_that_is_not_whole_is_named(exported, runtime):
    for how in broken_files(exported):
        assert refusal(lambda path: read_onnx(path, runtime=runtime), exported), how
    assert not refusal(lambda path: read_onnx(path, runtime=runtime), exported)


def without(weights, name):
    del weights[name]


BROKEN = {
    "classifier.bias is missing": lambda weights: without(weights, "classifier.bias"),
    "other is not part of the model": lambda weights: weights.update(other=torch.zeros(3)),
    r"classifier.bias is (8,) and must be (7,)": lambda weights: weights.update({"classifier.bias": torch.zeros(8)}),
    "classifier.bias is torch.int64 and must be torch.float32": lambda weights: weights.update(
        {"classifier.bias": torch.zeros(7, dtype=torch.int64)}
    ),
    "there is NaN or infinity in classifier.bias": lambda weights: weights["classifier.bias"].fill_(torch.nan),
}


@pytest.mark.parametrize("message", BROKEN)
def test_weights_of_another_model_are_refused_and_not_saved(folder, message):
    weights, told = load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    BROKEN[message](weights)
    save_file(weights, folder / WEIGHTS, {"facerwkv_hash": told["weights"]})
    assert message in refusal(load_checkpoint, folder)
    save_file(weights, folder / WEIGHTS)
    assert "names other weights than those in model.safetensors" in refusal(load_checkpoint, folder)


def test_what_could_not_be_read_again_is_not_saved(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    good, broken = tiny(), tiny()
    torch.nn.init.constant_(broken.model.classifier.bias, torch.inf)
    for checkpoint, message in (
        (broken, "NaN or infinity in classifier.bias"),
        (replace(good, labels=("yes", "no")), "labels: there are 2, and config.num_classes is 7"),
        (replace(good, labels=("yes",) * 7), "'yes' is there twice"),
        (replace(good, temperature=0.0), "temperature: "),
        (replace(good, transform=TransformConfig(image_size=(16, 16), in_chans=1)), "images of 1 channels"),
        (replace(good, card={"metrics": {"test": 3}}), "card.metrics.test: "),
    ):
        with pytest.raises(InputError, match=message):
            save_checkpoint(folder, checkpoint)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("largest", [{"width": 65_536}, {"depth": 256}, {"image_size": [9_992, 9_992]}, {"heads": 16}])
def test_a_size_is_compared_before_it_is_allocated(folder, largest):
    told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    told["config"] |= largest | {"position": "learned"}
    (folder / CONFIG).write_text(json.dumps(told), encoding="utf-8")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "position.table is missing" in refusal(load_checkpoint, folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize("table", [MIXERS, STEMS, POSITIONS], ids=["mixer", "stem", "position"])
def test_all_that_a_model_may_be_made_of_is_read_again(table, tmp_path):
    option = {id(MIXERS): "mixer", id(STEMS): "stem", id(POSITIONS): "position"}[id(table)]
    for name in table:
        given = {option: name, "width": 16, "img_size": (32, 32), "patch_size": 8, "heads": 1}
        model = create_model("facerwkv4_small", **given).eval()
        save_checkpoint(
            tmp_path, Checkpoint(model, "facerwkv4_small", EXPRESSIONS, TransformConfig(image_size=(32, 32)))
        )
        images = torch.rand(2, 3, 32, 32)
        assert torch.equal(load_checkpoint(tmp_path).model(images), model(images)), name


SAVING = """
import sys
from tests.models.test_damaged import save_checkpoint, tiny
pair = [tiny(seed, name=str(seed)) for seed in (0, 1)]
print("ready", flush=True)
for number in range(10**6):
    save_checkpoint(sys.argv[1], pair[number % 2])
"""


@pytest.mark.slow
def test_a_kill_in_mid_save_leaves_one_checkpoint_whole(folder):
    answers, images = {}, torch.rand(2, 3, 16, 16)
    answers = {str(seed): tiny(seed).model(images) for seed in (0, 1)}
    found = Counter()
    for number in range(15):
        saving = subprocess.Popen([sys.executable, "-c", SAVING, folder], stdout=subprocess.PIPE)
        saving.stdout.readline()
        for _ in range(20):  # while it is saving, too
            loaded = load_checkpoint(folder)
            assert torch.equal(loaded.model(images), answers[loaded.card.get("name", "0").replace("tiny", "0")])
        time.sleep(number / 5_000)
        saving.kill()
        saving.wait()
        loaded = load_checkpoint(folder)
        assert torch.equal(loaded.model(images), answers[loaded.title])
        found[loaded.title, (folder / NEXT).exists()] += 1
    print(found)


@pytest.mark.parametrize("steps", range(4))
def test_a_save_that_ends_after_any_step_leaves_one_checkpoint_whole(folder, steps, monkeypatch):
    left, replacing = [steps], Path.replace

    def replaced(self, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return replacing(self, target)

    monkeypatch.setattr(Path, "replace", replaced)
    with suppress(KeyboardInterrupt):
        save_checkpoint(folder, tiny(1, name="new"))
    monkeypatch.undo()
    images, expected = torch.rand(2, 3, 16, 16), tiny(int(steps >= 2))
    assert load_checkpoint(folder).title == ("new" if steps >= 2 else "tiny")
    assert torch.equal(load_checkpoint(folder).model(images), expected.model(images))
    save_checkpoint(folder, tiny(2))
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    assert torch.equal(load_checkpoint(folder).model(images), tiny(2).model(images))


def test_other_tools_read_both_files(folder):
    assert load_file(folder / WEIGHTS).keys() == tiny().model.state_dict().keys()
    assert json.loads((folder / CONFIG).read_text(encoding="utf-8"))["labels"] == [*EXPRESSIONS]


@pytest.mark.parametrize("command", ["predict", "explain", "evaluate", "export", "serve", "models pack", "compare"])
def test_each_command_says_it_and_ends_with_2(folder, command, tmp_path):
    (folder / CONFIG).write_text("{}")
    own = {"predict": ["a.png", "--model"], "explain": ["a.png", "--model"], "models pack": [], "compare": []}
    options = {"export": ["--out", "a.onnx"], "models pack": ["--out", "packed"]}.get(command, [])
    done = facerwkv(*command.split(), *own.get(command, ["--model"]), folder, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"facerwkv: {folder / CONFIG}: model: Field required")
