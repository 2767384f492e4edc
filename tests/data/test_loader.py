import multiprocessing
import os
import pickle
import signal
from contextlib import suppress
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.loader import DataConfig, DataModule, ImageDataset
from facerwkv.data.sampler import SeededSampler, TrainLoader
from facerwkv.data.samples import Sample
from facerwkv.data.transforms import TransformConfig
from facerwkv.training.module import check_inputs
from facerwkv.training.recipe import Recipe

FORK = multiprocessing.get_context("fork")
SMALL = TransformConfig(image_size=(4, 6))
LABELS = ("anger", "fear", "neutral")


def pixels(number):
    return np.full((8, 12, 3), number % 256, np.uint8)


def samples(count=9, **options):
    return [Sample(f"{number}", pixels(number), LABELS[number % 3], **options) for number in range(count)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """An image folder of three classes with 23 training images, 6 for validation and none for test."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 23), ("val", 6)):
        for number in range(count):
            path = root / split / LABELS[number % 3] / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(number + 100 * (split == "val"))).save(path)
    return root


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="session")
def make(folder, caches):
    """DataModules over the image folder."""

    def make(seed=0, transform=SMALL, **options):
        given = {"source": f"imagefolder:{folder}", "labels": LABELS, "batch_size": 4, "cache": str(caches)}
        return DataModule(DataConfig(**given | options), transform, seed)

    return make


def test_an_item_is_image_class_number_and_place():
    item = ImageDataset(samples(), LABELS, SMALL)[5]
    assert (item["image"].shape, item["image"].dtype) == ((4, 6, 3), torch.uint8)
    assert item["image"].unique().tolist() == [5]
    assert (item["target"].dtype, item["target"].shape, item["target"].item()) == (torch.int64, (), 2)
    assert (item["index"].dtype, item["index"].shape, item["index"].item()) == (torch.int64, (), 5)


def test_votes_make_probabilities_in_the_order_of_the_labels():
    voted = [Sample("a", pixels(1), "fear", votes={"fear": 0.75, "anger": 0.25}), Sample("b", pixels(2), "neutral")]
    targets = ImageDataset(voted, LABELS, SMALL).targets
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(InputError, match="2 is labelled 'neutral', which is none of the classes anger, fear"):
        ImageDataset(samples(), ("anger", "fear"), SMALL)


def test_an_item_is_ones_own_copy():
    image = np.zeros((4, 6, 3), np.uint8)
    dataset = ImageDataset([Sample("a", image, "fear")], LABELS, SMALL)
    dataset[0]["image"].fill_(7)
    assert image.max() == 0
    assert dataset[0]["image"].max() == 0


def test_without_a_cache_a_batch_goes_on_past_an_unreadable_image(tmp_path, caplog):
    (tmp_path / "bad.png").write_bytes(b"")
    mixed = [*samples(3), Sample("bad.png", tmp_path / "bad.png", "fear")]
    dataset = ImageDataset(mixed, LABELS, SMALL)
    assert [batch["index"].tolist() for batch in DataLoader(dataset, batch_size=4)] == [[0, 1, 2]]
    assert "bad.png cannot be read: it is empty" in caplog.text
    with pytest.raises(InputError, match=r"bad\.png"):
        dataset[3]
    with pytest.raises(InputError, match=r"None of the images of a batch.*bad\.png"):
        dataset.__getitems__([3])


def order(count, seed=0, epoch=0, balanced=False, replicas=1, rank=0, start=0, classes=None):
    sampler = SeededSampler(torch.arange(count) % 3 if classes is None else classes, seed, balanced, replicas, rank)
    sampler.set_epoch(epoch)
    sampler.start = start
    return list(sampler)


@settings(deadline=None)
@given(count=st.integers(1, 200), seed=st.integers(-(2**63), 2**64), epoch=st.integers(0, 10**6))
def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(count, seed, epoch):
    assert sorted(order(count, seed, epoch)) == list(range(count))
    assert order(count, seed, epoch) == order(count, seed, epoch)


@given(count=st.integers(1, 60), replicas=st.integers(1, 5), epoch=st.integers(0, 9), start=st.integers(0, 20))
def test_replicas_share_an_epoch_in_equal_parts(count, replicas, epoch, start):
    parts = [order(count, 1, epoch, replicas=replicas, rank=rank) for rank in range(replicas)]
    assert len({len(part) for part in parts}) == 1
    assert [place for turn in zip(*parts, strict=True) for place in turn][:count] == order(count, 1, epoch)
    assert {place for part in parts for place in part} == set(range(count))
    assert order(count, 1, epoch, replicas=replicas, start=start) == parts[0][start:]


def test_epochs_and_seeds_differ():
    orders = {tuple(order(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_balanced_draws_take_every_class_equally_often():
    classes = torch.tensor([0] * 900 + [2] * 90 + [3] * 10)  # class 1 does not occur
    drawn = order(1000, balanced=True, classes=classes)
    assert len(drawn) == 1000
    assert (torch.bincount(classes[drawn], minlength=4) / 1000).tolist() == pytest.approx(
        [1 / 3, 0, 1 / 3, 1 / 3], abs=0.05
    )
    assert drawn == order(1000, balanced=True, classes=classes)
    assert drawn != order(1000, balanced=True, classes=classes, epoch=1)


def loader(workers=0, seed=3):
    dataset = ImageDataset(samples(11), LABELS, SMALL)
    sampler = SeededSampler(dataset.classes, seed)
    return TrainLoader(dataset, sampler=sampler, batch_size=4, num_workers=workers, persistent_workers=workers > 0)


def indices(batches):
    return [batch["index"].tolist() for batch in batches]


def test_every_pass_is_the_next_epoch_and_keeps_the_short_batch():
    epochs, through = [order(11, 3, epoch) for epoch in range(3)], loader()
    assert [indices(through) for _ in range(3)] == [[epoch[:4], epoch[4:8], epoch[8:]] for epoch in epochs]
    assert len(through) == 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", range(7))
def test_a_loaded_state_goes_on_with_the_next_batch(workers, stop):
    whole = loader()
    expected = [batch for _ in range(3) for batch in indices(whole)]
    first, taken = loader(), 0
    while taken < stop:
        for _ in first:
            taken += 1
            if taken == stop:
                break
    state = first.state_dict()
    assert all(type(value) is int for value in state.values())
    second = loader(workers)
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert [batch for _ in range(3) for batch in indices(second)][: 9 - stop] == expected[stop:]


def test_a_state_of_another_epoch_leaves_nothing_out():
    through = loader()
    through.load_state_dict({"epoch": 0, "batches": 2})
    through.sampler.set_epoch(1)
    assert indices(through)[0] == order(11, 3, 1)[:4]


class Tiny(LightningModule):
    """Learns from what it sees, with momentum, so that its weights tell the whole history; keeps the indices."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 3)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch["index"].tolist()))
        logits = self.layer(batch["image"].float().mean((1, 2)) / 255)
        return torch.nn.functional.cross_entropy(logits, batch["target"])

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Stopped(Exception):
    pass


class SaveAndStop(Callback):
    """Saves at a hook once `steps` steps are done, and stops the run `later` steps after."""

    def __init__(self, path, hook, steps, later=0):
        self.path, self.steps, self.later = path, steps, later
        setattr(self, hook, self._save)

    def _save(self, trainer, module, *args):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            self.stop(0)

    def on_train_batch_start(self, trainer, *args):
        self.stop(trainer.global_step - self.steps)

    def stop(self, passed):
        if self.path.exists() and passed == self.later:
            raise Stopped


class Kill(SaveAndStop):
    def stop(self, passed):
        if self.path.exists() and passed == self.later:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(data, epochs=3, callback=None, resume=None):
    """Train and return the module, also when the callback stopped it."""
    module = Tiny()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=[callback] if callback else [],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with suppress(Stopped):
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return module


def assert_same_weights(module, other):
    assert torch.equal(module.layer.weight, other.layer.weight)
    assert torch.equal(module.layer.bias, other.layer.bias)


@pytest.fixture(scope="session")
def whole(make):
    """The run that was never stopped, by the way of balancing: 3 epochs of 6 batches, the last one of 3 images."""
    return cache(lambda balance="none": fit(make(balance=balance)))


POINTS = [  # where the run is saved, and after how many steps
    *(("on_train_batch_end", steps, "none") for steps in (1, 3, 5, 7, 11, 14, 17)),
    *(("on_train_batch_end", steps, "sampler") for steps in (4, 8)),
    *(("on_validation_end", steps, "none") for steps in (6, 12)),
    *(("on_train_epoch_end", steps, "none") for steps in (6, 12)),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("hook", "steps", "balance"), POINTS)
def test_lightning_resumes_with_the_very_next_batch(make, whole, tmp_path, hook, steps, balance):
    point = tmp_path / "resume.ckpt"
    before = fit(make(balance=balance), callback=SaveAndStop(point, hook, steps))
    assert before.seen == whole(balance).seen[:steps]
    after = fit(make(balance=balance), resume=point)
    assert after.seen == whole(balance).seen[steps:]
    assert_same_weights(after, whole(balance))


@pytest.mark.filterwarnings("ignore")
def test_an_uninterrupted_run_sees_every_image_once_an_epoch(whole):
    assert [(epoch, batch) for epoch, batch, _ in whole().seen] == [(e, b) for e in range(3) for b in range(6)]
    for start in (0, 6, 12):
        assert sorted(index for _, _, batch in whole().seen[start : start + 6] for index in batch) == list(range(23))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("hook", "steps"), [("on_train_batch_end", 8), ("on_train_epoch_end", 6)])
def test_lightning_resumes_with_workers(make, whole, tmp_path, hook, steps):
    point = tmp_path / "resume.ckpt"
    fit(make(workers=2), callback=SaveAndStop(point, hook, steps))
    after = fit(make(workers=2), resume=point)
    assert after.seen == whole().seen[steps:]
    assert_same_weights(after, whole())


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_can_be_resumed_again(make, whole, tmp_path):
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    fit(make(), callback=SaveAndStop(first, "on_train_batch_end", 8))
    fit(make(), callback=SaveAndStop(second, "on_train_batch_end", 10), resume=first)
    after = fit(make(), resume=second)
    assert after.seen == whole().seen[10:]
    assert_same_weights(after, whole())


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_killed_in_mid_epoch_ends_with_the_same_weights(make, whole, tmp_path):
    point = tmp_path / "resume.ckpt"
    kill = Kill(point, "on_train_batch_end", 7, later=3)
    killed = FORK.Process(target=fit, args=(make(),), kwargs={"callback": kill})
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    after = fit(make(), resume=point)
    assert after.seen == whole().seen[7:]
    assert_same_weights(after, whole())


def test_batches_are_images_targets_and_places(make):
    data = make()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "image": ((4, 4, 6, 3), torch.uint8),
        "target": ((4,), torch.int64),
        "index": ((4,), torch.int64),
    }
    names = [data.train.samples[index].name for index in batch["index"]]
    assert [LABELS.index(name.split("/")[1]) for name in names] == batch["target"].tolist()
    assert [int(name[-7:-4]) for name in names] == batch["image"][:, 0, 0, 0].tolist()


def test_validation_comes_in_the_order_of_the_files(make):
    data = make()
    assert [index for batch in data.val_dataloader() for index in batch["index"].tolist()] == list(range(6))


@pytest.mark.parametrize("kept", [True, False])
def test_the_cache_changes_no_pixel(make, monkeypatch, caches, kept):
    monkeypatch.setenv("FACERWKV_HOME", str(caches / "home"))
    plain, other = make(), make(cache=kept)
    for index in range(23):
        assert torch.equal(plain.train[index]["image"], other.train[index]["image"])
    assert (caches / "home").exists() or not kept


def test_a_set_without_validation_gives_some_of_its_training_images(make, folder):
    data = make(source=f"imagefolder:{folder / 'train'}", val_fraction=0.3)
    train, val = ({sample.name for sample in split.samples} for split in (data.train, data.val))
    assert len(train | val) == 23
    assert not train & val
    assert 3 <= len(val) <= 9
    again = make(source=f"imagefolder:{folder / 'train'}", val_fraction=0.3)
    assert [sample.name for sample in again.val.samples] == [sample.name for sample in data.val.samples]


def test_the_test_images_may_be_watched_where_they_choose_nothing(tmp_path):
    source = write(tmp_path, train=range(6), test=range(6, 9))
    data = DataModule(DataConfig(**source, validation="test", cache=False), SMALL)
    assert data.dataset.splits["val"] == data.dataset.splits["test"]
    assert len(data.dataset.splits["train"]) == len(data.loaded.splits["train"])
    with pytest.raises(InputError, match=r"test images would choose the epoch.*train\.select=last"):
        check_inputs(Recipe.read("paper", ["data.validation=test"]))


def test_a_model_of_face_and_scene_never_gets_a_black_scene(tmp_path):
    config = DataConfig(**write(tmp_path / "data", train=range(6), val=range(6, 9)), cache=str(tmp_path))
    both = TransformConfig(**SMALL.model_dump() | {"crop": "both"})
    with pytest.raises(InputError, match=r"None of the 6 train images.*no face box.*data.boxes=FILE.*no_box=centre\.$"):
        DataModule(config, both).images("train")
    assert DataModule(config, both).transform == both  # evaluation holds it against the checkpoint's
    assert DataModule(config, both.model_copy(update={"no_box": "centre"})).train.image(1).any()


def test_a_split_that_is_not_there_is_an_error_that_names_those_that_are(make):
    with pytest.raises(InputError, match="has no test split; it has train, val"):
        make().setup("test")


def test_setup_twice_is_setup_once(make):
    data = make()
    data.setup()
    data.setup("fit")
    train, dataset = data.train, data.dataset
    data.setup("fit")
    assert data.train is train
    assert data.dataset is dataset


def test_setup_for_the_test_split_does_not_read_the_others(tmp_path):
    config = DataConfig(source="toy:train=7,val=7,test=7", cache=str(tmp_path))
    DataModule(config, TransformConfig(image_size=(4, 6))).setup("test")
    (images,) = tmp_path.glob("*/*.bin")
    assert images.stat().st_size == 7 * 4 * 6 * 3


def test_a_limit_takes_the_first_images_of_every_class(make):
    data = make(limit=7)
    names = [sample.name.removeprefix("train/") for sample in data.train.samples]
    assert names == [
        *("anger/000.png", "anger/003.png", "anger/006.png"),
        *("fear/001.png", "fear/004.png"),
        *("neutral/002.png", "neutral/005.png"),
    ]
    assert data.train.class_counts == [3, 2, 2]
    assert len(data.val) == 6


def test_class_counts_follow_the_order_of_the_labels(make):
    assert make().train.class_counts == [8, 8, 7]
    assert make(labels=LABELS[::-1]).train.class_counts == [7, 8, 8]


def write(root, **splits):
    """An image folder of images whose pixels are their numbers; the numbers decide the classes."""
    for split, numbers in splits.items():
        for number in numbers:
            path = root / split / LABELS[number % 3] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(number)).save(path)
    return {"source": f"imagefolder:{root}", "labels": LABELS}


def test_unreadable_images_are_listed_and_left_out(tmp_path, caplog):
    config = DataConfig(**write(tmp_path / "data", train=range(7), val=(10, 11, 12)), cache=str(tmp_path))
    (tmp_path / "data/train/fear/4.png").write_bytes(b"no image")
    data = DataModule(config, SMALL)
    data.setup("fit")
    assert len(data.unreadable) == 1
    assert data.describe()["unreadable"] == data.unreadable
    assert "fear/4.png cannot be read" in data.unreadable[0]
    assert "1 of 7 train images are left out. The first:" in caplog.text
    assert data.train.class_counts == [3, 1, 2]
    seen = {
        sample.name: data.train[index]["image"].unique().tolist() for index, sample in enumerate(data.train.samples)
    }
    assert seen == {f"train/{LABELS[number % 3]}/{number}.png": [number] for number in (0, 1, 2, 3, 5, 6)}


def test_a_class_that_is_left_without_images_is_an_error(tmp_path):
    config = DataConfig(**write(tmp_path / "data", train=range(3), val=range(10, 13)), cache=str(tmp_path))
    (tmp_path / "data/train/fear/1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"no training image of fear.*data\.labels=\[anger, neutral\]"):
        DataModule(config, SMALL).setup("fit")


def test_dropped_leaks_are_gone_and_counted(tmp_path):
    given = write(tmp_path / "data", train=range(9), val=(20, 21, 22), test=(3, 31, 32))
    data = DataModule(DataConfig(**given, cache=str(tmp_path), drop_leaks=True), SMALL)
    assert len(data.train) == 8
    assert not any(sample.name.endswith("/3.png") for sample in data.train.samples)
    assert data.describe()["dropped_leaks"] == 1


def test_the_description_is_plain_and_whole(make):
    data = make()
    data.setup("fit")
    assert data.describe() == {
        "source": data.config.source,
        "labels": list(LABELS),
        "images": {"train": 23, "val": 6},
        "classes": {
            "train": {"anger": 8, "fear": 8, "neutral": 7},
            "val": {"anger": 2, "fear": 2, "neutral": 2},
        },
        "dropped_leaks": 0,
        "unreadable": [],
        "problems": [],
    }


def test_toy_is_the_default():
    assert DataConfig().source == "toy"
    data = DataModule(DataConfig(source="toy:train=7,val=7,test=7"), SMALL)
    assert (data.labels, len(data.labels)) == (EXPRESSIONS, 7)


def test_a_dataset_can_be_sent_to_workers(make):
    dataset = make().train
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3]["image"], dataset[3]["image"])


BAD_CONFIGS = [
    ({"sourse": "toy"}, "Unknown key 'sourse'.*source"),
    ({"batch_size": 0}, "batch_size: .*greater than or equal to 1"),
    ({"validation": "half"}, "validation: .*'random', 'per_class', 'contiguous', 'group', 'copied' or 'test'"),
    ({"val_fraction": 1.0}, "val_fraction: .*less than 1"),
    ({"limit": 0}, "limit: .*greater than or equal to 1"),
]


@pytest.mark.parametrize(("values", "message"), BAD_CONFIGS)
def test_a_wrong_configuration_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        DataConfig.parse(values)


def test_blocks_leave_out_what_lies_between_training_and_test(make):
    data = DataModule(DataConfig(source="toy:train=70,val=0,test=140", split="blocks", cache=False), SMALL)
    assert {split: len(samples) for split, samples in data.dataset.splits.items()} == {
        "train": 49,
        "val": 7,
        "test": 21,
    }
    official = {
        sample.name
        for sample in DataModule(DataConfig(source="toy:train=70,val=0,test=140"), SMALL).dataset.splits["test"]
    }
    assert {sample.name for sample in data.dataset.splits["test"]} < official
    with pytest.raises(InputError, match=r"data\.split=blocks .* has no test split; use data\.split=official"):
        make(split="blocks").setup()
