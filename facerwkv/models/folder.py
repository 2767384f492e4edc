"""A trained model as one folder: weights, configuration, labels, transform, card. Saved and loaded as one.

    FOLDER/model.safetensors    the weights
    FOLDER/config.json          everything else, checked when it is read: `Stored`
    FOLDER/graph.onnx           the network without its weights, for onnxruntime, where it was packed: models/graph.py
    FOLDER/README.md            its card, where it is meant for others

Nothing is ever unpickled. The package ships such folders, known by their names (`shipped`); "hf-hub:ORG/NAME" is one on
huggingface.co: what is fetched is kept.

Both files are replaced at once: config.json has the hash of its weights, which is among the metadata of their file. New
weights are written as NEXT, then the new config.json appears, then NEXT takes the place of the old weights. Whoever is
killed in between leaves NEXT behind, where it is found.
This module loads no torch; checkpoint.py saves and loads the folder for PyTorch, onnx.py for onnxruntime.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from safetensors import SafetensorError

from facerwkv.core.errors import InputError, first_line, shown
from facerwkv.core.files import read_json, write_text
from facerwkv.core.settings import LISTED, Settings, Text
from facerwkv.data.config import TransformConfig
from facerwkv.models.card import Card, is_bounded, known_licence, model_card
from facerwkv.models.zoo import CONFIG, HUB, MODELS, SHIPPED, TIMM, model_line, shipped, without_weights

FORMAT = 1
WEIGHTS, GRAPH, CARD = "model.safetensors", "graph.onnx", "README.md"
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

Tensor = TypeVar("Tensor")


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
        if not name.startswith(TIMM):  # timm itself knows its own, when one is built
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

    `model`, PyTorch's, takes normalised images (B, c, h, w) and gives logits (B, C) in the order of `labels`; divide
    them by `temperature` before the softmax. An OnnxModel takes images as they are. `card` contains the training data,
    its licence and the metrics.
    """

    model: Any
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

    @property
    def notice(self) -> str | None:
        """What a user must know of the weights' licence, or None."""
        licence = known_licence(self.card) or ""
        return (
            f"{self.title} may be used for research only: its licence is {licence!r}." if is_bounded(licence) else None
        )

    def save_pretrained(self, folder: str | Path, half: bool = False, name: str | None = None) -> None:
        """Write weights, config and card for others: nothing of this machine's paths is in them.

        half: weights as float16, half the size; they are float32 again when loaded. name: what it is called
        from then on, by default as the folder. InputError for a model that was never scored.
        """
        from facerwkv.models.graph import save_packed

        folder = Path(folder)
        shared = replace(self, card=without_paths(self.card) | {"name": name or folder.resolve().name})
        text = model_card(shared, shared.title)
        save_packed(folder, shared, half)
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
        from facerwkv.models.checkpoint import load_checkpoint

        return load_checkpoint(source)


def reports_of(source: str | Path) -> Path:
    """The folder for reports on a checkpoint: its own, or runs/NAME for one that is shipped or fetched."""
    elsewhere = str(source).startswith(HUB) or str(source) in shipped()
    return Path("runs", Path(source).name) if elsewhere else Path(source)


def without_paths(value: Any) -> Any:
    """A card whose data sets and files have names only: "fer2013" for "fer2013:/home/me/fer2013"."""
    from facerwkv.data.datasets import DATASETS

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


def find(source: str | Path) -> Path:
    """The folder with a checkpoint's files, which are fetched first for one of huggingface.co. InputError without."""
    path = SHIPPED / source if str(source) in shipped() else Path(os.path.expanduser(source))
    if str(source).startswith(HUB):
        try:
            from huggingface_hub import snapshot_download
        except ImportError as error:
            raise InputError(f"{source} needs huggingface_hub: pip install huggingface-hub") from error

        repo_id, _, revision = str(source).removeprefix(HUB).partition("@")
        try:
            path = Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=[WEIGHTS, CONFIG, GRAPH]))
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
    if path.suffix == EXPORTED and path.name != GRAPH and os.path.isfile(path):
        raise InputError(f"{path} is an exported model, which predict alone can run; give the checkpoint that it was.")
    if path.name in (WEIGHTS, CONFIG, GRAPH):
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


def read(folder: Path, load: Callable[[bytes], dict[str, Tensor]]) -> tuple[Stored, Path, dict[str, Tensor]]:
    """What config.json says, the file of its weights, and these, as `load` makes them of the file's bytes."""
    path = folder / CONFIG
    for _ in range(TRIES):  # another process may be replacing both files just now
        values = read_json(path, AGAIN)
        try:
            stored = Stored.parse(values, strict=True)
        except InputError as error:
            raise InputError(f"{path}: {error} {AGAIN}") from error
        for file in (folder / WEIGHTS, folder / NEXT):
            if file.name != NEXT or os.path.exists(file):
                weights = _read_weights(file, stored.weights, load)
                if weights is not None:
                    return stored, file, weights
    raise InputError(f"{path} names other weights than those in {WEIGHTS}: one of the two was replaced alone. {AGAIN}")


def _read_weights(
    file: Path, wanted: str | None, load: Callable[[bytes], dict[str, Tensor]]
) -> dict[str, Tensor] | None:
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


def require_hash(stored: Stored, file: Path, tensors: Iterable[tuple[str, str, tuple[int, ...], Any]]) -> None:
    """InputError where weights are not those that were saved: see `hash_of`."""
    if stored.weights not in (None, hash_of(tensors)):
        raise InputError(f"{file} is damaged: its weights are not those that were saved. {AGAIN}")


def made_for(stored: Stored) -> str:
    """A hash of all that decides a network's graph, but for the weights."""
    transform = stored.transform
    shape = [transform.image_size, transform.channels, transform.normalisation]
    return hashlib.sha256(json.dumps([stored.model, stored.config, shape], sort_keys=True).encode()).hexdigest()


def hash_of(tensors: Iterable[tuple[str, str, tuple[int, ...], Any]]) -> str:
    """The SHA-256 of weights: of the name, PyTorch's dtype, shape and bytes of each."""
    found = hashlib.sha256()
    for name, dtype, shape, content in sorted(tensors, key=lambda tensor: tensor[0]):
        found.update(f"{name} {dtype} {tuple(shape)}".encode())
        found.update(content)
    return found.hexdigest()


def require_finite(finite: Iterable[tuple[str, bool]], source: str) -> None:
    """InputError lists the weights, by name, that are not finite."""
    if broken := [name for name, is_finite in finite if not is_finite]:
        raise InputError(f"{source} is broken: there is NaN or infinity in {listed(broken)}. Train the model again.")


def listed(problems: list[str]) -> str:
    """The first ten, and how many more there are."""
    more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return "; ".join(problems[:LISTED]) + more
