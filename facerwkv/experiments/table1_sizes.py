"""Table 1: the three sizes and their parameters. Nothing is trained.

    facerwkv reproduce table1_sizes

The paper: 2, 4 and 6 layers and heads; 0.5, 2.8 and 14.8 million parameters. With 6 heads Large has 14.74 million, with
8 it has 14.78: the code had 8, one channel each, and a table of positions that is counted and not used.
"""

from typing import Any

from facerwkv.evaluation.templates import Paragraph, Section, Table
from facerwkv.experiments.study import Setting
from facerwkv.models.zoo import create_model

PAPER = {
    "Small": ("facerwkv_small", "0.5M"),
    "Medium": ("facerwkv_medium", "2.8M"),
    "Large": ("facerwkv_large", "14.8M"),
}
OURS: dict[str, dict[str, Any]] = {
    "without the unused positions": {"position": "none"},
    "time mix at full width": {"time_mix_dim": None},
}


def run(setting: Setting) -> list[Section]:
    """The table's section of the page."""
    rows = []
    for name, (model, paper) in PAPER.items():
        models = [create_model(model, **options) for options in ({}, *OURS.values())]
        counts = [sum(parameter.numel() for parameter in each.parameters()) for each in models]
        rows.append((name, paper, *(f"{count:,}" for count in counts)))
    head = ("size", "the paper", "as its code counts", *OURS)
    note = "The paper prints 6 heads for Large; its count needs 8, of one channel each."
    return [("Table 1: sizes", [Table(head, rows), Paragraph(note)])]
