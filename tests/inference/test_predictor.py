import io
import json
import logging
import pickle
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import facerwkv
from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.normalise import normalise
from facerwkv.data.transforms import EvalTransform, TransformConfig
from facerwkv.inference.explain import explain
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor, load
from facerwkv.media.faces import FaceBox, FaceDetector
from facerwkv.media.images import NamedImage, UnreadableImage, open_image
from facerwkv.models.checkpoint import save_checkpoint
from facerwkv.models.folder import Checkpoint
from facerwkv.models.zoo import create_model

SIZE = (48, 48)
BOXES = [(4, 6, 40, 50), (50.2, 10.7, 200, 90)]


def checkpoint(crop: str = "face", **fields) -> Checkpoint:
    torch.manual_seed(0)
    options = {"image_size": SIZE, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}
    model = create_model("facerwkv4_small", num_classes=7, **options).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return Checkpoint(model, "facerwkv4_small", EXPRESSIONS, TransformConfig(image_size=SIZE, crop=crop), **fields)


def noise(seed: int, height: int = 100, width: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def two_faces(rgb: np.ndarray) -> list:
    return BOXES


def no_faces(rgb: np.ndarray) -> list:
    return []


@pytest.fixture(scope="module")
def scene() -> Predictor:
    return Predictor(checkpoint("scene"), "cpu", two_faces)


@pytest.fixture(scope="module")
def face() -> Predictor:
    return Predictor(checkpoint("face", temperature=2.0), "cpu", two_faces)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def upside_down() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return encoded(Image.fromarray(noise(5)), "JPEG", exif=exif)


IMAGE = Image.fromarray(noise(5))
BAD = {
    "empty.jpg": b"",
    "truncated.jpg": encoded(IMAGE, "JPEG")[:700],
    "text.jpg": b"I am a text.",
    "bomb.png": png_header(30_000, 30_000),
}
ODD = {
    "cmyk.jpg": encoded(IMAGE.convert("CMYK"), "JPEG"),
    "deep.png": encoded(Image.fromarray(np.arange(12_000, dtype=np.uint16).reshape(100, 120) * 5), "PNG"),
    "alpha.png": encoded(IMAGE.convert("RGBA"), "PNG"),
    "palette.gif": encoded(IMAGE.convert("P"), "GIF"),
    "rotated.jpg": upside_down(),
    "wrong_ending.jpg": encoded(IMAGE, "PNG"),
}


def test_probabilities_are_the_softmax_of_the_logits_over_the_temperature(face):
    config = face.checkpoint.transform
    crop = EvalTransform(config)(noise(1), (4, 6, 40, 50))
    with torch.inference_mode():
        logits = face.checkpoint.model(normalise(torch.from_numpy(crop)[None], config))
    expected = dict(zip(EXPRESSIONS, (logits[0] / 2.0).softmax(-1).tolist(), strict=True))
    found = face.predict(noise(1)).faces[0]
    assert found.probs == pytest.approx(expected, abs=1e-6)
    assert found.label == max(expected, key=expected.get)
    assert found.score == found.probs[found.label]
    assert sum(found.probs.values()) == pytest.approx(1, abs=1e-6)


def test_face_mode_gives_whole_boxes_inside_the_image(face):
    result = face.predict(noise(1))
    assert (result.status, result.size) == ("ok", (120, 100))
    assert [found.box for found in result.faces] == [(4, 6, 40, 50), (50, 10, 120, 90)]


def test_scene_mode_gives_one_entry_without_a_box(scene):
    assert [found.box for found in scene.predict(noise(1)).faces] == [None]


@pytest.mark.parametrize(("crop", "mode", "faces"), [("scene", "face", 2), ("face", "scene", 1), ("face", "auto", 2)])
def test_the_mode_that_is_asked_for_counts_and_auto_is_what_the_model_was_trained_on(crop, mode, faces):
    assert len(Predictor(checkpoint(crop), "cpu", two_faces).predict(noise(1), mode=mode).faces) == faces


def test_every_kind_of_source_gives_the_same_answer(face, tmp_path):
    rgb = noise(2)
    image = Image.fromarray(rgb)
    path = tmp_path / "image.png"
    image.save(path)
    opened = path.open("rb")
    sources = [rgb, image, path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), opened, rgb / 255]
    names = ["array 0", "image 1", str(path), str(path), "bytes 4", "bytes 5", str(path), "array 7"]
    assert [result.source for result in face.predict(sources)] == names
    for source in sources:
        assert face.predict(source).faces == face.predict(rgb).faces


def test_bgr_arrays_answer_as_the_flipped_rgb_arrays(face):
    assert face.predict(noise(3)[..., ::-1], channels="bgr").faces == face.predict(noise(3)).faces


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_batch_answers_as_each_image_alone(face, batch_size):
    images = [noise(seed, 60 + 10 * seed) for seed in range(7)]
    for together, image in zip(face.predict(images, batch_size=batch_size), images, strict=True):
        for a, b in zip(together.faces, face.predict(image).faces, strict=True):
            assert (a.box, a.label) == (b.box, b.label)
            assert a.probs == pytest.approx(b.probs, abs=1e-6)


def test_faces_of_several_images_share_batches(monkeypatch, face):
    sizes = []
    forward = face.model.network.forward
    monkeypatch.setattr(face.model.network, "forward", lambda batch: sizes.append(len(batch)) or forward(batch))
    assert len(face.predict([noise(seed) for seed in range(5)], batch_size=4)) == 5
    assert sizes == [4, 4, 2]


def test_no_more_images_than_a_batch_are_opened_ahead():
    predictor = Predictor(checkpoint("face"), "cpu", lambda rgb: BOXES if rgb[0, 0, 0] else [])
    opened = []
    images = (opened.append(i) or np.full((60, 60, 3), i == 0, np.uint8) for i in range(100))
    next(predictor.predict_iter(images, batch_size=8))
    assert len(opened) <= 8


@pytest.mark.parametrize(
    ("on_no_face", "status", "faces", "failed"),
    [("empty", "no_face", 0, False), ("scene", "ok", 1, False), ("error", "no_face", 0, True)],
)
def test_an_image_without_a_face(on_no_face, status, faces, failed):
    predictor = Predictor(checkpoint("face"), "cpu", no_faces)
    (result,) = predictor.predict([noise(1)], on_no_face=on_no_face)
    assert (result.status, len(result.faces), result.failed) == (status, faces, failed)
    assert all(found.box is None for found in result.faces)


def test_a_single_image_without_a_face_raises_if_that_is_an_error():
    with pytest.raises(InputError, match="array 0: no face"):
        Predictor(checkpoint("face"), "cpu", no_faces).predict(noise(1), on_no_face="error")


@pytest.mark.parametrize("name", BAD)
def test_a_batch_goes_on_past_a_bad_image_and_lists_it(scene, tmp_path, name):
    (tmp_path / name).write_bytes(BAD[name])
    good, bad, last = scene.predict([noise(1), tmp_path / name, noise(2)])
    assert (good.status, bad.status, last.status) == ("ok", "unreadable", "ok")
    assert bad.failed
    assert name in bad.message
    assert bad.faces == ()


@pytest.mark.parametrize("name", ODD)
def test_unusual_images_are_read(scene, tmp_path, name):
    (tmp_path / name).write_bytes(ODD[name])
    result = scene.predict(tmp_path / name)
    assert (result.status, result.size, len(result.faces)) == ("ok", (120, 100), 1)


FAILING = {
    "gone.jpg": "gone.jpg cannot be read: there is no such file.",
    "": "'' cannot be read: there is no such file.",
    "gone.mp4": "gone.mp4 cannot be read: there is no such file.",
    "empty": "empty is a folder without images.",
    "*.tif": "*.tif cannot be read: no file fits this pattern.",
    "talk.mp4": "talk.mp4 is a video, and an image is wanted. Give it to facerwkv.stream, or type facerwkv predict",
    "rtsp://host/x": "rtsp://host/x is a video, and an image is wanted.",
    0: "source 0 is a camera, and an image is wanted. Give it to facerwkv.stream, or type facerwkv predict 0",
    True: "source 0 is of type bool; give a path",
    "s3://bucket/a.jpg": "s3://bucket/a.jpg cannot be read: there is no such file; an address that begins with s3: is",
    None: "source 0 is of type NoneType: OpenCV's answer for a file that it cannot read; give a path",
}


@pytest.mark.parametrize("source", FAILING)
def test_one_source_that_cannot_be_read_raises_and_of_several_it_is_a_result(scene, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "talk.mp4").write_bytes(b"no image")
    for options in ({}, {"errors": "raise"}):
        with pytest.raises(UnreadableImage, match=f"^{re.escape(FAILING[source])}"):
            scene.predict(source, **options)
    with pytest.raises(UnreadableImage, match=f"^{re.escape(FAILING[source])}"):
        scene.predict([noise(1), source][1:], errors="raise")
    single = scene.predict(source, errors="result")
    assert [single] == scene.predict([source])
    assert single.status == "unreadable"
    assert single.message.startswith(FAILING[source])
    assert single.failed


def test_a_table_is_not_taken_for_a_list_of_its_columns(scene):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(UnreadableImage, match=r"^source 0 is of type DataFrame; give a path"):
        scene.predict(pandas.DataFrame({"path": ["a.jpg"]}))
    assert len(scene.predict(pandas.Series([noise(1), noise(2)]))) == 2


def test_a_folder_and_a_pattern_mean_the_images_in_them(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    for name in ("10.png", "2.png", "b/1.png", "b/x[1].png"):
        Image.fromarray(noise(1)).save(tmp_path / name)
    names = {".": ["./2.png", "./10.png", "./b/1.png", "./b/x[1].png"], "*.png": ["2.png", "10.png"]}
    names |= {Path("b"): ["b/1.png", "b/x[1].png"]}
    for source, found in names.items():
        assert [result.source for result in scene.predict(source)] == found
    assert [result.source for result in scene.predict(["*.png", Path("b"), noise(2)])][2:] == [
        *names[Path("b")],
        "array 4",
    ]
    assert scene.predict("b/x[1].png").status == "ok"
    (tmp_path / "b" / "1.png").write_bytes(b"")
    assert [result.failed for result in scene.predict("b")] == [True, False]


def test_batches_uploads_and_iterators_are_read_one_by_one(scene):
    batch = np.stack([noise(1), noise(2)])
    expected = [result.faces for result in scene.predict([*batch])]
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
    for source in (
        batch,
        tensor,
        tensor / 255,
        iter(batch),
        (io.BytesIO(encoded(Image.fromarray(x), "PNG")) for x in batch),
    ):
        assert [result.faces for result in scene.predict(source)] == expected


def test_a_result_does_not_hold_pixels(scene):
    array = noise(1)
    held = scene.predict(array)
    (gone,) = scene.predict([noise(2)])
    assert held.image is array
    assert np.asarray(held.plot()).shape == (400, 480, 3)
    assert gone.image is None
    with pytest.raises(InputError, match=r"those of array 0 are gone. Give them: result.plot\(image\)"):
        gone.plot()
    assert gone.plot(noise(2)).size == (480, 400)
    copied = pickle.loads(pickle.dumps(held))
    assert (copied, copied.image) == (held, None)
    frames = ((i / 25, noise(i)) for i in range(3))
    for result in scene.predict_frames(frames):
        assert result.image.shape == (100, 120, 3)
    assert [each.image for each in list(scene.predict_frames((i / 25, noise(i)) for i in range(3)))] == [None] * 3


def test_results_are_plain_values(face):
    line = json.loads(json.dumps(face.predict(noise(1)).to_dict()))
    assert line.keys() == {"source", "status", "size", "faces"}
    assert line["faces"][0].keys() == {"box", "detection", "label", "score", "probs"}
    assert type(face.predict(noise(1)).faces[0].score) is float


def test_real_images(shared):
    predictor = Predictor(checkpoint("face"), "cpu")
    media = shared / "media"
    couple, none = predictor.predict([media / "couple.jpg", media / "fer_no-faces.jpg"])
    assert (couple.status, couple.size, len(couple.faces)) == ("ok", (2280, 1588), 2)
    assert couple.faces[0].detection > 0.9
    assert couple.plot().size == (2280, 1588)
    assert (none.status, none.faces) == ("no_face", ())


@pytest.mark.parametrize(
    ("box", "box_and_score"),
    [((4, 6, 40, 50), ((4, 6, 40, 50), None)), (FaceBox(-3, 6.5, 40, 50, 0.9, ()), ((0, 6, 40, 50), 0.9))],
)
def test_any_callable_is_a_detector(box, box_and_score):
    (found,) = Predictor(checkpoint("face"), "cpu", lambda rgb: [box]).predict(noise(1)).faces
    assert (found.box, found.detection) == box_and_score


def test_faces_are_in_the_order_of_rows_then_columns():
    rows = [(60, 5, 80, 25), (5, 8, 25, 28), (100, 2, 118, 20), (50, 60, 70, 90), (10, 50, 40, 80)]
    found = Predictor(checkpoint("face"), "cpu", lambda rgb: rows).predict(noise(1)).faces
    assert [face.box for face in found] == [rows[1], rows[0], rows[2], rows[4], rows[3]]


@pytest.mark.parametrize("box", [(10, 10, 10, 40), (130, 10, 150, 40), (-20, 10, 0, 40)])
def test_a_box_without_area_in_the_image_is_no_face(box):
    assert Predictor(checkpoint("face"), "cpu", lambda rgb: [box]).predict(noise(1)).status == "no_face"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "faces"}, "mode is 'faces'; choose one of auto, scene, face"),
        ({"on_no_face": "skip"}, "on_no_face is 'skip'; choose one of empty, scene, error"),
        ({"channels": "gray"}, "channels is 'gray'; choose one of rgb, bgr"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_a_wrong_option_is_refused_before_the_first_image(face, options, message):
    with pytest.raises(InputError, match=message):
        face.predict_iter(iter([]), **options)


def test_a_model_that_answers_nan_is_named():
    broken = checkpoint("scene")
    next(broken.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(InputError, match="facerwkv4_small answers with NaN"):
        Predictor(broken, "cpu").predict(noise(1))


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_an_error(name):
    with pytest.raises(InputError, match=name):
        Predictor(checkpoint(), name)


def test_a_saved_checkpoint_predicts_as_before(scene, tmp_path):
    save_checkpoint(tmp_path, scene.checkpoint)
    assert load(tmp_path, "cpu").predict(noise(1)).faces == scene.predict(noise(1)).faces


@pytest.mark.parametrize(
    ("licence", "noticed"),
    [("research only", True), ("CC-BY-NC, non-commercial", True), ("Apache-2.0", False), (None, False)],
)
def test_the_notice_tells_of_weights_for_research_only(licence, noticed):
    assert bool(checkpoint(card={"licence": licence}).notice) is noticed


def test_the_notice_is_shown_once(tmp_path, caplog):
    save_checkpoint(tmp_path, checkpoint(card={"licence": "research only"}))
    with caplog.at_level(logging.WARNING, "facerwkv"):
        load(tmp_path, "cpu")
        load(tmp_path, "cpu")
    assert [record.message for record in caplog.records] == [checkpoint(card={"licence": "research only"}).notice]


def test_repr_names_model_and_device(face):
    assert repr(face) == "facerwkv4_small (7 labels, 0.0 M parameters) on cpu"


@pytest.mark.parametrize(("pixels", "boxes"), [(0, 2), (36, 2), (37, 1), (70, 1), (71, 0)])
def test_faces_with_a_shorter_side_than_min_face_are_left_out(face, pixels, boxes):
    result = face.predict(noise(1), min_face=pixels)
    assert (len(result.faces), result.status) == (boxes, "ok" if boxes else "no_face")
    assert len(face.predict(noise(1), min_face=71, on_no_face="scene").faces) == 1


def test_flip_is_the_softmax_of_the_mean_logits_of_image_and_mirror_image(face):
    config = face.checkpoint.transform
    crop = EvalTransform(config)(noise(1), (4, 6, 40, 50))
    with torch.inference_mode():
        both = normalise(torch.from_numpy(np.stack([crop, crop[:, ::-1]])), config)
        expected = (face.checkpoint.model(both).mean(0) / 2.0).softmax(-1)
    found, plain = face.predict(noise(1), tta="flip").faces[0], face.predict(noise(1)).faces[0]
    assert list(found.probs.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert found.probs != pytest.approx(plain.probs, abs=1e-4)


def test_ten_is_the_mean_over_five_shifts_and_their_mirror_images(face):
    crop = np.stack([face.open(noise(1), Options()).crops[0].image])
    height, width = crop.shape[1:3]
    edge = np.pad(crop[0], ((2, 2), (2, 2), (0, 0)), mode="edge")
    assert (round(height / 24), round(width / 24)) == (2, 2)
    places = [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
    moved = np.stack([edge[y : y + height, x : x + width] for y, x in places])
    logits = face.model(np.concatenate([moved, moved[:, :, ::-1]])).mean(0)
    expected = face.probabilities(logits[None])[0].tolist()
    assert list(face.predict(noise(1), tta="ten").faces[0].probs.values()) == pytest.approx(expected, abs=1e-6)


def test_images_of_one_batch_keep_their_own_options(face):
    asked = [Options(tta="flip"), Options(threshold=1.0)]
    crops = [face.open(noise(1), options).crops[0] for options in asked]
    flipped, plain = face.classify(crops, asked)
    assert flipped.probs == pytest.approx(face.predict(noise(1), tta="flip").faces[0].probs, abs=1e-6)
    assert plain.probs == pytest.approx(face.predict(noise(1)).faces[0].probs, abs=1e-6)
    assert (flipped.unsure, plain.unsure) == (False, True)


def test_a_threshold_marks_faces_from_the_start(face):
    assert [found.unsure for found in face.predict(noise(1), threshold=1.0).faces] == [True, True]


def test_names_are_those_that_are_given(tmp_path):
    blind = Predictor(checkpoint("face"), "cpu", no_faces, name="mine")
    assert repr(blind).startswith("mine (7 labels, ")
    named = [NamedImage("party.jpg", noise(1)), NamedImage("bad.jpg", b""), noise(2)]
    results = blind.predict(named, on_no_face="error")
    assert [result.source for result in results] == ["party.jpg", "bad.jpg", "array 2"]
    assert results[0].message == "party.jpg: no face was found. Choose scene to classify it whole."
    assert results[1].message == "bad.jpg cannot be read: it is empty."
    assert blind.predict(noise(1), name="party.jpg").source == "party.jpg"
    save_checkpoint(tmp_path, blind.checkpoint)
    assert load(tmp_path, "cpu", name="yours").name == "yours"


@pytest.mark.parametrize(("options", "message"), [({"stride": 2}, "stride is an option for videos"), ({"x": 1}, "'x'")])
def test_an_option_that_images_do_not_have_is_refused(face, options, message):
    with pytest.raises(InputError, match=message):
        face.predict(noise(1), **options)


class TestSceneAndFace:
    """A model that looks at a face and at what is around it."""

    @pytest.fixture(scope="class")
    def both(self) -> Predictor:
        torch.manual_seed(0)
        model = create_model("caer_net_s", image_size=SIZE).eval()
        transform = TransformConfig(image_size=SIZE, crop="both", no_box="error", mean=(0.1, 0.2, 0.3))
        return Predictor(Checkpoint(model, "caer_net_s", EXPRESSIONS, transform), "cpu", two_faces)

    def test_every_face_is_seen_before_its_own_scene(self, both):
        image = noise(0)
        result = both.predict(image)
        assert [face.box for face in result.faces] == [(4, 6, 40, 50), (50, 10, 120, 90)]
        for face in result.faces:
            given = EvalTransform(both.checkpoint.transform)(image, face.box)
            with torch.inference_mode():
                logits = both.checkpoint.model(normalise(torch.from_numpy(given)[None], both.checkpoint.transform))
            assert list(face.probs.values()) == pytest.approx(logits.softmax(1)[0].tolist(), abs=1e-5)

    def test_a_whole_image_is_refused_in_words(self, both):
        with pytest.raises(InputError, match=r"caer_net_s looks at a face.*mode auto or face"):
            both.predict(noise(0), mode="scene")

    def test_where_no_face_is_found_the_whole_image_can_be_the_face(self, both):
        blind = Predictor(both.checkpoint, "cpu", no_faces)
        assert blind.predict(noise(0)).status == "no_face"
        assert len(blind.predict(noise(0), on_no_face="scene").faces) == 1


class TestInOneCall:
    def test_a_model_is_called_and_loaded_once(self, tmp_path, monkeypatch):
        save_checkpoint(tmp_path, checkpoint("scene"))
        expected = load(tmp_path).predict(noise(1)).faces
        assert load(tmp_path)(noise(1)).faces == expected
        assert facerwkv.predict(noise(1), model=tmp_path).faces == expected
        monkeypatch.setattr("facerwkv.models.checkpoint.load_checkpoint", None)
        assert facerwkv.predict(noise(1), model=tmp_path, mode="scene").faces == expected
        assert facerwkv.explain is explain

    def test_a_detector_is_given_with_its_own_bounds(self, tmp_path):
        save_checkpoint(tmp_path, checkpoint("face"))
        assert [face.box for face in load(tmp_path, detector=two_faces)(noise(1)).faces] == [
            BOXES[0],
            (50, 10, 120, 90),
        ]
        with pytest.raises(InputError, match="Give detector_model or detector, not both"):
            load(tmp_path, detector=two_faces, detector_model="yunet.onnx")
        for wrong in ({"threshold": 2}, {"max_side": 0}):
            with pytest.raises(InputError, match=f"The detector's {next(iter(wrong))} is"):
                FaceDetector(**wrong)

    def test_the_detector_s_bounds_hold(self, shared):
        rgb = open_image(shared / "media" / "couple.jpg")
        faces = FaceDetector()(rgb)
        smallest, weakest = (
            min(map(key, faces)) for key in (lambda f: min(f.x2 - f.x1, f.y2 - f.y1), lambda f: f.score)
        )
        assert len(FaceDetector(min_face=int(smallest) + 1)(rgb)) < len(faces)
        assert len(FaceDetector(threshold=weakest + 1e-4)(rgb)) < len(faces)


def test_embeddings_are_what_the_classifier_reads(face):
    rgb, model = noise(1), face.checkpoint.model
    (found,) = face.embed([rgb])
    assert (found.shape, found.dtype) == ((2, model.head_hidden_size), np.float32)
    assert np.array_equal(face.embed(rgb), found)
    logits = model.get_classifier()(torch.from_numpy(found)) / face.checkpoint.temperature
    probs = [list(each.probs.values()) for each in face.predict(rgb).faces]
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), probs, atol=1e-5)
    assert Predictor(checkpoint("face"), "cpu", no_faces).embed(rgb).shape == (0, model.head_hidden_size)
    with pytest.raises(InputError, match="no such file"):
        face.embed("gone.jpg")


def test_a_detector_that_cannot_be_called_is_refused(scene):
    with pytest.raises(InputError, match=r"^detector is 'none'; give a function from an image to boxes, or FaceDet"):
        Predictor(scene.checkpoint, detector="none")
