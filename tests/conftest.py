import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.evaluation import figures
from tests.packages import build_sdist, build_wheel

torch.set_num_threads(1)  # the models are tiny here: threads only wait for each other


NUMBERS = itertools.count()
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()  # for what a whole session shares: what was told to whom


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch, tmp_path_factory):
    """Each test has a state folder of its own, made when something is told (mktemp would search all there are)."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state{next(NUMBERS)}"))


DRAWERS = ("to_png", "to_vector")


@pytest.fixture(scope="session", autouse=True)
def _drawn_once():
    """Figures take longer than these small trainings: reports get the first one's, but where `drawn` is used."""
    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWERS:
            patch.setattr(figures, name, _once(getattr(figures, name)))
        yield


def _once(draw):
    made = []

    def drawn(*given):
        if not made:
            made.append(draw(*given))
        return made[0]

    drawn.draw = draw
    return drawn


@pytest.fixture(scope="module")
def drawn():
    """Each figure of the module is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWERS:
            patch.setattr(figures, name, getattr(figures, name).draw)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real data, weights and media; it lies beside the project and is not part of it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the shared folder (data, weights, media) is not beside this clone")
    return folder


@pytest.fixture(scope="session")
def sdist(tmp_path_factory) -> Path:
    return build_sdist(tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"), sdist)


@pytest.fixture
def plans(monkeypatch):
    """Model → the recipe under which a comparison would train it; nothing is trained."""
    noted = {}

    def note(recipe, folder, **options):
        noted[recipe.model.name] = recipe
        raise InputError("planned only")

    monkeypatch.setattr("facerwkv.evaluation.compare.train", note)
    return noted


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """A folder of images that anything can learn: each expression is a colour; 12 to train, 4 for val and test."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    hues = rng.integers(0, 256, (len(EXPRESSIONS), 3))
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for label, hue in zip(EXPRESSIONS, hues, strict=True):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(-20, 21, (24, 24, 3))
                Image.fromarray((hue + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.png")
    return root


SMALL = [
    "transform.image_size=[24,24]",
    "model.options={patch_size: 8, width: 16}",
    "data.batch_size=16",
    "train.epochs=4",
    "train.device=cpu",
    "data.cache=false",
    "train.save_every=2",
]


@pytest.fixture(scope="session")
def small(colours):
    """Changes that make of any recipe a run of seconds on the colours."""
    return [*SMALL, f"data.source=imagefolder:{colours}"]
