"""A recipe: all that decides a run. A YAML file or a shipped name, changed by `a.b=c` arguments."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr

from facerwkv.core.errors import InputError, shown
from facerwkv.core.settings import Count, NotNegative, Positive, Settings, Share
from facerwkv.data.config import AugmentConfig, DataConfig, TransformConfig, as_tuple
from facerwkv.models.zoo import TIMM, model_line

RECIPES = files("facerwkv.training") / "recipes"


def _of_validation(name: str) -> str:
    """A score that training computes on validation; ValueError lists them."""
    from facerwkv.core.metrics import of_confusion  # loads NumPy, which recipes do without

    if name not in of_confusion():
        raise ValueError(f"Choose {', '.join(of_confusion())}")
    return name


class ModelPart(Settings):
    """Which model. Its image size and channels follow the transform, its classes the data."""

    name: str = "facerwkv4_small"
    """A name in MODELS."""
    stem_weights: str | None = None
    """Start a ResNet stem from IMAGENET1K_V1 or from a file with torchvision's key names; no effect on other stems."""
    pretrained: bool = False
    """Start a network of timm or torchvision from ImageNet; fetched over the network the first time."""
    parts: dict[str, str] = Field(default_factory=dict)
    """Files with the published weights of a model's parts, say `model.parts.face=ir50.pth` for poster_v2."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of the model's configuration to change, say `model.options.depth=3`."""


class OptimPart(Settings):
    """The optimiser; torch's and timm's names and meanings."""

    name: Literal["adam", "adamw", "sgd", "muon", "sam"] = "adamw"
    """`muon` (Jordan et al. 2024) trains what has rows and columns, the classifier excepted; AdamW the rest. `sam`
    (Foret et al. 2021) is AdamW with the gradients of the worst weights nearby: two passes per step."""
    lr: Positive = 1e-3
    betas: tuple[Share, Share] = (0.9, 0.999)
    momentum: Share = 0.9
    """Of sgd and muon, with Nesterov."""
    fallback_lr_scale: Positive = 1.0
    """With muon: AdamW's learning rate, as a fraction of lr."""
    stem_lr_scale: Positive = 1.0
    """The learning rate of the layers that a ResNet stem may take from ImageNet, as a fraction of lr."""
    rho: Positive = 0.05
    """Of sam: the radius in which the worst weights are sought."""
    weight_decay: NotNegative = 0.0
    """Applied to matrices only."""
    clip_norm: Positive | None = None
    """Largest gradient norm, applied after backward."""


class SchedulePart(Settings):
    """The learning rate over the run, set at every step."""

    name: Literal["cosine", "constant", "exponential", "as_coded"] = "cosine"
    """`exponential` multiplies by gamma after every gamma_epochs; `as_coded` is what the authors' code did: a cosine
    that swings with a period of some *steps*."""
    warmup_epochs: NotNegative = 1.0
    warmup_factor: Share = 0.1
    """The warm-up starts at this fraction of optim.lr."""
    gamma: Share = 0.98
    """Of exponential."""
    gamma_epochs: Count = 1
    """Of exponential."""
    half_period: Count | None = None
    """Of as_coded: the steps from the largest rate to zero; null for as many as train.epochs."""
    final_factor: Share = 0.0
    """The cosine ends at this fraction of optim.lr."""


class TrainPart(Settings):
    """The loop."""

    epochs: Count = 25
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: Count = 1
    """Devices on each host; each takes its own batches: a step sees devices x num_nodes x data.batch_size images."""
    num_nodes: Count = 1
    """Hosts; start the same command on each under torchrun, or as Lightning says for your cluster."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    accumulate: Count = 1
    """Batches whose gradients are added up before a step; a step sees accumulate x data.batch_size images."""
    grad_checkpointing: bool = False
    """Compute each block anew in the backward pass: a part of the memory for more time; the same numbers."""
    compile: bool = False
    """torch.compile: after some minutes each step takes up to a third less time; needs a C++ compiler."""
    freeze: Literal["none", "stem", "backbone"] = "none"
    """What is not trained: the stem; or all but the classifier, a linear probe. Start from weights: init_from."""
    loss: Literal["cross_entropy", "focal", "logit_adjusted"] = "cross_entropy"
    """`focal` (Lin et al. 2017, gamma 2) lets images that are right already count less; `logit_adjusted` (Menon et al.
    2021) allows for how often each class occurs in training."""
    teachers: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """Distillation (Hinton et al. 2015): checkpoints, names or folders, from whose mean answer the model learns too."""
    distill_alpha: Share = 0.5
    """With teachers: what their answer counts in the loss; the labels count the rest."""
    distill_tau: Positive = 1.0
    """With teachers: the temperature at which answers are compared."""
    auxiliary: str | None = None
    """A data set that judges the same images too, NAME:ROOT, or NAME for the same ROOT: ferplus_soft. A second head
    learns it, in training only (Caruana 1997, multitask learning)."""
    auxiliary_weight: NotNegative = 0.5
    """What the second head's loss counts beside the first."""
    logger: Literal["none", "wandb", "mlflow"] = "none"
    """Where curves go besides metrics.csv and TensorBoard; the extras wandb and mlflow."""
    label_smoothing: Share = 0.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of the running mean of the weights, which is then evaluated and saved; null for none."""
    select: Literal["best", "last"] = "best"
    """Which epoch's weights count: the best on validation, or the last."""
    monitor: Annotated[str, AfterValidator(_of_validation)] = "accuracy"
    """The score on validation that decides: accuracy, uar, macro_f1."""
    early_stop: Count | None = None
    """Stop after this many epochs without a better validation score."""
    save_every: Count | None = 200
    """Steps between two points from which an interrupted epoch can be resumed; null for none inside an epoch."""


class Recipe(Settings):
    """All settings of one run. `Recipe.read("modern", ["train.epochs=5"])` creates one."""

    about: str = ""
    model: ModelPart = ModelPart()
    init_from: str | None = None
    """A checkpoint to start from; its classifier is replaced when the classes differ."""
    data: DataConfig = DataConfig()
    transform: TransformConfig = TransformConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimPart = OptimPart()
    schedule: SchedulePart = SchedulePart()
    train: TrainPart = TrainPart()
    _chosen: tuple[str, ...] = PrivateAttr(())
    """The keys that were changed by hand."""

    def chosen(self, part: str) -> dict[str, Any]:
        """What was changed by hand of model or transform: each field with its value."""
        picked: dict[str, Any] = {}
        for key in self._chosen:
            if key.partition(".")[0] == part:
                value: Any = self.model_dump(exclude_unset=True)
                for name in key.split("."):
                    value = value[name]
                _set(picked, key, value, key)
        return picked.get(part, {})

    @classmethod
    def read(cls, source: str | Path, changes: Iterable[str] = (), values: Mapping[str, Any] | None = None) -> "Recipe":
        """A shipped recipe or a YAML file, changed by `values`, then by `changes`.

        values: "a.b" → the value as it is, say {"data.labels": ("yes", "no")}. changes: "a.b=c", where c is YAML.
        InputError names an unknown model or key (also of model.options, for our own models), its value and what fits.
        """
        plain = _load(source)
        for key, value in (values or {}).items():
            _set(plain, key, value, f"{key}={value}")
        changes = list(changes)
        apply(plain, changes)
        recipe = cls.parse(plain)
        recipe._chosen = (*(values or {}), *(change.partition("=")[0] for change in changes))
        if not recipe.model.name.startswith(TIMM):
            line = model_line(recipe.model.name)
            if line.own is not None:  # whose configuration loads no torch
                line.configured(recipe.model.options, "model.options")
        return recipe

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


TEXTS = ("labels", "rename")


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        """`labels` and `rename` have texts: 1, yes and "AU: 4" are names of classes, no numbers and truths."""
        keys = [self.construct_object(key, deep) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := [key for number, key in enumerate(keys) if key in keys[:number]]:
            raise ValueError(f"{shown(twice[0])} is there twice")
        given = ((key.value, value) for key, value in node.value if not value.tag.endswith(":null"))
        texts = {key: _texts(value) for key, value in given if key in TEXTS}
        return super().construct_mapping(node, deep) | texts


def _texts(node: Any) -> Any:
    """A YAML node with each scalar as the text that it is written as."""
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        pairs = [each.value[0] if isinstance(each, yaml.MappingNode) and each.value else each for each in node.value]
        return [f"{each[0].value}: {each[1].value}" if isinstance(each, tuple) else _texts(each) for each in pairs]
    return {key.value: _texts(value) for key, value in node.value}


def seed_numbers(seeds: Sequence[str] | None, words: Sequence[str]) -> tuple[list[int], list[str]]:
    """The seeds of `--seeds 0 1 2`, `--seeds 0,1,2` or `--seeds 0 --seeds 1`, and the words that are none of them."""
    if not seeds:
        return [], list(words)
    texts = [text for each in seeds for text in each.split(",")]
    texts += [word for word in words if word.isdecimal()]
    if wrong := [text for text in texts if not text.strip().isdecimal()]:
        raise InputError(f"{wrong[0]!r} is no seed: write numbers, say 0 1 2.")
    return [int(text) for text in texts], [word for word in words if not word.isdecimal()]


def named_labels(text: str) -> list[str]:
    """What `--labels` names: "a,b", "auto", or a file with a class on each line."""
    names = _read(text).splitlines() if os.path.isfile(text) else text.split(",")
    return [name.strip() for name in names if name.strip() or not os.path.isfile(text)]


def named_pairs(text: str) -> dict[str, str]:
    """What `--rename` names: "1=surprise,2=fear", or a file with such a pair on each line, also "1 surprise"."""
    whole = os.path.isfile(text)
    pairs = {}
    for pair in filter(str.strip, _read(text).splitlines() if whole else text.split(",")):
        parts = re.split(r"\s*[=:,\t]\s*|\s+" if whole else r"\s*=\s*", pair.strip(), maxsplit=1)
        if len(parts) < 2 or not all(parts):
            raise InputError(f"{pair.strip()!r} of {text} renames nothing: write OLD=NEW, say 1=surprise.")
        pairs[parts[0]] = parts[1]
    return pairs


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}. Give a file of lines in UTF-8.") from error


def shipped() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in RECIPES.iterdir() if entry.name.endswith(".yaml"))


def _load(source: str | Path) -> dict[str, Any]:
    path = Path(os.path.expanduser(source))
    if str(source) in shipped():
        path = Path(str(RECIPES), f"{source}.yaml")
    elif not os.path.isfile(path):
        raise InputError(f"There is no recipe {shown(str(source))}: give a YAML file or one of {', '.join(shipped())}.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"The recipe {source} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise InputError(f"The recipe {source} must be a mapping of keys to values, like the shipped ones.")
    return values


def apply(values: dict[str, Any], changes: Iterable[str]) -> None:
    """Change nested mappings by "a.b=c", where c is YAML. InputError for what is no such change."""
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign or not key:
            raise InputError(f"{change!r} changes nothing: write key=value, say data.limit=100.")
        try:
            last = key.rpartition(".")[2]
            node = yaml.compose(text, _Loader)
            texts = last in TEXTS and node is not None and not node.tag.endswith(":null")
            value = _texts(node) if texts else yaml.load(text, _Loader)
        except (yaml.YAMLError, ValueError, AttributeError) as error:
            raise InputError(f"The value in {change!r} is not valid YAML.") from error
        _set(values, key, value, change)


def _set(values: dict[str, Any], key: str, value: Any, change: str) -> None:
    """Put a value at "a.b" of nested mappings. InputError, which quotes `change`, where "a" is not a mapping."""
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"{change!r} cannot be applied: {parent} is a value, not a group of keys.")
    values[last] = value
