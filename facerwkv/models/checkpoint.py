"""A trained model as one folder: weights, configuration, labels, transform, card. Saved and loaded as one.

    FOLDER/model.safetensors    the weights
    FOLDER/config.json          everything else

Nothing is ever unpickled.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from facerwkv.data.transforms import TransformConfig
from facerwkv.errors import InputError
from facerwkv.models import model_line

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar"}
LISTED_KEYS = 10


@dataclass(frozen=True)
class Checkpoint:
    """A model in evaluation mode and all that prediction must know of it.

    `model` takes normalised pictures (B, c, h, w) and gives logits (B, C) in the order of `labels`; divide them by
    `temperature` before the softmax. `card` holds the training data, its licence and the metrics.
    """

    model: nn.Module
    name: str
    labels: tuple[str, ...]
    transform: TransformConfig
    temperature: float = 1.0
    card: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint) -> None:
    """Write the folder; what stood there stays whole until both files of the new one are."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder))
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}. Choose another folder.") from error
    try:
        weights = {name: value.detach().cpu().contiguous() for name, value in checkpoint.model.state_dict().items()}
        save_file(weights, partial / WEIGHTS)
        (partial / CONFIG).write_text(json.dumps(_describe(checkpoint), indent=2) + "\n", encoding="utf-8")
        for name in (WEIGHTS, CONFIG):
            (partial / name).replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"Cannot write {folder}: {error}. Free some space or choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Read a checkpoint's folder, or a run's folder (its best checkpoint).

    InputError when there is none, when it is a pickle, of another format, or its weights are of another model.
    """
    folder = _find(Path(source).expanduser())
    described = _read_config(folder / CONFIG)
    line = model_line(described["model"])
    model = line.build(type(line.config).parse(described["config"], where=f"{folder / CONFIG}: config"))
    load_weights(model, _read_weights(folder / WEIGHTS), f"{folder / WEIGHTS}")
    return Checkpoint(
        model.eval(),
        described["model"],
        tuple(described["labels"]),
        TransformConfig.parse(described["transform"], where=f"{folder / CONFIG}: transform"),
        float(described["temperature"]),
        described["card"],
    )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights in by name. InputError lists (ten at most) what is missing, left over, or of another shape."""
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [f"{name} is not part of the model" for name in weights if name not in own]
    problems += [
        f"{name} is {tuple(weights[name].shape)} and must be {tuple(own[name].shape)}"
        for name in own
        if name in weights and own[name].shape != weights[name].shape
    ]
    if problems:
        more = f"; and {len(problems) - LISTED_KEYS} more" if len(problems) > LISTED_KEYS else ""
        raise InputError(f"{source} holds another model's weights: {'; '.join(problems[:LISTED_KEYS])}{more}.")
    model.load_state_dict(dict(weights))


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    config: Any = checkpoint.model.config
    return {
        "format": FORMAT,
        "model": checkpoint.name,
        "config": config.model_dump(mode="json"),
        "labels": list(checkpoint.labels),
        "transform": checkpoint.transform.model_dump(mode="json"),
        "temperature": checkpoint.temperature,
        "card": checkpoint.card,
    }


def _find(path: Path) -> Path:
    if path.suffix in PICKLES and path.is_file():
        raise InputError(
            f"{path} is a pickle, which could run anything when read, so it is not opened. Give a FaceRWKV checkpoint: "
            f"a folder with {WEIGHTS} and {CONFIG}, as `facerwkv train` writes."
        )
    if path.name in (WEIGHTS, CONFIG):
        path = path.parent
    for folder in (path, path / "best", path / "last"):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    what = "holds no checkpoint" if path.is_dir() else "does not exist"
    raise InputError(f"{path} {what}: give a run's folder, or a folder with {WEIGHTS} and {CONFIG}.")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        known = isinstance(described, dict) and described.get("format") == FORMAT
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); the checkpoint is damaged.") from error
    if not known:
        raise InputError(f"{path} does not describe a FaceRWKV checkpoint of format {FORMAT}.")
    missing = {"model", "config", "labels", "transform", "temperature", "card"} - described.keys()
    if missing:
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}; the checkpoint is damaged.")
    return described


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); the checkpoint is damaged.") from error
