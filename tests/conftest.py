from functools import cache
from pathlib import Path

import pytest
import torch

from facerwkv.core.errors import InputError
from facerwkv.models import describe

torch.set_num_threads(1)  # the models are tiny here: threads only wait for each other
describe.describe = cache(describe.describe)  # several tests want the facts of all models, which take ten seconds


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real data, weights and media; it lies beside the project and is not part of it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the shared folder (data, weights, media) is not beside this clone")
    return folder


@pytest.fixture
def plans(monkeypatch):
    """Model → the recipe under which a comparison would train it; nothing is trained."""
    noted = {}

    def note(recipe, folder, **options):
        noted[recipe.model.name] = recipe
        raise InputError("planned only")

    monkeypatch.setattr("facerwkv.evaluation.compare.train", note)
    return noted
