"""The numbers in the documentation, written from runs: `make docs`.

docs/runs/NAME/ keeps what the tables need of a run: its recipe, environment, data and scores, and its answers (logits
as float16), from which `facerwkv compare docs/runs/A docs/runs/B` and anyone can compute them again;
docs/comparisons/ the tables of comparisons. `python -m tools.write_docs keep FOLDER NAME` puts either there, and
`tests/test_docs.py` checks that the pages follow. Names that differ in a last "_seed0" alone share a section.
"""

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, write_text
from facerwkv.data.check import describe_all as describe_data
from facerwkv.data.datasets import DATASETS
from facerwkv.evaluation.ablation import FILE as ABLATION
from facerwkv.evaluation.ablation import HEADERS, READING, Ablation
from facerwkv.evaluation.comparison import RESULT, markdown
from facerwkv.evaluation.result import LOGITS, Evaluation
from facerwkv.experiments.study import mean_and_deviation
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.describe import COUNTS, claims, describe_all, deviation, measure
from facerwkv.models.folder import WEIGHTS
from facerwkv.models.zoo import MODELS, SHIPPED, licence_of, model_line, shipped
from facerwkv.training.recipe import ModelPart, Recipe
from facerwkv.training.run import DATA, ENVIRONMENT, RECIPE, read_run
from tools.claims import claims_kept, is_claim, keep_claim, where

ROOT = Path(__file__).resolve().parents[1]
RUNS, RESULTS, README = ROOT / "docs" / "runs", ROOT / "docs" / "results.md", ROOT / "README.md"
COMPARISONS, TABLE, IMAGE = ROOT / "docs" / "comparisons", f"{RESULT}.json", f"{RESULT}.png"
MODELS_PAGE, DATA_PAGE = ROOT / "docs" / "models.md", ROOT / "docs" / "data-sets.md"
CHOICE = ("facerwkv_small", "facerwkv_medium", "facerwkv_large", "facerwkv_hybrid", "facerwkv4_*", "facerwkv7_*")
"""Which models the README shows, as shell patterns; those in ViT's sizes not."""
OPEN, CLOSE = "<!-- {}: written by `make docs` -->", "<!-- /{} -->"
EVALUATION = "evaluation.json"
PROTOCOLS = "protocols"
COLUMNS = {
    "fer2013": {
        "PrivateTest": "fer2013_test_none",
        "with its mirror image": "fer2013_test_flip",
        "ten views": "fer2013_test_ten",
        "PublicTest": "fer2013_val_none",
    },
    "ferplus": {
        "majority rule, 3,153 images": "ferplus_test_none",
        "with its mirror image": "ferplus_test_flip",
        "argmax, 3,546 images": "ferplus_soft_test_none",
    },
}
"""Data set → title of a column of its table of protocols → the name under which that score is kept."""
LICENSES = ROOT / "LICENSES"
WITHOUT_COPIES = f"without_copies/{EVALUATION}"


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] == "keep":
        folder, name = Path(arguments[1]), arguments[2]
        run = (folder / RECIPE).is_file()
        kept = keep_comparison if (folder / TABLE).is_file() else keep if run else keep_protocol
        (keep_claim if is_claim(folder) else kept)(folder, name)
    write_text(COUNTS, json.dumps({name: measure(name) for name in MODELS}, indent=1) + "\n")
    facts = describe_all()
    write_text(README, readme(facts))
    write_text(MODELS_PAGE, models(facts))
    write_text(DATA_PAGE, data_sets())
    write_text(RESULTS, results())
    for name in shipped():
        write_text(LICENSES / f"{name}.txt", terms(name))


def keep(run: Path, name: str, split: str = "test") -> None:
    """Copy what the tables need of a run that has been evaluated on `split`.

    Its place becomes RUN, its data's ROOT, and of a stem's weights the file's name stays.
    """
    root = read_run(run).data.source.partition(":")[2]
    for kept in (RECIPE, ENVIRONMENT, DATA, EVALUATION, WITHOUT_COPIES):
        source = run / split / kept if kept.endswith(EVALUATION) else run / kept
        if not source.is_file():
            raise InputError(f"{source} is not there; train the run, then evaluate it --without-copies.")
        text = source.read_text(encoding="utf-8").replace(str(run), "RUN")
        text = re.sub(r"(stem_weights(?:: |=))/.*/", r"\1", text)
        write_text(RUNS / name / kept, text.replace(root, "ROOT") if root else text)
    Evaluation.load(run / split).save_logits(RUNS / name, np.float16)
    if (run / split / ABLATION).is_file():
        Ablation.load(run / split).save(RUNS / name)


def keep_protocol(evaluation: Path, name: str) -> None:
    """Copy the scores of a kept run under another protocol: other images, or averaged over views."""
    summary = _read(evaluation / EVALUATION)
    summary["source"] = data = summary["source"].partition(":")[0]
    key = f"{data}_{summary['split']}_{summary.get('tta', 'none')}"
    write_text(RUNS / name / PROTOCOLS / f"{key}.json", json.dumps(summary, indent=1) + "\n")


def keep_comparison(folder: Path, name: str) -> None:
    """Copy a comparison's table and image; where its data lay becomes ROOT."""
    text = (folder / TABLE).read_text(encoding="utf-8")
    root = json.loads(text)["setting"]["source"].partition(":")[2]
    write_text(COMPARISONS / f"{name}.json", text.replace(root, "ROOT") if root else text)
    with atomic(COMPARISONS / f"{name}.png") as partial:
        shutil.copyfile(folder / IMAGE, partial)


def readme(facts: list[dict[str, Any]]) -> str:
    """README.md with its tables of shipped checkpoints and of models; `facts` are describe_all's."""
    chosen = [one for one in facts if any(fnmatch(one["name"], form) for form in CHOICE) and "_vit_" not in one["name"]]
    text = README.read_text(encoding="utf-8")
    for name, table in {"shipped": shipped_table(), "models": models_table(chosen)}.items():
        before, rest = text.split(OPEN.format(name))
        text = f"{before}{OPEN.format(name)}\n{table}{CLOSE.format(name)}{rest.split(CLOSE.format(name))[1]}"
    return absolute(text)


def absolute(text: str) -> str:
    """README's links with the repository's address before the file's name: a registry shows it without the files."""
    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]

    def link(found: re.Match[str]) -> str:
        kind = "raw" if found[1].startswith("!") else "tree" if (ROOT / found[2]).is_dir() else "blob"
        return f"{found[1]}({address}/{kind}/main/{found[2]})"

    return re.sub(r"(!?\[[^\]]*\])\(([^):#]+)\)", link, text)


def terms(name: str) -> str:
    """LICENSES/NAME.txt: the terms of a shipped model's weights."""
    data = load_checkpoint(name).card["data"]["source"].partition(":")[0]
    return _TERMS.format(name=name, licence=licence_of(name), data=data, source=DATASETS[data].source)


_TERMS = """The weights of {name}, facerwkv/models/weights/{name}/model.safetensors, are not covered by the licence of
the code. They were trained on {data}. Their terms are:

{licence}

Source of the data: {source}
"""


def shipped_table() -> str:
    """What the shipped checkpoints say of themselves."""
    chosen = {name: metrics.SCORES[name] for name in ("accuracy", "uar")}
    titles = " | ".join(metric.title for metric in chosen.values())
    rows = [
        f"| name | classes | parameters | file | scored on | {titles} | accuracy of three seeds |",
        "|---|---:|---:|---:|---|---:|---:|---:|",
    ]
    for name in shipped():
        checkpoint = load_checkpoint(name)
        scored = checkpoint.card["metrics"]["test"]
        size = sum(weight.numel() for weight in checkpoint.model.parameters())
        file = f"{(SHIPPED / name / WEIGHTS).stat().st_size / 1e6:.1f} MB"
        images = f"{scored['n']:,} test images of {scored['source'].partition(':')[0]}"
        scores = metrics.stored(scored)
        texts = " | ".join(metric.text(scores.get(key)) for key, metric in chosen.items())
        seeds = [_read(folder / EVALUATION)["accuracy"]["value"] for folder in RUNS.glob(f"{name}_seed*")]
        about = f"`{name}` | {len(checkpoint.labels)} | {size:,} | {file} | {images}"
        rows.append(f"| {about} | {texts} | {mean_and_deviation(seeds)} % |")
    return "\n".join(rows) + "\n"


def models(facts: list[dict[str, Any]]) -> str:
    """docs/models.md: every line of MODELS, and what is known of it."""
    notes = []
    for one in facts:
        parts = [f"{one['about']}.", one["known"], claims(one["published"]), deviation(one["deviates"])]
        parts += [f"Source: {one['source']}.", f"Recipe: `{one['recipe']}`."]
        notes.append(f"- `{one['name']}`: {' '.join(filter(None, parts))}\n")
    return f"{_MODELS_HEAD}\n{models_table(facts)}\n## What is known about each\n\n{''.join(notes)}"


def models_table(facts: list[dict[str, Any]]) -> str:
    rows = ["| name | parameters | MACs | input | mixer | what it is |", "|---|---:|---:|---|---|---|"]
    for one in facts:
        size = " x ".join(map(str, one["input"]))
        counts = f"{one['parameters']:,} | {one['macs'] / 1e9:.2f} G"
        rows.append(f"| `{one['name']}` | {counts} | {size} | {one['mixer'] or '–'} | {one['about']} |")
    return "\n".join(rows) + "\n"


_MODELS_HEAD = """# Models

Written by `make docs` from the models themselves, for seven classes (`facerwkv_ferplus`: eight). MACs are the
multiply-accumulates of one image of the input's size (channels x height x width) in matrix products and convolutions;
another size is an option. Any timm model is available too, as `timm:NAME`.
"""


def data_sets() -> str:
    """docs/data-sets.md: every line of DATASETS, with its layout and its terms."""
    sections = [_DATA_HEAD]
    for one in describe_data():
        counts = ", ".join(f"{count:,} {split}" for split, count in one["published"].items())
        classes = f"Classes: {', '.join(one['labels'])}." if one["labels"] else ""
        images = f"Published: {counts} images." if counts else ""
        facts = " ".join(filter(None, [classes, images, one["terms"], one["source"]]))
        sections.append(f"## {one['name']}\n\n{one['layout']}\n\n{facts}\n")
    return "\n".join(sections)


_DATA_HEAD = """# Data sets

Written by `make docs` from the readers themselves. None of these is downloaded or redistributed; ask their owners.
`facerwkv data check NAME:ROOT` checks whether your copy is complete. Labels travel by name, whatever number a
data set gives them.
"""


def results() -> str:
    """docs/results.md: a section for every kept comparison, then for every kept run, or all seeds of one."""
    lines = list(_protocols())
    lines += claims_kept()
    lines += [line for paths in _grouped(COMPARISONS.glob("*.json")) for line in _comparison(paths)]
    lines += [line for folders in _grouped(RUNS.iterdir()) for line in _section(folders)]
    return "\n".join([_HEAD, *lines]) + "\n"


def _protocols() -> Iterator[str]:
    """The accuracies of all kept runs under each protocol; cells without a measurement are empty."""
    yield f"## By protocol\n\n{_PROTOCOLS}"
    for data, columns in COLUMNS.items():
        yield f"| {data} | trained on | {' | '.join(columns)} |\n|---|---|{'---:|' * len(columns)}"
        for folders in _grouped(RUNS.iterdir()):
            if _read(folders[0] / EVALUATION)["source"].partition(":")[0] != data:
                continue
            kept = [{f"{data}_test_none": _read(folder / EVALUATION)} for folder in folders]
            for folder, scores in zip(folders, kept, strict=True):
                scores |= {path.stem: _read(path) for path in (folder / PROTOCOLS).glob("*.json")}
            without = Recipe.read(folders[0] / RECIPE).data.drop_leaks
            about = f"{_title(folders[0])} | {'without copies' if without else 'all 28,709'}"
            several = [
                [scores[key]["accuracy"]["value"] for scores in kept if key in scores] for key in columns.values()
            ]
            cells = [
                (mean_and_deviation(values) if values else "")
                + (f" ({len(values)} of {len(kept)} seeds)" if 0 < len(values) < len(kept) else "")
                for values in several
            ]
            yield f"| {about} | {' | '.join(cells)} |"
        yield from _OTHERS.get(data, ())
        yield ""


_PROTOCOLS = """Accuracy in per cent, mean ± deviation of the seeds; empty: not measured. Ours: copies of validation and
test images dropped from training, one view per image, the epoch chosen on PublicTest, scored once on PrivateTest. The
field's: all 28,709 training images, copies included, ten crops averaged. All tables further below follow ours, but for
`fer2013_small`. FERPlus: Microsoft's majority rule (more than half of the votes for one expression), or every image at
its most frequent vote.
"""
_VGGNET = "https://github.com/usef-kh/fer/blob/0afce8814c257c717404d5545c0c09a91662eaaf/data/fer2013.py"
_OTHERS = {
    "fer2013": [
        "| VGGNet, Khaireddin and Chen 2021, [arXiv 2105.03588](https://arxiv.org/abs/2105.03588): 73.28, one network, "
        f"ten crops of 40 pixels; [its code]({_VGGNET}) calls PublicTest the test images and PrivateTest validation "
        "| all 28,709 |  |  |  |  |"
    ]
}
"""Numbers of others, where their protocol was read in their code."""


def _grouped(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Paths whose names differ in the seed alone, together."""
    for _, group in groupby(sorted(paths), key=_title):
        yield list(group)


def _title(path: Path) -> str:
    return re.sub(r"_seed\d+$", "", path.stem)


def _comparison(paths: Sequence[Path]) -> Iterator[str]:
    several = [_read(path) for path in paths]
    setting, rows = several[0]["setting"], several[0]["rows"]
    skipped = ("data.source=", "train.seed=") if len(several) > 1 else ("data.source=",)
    changes = ", ".join(f"`{change}`" for change in setting["changes"] if not change.startswith(skipped))
    there = {
        f"{row['hardware']}, {row['threads']} threads, commit {row['commit']}"
        for kept in several
        for row in kept["rows"]
    }
    yield f"## {_title(paths[0])}\n"
    yield (
        f"Recipe `{setting['recipe']}` on {setting['source'].partition(':')[0]}, changed by {changes}. Scored once on "
        f"{rows[0]['n']:,} {setting['split']} images; {'; '.join(sorted(there))}. Speed is that of the model alone, 32 "
        "images at once; training includes the validation after each epoch.\n"
    )
    if len(several) > 1:
        yield from _over_seeds([kept["rows"] for kept in several])
    else:
        yield markdown(rows)
        yield f"![accuracy and speed](comparisons/{paths[0].stem}.png)\n"
    yield from (f"- no row: {problem}" for kept in several for problem in kept["problems"])


def _over_seeds(tables: Sequence[Sequence[dict[str, Any]]]) -> Iterator[str]:
    yield f"Mean and standard deviation of {len(tables)} seeds, in per cent.\n"
    titles = [metric.title for metric in metrics.of_confusion().values()]
    yield f"| model | {' | '.join(titles)} | parameters | each seed's accuracy |\n|---|{'---:|' * len(titles)}---:|---|"
    for name in [row["name"] for row in tables[0]]:
        rows = [next(row for row in table if row["name"] == name) for table in tables]
        each = ", ".join(f"{100 * row['accuracy']['value']:.1f}" for row in rows)
        yield f"| {name} | {' | '.join(_means(rows))} | {rows[0]['parameters']:,} | {each} |"
    yield ""


def _means(summaries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Mean and deviation of each score of a confusion matrix, over several runs."""
    scores = [metrics.stored(summary) for summary in summaries]
    for name in metrics.of_confusion():
        values = [one[name].value for one in scores if name in one]
        yield mean_and_deviation(values) if len(values) == len(scores) else metrics.UNDEFINED


_HEAD = """# Results

Every number below was written by `make docs` from the run's own files, which are in `docs/runs/`. Intervals are 95 %
bootstrap intervals over the test images; they say nothing about the variation between seeds. FER2013 has copies: 288 of
the 3,589 PrivateTest images are in Training too, so scores are given on all images and on those without a copy.
"""


def _section(folders: Sequence[Path]) -> Iterator[str]:
    first = folders[0]
    recipe, data = Recipe.read(first / RECIPE), _read(first / DATA)
    several = [_read(folder / EVALUATION) for folder in folders]
    seeds = [f"seed {Recipe.read(folder / RECIPE).train.seed}" for folder in folders]
    yield f"## {_title(first)}\n"
    yield (
        f"`{recipe.model.name}`{_changed(recipe.model)} on {data['source'].partition(':')[0]}, "
        f"{recipe.train.epochs} epochs, {', '.join(seeds)}, "
        f"images of {' x '.join(map(str, recipe.transform.image_size))}; "
        f"{'; '.join(dict.fromkeys(where(_read(folder / ENVIRONMENT)) for folder in folders))}. "
        f"Recipe: [recipe.yaml](runs/{first.name}/recipe.yaml).{_answers(first)}\n"
    )
    titles = [metric.title for metric in metrics.SCORES.values()]
    yield f"| images | n | {' | '.join(titles)} |\n|---|---:|{'---:|' * len(titles)}"
    for folder, seed, scores in zip(folders, seeds, several, strict=True):
        name = f"{seed}, " if len(folders) > 1 else ""
        yield _row(f"{name}all", scores)
        yield _row(f"{name}without copies", _read(folder / WITHOUT_COPIES))
    if len(folders) > 1:
        means = list(_means(several))
        blank = [""] * (len(titles) - len(means))
        yield f"| mean ± deviation, all | {several[0]['n']:,} | {' | '.join([*means, *blank])} |"
    which = f", {seeds[0]}" if len(folders) > 1 else ""
    heads = " | ".join(metrics.CLASS_COLUMNS.values())
    yield f"\n| class{which} | {heads} |\n|---|---:|---:|---:|---:|"
    yield from (f"| {' | '.join(row)} |" for row in metrics.class_rows(several[0]["per_class"]))
    yield ""
    if (first / ABLATION).is_file():
        yield f"{READING}\n\n| {' | '.join(HEADERS)} |\n|---|{'---:|' * (len(HEADERS) - 1)}"
        yield from (f"| {' | '.join(row)} |" for row in Ablation.load(first).table)
        yield ""


def _answers(folder: Path) -> str:
    return f" Answers: [{LOGITS}](runs/{folder.name}/{LOGITS})." if (folder / LOGITS).is_file() else ""


def _changed(part: ModelPart) -> str:
    """The options in which a run's model differs from its line of MODELS, in brackets."""
    own = model_line(part.name).config.model_dump(mode="json")
    changed = ", ".join(f"{key} {value}" for key, value in part.options.items() if value != own[key])
    return f" ({changed})" if changed else ""


def _row(name: str, summary: dict[str, Any]) -> str:
    scores = metrics.stored(summary)
    texts = (metric.text(scores.get(key)) for key, metric in metrics.SCORES.items())
    return f"| {name} | {summary['n']:,} | {' | '.join(texts)} |"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
