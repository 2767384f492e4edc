import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from facerwkv.core.errors import InputError
from facerwkv.core.files import write_text
from facerwkv.data.load import load_dataset
from facerwkv.experiments.sanity import run, standard
from facerwkv.experiments.study import Setting, validation_curve


def test_the_transform_is_that_of_the_images():
    images = [np.full((400, 600, 3), (0, 51, 102), np.uint8), np.full((400, 600, 3), (0, 153, 102), np.uint8)]
    assert yaml.safe_load(standard(images)) == {
        "image_size": [400, 600],
        "mean": [0.0, 0.4, 0.4],
        "std": [0.0, 0.2, 0.0],
    }


@pytest.fixture
def learned(tmp_path, colours, monkeypatch):
    """A sanity check that was run; the training only writes the recipe and a curve."""

    def train(recipe, folder, resume, **rest):
        write_text(folder / "recipe.yaml", recipe.to_yaml())
        write_text(folder / "metrics.csv", "epoch,val_accuracy\n0,0.5\n1,0.75\n")

    monkeypatch.setattr("facerwkv.experiments.sanity.train", train)
    setting = Setting(f"imagefolder:{colours}", tmp_path, (0,), changes=["train.epochs=2"])
    ((_, (_, table)),) = run(setting)
    assert (table.headers, table.rows) == (("seed", "epoch 1", "epoch 2"), [("0", "50%", "75%")])
    dataset = load_dataset(f"manifest:{tmp_path}/sanity/images.csv")
    assert [len(dataset.splits[split]) for split in ("train", "val")] == [14, 14]
    return setting


def test_the_same_command_goes_on(learned):
    assert run(learned)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"changes": ["train.epochs=3"]}, "train.epochs was 2, now 3"),
        ({"changes": ["optim.lr=0.5", "train.epochs=2"]}, "optim.lr was 0.025, now 0.5"),
        ({"data": "toy:train=14,val=7,test=7"}, "about was 'Fourteen images of imagefolder:"),
    ],
)
def test_other_settings_are_refused_and_leave_the_images(learned, change, key):
    before = [(path, path.stat().st_mtime_ns) for path in (learned.out / "sanity").iterdir()]
    with pytest.raises(InputError, match=re.escape(key)):
        run(replace(learned, **change))
    assert before == [(path, path.stat().st_mtime_ns) for path in (learned.out / "sanity").iterdir()]


@pytest.mark.slow
def test_fourteen_images_are_learned_by_heart_with_every_seed(tmp_path):
    run(Setting("toy", tmp_path, (0, 1, 2)))
    ends = [validation_curve(tmp_path / "sanity" / f"seed{seed}")[-1] for seed in (0, 1, 2)]
    assert ends == [1.0, 1.0, 1.0]
