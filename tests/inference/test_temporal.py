import numpy as np
import pytest
import torch

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.normalise import normalise
from facerwkv.data.transforms import TransformConfig
from facerwkv.experiments.section4_1_recurrent import numbers
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor
from facerwkv.inference.stream import stream
from facerwkv.inference.temporal import Temporal
from facerwkv.media.tracks import PATIENCE, Tracker
from facerwkv.mixers import MIXERS
from facerwkv.models.folder import Checkpoint
from facerwkv.models.zoo import create_model

SIZE = (32, 32)
FACE = (10, 10, 40, 40)
ENDLESS = [name for name, mixer in MIXERS.items() if mixer.endless]


def predictor(mixer="rwkv4", detector=lambda rgb: [FACE], **options) -> Predictor:
    torch.manual_seed(0)
    shape = {"image_size": SIZE, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "mixer": mixer}
    model = create_model("facerwkv4_small", num_classes=7, **shape, **options).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))  # a fresh mixer hands on nothing
    transform = TransformConfig(image_size=SIZE, crop="face")
    return Predictor(Checkpoint(model, "small", EXPRESSIONS, transform), "cpu", detector)


def frames(count: int, seed: int = 0) -> list[tuple[float, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(number / 10, rng.integers(0, 256, (60, 60, 3), np.uint8)) for number in range(count)]


def probs(results) -> np.ndarray:
    return np.array([[*face.probs.values()] for result in results for face in result.faces])


@pytest.mark.parametrize("mixer", ENDLESS)
def test_a_frame_is_answered_as_the_end_of_all_frames_before_it(mixer):
    model, shown = predictor(mixer), frames(3)
    crops = [model.open(rgb, Options()).crops[0].image for _, rgb in shown]
    tokens = model.checkpoint.model.embed(normalise(torch.from_numpy(np.stack(crops)), model.checkpoint.transform))[0]
    wanted = [model.checkpoint.model.stream(tokens[: n + 1].flatten(0, 1)[None])[0].softmax(-1) for n in range(3)]
    found = probs(stream(model, shown, temporal=True))
    assert found == pytest.approx(torch.cat(wanted).detach().numpy(), abs=1e-5)


def test_the_first_frame_is_answered_as_a_image_and_the_next_is_not():
    model, shown = predictor(), frames(2)
    alone, carried = probs(stream(model, shown)), probs(stream(model, shown, temporal=True))
    assert carried[0] == pytest.approx(alone[0], abs=1e-5)
    assert np.abs(carried[1] - alone[1]).max() > 1e-3


def test_a_mean_reads_this_frame_alone():
    model, same = predictor(pool="mean"), [(n / 10, frames(1)[0][1]) for n in range(30)]
    found = probs(stream(model, same, temporal=True))
    assert found[-1] == pytest.approx(found[-2], abs=1e-5)  # what is remembered has settled


def test_faces_do_not_mix_and_each_keeps_its_own_state():
    left, right = (0, 0, 30, 60), (30, 0, 60, 60)
    shown = frames(4)
    both = list(stream(predictor(detector=lambda rgb: [left, right]), shown, temporal=True))
    for place, box in enumerate((left, right)):
        one = list(stream(predictor(detector=lambda rgb, box=box: [box]), shown, temporal=True))
        assert [result.faces[place].probs for result in both] == [
            pytest.approx(result.faces[0].probs, abs=1e-5) for result in one
        ]


def test_a_state_survives_a_short_absence_and_no_long_one():
    times, dark = (0.0, 0.1, 0.2, 1.5, 1.6), np.zeros((60, 60, 3), np.uint8)
    rgb = frames(1)[0][1]
    model = predictor(detector=lambda rgb: [FACE] if rgb.any() else [])
    found = probs(stream(model, zip(times, (rgb, dark, rgb, dark, rgb), strict=True), temporal=True))
    assert times[3] - times[2] > PATIENCE
    assert np.abs(found[1] - found[0]).max() > 1e-3
    assert found[2] == pytest.approx(found[0], abs=1e-6)


@pytest.mark.parametrize("mixer", ENDLESS)
def test_the_state_has_the_same_size_after_many_frames(mixer):
    model = predictor(mixer)
    temporal, sizes = Temporal(model, Tracker()), []
    for opened in model.open_frames(frames(50), "frames", Options()):
        temporal(opened)
        sizes.append(numbers(temporal.states[1]["blocks"]))
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("options", [{"scan": "both"}, {"pool": "flatten"}, {"mixer": "attention"}, {"mixer": "rwkv1"}])
def test_a_model_without_a_recurrent_form_is_refused(options):
    with pytest.raises(InputError, match=r"small carries no state.*Leave temporal out"):
        stream(predictor(**options), frames(1), temporal=True)


def test_a_whole_image_has_a_state_too():
    model = predictor()
    found = probs(stream(model, frames(2), mode="scene", temporal=True))
    assert len(found) == 2
    assert np.abs(found[1] - probs(stream(model, frames(2), mode="scene"))[1]).max() > 1e-3


def test_no_state_survives_a_cut():
    rng = np.random.default_rng(0)
    shots = [np.kron(rng.integers(0, 256, (5, 5, 3)), np.ones((12, 12, 1))).astype(np.uint8) for _ in range(2)]
    shots[1][..., 0] //= 4
    shown = [(i / 10, shots[i // 2]) for i in range(4)]
    results = list(stream(predictor(), shown, temporal=True))
    found, alone = probs(results), probs(stream(predictor(), shown))
    assert [result.faces[0].track for result in results] == [1, 1, 2, 2]
    assert found[[0, 2]] == pytest.approx(alone[[0, 2]], abs=1e-5)
    assert np.abs(found[[1, 3]] - alone[[1, 3]]).max() > 1e-3
