"""What an evaluation scores: faces found as in prediction, a run's own splits, other classes, and where results go."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.loader import DataConfig, DataModule
from facerwkv.data.toy.scenes import render
from facerwkv.data.transforms import TransformConfig
from facerwkv.evaluation.evaluate import evaluate_folder, finish, pack
from facerwkv.evaluation.result import Evaluation
from facerwkv.inference.predictor import load
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from tests.commands import facerwkv

TINY = "facerwkv_fer_tiny"
THREE = ("happy", "sad", "angry")
RECIPE = [
    "model.name=facerwkv4_small",
    "model.options={stem: conv, patch_size: 16, width: 16}",
    "transform.image_size=[32, 32]",
    *("data.cache=false", "data.validation=random", "data.val_fraction=0.3"),
    *("train.epochs=1", "train.seed=3", "train.device=cpu"),
]


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A cache of its own, so that faces are really searched."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("FACERWKV_HOME", str(folder))
        yield folder


@pytest.fixture
def unwritten(monkeypatch):
    """Evaluations without their pages, which take longer than all the rest."""
    monkeypatch.setattr("facerwkv.evaluation.evaluate.write_report", lambda scored, folder, **rest: folder)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory, home):
    """Drawn scenes 600 pixels wide in folders of all classes, two each; one is a wall, without a face."""
    root = tmp_path_factory.mktemp("scenes")
    labels = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    for number in range(14):
        folder = root / ("train", "test")[number // 7] / labels[number % 7]
        folder.mkdir(parents=True)
        Image.fromarray(render(number, "test").image).save(folder / "scene.png")
    Image.new("RGB", (600, 400), "green").save(root / "test" / "fear" / "scene.png")
    return root


@pytest.mark.usefixtures("unwritten")
def test_evaluation_sees_the_faces_that_prediction_finds(scenes, tmp_path, caplog, capsys):
    everything = evaluate_folder(TINY, f"imagefolder:{scenes}", out=tmp_path, device="cpu", ablate=True)
    scored, rows = everything.evaluation, everything.to_dict()["ablation"]["rows"]
    everything.print()
    assert [row["name"] for row in rows][-3:] == ["all blocks", "values averaged", "decay and bonus"]
    assert f"block 3: channel mix    {rows[7]['accuracy']:.2%}" in capsys.readouterr().out
    model, found = load(TINY, device="cpu"), 0
    for name, probs in zip(scored.names, scored.probs, strict=True):
        faces = model.predict(scenes / name).faces
        if name == "test/fear/scene.png":
            assert faces == ()
            continue
        largest = max(faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))
        assert largest.probs == pytest.approx(dict(zip(scored.labels, probs, strict=True)), abs=1e-4)
        found += 1
    assert found == 6
    assert scored.meta["without_box"] == 1
    assert (
        "In 1 of 7 test images no face was found, for example in test/fear/scene.png; there the whole image counts"
        in caplog.text
    )


def test_the_images_that_a_box_file_leaves_out_are_said_and_searched(scenes, tmp_path, caplog):
    (tmp_path / "boxes.csv").write_text("test/anger/scene.png,anger,10,20,110,120\n")
    data = DataModule(
        DataConfig(source=f"imagefolder:{scenes}", boxes=str(tmp_path / "boxes.csv"), cache=False),
        load_checkpoint(TINY).transform,
        foreign=True,
    )
    boxes = {sample.name: sample.box for sample in data.test.samples}
    assert boxes["test/anger/scene.png"] == (10, 20, 110, 120)
    assert [name for name, box in boxes.items() if box is None] == ["test/fear/scene.png"]
    assert "boxes.csv has no box for 13 of 14 images, for example train/anger/scene.png." in caplog.text


def test_training_says_that_a_model_of_faces_gets_whole_images(scenes, caplog):
    transform = TransformConfig(image_size=(8, 8), crop="face", no_box="centre")
    DataModule(DataConfig(source=f"imagefolder:{scenes}", cache=False, validation="random"), transform).val  # noqa: B018
    assert "In 1 of 1 val images there is no face box (data.boxes=detect finds faces)" in caplog.text
    assert "there the image's middle counts as the face." in caplog.text


def noise(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def own3(tmp_path_factory):
    """A plain folder of three classes, ten images each."""
    root = tmp_path_factory.mktemp("own") / "own3"
    for row, label in enumerate(THREE):
        for number in range(10):
            noise(root / label / f"{number}.png", 10 * row + number)
    return root


@pytest.fixture(scope="session")
def run(own3, tmp_path_factory):
    """A run on it that is finished: 21 images were trained on, 9 are validation."""
    values = {"data.source": f"imagefolder:{own3}", "data.labels": THREE}
    folder = train(Recipe.read("modern", RECIPE, values), tmp_path_factory.mktemp("runs") / "own", progress=False)
    finish(folder, progress=False)
    return folder


def in_split(run, split):
    with (run / "splits.csv").open() as file:
        return {row["image"] for row in csv.DictReader(file) if row["split"] == split}


def test_a_run_keeps_its_splits(run):
    assert (len(in_split(run, "train")), len(in_split(run, "val"))) == (21, 9)


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("spelling", ["{0}/", "{1}", "./{1}", "{0}/../{1}", "link", "copy", "{0}/happy/../"])
def test_the_same_data_under_another_spelling_is_split_as_in_training(spelling, run, own3, tmp_path, monkeypatch):
    (own3.parent / "link").exists() or (own3.parent / "link").symlink_to(own3)
    (own3.parent / "copy").exists() or shutil.copytree(own3, own3.parent / "copy")
    monkeypatch.chdir(own3.parent)
    source = f"imagefolder:{spelling.format(own3, own3.name)}"
    scored = evaluate_folder(run, source, "val", tmp_path, "cpu").evaluation
    assert set(scored.names) == in_split(run, "val")
    assert scored.summary()["accuracy"] == Evaluation.load(run / "val").summary()["accuracy"]


@pytest.mark.usefixtures("unwritten")
def test_data_that_have_changed_are_said_in_numbers(run, own3, tmp_path, caplog):
    copy = shutil.copytree(own3, tmp_path / "own3")
    trained, held = sorted(in_split(run, "train")), sorted(in_split(run, "val"))
    (copy / held[0]).unlink()
    shutil.copy(copy / trained[0], copy / held[1])
    for number in range(4):
        noise(copy / "sad" / f"new{number}.png", 100 + number)
    scored = evaluate_folder(run, f"imagefolder:{copy}", "val", tmp_path / "out", "cpu").evaluation
    assert set(scored.names) == set(held[2:])
    said = "of 30 images 1 are gone, 0 are changed and 0 are in another split; 4 are new."
    assert said in scored.meta["changed"]
    assert said in caplog.text


@pytest.mark.usefixtures("unwritten")
def test_an_image_that_was_trained_on_is_never_validation_or_test(run, own3, tmp_path, caplog):
    for label in THREE:
        shutil.copytree(own3 / label, tmp_path / "data" / "test" / label)
        for number in range(20):
            noise(tmp_path / "data" / "test" / label / f"other{number}.png", 1000 + 20 * THREE.index(label) + number)
    scored = evaluate_folder(run, f"imagefolder:{tmp_path}/data", "test", tmp_path / "out", "cpu").evaluation
    assert len(scored.names) == 90 - 21
    assert not {name.removeprefix("test/") for name in scored.names} & in_split(run, "train")
    assert scored.meta["trained_on"] == 21
    assert "21 of 90 test images were trained on; they are left out." in caplog.text


@pytest.fixture(scope="session")
def eight(tmp_path_factory):
    """Eight classes in folders, as a mirror of AffectNet has them, and no splits."""
    root = tmp_path_factory.mktemp("eight") / "faces"
    for number, label in enumerate(("Anger", "Contempt", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")):
        for copy in range(2):
            noise(root / label / f"{copy}.png", 500 + 2 * number + copy)
    return root


@pytest.mark.usefixtures("unwritten", "home")
@pytest.mark.parametrize(
    ("model", "data", "changes", "n", "labels", "ignored"),
    [
        ("run", "eight", [], 6, THREE, 5),
        (TINY, "eight", [], 14, EXPRESSIONS, 1),
        (TINY, "own3", [], 30, ("anger", "happiness", "sadness"), 4),
        (TINY, "eight", ["data.labels=[sad, happy]"], 4, ("happiness", "sadness"), 5),
        (TINY, "eight", ["data.limit=5"], 4, EXPRESSIONS, 1),
        ("run", "own3", ["data.labels=[happy, sad]"], 20, THREE[:2], 1),
    ],
)
def test_the_common_classes_of_all_images_are_scored(
    model, data, changes, n, labels, ignored, run, own3, eight, tmp_path
):
    source, split = f"imagefolder:{eight if data == 'eight' else own3}", "all" if model == "run" else None
    scored = evaluate_folder(run if model == "run" else model, source, split, tmp_path, "cpu", changes=changes)
    found = scored.evaluation
    assert (len(found.names), found.labels, found.split) == (n, labels, "all")
    assert len(found.meta.get("ignored_labels", [])) == ignored


def test_data_that_are_elsewhere_now_are_asked_for(run, own3, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "run")
    for config in copy.rglob("config.json"):
        config.write_text(config.read_text().replace(str(own3), "gone/own3"))
    done = facerwkv("evaluate", "--model", copy, "--split", "val")
    assert "was trained on imagefolder:gone/own3, which is not here." in done.stderr
    assert "--data imagefolder:PATH." in done.stderr
    monkeypatch.setattr("facerwkv.evaluation.evaluate.write_report", lambda scored, folder, **rest: folder)
    model = copy / "best" / "config.json"
    scored = evaluate_folder(model, f"imagefolder:{own3}", "val", device="cpu")
    assert scored.report == copy / "best" / "val"
    assert set(scored.evaluation.names) == in_split(run, "val")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.epochs=3"], "'train.epochs=3' does not change the data"),
        (["data.nosuch=3"], "Unknown key 'data.nosuch'"),
        (["data.val_fraction=0.5"], "splits of the run's own data are those of its training"),
        (["--split", "all", "--without-copies"], "Look for their copies in one split: --split test."),
        ([], "has no test split; it has train, val. Use one of these."),
    ],
)
def test_a_change_that_cannot_be_obeyed_is_refused(words, message, run, tmp_path):
    done = facerwkv("evaluate", "--model", run, "--device", "cpu", "--out", tmp_path / "out", *words)
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    assert message in done.stderr


@pytest.mark.usefixtures("home")
def test_where_results_go_depends_on_what_was_scored(run, own3, eight, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "run")
    evaluations = [
        ("val", ["--split", "val", "--data", f"imagefolder:{own3}/"]),
        ("val_", ["--split", "val", "data.limit=4"]),
        ("all_imagefolder_faces_", ["--data", f"imagefolder:{eight}"]),
        ("all_", ["--data", f"imagefolder:{eight}", "data.labels=[Happy, Sad]"]),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facerwkv.evaluation.evaluate.write_report", lambda scored, out, **rest: scored.save(out) or out)
        for _, words in evaluations:
            assert facerwkv("evaluate", "--model", copy, "--device", "cpu", *words).returncode == 0
    folders = {path.parent.name for path in copy.rglob("evaluation.json")}
    assert len(folders) == 4
    assert all(any(name.startswith(start) for name in folders) for start, _ in evaluations)
    assert Evaluation.load(copy / "val").summary()["n"] == 9
    shutil.copytree(next(path for path in copy.iterdir() if path.name.startswith("all_")), copy / "test")
    monkeypatch.setattr("facerwkv.models.graph.write_graph", lambda folder: 0.0)  # it takes seconds
    assert facerwkv("models", "pack", copy, "--out", tmp_path / "packed").returncode == 0
    assert set(load_checkpoint(tmp_path / "packed").card["metrics"]) == {"val"}


def test_a_card_takes_the_run_s_own_test(run, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("facerwkv.models.graph.write_graph", lambda folder: 0.0)  # it takes seconds
    copy = shutil.copytree(run, tmp_path / "run")
    scored = replace(Evaluation.load(run / "val"), split="test")
    for own in (True, False):
        replace(scored, meta={"own_data": own}).save(copy / "test")
        packed = pack(copy, tmp_path / f"packed{own}")
        assert ("test" in packed.card["metrics"]) == own
    assert "not on the run's test as it is: not on the card." in caplog.text


def test_a_folder_called_like_a_shipped_model_is_itself(run, tmp_path):
    shutil.copytree(run, tmp_path / TINY)
    done = facerwkv("evaluate", "--model", f"./{TINY}", "--split", "val", "--json", "--device", "cpu", cwd=tmp_path)
    assert json.loads(done.stdout)["n"] == 9
    assert (tmp_path / TINY / "val" / "report.html").is_file()
