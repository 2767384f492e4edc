"""What an evaluation scores: faces found as in prediction, a run's own splits, other classes, and where results go."""

import pytest
from PIL import Image

from facerwkv.data.loader import DataConfig, DataModule
from facerwkv.data.toy.scenes import render
from facerwkv.data.transforms import TransformConfig
from facerwkv.evaluation.evaluate import evaluate_folder
from facerwkv.inference.predictor import load
from facerwkv.models.checkpoint import load_checkpoint

TINY = "facerwkv_fer_tiny"


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A cache of its own, so that faces are really searched."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("FACERWKV_HOME", str(folder))
        yield folder


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


def test_evaluation_sees_the_faces_that_prediction_finds(scenes, tmp_path, caplog):
    scored = evaluate_folder(TINY, f"imagefolder:{scenes}", out=tmp_path, device="cpu").evaluation
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
