"""What does mixing add? One stem, one recipe, one budget; only what mixes the tokens differs.

    facerwkv reproduce claim_mixing --data fer2013:/d/fer2013
    facerwkv reproduce claim_mixing --data toy

The paper asks whether RWKV carries visual cues that matter, and answers with a run without RWKV that never learned
(section 5.5). Here each control trains: on faces of 48 pixels behind facerwkv_fer_light's stem, or, with --data toy, on
drawn scenes of 400 x 600 behind the paper's own linear patches. The budget is small: a third of FER2013's training
images, six epochs; `data.limit=null train.epochs=100` is the full one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.evaluation.compare import require_same
from facerwkv.evaluation.evaluate import evaluate_folder, finish
from facerwkv.evaluation.result import SUMMARY, Evaluation
from facerwkv.evaluation.templates import Paragraph, Section, Table
from facerwkv.experiments.study import SMOKE_DATA, Incomplete, Run, Setting, mean_and_deviation
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import RECIPE

NONE, CONV = "no time mix", "3 x 3 convolutions of Vision-RWKV's cost"
MIXERS: dict[str, dict[str, Any]] = {
    NONE: {"mixer": "vrwkv_none"},
    "the mean of all tokens": {"mixer": "vrwkv_mean"},
    "Vision-RWKV, decay fixed at zero": {"mixer": "vrwkv_flat"},
    "Vision-RWKV": {"mixer": "vrwkv"},
    "RWKV-4, both ways": {"mixer": "rwkv4", "scan": "both"},
    "RWKV-6, both ways": {"mixer": "rwkv6", "scan": "both", "heads": 2},
    "RWKV-7, both ways": {"mixer": "rwkv7", "scan": "both", "heads": 2},
    "attention": {"mixer": "attention", "heads": 2},
    CONV: {"mixer": "conv"},
}
FACES = ("fer_light", "facerwkv_fer_light", ("data.limit=9400", "train.epochs=6"))
SCENES = (
    "modern",
    "facerwkv4_small",
    ("transform={image_size: [400, 600], crop: scene}", "train.epochs=6"),
)
CLAIM = (
    "All rows share stem, channel mix (Vision-RWKV's, but for the generations' and attention's own), norms, recipe, "
    "budget and seeds. Points: the mean accuracy less that without time mix, on the same images, with the 95 % "
    "bootstrap interval over images of the pairs and the sign test's p (McNemar's exact test of a single seed)."
)
HEADERS = ("what mixes the tokens", "accuracy, %", f"points over {NONE}", "95 % interval", "p")


def runs(setting: Setting) -> list[Run]:
    """One for each mixer and seed, in OUT/claim_mixing/."""
    return [_run(setting, name, seed) for name in MIXERS if setting.wants(name) for seed in setting.seeds]


def run(setting: Setting) -> list[Section]:
    """Train and score what is missing; the table. Incomplete if some rows cannot run."""
    right: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for name in filter(setting.wants, MIXERS):
        try:
            right[name] = np.stack([_right(_run(setting, name, seed), setting) for seed in setting.seeds])
        except InputError as error:
            problems.append(f"{name}: {error}")
    if not right:
        raise InputError(" ".join(problems))
    sections: list[Section] = [("What mixing adds", [Paragraph(CLAIM), table(right)])]
    if problems:
        raise Incomplete(problems, sections)
    return sections


def table(right: Mapping[str, np.ndarray]) -> Table:
    """A row for each of MIXERS whose rightly answered images, bool (seeds, N), are given."""
    without, rows = right.get(NONE), list[tuple[str, ...]]()
    for name, answers in right.items():
        cells = [name, mean_and_deviation(answers.mean(1).tolist()), "", "", ""]
        if name != NONE and without is not None:
            difference, p = metrics.paired(without, answers)
            value, low, high = (f"{100 * each:+.2f}" for each in (difference.value, difference.low, difference.high))
            cells[2:] = [value, f"{low} to {high}", f"{p:.2g}"]
        rows.append(tuple(cells))
    return Table(HEADERS, rows)


def plan(setting: Setting, options: dict[str, Any], seed: int) -> Recipe:
    """The recipe of one run; what the user changed comes last."""
    recipe, model, budget = SCENES if setting.data.startswith("toy") else FACES
    small = ["train.epochs=1", "data.batch_size=14"] if setting.smoke else []
    small += ["transform.image_size=[40, 60]"] if setting.smoke and recipe == SCENES[0] else []
    fixed = [f"model.name={model}", *(f"model.options.{key}={value}" for key, value in options.items())]
    pooled = ["model.options.pool=mean"] if recipe == SCENES[0] else []
    changes = [*fixed, *pooled, *budget, f"train.seed={seed}", *small, *setting.changes]
    return Recipe.read(recipe, changes, {"data.source": SMOKE_DATA if setting.smoke else setting.data})


def _run(setting: Setting, name: str, seed: int) -> Run:
    recipe = plan(setting, MIXERS[name], seed)
    images = "x".join(map(str, recipe.transform.image_size))
    folder = setting.out / "claim_mixing" / images / MIXERS[name]["mixer"] / f"seed{seed}"
    return Run(name, "mixing", seed, recipe, folder, f"test/{SUMMARY}")


def _right(run: Run, setting: Setting) -> np.ndarray:
    """Which test images a run answers rightly, bool (N,); trained and scored, resumed, or read."""
    require_same(run.recipe, run.folder)
    if not run.done:
        train(run.recipe, run.folder, resume=(run.folder / RECIPE).is_file(), callbacks=setting.callbacks)
        finish(run.folder)
        evaluate_folder(run.folder, split="test", out=run.folder / "test", changes=["data.limit=null"])
    found = Evaluation.load(run.folder / "test")
    return found.predictions == found.targets
