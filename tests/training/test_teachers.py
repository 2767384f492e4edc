"""Distillation: what teachers answer, by name of the class, and what a student makes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from facerwkv import load
from facerwkv.core.errors import InputError
from facerwkv.data.normalise import normalise
from facerwkv.models.checkpoint import load_checkpoint, save_checkpoint
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from facerwkv.training.teachers import Teachers, distillation
from tests.training.test_train import curve

SHIPPED = load_checkpoint("facerwkv_fer_tiny")
IMAGES = torch.randint(0, 256, (4, 48, 48, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def part(*teachers, **changes):
    return Recipe().train.model_copy(update={"teachers": teachers, **changes})


def test_distillation_is_its_formula():
    logits, answers, tau = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[0.7, 0.1, 0.2]]), 3.0
    ours = np.exp(logits.numpy() / tau) / np.exp(logits.numpy() / tau).sum()
    expected = tau**2 * (answers.numpy() * np.log(answers.numpy() / ours)).sum()
    assert distillation(logits, answers, tau).item() == pytest.approx(expected, rel=1e-5)
    assert distillation(answers.log() * tau, answers, tau).item() == pytest.approx(0, abs=1e-6)


def test_one_teacher_needs_no_brackets():
    for given in ("facerwkv_fer", "[facerwkv_fer]"):
        assert Recipe.read("fer_light", [f"train.teachers={given}"]).train.teachers == ("facerwkv_fer",)


@pytest.mark.parametrize("mean", [(0.5,), (0.1,)])
def test_teachers_see_what_the_student_sees_and_answer_by_class_name(mean):
    labels = SHIPPED.labels[::-1]
    transform = SHIPPED.transform.model_copy(update={"mean": mean})
    teachers = Teachers(part("facerwkv_fer_tiny", "facerwkv_fer"), labels, transform)
    answers = teachers.answers(normalise(IMAGES, transform))
    each = [load(name, "cpu").model(IMAGES.numpy())[:, ::-1] for name in ("facerwkv_fer_tiny", "facerwkv_fer")]
    expected = torch.stack([torch.from_numpy(logits.copy()).softmax(1) for logits in each]).mean(0)
    torch.testing.assert_close(answers, expected, atol=2e-3, rtol=0)


def test_a_student_is_pulled_towards_its_teacher_and_its_labels(small, tmp_path):
    changes = [*small, "train.epochs=2", "train.seed=1", "data.batch_size=4"]
    teacher = train(Recipe.read("paper", [*changes, "train.epochs=4"]), tmp_path / "teacher", progress=False)
    runs = {}
    for alpha in (None, 0, 1):
        more = [] if alpha is None else [f"train.teachers=[{teacher}]", f"train.distill_alpha={alpha}"]
        runs[alpha] = train(Recipe.read("paper", [*changes, *more]), tmp_path / f"{alpha}", progress=False)
    plain, unheard, heard = (load_file(folder / "last/model.safetensors") for folder in runs.values())
    assert all(torch.equal(plain[name], unheard[name]) for name in plain)
    assert not all(torch.equal(plain[name], heard[name]) for name in plain)
    losses = [float(row["train_loss"]) for row in curve(runs[1]) if row["train_loss"]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("labels", "changes", "told"),
    [
        (("anger", "boredom"), {}, "The teacher facerwkv_fer_tiny does not know boredom"),
        (SHIPPED.labels, {"image_size": (64, 64)}, "takes transform.image_size=[48, 48] with 1 channels"),
        (SHIPPED.labels, {"in_chans": 3}, "takes transform.image_size=[48, 48] with 1 channels"),
    ],
)
def test_a_teacher_of_something_else_is_refused(labels, changes, told):
    with pytest.raises(InputError) as error:
        Teachers(part("facerwkv_fer_tiny"), labels, SHIPPED.transform.model_copy(update=changes))
    assert told in str(error.value)


def test_a_teacher_that_is_not_there_is_named_before_images_are_read(small, tmp_path):
    with pytest.raises(InputError, match="nobody"):
        train(Recipe.read("paper", [*small, "train.teachers=[nobody]"]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_what_a_teacher_may_not_be_used_for_a_student_may_not(small, tmp_path):
    folder = tmp_path / "teacher"
    start = train(Recipe.read("paper", [*small, "train.epochs=1"]), tmp_path / "start", progress=False)
    strict = load_checkpoint(start)
    save_checkpoint(folder, replace(strict, card=strict.card | {"licence": "research only", "name": "strict"}))
    student = train(
        Recipe.read("paper", [*small, "train.epochs=1", f"train.teachers=[{folder}]"]), tmp_path / "student"
    )
    assert "strict, research only" in load_checkpoint(student).card["licence"]
