"""What a model is, in numbers: for `facerwkv models`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from facerwkv.core.files import read_json
from facerwkv.models.zoo import MODELS, SHIPPED, create_model, licence_of, model_line, shipped

HEADERS = ("name", "parameters", "MACs", "input", "licence")
WIDTH = 80
COUNTS = Path(__file__).with_name("counts.json")
"""`measure` of every line of MODELS, written by `make docs`."""


def describe(name: str) -> dict[str, Any]:
    """Counts and facts of a line of MODELS, as `models list --json` prints them: `measure` and what the line says.

    licence: of a shipped checkpoint's weights, otherwise of the code.
    """
    line = model_line(name)
    return {
        "name": name,
        **(_counts().get(name) or measure(name)),
        "source": line.source,
        "licence": licence_of(name),
        "about": line.about,
        "published": dict(line.published),
        "known": line.known,
        "recipe": line.recipe,
        "deviates": line.deviates,
    }


@cache
def _counts() -> dict[str, dict[str, Any]]:
    return read_json(COUNTS) if COUNTS.is_file() else {}


def measure(name: str) -> dict[str, Any]:
    """What a model is made of, counted on the meta device; `make docs` keeps it in COUNTS, which loads no torch.

    parameters: all, batch-norm statistics not among them. trainable: as published, so with a position table that is
    counted and never used (`unused`; it gets no gradient). macs: multiply-accumulates of one forward pass of one
    image of `input` (channels, height, width) in matrix products and convolutions.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    config = model_line(name).config
    with torch.device("meta"):
        model = create_model(name).eval()
        image = torch.empty(1, config.in_chans, *config.image_size)
    parameters = dict(model.named_parameters())
    unused = parameters["position.table"].numel() if getattr(config, "position", None) == "unused" else 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return {
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "trainable": sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad) + unused,
        "unused": unused,
        "macs": counter.get_total_flops() // 2,
        "input": [config.in_chans, *config.image_size],
        "mixer": getattr(config, "mixer", None),
        "stem": getattr(config, "stem", None),
    }


def claims(published: Mapping[str, float]) -> str:
    """A sentence on the accuracies that were published; nothing where there are none."""
    listed = ", ".join(f"{source} {accuracy:.2f} %" for source, accuracy in published.items())
    return f"Published accuracy: {listed}." if listed else ""


def deviation(text: str) -> str:
    """Sentences on what differs here from the original; nothing where nothing does."""
    return f"Different here: {text}" if text else ""


def describe_all() -> list[dict[str, Any]]:
    """`describe` of every line of MODELS."""
    return [describe(name) for name in MODELS]


def print_all() -> None:
    """MODELS as a table of 80 columns, one line per model; `print_one` and `describe` say more."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in HEADERS:
        table.add_column(header, justify="right" if header in ("parameters", "MACs") else "left", no_wrap=True)
    for facts in describe_all():
        counts = f"{facts['parameters']:,}", f"{facts['macs'] / 1e9:.2f} G"
        size = "x".join(map(str, facts["input"]))
        table.add_row(facts["name"], *counts, size, facts["licence"].partition(":")[0])
    Console(width=WIDTH, markup=False).print(table)


def describe_checkpoint(source: str) -> dict[str, Any]:
    """What a run, a checkpoint's folder or "hf-hub:ORG/NAME" says of itself; what is not known is left out.

    metrics: split → score → value. licence: what the data and the weights that it started from allow.
    """
    from facerwkv.core.metrics import SCORES
    from facerwkv.models.card import known_licence
    from facerwkv.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(source)
    card, transform = checkpoint.card, checkpoint.transform
    scored = {
        split: {name: score["value"] for name, score in row.items() if name in SCORES and isinstance(score, dict)}
        for split, row in card.get("metrics", {}).items()
    }
    facts = {
        "name": checkpoint.title,
        "model": checkpoint.name,
        "labels": list(checkpoint.labels),
        "parameters": sum(weight.numel() for weight in checkpoint.model.parameters()),
        "input": [transform.channels, *transform.image_size],
        "crop": transform.crop,
        "temperature": checkpoint.temperature,
        "licence": known_licence(card),
        "data": card.get("data", {}).get("source"),
        "images": card.get("data", {}).get("images"),
        "started_from": card.get("recipe", {}).get("init_from"),
        "validation": card.get("validation"),
        "metrics": scored,
    }
    return {name: value for name, value in facts.items() if value not in (None, {}, [])}


def print_checkpoint(source: str) -> None:
    """`describe_checkpoint`, for a terminal."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in describe_checkpoint(source).items():
        for part, inner in value.items() if isinstance(value, dict) else [("", value)]:
            scores = inner.items() if isinstance(inner, dict) else [("", inner)]
            shown = ", ".join(f"{name} {_plain(number)}".strip() for name, number in scores)
            table.add_row(f"{key} {part}".strip(), shown)
    Console(markup=False).print(table, highlight=False)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def print_one(name: str) -> None:
    """All that is known of one model, for a terminal: its facts, and the card of a shipped checkpoint of that name."""
    facts = dict(describe(name))
    about, known, published, deviates = (facts.pop(key) for key in ("about", "known", "published", "deviates"))
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in facts.items():
        if value is not None:  # a network without mixers, say
            table.add_row(key, f"{value:,}" if isinstance(value, int) else str(value))
    paragraphs = filter(None, (about, claims(published), known, deviation(deviates)))
    Console(markup=False).print(*paragraphs, "", table, sep="\n", highlight=False)
    if name in shipped():
        _, _, card = (SHIPPED / name / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        Console(markup=False).print(Markdown(card))
