"""Systems learn the toy faces from random weights, under one small recipe."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.utils.data import DataLoader

from facerwkv.data.loader import DataModule
from facerwkv.evaluation.evaluate import evaluate_folder
from facerwkv.models.zoo import create_model
from facerwkv.training import module as training
from facerwkv.training.module import TrainingModule, train
from facerwkv.training.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FRAME = "model.options={stem: conv, patch_size: 16, pool: flatten, head: linear}"
IMAGES = "transform={image_size: [64, 64], crop: face, mean: [0.5], std: [0.25]}"
TIGHT = [  # without our stem: a face that fills the image and stays in its place is learned in half the steps
    "transform={image_size: [64, 64], crop: face, margin: 0.0, mean: [0.5], std: [0.25]}",
    "augment.scale=0",
    "augment.translate=0",
]
RESNET = [*TIGHT, "data.batch_size=32", "optim.lr=0.001", "train.epochs=8"]
MUON = "optim={name: muon, lr: 0.02, momentum: 0.95, fallback_lr_scale: 0.1, betas: [0.9, 0.99], clip_norm: 1.0}"
MORE = "data.source=toy:train=8400"  # AlexNet learns 2,800 images by heart
SYSTEMS = {  # what each changes of the recipe
    "facerwkv_small": [FRAME],
    "facerwkv_small_fullwidth": [FRAME],
    "facerwkv_hybrid_small": ["model.options={patch_size: 4, pool: flatten, head: linear}"],
    "facerwkv4_small": [FRAME],
    "facerwkv5_small": [FRAME],
    "facerwkv6_small": [FRAME],
    "facerwkv7_small": [FRAME],
    "transformer_small": [FRAME],
    "caer_net_s": ["transform.crop=both", "train.epochs=8"],
    "resnet18": RESNET,
    "resnet34": RESNET,
    "resnet50": RESNET,
    "alexnet": [*TIGHT, MORE, "optim.lr=0.0003", "schedule.warmup_epochs=1", "train.epochs=10"],
    "patt_lite": [*TIGHT, MUON, "data.batch_size=16", "schedule.warmup_epochs=0.5", "train.epochs=4"],
}

BATCH_OF_SEVEN = (
    'data={source: "toy:train=7,val=7,test=0", batch_size: 7}',
    "schedule={name: constant, warmup_epochs: 0}",
    "optim.lr=0.0001",
    "train.ema=null",
)
HEAVY = ("poster_v2", "vgg19", "resnet152", "vit_tiny")  # too slow on a CPU to be trained to the end


def small(name, *changes):
    return Recipe.read("demo", [f"model.name={name}", "model.options={}", IMAGES, *changes])


@pytest.fixture
def until_known(monkeypatch):
    """Training ends with the epoch in which validation passes 86 %: what follows would show nothing more."""
    whole = training._trainer

    def shortened(*given):
        trainer = whole(*given)
        known = EarlyStopping("val_accuracy", mode="max", patience=1000, stopping_threshold=0.86)
        trainer.callbacks.append(known)
        return trainer

    monkeypatch.setattr(training, "_trainer", shortened)


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_learns_the_toy_faces(name, tmp_path, until_known):
    train(small(name, *SYSTEMS[name]), tmp_path / "run", progress=False)
    assert evaluate_folder(tmp_path / "run").evaluation.scores["accuracy"].value >= 0.8


def test_context_helps_where_it_carries_part_of_the_label(tmp_path):
    found = {}
    for streams in ("face", "both"):
        changes = ["data.source=toy:context=1", "transform.crop=both", "train.epochs=6"]
        train(
            small("caer_net_s", *changes, f"model.options={{streams: {streams}}}"), tmp_path / streams, progress=False
        )
        found[streams] = evaluate_folder(tmp_path / streams).evaluation.scores["accuracy"].value
    assert found["both"] >= found["face"] + 0.02


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))


@pytest.mark.parametrize("name", HEAVY)
def test_the_loss_of_a_heavy_one_falls_over_50_steps(name):
    recipe = small(name, *BATCH_OF_SEVEN)
    data = DataModule(recipe.data, recipe.transform)
    data.setup("fit")
    torch.manual_seed(0)
    module = TrainingModule(create_model(name, img_size=(64, 64)), recipe, torch.as_tensor(data.train.class_counts))
    batches = DataLoader(list(data.train_dataloader()) * 50, batch_size=None)
    losses = Losses()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    Trainer(max_epochs=1, callbacks=[losses], **quiet).fit(module, batches)
    assert len(losses.values) == 50
    assert sum(losses.values[-5:]) < 0.6 * sum(losses.values[:5])
