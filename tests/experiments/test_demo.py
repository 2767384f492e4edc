"""The demo: what it prints last is the answer of the model that it has just trained, and that on a photograph."""

import pytest

from facerwkv.core.errors import InputError
from facerwkv.experiments import demo
from facerwkv.training.recipe import Recipe

TINY = ["train.epochs=1", "data.source=toy:train=14,val=7,test=7", "data.cache=false", "train.device=cpu"]


@pytest.mark.slow
def test_the_trained_model_names_its_image_and_the_shipped_one_a_photo(tmp_path, shared, monkeypatch, capsys):
    read = Recipe.read
    monkeypatch.setattr(
        demo.Recipe, "read", lambda source, changes=(): read(source, TINY if source == "demo" else changes)
    )
    demo.run(tmp_path / "run", shared / "media" / "couple.jpg")
    printed = capsys.readouterr().out
    third, fourth = printed.partition("3/4 Naming")[2].split("4/4 Naming the faces in")
    assert "the model that was just trained" in third
    assert "shipped facerwkv_fer" in " ".join(fourth.split())
    assert "happiness" in fourth
    for name in ("image.png", "image_drawn.png", "photo_drawn.png"):
        assert (tmp_path / "run" / name).stat().st_size > 1_000


def test_a_photo_that_is_not_there_is_said_before_anything_is_trained(tmp_path):
    with pytest.raises(InputError, match=r"no\.jpg"):
        demo.run(tmp_path / "run", tmp_path / "no.jpg")
    assert not (tmp_path / "run").exists()
