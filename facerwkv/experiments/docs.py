"""The numbers in the documentation, written from runs: `make docs`.

docs/runs/NAME/ keeps what the tables need of a run: its recipe, environment, data and scores; docs/comparisons/ the
tables of comparisons. `python -m facerwkv.experiments.docs keep FOLDER NAME` puts either there, and
`tests/test_docs.py` checks that the pages follow.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from facerwkv.errors import InputError
from facerwkv.files import atomic, write_text
from facerwkv.models.describe import claims, describe_all
from facerwkv.training.comparison import RESULT, markdown
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import DATA, ENVIRONMENT, RECIPE, read_run

ROOT = Path(__file__).resolve().parents[2]
RUNS, RESULTS, README = ROOT / "docs" / "runs", ROOT / "docs" / "results.md", ROOT / "README.md"
COMPARISONS, TABLE, PICTURE = ROOT / "docs" / "comparisons", f"{RESULT}.json", f"{RESULT}.png"
MODELS_PAGE = ROOT / "docs" / "models.md"
CHOICE = ("facerwkv_small", "facerwkv_medium", "facerwkv_large", "facerwkv_hybrid", "facerwkv4_*", "facerwkv7_*")
"""Which models the README shows, as shell patterns; those in ViT's sizes not."""
OPEN, CLOSE = "<!-- models: written by `make docs` -->", "<!-- /models -->"
EVALUATION = "evaluation.json"
WITHOUT_COPIES = f"without_copies/{EVALUATION}"


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] == "keep":
        folder, name = Path(arguments[1]), arguments[2]
        (keep_comparison if (folder / TABLE).is_file() else keep)(folder, name)
    facts = describe_all()
    write_text(README, readme(facts))
    write_text(MODELS_PAGE, models(facts))
    write_text(RESULTS, results())


def keep(run: Path, name: str, split: str = "test") -> None:
    """Copy what the tables need of a run that has been evaluated on `split`; where its data lay becomes ROOT."""
    root = read_run(run).data.source.partition(":")[2]
    for kept in (RECIPE, ENVIRONMENT, DATA, EVALUATION, WITHOUT_COPIES):
        source = run / split / kept if kept.endswith(EVALUATION) else run / kept
        if not source.is_file():
            raise InputError(f"{source} is not there; train the run, then evaluate it --without-copies.")
        text = source.read_text(encoding="utf-8")
        write_text(RUNS / name / kept, text.replace(root, "ROOT") if root else text)


def keep_comparison(folder: Path, name: str) -> None:
    """Copy a comparison's table and picture; where its data lay becomes ROOT."""
    text = (folder / TABLE).read_text(encoding="utf-8")
    root = json.loads(text)["setting"]["source"].partition(":")[2]
    write_text(COMPARISONS / f"{name}.json", text.replace(root, "ROOT") if root else text)
    with atomic(COMPARISONS / f"{name}.png") as partial:
        shutil.copyfile(folder / PICTURE, partial)


def readme(facts: list[dict[str, Any]]) -> str:
    """README.md with its table of models; `facts` are describe_all's."""
    chosen = [one for one in facts if any(fnmatch(one["name"], form) for form in CHOICE) and "_vit_" not in one["name"]]
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(OPEN)
    return f"{before}{OPEN}\n{models_table(chosen)}{CLOSE}{rest.split(CLOSE)[1]}"


def models(facts: list[dict[str, Any]]) -> str:
    """docs/models.md: every line of MODELS, and what is known of it."""
    notes = "\n".join(map(_note, facts))
    return f"{_MODELS_HEAD}\n{models_table(facts)}\n## What is known of each\n\n{notes}\n"


def _note(one: dict[str, Any]) -> str:
    parts = [f"{one['about']}.", one["known"], claims(one["published"]), f"Source: {one['source']}."]
    return f"- `{one['name']}`: {' '.join(filter(None, parts))}"


def models_table(facts: list[dict[str, Any]]) -> str:
    rows = ["| name | parameters | MACs | input | mixer | what it is |", "|---|---:|---:|---|---|---|"]
    for one in facts:
        size = " x ".join(map(str, one["input"]))
        counts = f"{one['parameters']:,} | {one['macs'] / 1e9:.2f} G"
        rows.append(f"| `{one['name']}` | {counts} | {size} | {one['mixer'] or '–'} | {one['about']} |")
    return "\n".join(rows) + "\n"


_MODELS_HEAD = """# Models

Written by `make docs` from the models themselves, for seven classes. MACs are the multiply-accumulates of one picture
of the input's size (channels x height x width) in matrix products and convolutions; another size is an option. Any
model of timm's is there too, as `timm:NAME`.
"""


def results() -> str:
    """docs/results.md: a section for every kept comparison, then for every kept run."""
    tables = [line for path in sorted(COMPARISONS.glob("*.json")) for line in _comparison(path)]
    return "\n".join([_HEAD, *tables, *(line for folder in sorted(RUNS.iterdir()) for line in _section(folder))]) + "\n"


def _comparison(path: Path) -> Iterator[str]:
    kept = _read(path)
    setting, rows = kept["setting"], kept["rows"]
    changes = ", ".join(f"`{change}`" for change in setting["changes"] if not change.startswith("data.source="))
    where = sorted({f"{row['hardware']}, {row['threads']} threads, commit {row['commit']}" for row in rows})
    yield f"## {path.stem}\n"
    yield (
        f"Recipe `{setting['recipe']}` on {setting['source'].partition(':')[0]}, changed by {changes}. Scored once on "
        f"{rows[0]['n']:,} {setting['split']} images; {'; '.join(where)}. Speed is that of the model alone, 32 "
        "pictures at once; training includes the validation after each epoch.\n"
    )
    yield markdown(rows)
    yield f"![accuracy and speed](comparisons/{path.stem}.png)\n"
    yield from (f"- no row: {problem}" for problem in kept["problems"])


_HEAD = """# Results

Every number below was written by `make docs` from the run's own files, which stand in `docs/runs/`. Intervals are 95 %
bootstrap intervals over the test images; they say nothing of the variation between seeds. FER2013 has copies: 288 of
the 3,589 PrivateTest images stand in Training too, so scores are given on all images and on those without a copy.
"""


def _section(folder: Path) -> Iterator[str]:
    recipe, data = Recipe.read(folder / RECIPE), _read(folder / DATA)
    where, scores = _read(folder / ENVIRONMENT), _read(folder / EVALUATION)
    yield f"## {folder.name}\n"
    yield (
        f"`{recipe.model.name}` on {data['source'].partition(':')[0]}, {recipe.train.epochs} epochs, seed "
        f"{recipe.train.seed}, pictures of {' x '.join(map(str, recipe.transform.image_size))}; "
        f"commit {where['commit']}; {where['gpu'] or where['processor']}, {where['threads']} threads, "
        f"torch {where['packages']['torch']}. Recipe: [recipe.yaml](runs/{folder.name}/recipe.yaml).\n"
    )
    yield "| images | n | accuracy | UAR | macro-F1 | ECE | ECE after temperature |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    yield _row("all", scores)
    yield _row("without copies", _read(folder / WITHOUT_COPIES))
    yield "\n| class | precision | recall | F1 | images |\n|---|---:|---:|---:|---:|"
    for label, row in scores["per_class"].items():
        cells = (f"{row[name]:.1%}" if row[name] is not None else "–" for name in ("precision", "recall", "f1"))
        yield f"| {label} | {' | '.join(cells)} | {row['support']:,} |"
    yield ""


def _row(name: str, scores: dict[str, Any]) -> str:
    shares = (_interval(scores[key], "{:.1%}") for key in ("accuracy", "uar", "macro_f1"))
    errors = (_interval(scores[key], "{:.3f}") for key in ("ece", "ece_calibrated"))
    return f"| {name} | {scores['n']:,} | {' | '.join([*shares, *errors])} |"


def _interval(score: dict[str, float] | None, form: str) -> str:
    if score is None:
        return "–"
    return f"{form.format(score['value'])} ({form.format(score['low'])}–{form.format(score['high'])})"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
