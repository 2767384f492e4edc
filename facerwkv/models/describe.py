"""What a model is, in numbers: for `facerwkv models`."""

from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from facerwkv.models.checkpoint import CARD, SHIPPED, shipped
from facerwkv.models.zoo import MODELS, create_model, model_line

HEADERS = ("name", "parameters", "MACs", "input", "licence", "source")
WIDE = 200  # columns for a file or a pipe, where nothing needs to be cut off


def describe(name: str) -> dict[str, Any]:
    """Counts and facts of a line of MODELS, as `models list --json` prints them.

    parameters: all, batch-norm statistics not among them. trainable: as published, so with a position table that is
    counted and never used (`unused`; it gets no gradient). macs: multiply-accumulates of one forward pass of one
    image of `input` (channels, height, width) in matrix products and convolutions.
    """
    line = model_line(name)
    config = line.config
    with torch.device("meta"):
        model = create_model(name).eval()
        image = torch.empty(1, config.in_chans, *config.image_size)
    parameters = dict(model.named_parameters())
    unused = parameters["position.table"].numel() if getattr(config, "position", None) == "unused" else 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "trainable": sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad) + unused,
        "unused": unused,
        "macs": counter.get_total_flops() // 2,
        "input": [config.in_chans, *config.image_size],
        "mixer": getattr(config, "mixer", None),
        "stem": getattr(config, "stem", None),
        "source": line.source,
        "licence": line.licence,
        "about": line.about,
        "published": dict(line.published),
        "known": line.known,
    }


def claims(published: Mapping[str, float]) -> str:
    """A sentence on the accuracies that were published; nothing where there are none."""
    listed = ", ".join(f"{source} {accuracy:.2f} %" for source, accuracy in published.items())
    return f"Published accuracy: {listed}." if listed else ""


def describe_all() -> list[dict[str, Any]]:
    """`describe` of every line of MODELS."""
    return [describe(name) for name in MODELS]


def print_all() -> None:
    """MODELS as a table, one line per model; a terminal cuts off what is too long, a file or a pipe nothing."""
    rows = [
        (
            facts["name"],
            f"{facts['parameters']:,}",
            f"{facts['macs'] / 1e9:.2f} G",
            " x ".join(map(str, facts["input"])),
            facts["licence"],
            facts["source"],
        )
        for facts in describe_all()
    ]
    table = Table(box=None, pad_edge=False)
    for header, *cells in zip(HEADERS, *rows, strict=True):
        justify: Any = "right" if header in ("parameters", "MACs") else "left"
        whole = 0 if header == HEADERS[-1] else max(map(len, cells))
        table.add_column(header, justify=justify, no_wrap=True, min_width=whole)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = console.width if console.is_terminal else WIDE
    console.print(table)


def print_one(name: str) -> None:
    """All that is known of one model, for a terminal: its facts, and the card of a shipped checkpoint of that name."""
    if name in MODELS or name not in shipped():
        facts = dict(describe(name))
        about, known, published = (facts.pop(key) for key in ("about", "known", "published"))
        table = Table(box=None, show_header=False, pad_edge=False)
        for key, value in facts.items():
            if value is not None:  # a network without mixers, say
                table.add_row(key, f"{value:,}" if isinstance(value, int) else str(value))
        paragraphs = filter(None, (about, claims(published), known))
        Console().print(*paragraphs, "", table, sep="\n", highlight=False)
    if name in shipped():
        _, _, card = (SHIPPED / name / CARD).read_text(encoding="utf-8").split("---\n", 2)
        Console().print(Markdown(card))
