"""The paper's experiments by name, one file each: the command, the hours and the paper's numbers are at its top."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from facerwkv.core.errors import InputError

if TYPE_CHECKING:
    from facerwkv.evaluation.templates import Section
    from facerwkv.experiments.study import Run, Setting

EXPERIMENTS = {
    "sanity": "Section 5.1: fourteen images are memorised in eight epochs",
    "table1_sizes": "Table 1: three sizes and their parameters",
    "table2_scaling": "Table 2: small, medium and large",
    "table3_hybrid": "Table 3: a ResNet-50 stem, frozen or not",
    "table4_comparison": "Table 4's systems, each with its own recipe; on faces every small FaceRWKV too, one recipe",
    "table5_ablation": "Table 5: positions, the head, without RWKV",
    "fig4": "Figure 4: validation of small, medium and large over 25 epochs",
    "fig5": "Figure 5: validation of the hybrids and of large over 15 epochs",
    "fig6": "Figure 6: validation with and without positions",
    "fig7": "Figure 7: validation with an MLP and a linear head",
    "section3_augmentation": "Section 3: does augmentation slow the training down?",
    "section4_1_recurrent": "Section 4.1: the recurrent form, its state and its time per token; nothing is trained",
    "section4_2_pooling": "Section 4.2: the last token against the mean of all",
    "section5_5_identity": 'Section 5.5: "w/o RWKV" with heads and learning rates that train, beside RWKV',
    "claim_width": "The time mix as narrow as published, and at RWKV-1's full width",
    "claim_schedule": "The learning-rate schedule of the text, and that of the authors' code",
    "claim_mixing": "What does mixing add? One budget: RWKV's generations, attention, a mean, none, convolutions",
    "claim_robustness": "Faces as a detector gives them: shifted, turned, blurred, dark, small; nothing is trained",
    "ablation_grid": "Row shift and 2-D positions, which RWKV's author recommends for images",
    "outlook_versions": "Section 6: newer versions of RWKV, scanning forward or both ways",
    "outlook_vit_sizes": "Section 6: models of ViT's sizes",
}
ALL = "all"


def experiment(name: str) -> "Callable[[Setting], list[Section]]":
    """The `run(setting)` of an experiment, which gives its sections of the page. InputError lists the known names."""
    if name not in EXPERIMENTS:
        raise InputError(f"Unknown experiment {name!r}. Known experiments: {ALL}, {', '.join(EXPERIMENTS)}.")
    return import_module(f"facerwkv.experiments.{name}").run


def runs_of(name: str, setting: "Setting") -> "list[Run]":
    """What an experiment trains in a setting, in its order; nothing where it trains nothing."""
    if name not in EXPERIMENTS:
        return []
    module = import_module(f"facerwkv.experiments.{name}")
    if hasattr(module, "runs"):
        return module.runs(setting)
    tables = module.run.args[0] if isinstance(module.run, partial) else [getattr(module.run, "__self__", None)]
    return [run for table in tables if table for run in table.runs(setting)]


def chosen(name: str) -> Sequence[str]:
    """The experiments that a name means."""
    return list(EXPERIMENTS) if name == ALL else [name]
