"""A checkpoint's folder (see folder.py) for PyTorch: saved from a network, loaded into one."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from facerwkv.core.errors import InputError, first_line
from facerwkv.models.config import BackboneConfig
from facerwkv.models.folder import (
    AGAIN,
    FORMAT,
    HASH,
    NEXT,
    WEIGHTS,
    Checkpoint,
    Stored,
    find,
    hash_of,
    listed,
    read,
    require_finite,
    require_hash,
)
from facerwkv.models.zoo import CONFIG, model_line


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write the folder; what stood there stays whole until both files of the new one are. half: float16 weights.

    InputError for what could not be read again, and where the files cannot be written.
    """
    folder, config = Path(folder), cast(Any, checkpoint.model.config)
    weights = {name: value.detach().cpu().contiguous() for name, value in checkpoint.model.state_dict().items()}
    if half:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    require_finite(_finite(weights), f"{checkpoint.name}, which was to be saved,")
    described = {
        "format": FORMAT,
        "model": checkpoint.name,
        "config": config.model_dump(mode="json"),
        "labels": list(checkpoint.labels),
        "transform": checkpoint.transform.model_dump(mode="json"),
        "temperature": checkpoint.temperature,
        "card": checkpoint.card,
        "weights": weights_hash(weights),
    }
    try:
        _require_fit(Stored.parse(described), config)
    except InputError as error:
        raise InputError(f"{checkpoint.name} cannot be saved: {error}") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder))
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}. Choose another folder.") from error
    try:
        save_file(weights, partial / WEIGHTS, {"format": "pt", HASH: described["weights"]})
        (partial / CONFIG).write_text(json.dumps(described, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (partial / WEIGHTS).chmod((partial / CONFIG).stat().st_mode)  # safetensors lets the owner alone read it
        (partial / WEIGHTS).replace(folder / NEXT)
        (partial / CONFIG).replace(folder / CONFIG)  # from here on the checkpoint is the new one
        (folder / NEXT).replace(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"Cannot write {folder}: {error}. Free some space or choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Read a checkpoint's folder, a run's folder (its best checkpoint), a shipped one by name, or "hf-hub:ORG/NAME".

    The last takes an @REVISION. A folder that is called like a shipped one is "./NAME". InputError when there is none,
    when it is a pickle or damaged, of another format, or its weights are of another model: nothing is allocated that
    the weights' file does not have.
    """
    return load_folder(find(source))


def load_folder(folder: Path) -> Checkpoint:
    """`load_checkpoint` of a folder that `find` gave."""
    stored, file, weights = read(folder, load)
    where = f"{file.with_name(CONFIG)}"
    try:
        line = model_line(stored.model)
        config = type(line.config).parse(stored.config, "config", strict=True)
        _require_fit(stored, config)
    except InputError as error:
        raise InputError(f"{where}: {error} {AGAIN}") from error
    as_listed = config == line.config.model_copy(update={"num_classes": config.num_classes})
    with nullcontext() if as_listed else torch.device("meta"):  # there, torch loads its compiler: 1.7 s
        model = _built(stored, config, where)
    require_weights(model, weights, f"{file}")
    require_hash(stored, file, _raw(weights))
    if not as_listed:
        computed = {name for name, _ in model.named_buffers()} - weights.keys()  # what no file has
        rebuilt = isinstance(config, BackboneConfig) or computed
        model = line.build(config) if rebuilt else model.to_empty(device="cpu")
    model.load_state_dict(weights)
    transform, labels = stored.transform, stored.labels
    return Checkpoint(model.eval(), stored.model, labels, transform, stored.temperature, dict(stored.card))


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights in by name. InputError lists (ten at most) what is missing, left over, of another shape, or NaN."""
    require_weights(model, weights, source)
    model.load_state_dict(dict(weights))


def _require_fit(stored: Stored, config: Any) -> None:
    """InputError where a model's answers have other classes than labels, or it takes other images."""
    if len(stored.labels) != config.num_classes:
        raise InputError(f"labels: there are {len(stored.labels)}, and config.num_classes is {config.num_classes}.")
    if stored.transform.channels != config.in_chans:
        raise InputError(
            f"transform: it gives images of {stored.transform.channels} channels, and config.in_chans is "
            f"{config.in_chans}."
        )


def _built(stored: Stored, config: Any, where: str) -> nn.Module:
    """The model with fresh weights, tried on an image where it was made for others: best on the meta device."""
    size = stored.transform.image_size
    try:
        model = model_line(stored.model).build(config).eval()
        if size != config.image_size:
            with torch.no_grad():
                model(torch.empty(1, config.in_chans, *size))
    except Exception as error:  # of other libraries
        raise InputError(
            f"{where}: config gives no {stored.model} for images of {size[0]} x {size[1]} pixels: {first_line(error)} "
            f"{AGAIN}"
        ) from error
    return model


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """`hash_of` weights on the CPU."""
    return hash_of(_raw(weights))


def _raw(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, str, tuple[int, ...], Any]]:
    for name, value in weights.items():
        yield name, str(value.dtype), tuple(value.shape), value.flatten().view(torch.uint8).numpy().data


def _finite(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, bool]]:
    for name, value in weights.items():
        yield name, bool(value.isfinite().all())


def require_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [f"{name} is not part of the model" for name in weights if name not in own]
    for name, value in weights.items():
        is_like = name in own and value.is_floating_point() == own[name].is_floating_point()
        if name in own and (value.shape != own[name].shape or not is_like):
            needed = f"{tuple(own[name].shape)}" if is_like else f"{own[name].dtype}"
            problems.append(f"{name} is {tuple(value.shape) if is_like else value.dtype} and must be {needed}")
    if problems:
        raise InputError(f"{source} contains another model's weights: {listed(problems)}.")
    require_finite(_finite(weights), source)
