"""A model's card in Markdown: data and its terms, scores with their intervals, weaknesses, intended use.

The head is what huggingface.co reads. Everything is taken from the checkpoint; nothing is said that was not measured.
"""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from facerwkv.core.errors import InputError
from facerwkv.models.stem import has_resnet_stem

FINE = "apache-2.0"
SCORES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1", "ece_calibrated": "ECE after temperature"}
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


def model_card(checkpoint: Any, name: str) -> str:
    """The card of a Checkpoint that is to be called `name`. InputError where it was never scored."""
    card = checkpoint.card
    scored = next((card["metrics"][split] for split in SPLITS if split in card.get("metrics", {})), None)
    if scored is None:
        raise InputError(
            f"{checkpoint.name} has no metrics, so there is nothing to write on its card. Score it first: "
            "facerwkv evaluate RUN --split test."
        )
    return (
        "\n\n".join(
            [
                _head(card),
                f"# {name}",
                _about(checkpoint),
                _data(checkpoint),
                _scores(scored),
                _weaknesses(scored, card),
                _use(name),
            ]
        )
        + "\n"
    )


def licence(card: dict[str, Any]) -> str:
    """The licence that a card names; without one, research only."""
    return str(card.get("licence") or "research only")


def _head(card: dict[str, Any]) -> str:
    text = licence(card)
    free = text.lower() == FINE
    kind = f"license: {FINE}" if free else f"license: other\nlicense_name: {text.partition(':')[0]!r}"
    kind += "\nlibrary_name: facerwkv\npipeline_tag: image-classification\ntags: [facial-expression-recognition, rwkv]"
    return f"---\n{kind}\n---"


def _about(checkpoint: Any) -> str:
    size, transform = sum(weight.numel() for weight in checkpoint.model.parameters()), checkpoint.transform
    height, width = transform.image_size
    labels = ", ".join(checkpoint.labels)
    colour = "grey" if transform.in_chans == 1 else "RGB"
    return (
        f"`{checkpoint.name}` of FaceRWKV, {size:,} parameters. It takes {colour} images of {height} x {width} "
        f"pixels ({transform.crop}) and tells apart {len(checkpoint.labels)} expressions: {labels}."
    )


def _data(checkpoint: Any) -> str:
    card = checkpoint.card
    data = card.get("data", {})
    counts = ", ".join(f"{count:,} {split}" for split, count in data.get("images", {}).items())
    copies = data.get("dropped_leaks")
    left_out = f" {copies:,} training images that stand in validation or test were left out." if copies else ""
    source = data.get("source", "not recorded")
    started = "".join(f" Training started from {start}." for start in _starts(checkpoint))
    return f"## Data\n\n{source}: {counts} images.{left_out}{started}\n\nLicence of these weights: {licence(card)}"


def _starts(checkpoint: Any) -> Iterator[str]:
    """What stood before the first step, other than random weights."""
    recipe = checkpoint.card.get("recipe", {})
    if weights := has_resnet_stem(checkpoint.model) and recipe.get("model", {}).get("stem_weights"):
        yield f"ResNet-50's ImageNet weights in its stem ({PurePath(weights).stem})"
    if start := recipe.get("init_from"):
        yield PurePath(start).name


def _scores(scored: dict[str, Any]) -> str:
    rows = [f"| {title} | {_percent(scored[name], name)} |" for name, title in SCORES.items() if scored.get(name)]
    lines = [f"## Scores on {scored['n']:,} images of {scored['source']}, {scored['split']}", ""]
    lines += ["| score | value (95 % interval) |", "|---|---:|", *rows, ""]
    lines += ["| class | precision | recall | F1 | images |", "|---|---:|---:|---:|---:|"]
    for label, row in scored["per_class"].items():
        shares = " | ".join("–" if row[name] is None else f"{row[name]:.1%}" for name in ("precision", "recall", "f1"))
        lines.append(f"| {label} | {shares} | {row['support']:,} |")
    return "\n".join(lines)


def _percent(score: dict[str, float], name: str) -> str:
    form = ".3f" if name.startswith("ece") else ".1%"
    return f"{score['value']:{form}} ({score['low']:{form}}–{score['high']:{form}})"


def _weaknesses(scored: dict[str, Any], card: dict[str, Any]) -> str:
    recalls = {label: row["recall"] for label, row in scored["per_class"].items() if row["recall"] is not None}
    weakest = sorted(recalls, key=recalls.__getitem__)[:WEAKEST]
    found = "Recognised least: " + ", ".join(f"{label} ({recalls[label]:.0%})" for label in weakest) + "."
    return "\n\n".join(["## Weaknesses", found, *card.get("weaknesses", [])])


def _use(name: str) -> str:
    code = f'import facerwkv\n\nmodel = facerwkv.load("{name}")\nprint(model.predict("party.jpg"))'
    return f"## Use\n\n```python\n{code}\n```\n\n## Intended use\n\n{INTENDED}"
