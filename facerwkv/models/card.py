"""A model's card: what is stored, and its text in Markdown with data, terms, scores, weaknesses and intended use.

The head of the text is what huggingface.co reads. Everything is taken from the checkpoint; nothing is said that was
not measured.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic needs it below Python 3.12

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.core.settings import Positive, Share, Text
from facerwkv.data.datasets import DATASETS, YOURS

FINE = "apache-2.0"
SPLITS = ("test", "val")  # the first that was scored is shown
WEAKEST = 3
INTENDED = """\
It names the *apparent expression* of a face as annotators would. That is not what a person feels: how people show a
feeling varies with person, culture and situation, and one face can mean several things (Barrett et al. 2019, doi
10.1177/1529100619832930). Meant for research on expression recognition and for software whose users know of it and
agreed to it. Not meant for decisions about people, nor for the workplace or education, where the EU AI Act (Regulation
(EU) 2024/1689, Art. 5(1)(f)) forbids inferring emotions; elsewhere such systems are high-risk (Annex III), and those
exposed to them must be told (Art. 50(3)). Models of this kind have been found to err more on some groups than on
others (arXiv 2502.11049); this one has not been tested for that."""


RECORD = ConfigDict(extra="allow", allow_inf_nan=False)  # what is not named below is kept as it is
Number = Annotated[int, Field(ge=0, le=10**12)]
OfScore = Annotated[float, Field(ge=-1, le=1)]


@with_config(RECORD)
class Interval(TypedDict):
    value: OfScore
    low: OfScore
    high: OfScore


PerClass = TypedDict("PerClass", dict.fromkeys(metrics.CLASS_COLUMNS, Share | None) | {"support": Number})  # type: ignore[misc]
Scored: Any = with_config(RECORD)(
    TypedDict(  # type: ignore[operator]
        "Scored",
        {
            "n": Number,
            "source": Text,
            "split": Text,
            "labels": NotRequired[list[Text]],
            "temperature": NotRequired[Positive | None],
            "per_class": dict[Text, PerClass],
            "confusion": NotRequired[list[list[Number]]],
            **dict.fromkeys(metrics.SCORES, NotRequired[Interval | None]),
        },
    )
)
"""What `Evaluation.summary` gives."""


@with_config(RECORD)
class Data(TypedDict, total=False):
    """What `DataModule.describe` gives."""

    source: Text
    labels: list[Text]
    images: dict[str, Number]
    classes: dict[str, dict[str, Number]]
    dropped_leaks: Number
    unreadable: list[str]
    problems: list[str]


@with_config(RECORD)
class RecipePart(TypedDict, total=False):
    seed: int
    name: Text
    stem_weights: Text | None


@with_config(RECORD)
class RecipeRecord(TypedDict, total=False):
    """The parts of a recipe that are read again; evaluation checks `data` before it uses them."""

    about: str
    init_from: Text | None
    model: RecipePart
    data: dict[str, Any]
    train: RecipePart


@with_config(RECORD)
class Card(TypedDict, total=False):
    """What a checkpoint knows of itself beyond what it needs to run."""

    name: Text
    licence: Text | None
    data: Data
    metrics: dict[str, Scored]
    validation: dict[str, int | float | None]
    weaknesses: list[Text]
    recipe: RecipeRecord


def model_card(checkpoint: Any, name: str) -> str:
    """The card of a Checkpoint that is to be called `name`. InputError where it was never scored."""
    card = checkpoint.card
    scored = next((card["metrics"][split] for split in SPLITS if split in card.get("metrics", {})), None)
    if scored is None:
        raise InputError(
            f"{checkpoint.name} has no metrics, so there is nothing to write on its card. Score it first: "
            "facerwkv evaluate --model RUN --split test."
        )
    scores = [(metrics.SCORES[name], score) for name, score in metrics.stored(scored).items()]
    terms = licence(card)
    free = terms.lower() == FINE
    kind = f"license: {FINE}" if free else f"license: other\nlicense_name: {terms.partition(':')[0]!r}"
    head = f"{kind}\nlibrary_name: facerwkv\npipeline_tag: image-classification"
    code = f'import facerwkv\n\nmodel = facerwkv.load("{name}")\nprint(model.predict("party.jpg"))'
    recalls = {label: row["recall"] for label, row in scored["per_class"].items() if row["recall"] is not None}
    weakest = sorted(recalls, key=recalls.__getitem__)[:WEAKEST]
    parts = [
        f"---\n{head}\ntags: [facial-expression-recognition, rwkv]\n---",
        f"# {name}",
        _about(checkpoint),
        f"## Data\n\n{_data(checkpoint)}",
        f"Licence of these weights: {terms}",
        f"## Scores on {scored['n']:,} images of {scored['source']}, {scored['split']}",
        _table(("score", "value (95 % interval)"), [(metric.title, metric.text(score)) for metric, score in scores]),
        _table(("class", *metrics.CLASS_COLUMNS.values()), metrics.class_rows(scored["per_class"])),
        "## Weaknesses",
        f"Recognised least: {', '.join(f'{label} ({recalls[label]:.0%})' for label in weakest)}.",
        *card.get("weaknesses", []),
        f"## Use\n\n```python\n{code}\n```",
        f"## Intended use\n\n{INTENDED}",
    ]
    return "\n\n".join(parts) + "\n"


def licence_of_training(source: str, starts: Mapping[str, str] | None = None) -> str:
    """The licence of weights that were trained on `source`, NAME:ROOT, and learned from others, name → licence.

    What either of them forbids is forbidden. Images of the user's own have the user's terms.
    """
    name = source.partition(":")[0]
    terms = DATASETS[name].terms if name in DATASETS else "the data are not recorded."
    bounds = [] if name == "toy" or terms == YOURS else [f"research only: {terms}"]
    bounds += [f"learned from {start}, {its}" for start, its in (starts or {}).items() if is_bounded(its)]
    return " ".join(bounds) or ("Apache-2.0" if name == "toy" else terms)


def is_bounded(licence: str) -> bool:
    """Whether a licence allows research only, or nothing commercial."""
    return bool(re.search("research|non-?commercial", licence, re.IGNORECASE))


def licence(card: dict[str, Any]) -> str:
    """The licence that a card names or that follows from it; without one, research only."""
    return known_licence(card) or "research only"


def known_licence(card: dict[str, Any]) -> str | None:
    """The licence that a card names, or else that of training on its data."""
    source = card.get("data", {}).get("source")
    return card.get("licence") or (licence_of_training(source) if source else None)


def _about(checkpoint: Any) -> str:
    size, transform = sum(weight.numel() for weight in checkpoint.model.parameters()), checkpoint.transform
    height, width = transform.image_size
    labels = ", ".join(checkpoint.labels)
    colour = "grey" if transform.in_chans == 1 else "RGB"
    return (
        f"`{checkpoint.name}` of FaceRWKV, {size:,} parameters. It takes {colour} images of {height} x {width} "
        f"pixels ({transform.crop}) and distinguishes {len(checkpoint.labels)} expressions: {labels}."
    )


def _data(checkpoint: Any) -> str:
    """The images it was trained on, and what training started from, other than random weights."""
    from facerwkv.models.stem import has_resnet_stem

    data, recipe = checkpoint.card.get("data", {}), checkpoint.card.get("recipe", {})
    counts = ", ".join(f"{count:,} {split}" for split, count in data.get("images", {}).items())
    text = f"{data.get('source', 'not recorded')}: {counts} images."
    if copies := data.get("dropped_leaks"):
        text += f" {copies:,} training images that also occur in validation or test were left out."
    if weights := has_resnet_stem(checkpoint.model) and recipe.get("model", {}).get("stem_weights"):
        text += f" Training started from ResNet-50's ImageNet weights in its stem ({PurePath(weights).stem})."
    if start := recipe.get("init_from"):
        text += f" Training started from {PurePath(start).name}."
    return text


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "\n".join(
        "|" + "|".join(cells) + "|" if cells[0] == "---" else f"| {' | '.join(cells)} |" for cells in lines
    )
