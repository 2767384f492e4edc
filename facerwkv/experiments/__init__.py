"""The paper's experiments by name, one file each: the command, the hours and the paper's numbers stand on top of it."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from facerwkv.errors import InputError

if TYPE_CHECKING:
    from facerwkv.experiments.study import Setting
    from facerwkv.training.pages import Section

EXPERIMENTS = {
    "sanity": "Section 5.1: fourteen images are learned by heart within eight epochs",
    "table1_sizes": "Table 1: three sizes and their parameters",
    "table2_scaling": "Table 2 and figure 4: small, medium and large",
    "table3_hybrid": "Table 3 and figure 5: a ResNet-50 stem, frozen and not",
    "comparison": "Table 4's systems and every small FaceRWKV from scratch, one recipe, one budget",
    "table5_ablation": "Table 5, figures 6 and 7: positions, the head, without RWKV",
}
ALL = "all"


def experiment(name: str) -> "Callable[[Setting], list[Section]]":
    """The `run(setting)` of an experiment, which gives its part of the page. InputError lists the known names."""
    if name not in EXPERIMENTS:
        raise InputError(f"Unknown experiment {name!r}. Known experiments: {ALL}, {', '.join(EXPERIMENTS)}.")
    return import_module(f"facerwkv.experiments.{name}").run


def chosen(name: str) -> Sequence[str]:
    """The experiments that a name means."""
    return list(EXPERIMENTS) if name == ALL else [name]
