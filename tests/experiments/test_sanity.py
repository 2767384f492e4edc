import numpy as np
import pytest
import yaml

from facerwkv.experiments.sanity import run, standard
from facerwkv.experiments.study import Setting, validation_curve


def test_the_transform_is_that_of_the_images():
    images = [np.full((400, 600, 3), (0, 51, 102), np.uint8), np.full((400, 600, 3), (0, 153, 102), np.uint8)]
    assert yaml.safe_load(standard(images)) == {
        "image_size": [400, 600],
        "mean": [0.0, 0.4, 0.4],
        "std": [0.0, 0.2, 0.0],
    }


@pytest.mark.slow
def test_fourteen_images_are_learned_by_heart_with_every_seed(tmp_path):
    run(Setting("toy", tmp_path, (0, 1, 2)))
    ends = [validation_curve(tmp_path / "sanity" / f"seed{seed}")[-1] for seed in (0, 1, 2)]
    assert ends == [1.0, 1.0, 1.0]
