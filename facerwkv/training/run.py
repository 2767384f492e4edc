"""A run's folder: recipe, environment, curves, checkpoints, and the file from which it resumes.

RUN/recipe.yaml  environment.json  data.json
RUN/splits.csv                       which image was in which split, by content (data/record.py)
RUN/metrics.csv                      one row per logged step or epoch
RUN/best/  RUN/last/                 checkpoints
RUN/resume.ckpt                      all that Lightning needs to resume, read without unpickling code
RUN/time.json                        how long the training took; written when it has ended
RUN/val/  RUN/test/                  predictions per image, scores, report
"""

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities import rank_zero_only

from facerwkv.core.errors import InputError
from facerwkv.core.files import read_json, write_text
from facerwkv.core.settings import utf8
from facerwkv.models.zoo import shipped
from facerwkv.training.recipe import Recipe, TrainPart

RECIPE, ENVIRONMENT, DATA, CURVES, RESUME = "recipe.yaml", "environment.json", "data.json", "metrics.csv", "resume.ckpt"
TIME, SPLITS, TENSORBOARD = "time.json", "splits.csv", "tensorboard"


def open_run(folder: Path, recipe: Recipe, resume: bool) -> Path | None:
    """Make the folder, or with `resume` find the file to resume from (None: start from the beginning)."""
    if resume:
        if leads():
            write_text(folder / RECIPE, recipe.to_yaml())
        return folder / RESUME if os.path.lexists(folder / RESUME) else None
    if leads():
        (folder / CURVES).unlink(missing_ok=True)  # of a run that came to nothing
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
        write_text(folder / RECIPE, recipe.to_yaml())
    return None


def has_begun(folder: Path) -> bool:
    """Whether a run in this folder came as far as a checkpoint, or a point to resume from."""
    return any(os.path.lexists(folder / name) for name in (RESUME, "last", "best"))


def require_place(folder: Path) -> None:
    """InputError where a new run cannot be written: a run has begun there, or the folder may not be made."""
    if not leads():
        return
    if (folder / RECIPE).exists() and has_begun(folder):
        raise InputError(
            f"{folder} already contains a run. Resume it: facerwkv train --resume {shlex.quote(str(folder))}; or "
            "choose another --out."
        )
    try:
        utf8(str(folder))
    except ValueError as error:
        raise InputError(f"{folder}: {error}.") from error
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "may not be written" if nearest.is_dir() else "is no folder"
        raise InputError(f"Cannot write {folder}: {nearest} {reason}. Choose another folder.")


def settle_rank(part: TrainPart) -> None:
    """Say to Lightning which process of a training this is, where it would take the number of another's.

    RANK, SLURM_PROCID and others may be set for reasons of their own: a training on one device is whole in each
    process, and one on several that nobody else starts begins with this one.
    """
    one, started = part.devices * part.num_nodes == 1, (TorchElasticEnvironment, SLURMEnvironment, MPIEnvironment)
    if one or not any(kind.detect() for kind in started):
        local = LightningEnvironment()
        rank = 0 if one else local.local_rank() + local.node_rank() * part.devices
        local.set_global_rank(rank)  # which says it to all of Lightning


def leads() -> bool:
    """Whether this process writes the files: the only one of a training, or the first of several."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a run's folder. InputError where another process of this machine trains in it.

    The processes of one training share it. The lock is among the temporary files, so that the run stays as it was.
    """
    if not leads():
        yield
        return
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir(), f"facerwkv-{name}.lock"), timeout=0)
    try:
        with lock:
            try:
                yield
            finally:
                with suppress(OSError):  # Windows removes no file that is open
                    os.remove(lock.lock_file)
    except Timeout as error:
        raise InputError(
            f"Another process is training in {folder}. Wait until it ends, stop it, or choose another --out."
        ) from error


LONGER = ("train.epochs", "train.early_stop")
"""What may be changed when a run is resumed."""


def read_run(folder: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe of an existing run, under changes of LONGER."""
    if not (folder / RECIPE).is_file():
        raise InputError(f"{folder} is not a run: it has no {RECIPE}. Start one with: facerwkv train --out {folder}")
    if wrong := [change for change in changes if change.partition("=")[0] not in LONGER]:
        raise InputError(
            f"A resumed run keeps its recipe but for {' and '.join(LONGER)}; {wrong[0]!r} cannot change it. Start a "
            "new run instead."
        )
    try:
        recipe = Recipe.read(folder / RECIPE, changes)
    except InputError as error:
        raise InputError(f"{folder / RECIPE} cannot be used: {error}") from error
    if missing := Recipe.model_fields.keys() - recipe.model_fields_set:
        raise InputError(
            f"{folder / RECIPE} was cut off: it lacks {', '.join(sorted(missing))}. Restore it from a copy."
        )
    return recipe


def run_of(source: str | Path) -> Path | None:
    """The run to which a checkpoint's folder (the run's, its best or last) belongs; None for one of its own."""
    folder = Path(os.path.expanduser(source))
    if str(source) in shipped() or not folder.exists():
        return None
    folder = folder.resolve() if folder.is_dir() else folder.resolve().parent
    folder = folder.parent if folder.name in ("best", "last") else folder
    return folder if (folder / RECIPE).is_file() else None


def environment(earlier: Path | None = None) -> dict[str, Any]:
    """What the run ran on: versions, hardware, and the clone's commit, with "+" when files of the package differ;
    None for an installed package.

    earlier: the file of a run that is resumed, whose command is kept; "resumed" lists those that resumed it.
    """
    packages = ("facerwkv", "torch", "torchvision", "lightning", "timm", "numpy")
    folder, processor, commit = str(Path(__file__).parents[1]), platform.processor() or "unknown", None
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    with suppress(OSError, subprocess.SubprocessError):
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        top, head, changed = (
            subprocess.run(
                ["git", "-C", folder, *words], capture_output=True, text=True, timeout=10, check=True, env=own
            ).stdout.strip()
            for words in (
                ("rev-parse", "--show-toplevel"),
                ("rev-parse", "--short=12", "HEAD"),
                ("status", "--porcelain", folder),
            )
        )
        if Path(top).samefile(Path(folder).parent):  # and not a repository around the environment
            commit = head + ("+" if changed else "")
    program = Path(sys.argv[0]).name
    command, resumed = ["facerwkv" if program == "__main__.py" else program, *sys.argv[1:]], {}
    with suppress(InputError, KeyError, TypeError):
        kept = read_json(earlier) if earlier else {}
        command, resumed = kept["command"], {"resumed": [*kept.get("resumed", []), shlex.join(command)]}
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "processor": processor,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit,
        "command": command,
        **resumed,
    }


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")
