"""How steps are computed changes their time, not what is learned."""

import pytest
import torch
from safetensors.torch import load_file
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

from facerwkv.core.errors import InputError
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from tests.training.test_train import curve

CHANGES = ["train.epochs=2", "train.ema=0.9", "data.batch_size=4", "train.device=cpu"]


@pytest.mark.slow
def test_a_compiled_run_learns_the_same_and_is_resumed(small, tmp_path):
    plain = train(Recipe.read("paper", [*small, *CHANGES]), tmp_path / "plain", progress=False)
    plan = Recipe.read("paper", [*small, *CHANGES, "train.compile=true", "train.epochs=1"])
    compiled = train(plan, tmp_path / "compiled", progress=False)
    train(plan, compiled, resume=True, progress=False, changes=["train.epochs=2"])
    first, second = ([float(row["train_loss"]) for row in curve(run) if row["train_loss"]] for run in (plain, compiled))
    assert second[0] == pytest.approx(first[0], rel=1e-3)
    assert len(second) == 2
    ours, theirs = (load_file(run / "last/model.safetensors") for run in (plain, compiled))
    assert ours.keys() == theirs.keys()
    assert all(torch.isfinite(weight).all() for weight in theirs.values())


def test_without_a_compiler_nothing_is_begun(small, tmp_path, monkeypatch):
    def nothing():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", nothing)
    with pytest.raises(InputError, match=r"C\+\+ compiler"):
        train(Recipe.read("paper", [*small, "train.compile=true"]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
