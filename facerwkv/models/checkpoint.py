"""A trained model as one folder: weights, configuration, labels, transform, card. Saved and loaded as one.

    FOLDER/model.safetensors    the weights
    FOLDER/config.json          everything else
    FOLDER/README.md            its card, where it is meant for others

Nothing is ever unpickled. The package ships such folders, known by their names (`shipped`); "hf-hub:ORG/NAME" is one on
huggingface.co: what is fetched is kept.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, cast

from huggingface_hub import HfApi, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from facerwkv.core.errors import InputError, first_line
from facerwkv.core.files import write_text
from facerwkv.data.datasets import DATASETS
from facerwkv.data.transforms import TransformConfig
from facerwkv.models.card import model_card
from facerwkv.models.zoo import model_line

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
HUB = "hf-hub:"
DEFAULT = "facerwkv_fer"  # of the shipped ones
SHIPPED = Path(__file__).with_name("weights")
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar"}
EXPORTED = ".onnx"  # see models/onnx.py
LISTED_KEYS = 10


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
        """What those who share it call it; otherwise its model's name."""
        return str(self.card.get("name") or self.name)

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


def shipped() -> list[str]:
    """The names of the checkpoints that come with the package."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if (folder / CONFIG).is_file())


def reports_of(source: str | Path) -> Path:
    """The folder for reports on a checkpoint: its own, or runs/NAME for one that is shipped or fetched."""
    elsewhere = str(source).startswith(HUB) or str(source) in shipped()
    return Path("runs", Path(source).name) if elsewhere else Path(source)


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write the folder; what stood there stays whole until both files of the new one are. half: float16 weights."""
    folder, config = Path(folder), cast(Any, checkpoint.model.config)
    described = {
        "format": FORMAT,
        "model": checkpoint.name,
        "config": config.model_dump(mode="json"),
        "labels": list(checkpoint.labels),
        "transform": checkpoint.transform.model_dump(mode="json"),
        "temperature": checkpoint.temperature,
        "card": checkpoint.card,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder))
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}. Choose another folder.") from error
    try:
        weights = {name: value.detach().cpu().contiguous() for name, value in checkpoint.model.state_dict().items()}
        if half:
            weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
        save_file(weights, partial / WEIGHTS)
        (partial / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        (partial / WEIGHTS).chmod((partial / CONFIG).stat().st_mode)  # safetensors lets the owner alone read it
        for name in (WEIGHTS, CONFIG):
            (partial / name).replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"Cannot write {folder}: {error}. Free some space or choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Read a checkpoint's folder, a run's folder (its best checkpoint), a shipped one by name, or "hf-hub:ORG/NAME".

    The last takes an @REVISION. A folder that is called like a shipped one is "./NAME". InputError when there is none,
    when it is a pickle, of another format, or its weights are of another model.
    """
    folder = _find(source)
    described = _read_config(folder / CONFIG)
    line = model_line(described["model"])
    model = line.build(type(line.config).parse(described["config"], where=f"{folder / CONFIG}: config"))
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder / WEIGHTS} is not a whole safetensors file ({error}); the checkpoint is damaged."
        ) from error
    load_weights(model, weights, f"{folder / WEIGHTS}")
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
        raise InputError(f"{source} contains another model's weights: {'; '.join(problems[:LISTED_KEYS])}{more}.")
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
    path = SHIPPED / source if str(source) in shipped() else Path(source).expanduser()
    if str(source).startswith(HUB):
        repo_id, _, revision = str(source).removeprefix(HUB).partition("@")
        try:
            path = Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=[WEIGHTS, CONFIG]))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{source} could not be fetched: {first_line(error)} Check the name (ORG/NAME) and the network; "
                "what was fetched once needs none."
            ) from error
    if path.suffix in PICKLES and path.is_file():
        raise InputError(
            f"{path} is a pickle, which could run anything when read, so it is not opened. Give a FaceRWKV checkpoint: "
            f"a folder with {WEIGHTS} and {CONFIG}, as `facerwkv train` writes."
        )
    if path.suffix == EXPORTED and path.is_file():
        raise InputError(f"{path} is an exported model, which predict alone can run; give the checkpoint that it was.")
    if path.name in (WEIGHTS, CONFIG):
        path = path.parent
    for folder in (path, path / "best", path / "last"):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    what = "contains no checkpoint" if path.is_dir() else "does not exist"
    raise InputError(
        f"{path} {what}: give a run's folder, a folder with {WEIGHTS} and {CONFIG}, or one of {', '.join(shipped())}."
    )


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
