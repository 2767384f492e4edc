"""The paper's experiments by name, one file each: the command, the hours and the paper's numbers stand on top of it."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from facerwkv.errors import InputError

EXPERIMENTS = {
    "comparison": "Table 4's systems and every small FaceRWKV from scratch, one recipe, one budget",
    "sanity": "Section 5.1: fourteen images are learned by heart within eight epochs",
}


def experiment(name: str) -> Callable[[str, Path, list[int]], None]:
    """The `run(data, out, seeds)` of an experiment. InputError lists the known names."""
    if name not in EXPERIMENTS:
        raise InputError(f"Unknown experiment {name!r}. Known experiments: {', '.join(EXPERIMENTS)}.")
    return import_module(f"facerwkv.experiments.{name}").run
