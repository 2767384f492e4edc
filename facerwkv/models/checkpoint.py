"""A trained model as one folder: weights, configuration, labels, transform, card. Saved and loaded as one.

    FOLDER/model.safetensors    the weights
    FOLDER/config.json          everything else, checked when it is read: `Stored`
    FOLDER/README.md            its card, where it is meant for others

Nothing is ever unpickled. The package ships such folders, known by their names (`shipped`); "hf-hub:ORG/NAME" is one on
huggingface.co: what is fetched is kept.

Both files are replaced at once: config.json has the hash of its weights, which is among the metadata of their file. New
weights are written as NEXT, then the new config.json appears, then NEXT takes the place of the old weights. Whoever is
killed in between leaves NEXT behind, where it is found.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Annotated, Any, cast

import torch
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from facerwkv.core.errors import InputError, first_line, shown
from facerwkv.core.files import read_json, write_text
from facerwkv.core.settings import LISTED, Settings, Text
from facerwkv.data.datasets import DATASETS
from facerwkv.data.transforms import TransformConfig
from facerwkv.models.card import Card, model_card
from facerwkv.models.config import BackboneConfig
from facerwkv.models.zoo import CONFIG, HUB, MODELS, SHIPPED, model_line, shipped, without_weights

FORMAT = 1
WEIGHTS, CARD = "model.safetensors", "README.md"
NEXT = ".next.safetensors"
HASH = "facerwkv_hash"
LARGEST_HEADER = 100_000_000  # bytes, as safetensors has it
TRIES = 100
DEFAULT = "facerwkv_fer"  # of the shipped ones
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar"}
EXPORTED = ".onnx"  # see models/onnx.py
AGAIN = "Restore the file from a copy, or train, pack or export the model again."
NEEDED = {"transform": ("image_size", "crop", "in_chans", "mean", "std"), "config": ("image_size", "num_classes")}
"""What a stored configuration must not leave to the default."""


class Described(Settings):
    """What prediction must know of a model, as a checkpoint and an exported file have it."""

    model_config = ConfigDict(extra="ignore")

    model: Text
    """A name in MODELS, or "timm:NAME"."""
    labels: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1)]
    """In the order of the logits."""
    transform: TransformConfig
    """How an image becomes the model's input."""
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)]
    """Divides the logits before the softmax."""
    card: Card
    """Training data, its licence and scores."""

    @field_validator("model")
    @classmethod
    def _known(cls, name: str) -> str:
        model_line(name)
        return name

    @field_validator("labels")
    @classmethod
    def _different(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise ValueError(f"{shown(twice)} is there twice")
        return labels

    @field_validator(*NEEDED, check_fields=False)
    @classmethod
    def _complete(cls, values: Any, info: ValidationInfo) -> Any:
        given = values if isinstance(values, dict) else values.model_fields_set
        if lacking := [name for name in NEEDED[str(info.field_name)] if name not in given]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
        return values


class Stored(Described):
    """config.json."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    config: dict[str, Any]
    """What the model was built from."""
    weights: str | None = None
    """The HASH of the weights that belong to it; older checkpoints have none."""


@dataclass(frozen=True)
class Checkpoint:
    """A model in evaluation mode and all that prediction must know of it.

    `model` takes normalised images (B, c, h, w) and gives logits (B, C) in the order of `labels`; divide them by
    `temperature` before the softmax. `card` contains the training data, its licence and the metrics.
    """

    model: nn.Module
    name: str
    labels: tuple[str, ...]
    transform: TransformConfig
    temperature: float = 1.0
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What those who share it call it; otherwise its model's name, and what it was fine-tuned from."""
        start = (self.card.get("recipe") or {}).get("init_from")
        own = f"{self.name}, fine-tuned from {Path(start).name}" if start else self.name
        return str(self.card.get("name") or own)

    def save_pretrained(self, folder: str | Path, half: bool = False, name: str | None = None) -> None:
        """Write weights, config and card for others: nothing of this machine's paths is in them.

        half: weights as float16, half the size; they are float32 again when loaded. name: what it is called
        from then on, by default as the folder. InputError for a model that was never scored.
        """
        folder = Path(folder)
        shared = replace(self, card=without_paths(self.card) | {"name": name or folder.resolve().name})
        text = model_card(shared, shared.title)
        save_checkpoint(folder, shared, half)
        write_text(folder / CARD, text)

    def push_to_hub(self, repo_id: str, half: bool = False, private: bool = False, token: str | None = None) -> str:
        """Upload what `save_pretrained` writes to huggingface.co, as "ORG/NAME"; its address."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, half, HUB + repo_id)
            try:
                address = api.create_repo(repo_id, private=private, exist_ok=True)
                api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=f"{self.name}, by FaceRWKV")
            except (OSError, ValueError) as error:
                raise InputError(f"{repo_id} could not be uploaded: {first_line(error)}") from error
        return str(address)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "Checkpoint":
        """`load_checkpoint` under the name that it has elsewhere."""
        return load_checkpoint(source)


def reports_of(source: str | Path) -> Path:
    """The folder for reports on a checkpoint: its own, or runs/NAME for one that is shipped or fetched."""
    elsewhere = str(source).startswith(HUB) or str(source) in shipped()
    return Path("runs", Path(source).name) if elsewhere else Path(source)


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write the folder; what stood there stays whole until both files of the new one are. half: float16 weights.

    InputError for what could not be read again, and where the files cannot be written.
    """
    folder, config = Path(folder), cast(Any, checkpoint.model.config)
    weights = {name: value.detach().cpu().contiguous() for name, value in checkpoint.model.state_dict().items()}
    if half:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    _require_finite(weights, f"{checkpoint.name}, which was to be saved,")
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
    stored, config, file, weights = _read(_find(source))
    where, line = f"{file.with_name(CONFIG)}", model_line(stored.model)
    listed = config == line.config.model_copy(update={"num_classes": config.num_classes})
    with nullcontext() if listed else torch.device("meta"):  # there, torch loads its compiler: 1.7 s
        model = _built(stored, config, where)
    require_weights(model, weights, f"{file}")
    if stored.weights not in (None, weights_hash(weights)):
        raise InputError(f"{file} is damaged: its weights are not those that were saved. {AGAIN}")
    if not listed:
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


def without_paths(value: Any) -> Any:
    """A card whose data sets and files have names only: "fer2013" for "fer2013:/home/me/fer2013"."""
    if isinstance(value, dict):
        return {key: without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_paths(part) for part in value]
    if not isinstance(value, str):
        return value
    name = value.partition(":")[0]
    if name in DATASETS and name != "toy":
        return name
    return PurePath(value).name if PurePath(value).is_absolute() or value.startswith(("~", "..")) else value


def _find(source: str | Path) -> Path:
    """The folder with a checkpoint's two files, which are fetched first for one of huggingface.co."""
    path = SHIPPED / source if str(source) in shipped() else Path(os.path.expanduser(source))
    if str(source).startswith(HUB):
        from huggingface_hub import snapshot_download

        repo_id, _, revision = str(source).removeprefix(HUB).partition("@")
        try:
            path = Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=[WEIGHTS, CONFIG]))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{source} could not be fetched: {first_line(error)} Check the name (ORG/NAME) and the network; "
                "what was fetched once needs none."
            ) from error
    if path.suffix in PICKLES and os.path.isfile(path):
        raise InputError(
            f"{path} is a pickle, which could run anything when read, so it is not opened. Give a FaceRWKV checkpoint: "
            f"a folder with {WEIGHTS} and {CONFIG}, as `facerwkv train` writes."
        )
    if path.suffix == EXPORTED and os.path.isfile(path):
        raise InputError(f"{path} is an exported model, which predict alone can run; give the checkpoint that it was.")
    if path.name in (WEIGHTS, CONFIG):
        path = path.parent
    for folder in (path, path / "best", path / "last"):
        if os.path.lexists(folder / CONFIG):
            return folder
    if str(source) in MODELS and not os.path.exists(path):
        raise InputError(without_weights(str(source)))
    what = "contains no checkpoint" if os.path.isdir(path) else "does not exist"
    raise InputError(
        f"{path} {what}: give a run's folder, a folder with {WEIGHTS} and {CONFIG}, or one of {', '.join(shipped())}."
    )


def _read(folder: Path) -> tuple[Stored, Any, Path, dict[str, Tensor]]:
    """What config.json says, the model's configuration in it, the file of its weights, and these."""
    path = folder / CONFIG
    for _ in range(TRIES):  # another process may be replacing both files just now
        values = read_json(path, AGAIN)
        try:
            stored = Stored.parse(values, strict=True)
            config = type(model_line(stored.model).config).parse(stored.config, "config", strict=True)
            _require_fit(stored, config)
        except InputError as error:
            raise InputError(f"{path}: {error} {AGAIN}") from error
        for file in (folder / WEIGHTS, folder / NEXT):
            if file.name != NEXT or os.path.exists(file):
                weights = _read_weights(file, stored.weights)
                if weights is not None:
                    return stored, config, file, weights
    raise InputError(f"{path} names other weights than those in {WEIGHTS}: one of the two was replaced alone. {AGAIN}")


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
    """The SHA-256 of weights on the CPU: of their names, dtypes, shapes and bytes."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _read_weights(file: Path, wanted: str | None) -> dict[str, Tensor] | None:
    """Those of a file; None where it names another hash than the one that is wanted.

    All is read through one handle: the name may be another file's a moment later.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = {} if wanted is None else json.loads(opened.read(min(length, LARGEST_HEADER)))
            if wanted not in (None, header.get("__metadata__", {}).get(HASH)):
                return None
            opened.seek(0)
            return load(opened.read())
    except (OSError, ValueError, AttributeError, RecursionError, SafetensorError) as error:
        raise InputError(f"{file} is not a whole safetensors file ({first_line(error)}). {AGAIN}") from error


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
        raise InputError(f"{source} contains another model's weights: {_listed(problems)}.")
    _require_finite(weights, source)


def _require_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """InputError lists those with NaN or infinity."""
    broken = [name for name, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise InputError(f"{source} is broken: there is NaN or infinity in {_listed(broken)}. Train the model again.")


def _listed(problems: list[str]) -> str:
    more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return "; ".join(problems[:LISTED]) + more
