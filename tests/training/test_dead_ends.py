"""What cannot be trained is told before images are read, in a sentence, and leaves nothing that blocks the next try."""

import ast
import errno
import json
import os
import shutil
from pathlib import Path

import pytest

import facerwkv.training.module as module
from facerwkv.core.errors import InputError
from facerwkv.data.loader import DataModule
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import has_begun
from tests.commands import facerwkv
from tests.training.test_train import curve

PACKAGE = Path(module.__file__).parents[1]


@pytest.fixture
def planned(monkeypatch):
    """No image may be read."""
    monkeypatch.setattr(DataModule, "_make", lambda *of: pytest.fail("images were read"))


def a_run(root):
    (root / "run/last").mkdir(parents=True)
    (root / "run/recipe.yaml").touch()
    return root / "run", []


def a_file(root):
    (root / "run").touch()
    return root / "run/sub", []


EARLY = [
    (a_run, r"run already contains a run\. Resume it: facerwkv train --resume .*run; or choose another --out\."),
    (a_file, r"Cannot write .*run/sub: .*run is no folder\. Choose another folder\."),
    (lambda root: (root / os.fsdecode(b"r\xe9"), []), r"is no UTF-8.*Rename it"),
    (
        lambda root: (root / "run", ["train.device=xpu"]),
        r"no device 'xpu' here\. Choose auto or one of: .*cpu",
    ),
    (lambda root: (root / "run", ["data.labels=[anger]"]), r"has one class, anger, so there is nothing to learn"),
    (lambda root: (root / "run", ["model.options={patch_size: 999}"]), r"patch_size"),
    (lambda root: (root / "run", [f"init_from={root}/gone"]), r"gone does not exist"),
]


@pytest.mark.parametrize(("prepare", "message"), EARLY)
def test_what_cannot_be_trained_is_told_before_images_are_read(prepare, message, planned, small, tmp_path):
    folder, changes = prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        module.train(Recipe.read("modern", [*small, *changes]), folder, progress=False)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", [("evaluate", "--model", "facerwkv_fer_tiny"), ("compare", "facerwkv4_small")])
def test_a_device_is_looked_for_before_images_are_read(command, planned, colours, tmp_path):
    done = facerwkv(*command, "--data", f"imagefolder:{colours}", "--device", "xpu", "--out", tmp_path / "out")
    assert (done.returncode, "There is no device 'xpu' here" in done.stderr) == (2, True)


@pytest.mark.parametrize("source", ["imagefolder:caf\udce9", "manifest:\udcff.csv"])
def test_a_place_that_is_no_utf8_is_told(source):
    for command in (("train",), ("evaluate", "--model", "facerwkv_fer_tiny")):
        done = facerwkv(*command, "--data", source)
        assert (done.returncode, "is no UTF-8" in done.stderr) == (2, True)


def interrupted(*of, **options):
    raise KeyboardInterrupt


def test_ctrl_c_before_the_first_checkpoint_advises_to_start_anew(small, tmp_path, monkeypatch):
    command = ("train", "--out", tmp_path / "my run", *small, "train.epochs=1")
    with monkeypatch.context() as patched:
        patched.setattr(DataModule, "_make", interrupted)  # while images are cached
        done = facerwkv(*command)
    assert (done.returncode, done.stderr) == (
        1,
        "\nStopped. Nothing is trained yet: rerun the same command to start anew.\n",
    )
    with monkeypatch.context() as patched:
        patched.setattr(module.TrainingModule, "training_step", interrupted)
        facerwkv(*command)
    shutil.rmtree(tmp_path / "my run/last", ignore_errors=True)
    assert (tmp_path / "my run/recipe.yaml").is_file()
    assert facerwkv(*command).returncode == 0
    assert len({row["epoch"] for row in curve(tmp_path / "my run")}) == 1
    with monkeypatch.context() as patched:
        patched.setattr("facerwkv.evaluation.evaluate.run_logits", interrupted)  # while it is scored
        done = facerwkv("train", "--resume", tmp_path / "my run")
    assert f"Resume it: facerwkv train --resume '{tmp_path}/my run'" in done.stderr


def test_what_diverges_at_once_leaves_a_folder_that_can_be_used(small, tmp_path):
    wrong = [*small, "optim.lr=1e30", "schedule.warmup_epochs=0", "optim.clip_norm=null", "train.save_every=null"]
    with pytest.raises(InputError, match=r"became (nan|inf).*clip \(optim\.clip_norm=1\)\.$"):
        module.train(Recipe.read("modern", wrong), tmp_path / "run", progress=False)
    assert not has_begun(tmp_path / "run")
    module.train(Recipe.read("modern", [*small, "train.epochs=1"]), tmp_path / "run", progress=False)
    assert has_begun(tmp_path / "run")


def test_a_run_that_stopped_early_is_resumed_to_nothing_and_keeps_its_command(small, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["facerwkv", "train", "--out", "my run"])
    recipe = Recipe.read("modern", [*small, "optim.lr=1e-9", "train.epochs=50", "train.early_stop=1"])
    folder = module.train(recipe, tmp_path / "run", progress=False)
    before = curve(folder)
    assert len(before) < 50
    for time in (1, 2):
        monkeypatch.setattr("sys.argv", ["/usr/bin/facerwkv", "train", "--resume", "my run"])
        module.train(Recipe(), folder, resume=True, progress=False)
        assert curve(folder) == before
        told = json.loads((folder / "environment.json").read_text())
        assert told["command"] == ["facerwkv", "train", "--out", "my run"]
        assert told["resumed"] == ["facerwkv train --resume 'my run'"] * time


@pytest.mark.parametrize(("batch", "message"), [(83, ""), (1, "data.batch_size is 1. Raise it")])
def test_batch_normalisation_with_a_last_batch_of_one(batch, message, small, tmp_path):
    changes = [*small, "model={name: resnet18, options: {}}", f"data.batch_size={batch}", "train.epochs=1"]
    recipe = Recipe.read("paper", [*changes, "data.limit=84", "transform.image_size=[16,16]"])  # 84 = 83 + 1
    if message:
        with pytest.raises(InputError, match=message):
            module.train(recipe, tmp_path / "run", progress=False)
    else:
        assert len(curve(module.train(recipe, tmp_path / "run", progress=False))) == 1


def test_leaks_that_are_all_are_told(tmp_path, colours, small):
    tree = tmp_path / "tree"
    shutil.copytree(colours / "test", tree / "train")
    shutil.copytree(colours / "test", tree / "test")
    changes = [*small, f"data.source=imagefolder:{tree}", "data.drop_leaks=true"]
    with pytest.raises(InputError, match=r"All 21 training images of .* are also in val or test, so nothing is left"):
        module.train(Recipe.read("modern", changes), tmp_path / "run", progress=False)


def full(*of, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_tensorboard_s_files_alone(small, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    folder = module.train(Recipe.read("modern", [*small, "train.epochs=1"]), tmp_path / "run", progress=False)
    assert len(curve(folder)) == 1
    told = "TensorBoard's files cannot be written: [Errno 28] No space left on device."
    assert [message.startswith(told) for message in caplog.messages] == [True]


@pytest.mark.parametrize("size", [100, 3_000, 20_000])
def test_a_full_disk_is_a_sentence(size, small, tmp_path):
    resource = pytest.importorskip("resource")
    recipe = Recipe.read("modern", [*small, "train.epochs=1"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(InputError, match=r"Cannot write .*[Ff]ree some space"):
            module.train(recipe, tmp_path / "run", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_brackets_in_paths_are_no_markup():
    """Every console prints what it is given; the text of a progress bar's column is said to be none, too."""
    calls = [
        (path.relative_to(PACKAGE), call)
        for path in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Console"
    ]
    drawing = ("evaluation/evaluate.py", "inference/stream.py", "data/readers.py", "bench/run.py")  # bars alone
    wrong = [
        f"{path}:{call.lineno}"
        for path, call in calls
        if not any(word.arg == "markup" for word in call.keywords) and path.as_posix() not in drawing
    ]
    assert (len(calls) > 10, wrong) == (True, [])


def test_a_data_set_in_a_folder_with_brackets(tmp_path, colours):
    shutil.copytree(colours, tmp_path / "[b] own [/b]")
    done = facerwkv("data", "check", f"imagefolder:{tmp_path}/[b] own [/b]")
    assert "[b] own [/b]" in "".join(done.stdout.split("\n"))
