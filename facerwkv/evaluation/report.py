"""An evaluation, and the run it came from, as pages to read: report.md, report.html, images, tables."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Group, RenderableType
from rich.table import Table as ConsoleTable
from rich.text import Text

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, read_json, write_text
from facerwkv.data.views import cost
from facerwkv.evaluation import figures, ranking
from facerwkv.evaluation.ablation import FILE as ABLATION
from facerwkv.evaluation.ablation import HEADERS, Ablation
from facerwkv.evaluation.ablation import READING as ABLATED
from facerwkv.evaluation.result import SUMMARY, Evaluation
from facerwkv.evaluation.subgroups import FEW, Subgroups, is_few
from facerwkv.evaluation.subgroups import FILE as SUBGROUPS
from facerwkv.evaluation.templates import (
    Block,
    Drawing,
    Gallery,
    Listing,
    Paragraph,
    Section,
    Table,
    Tiles,
    clean,
    write_page,
)
from facerwkv.training.run import CURVES, ENVIRONMENT, RECIPE

MISTAKES = 12
LISTED = 5  # images that lack attributes
THUMBNAIL = 192  # pixels
WIDEST_TABLE = 30  # classes
CLASSES = ("class", *metrics.CLASS_COLUMNS.values())

READING = (
    "Intervals contain 95 % of 2,000 resamples of the images; they do not cover the variation between training runs. "
    "A dash marks a score that is not defined for these images."
)
READING_GROUPS = (
    f"The groups are those that the data set's annotators saw. One of fewer than {FEW} images is marked (few); it and "
    "unknown are not compared. A gap is the best group's score minus the worst's, with the 95 % interval of these two "
    "groups' difference. p is how often a gap between any two groups is as large when the groups are shuffled among "
    "the images of each class, 2,000 times; p (Holm) is corrected for the number of gaps. Scores that average over "
    "classes count the classes that the group shows; a group's accuracy also depends on how often it shows each."
)
INTENDED_USE = (
    "The model names the apparent expression of a face, as the people who labelled its training images would have. "
    "That is not what the person feels: the same face can mean different things, and people show feelings differently "
    "from one culture and situation to the next. Scores on one data set do not carry over to other cameras, ages or "
    "groups of people; measure on your own before you rely on them.",
    "Do not use it to judge people, and not to infer emotions at work or in education, which the European Union "
    "forbids except for medical or safety reasons (Regulation 2024/1689, article 5). Other uses that infer emotions "
    "from faces are high-risk there, and the persons concerned must be told. The people in the training images did "
    "not, as a rule, consent; the terms of the data set hold for the model as well.",
)


def write_report(
    source: Evaluation | str | Path,
    out: str | Path,
    run: str | Path | None = None,
    images: Callable[[int], np.ndarray] | None = None,
    selections: Mapping[str, Evaluation] | None = None,
    subgroups: Subgroups | None = None,
    ablation: Ablation | None = None,
) -> Path:
    """Write report.md, report.html, the figures (PNG, SVG), scores and classes (CSV, LaTeX) and the evaluation.

    Returns report.html. source: an evaluation, or a folder that contains one (a run's folder: that of its test split).
    run: the folder whose curves, recipe and environment belong to it. images: index in the data set → uint8 (H, W, 3)
    RGB or (H, W), for small images of the mistakes; without it no image goes into the report. selections: evaluations
    of some of the images, by what they are called ("without the copies"). subgroups: scores by who is shown, also
    written to subgroups.json. ablation: with parts of the model switched off, also written to ablation.json.
    """
    out, run = Path(out), Path(run) if run else None
    if isinstance(source, Evaluation):
        evaluation = source
        for earlier in (SUBGROUPS, ABLATION):
            (out / earlier).unlink(missing_ok=True)
    else:
        folder = Path(source)
        run = run or next((path for path in (folder, folder.parent) if (path / RECIPE).is_file()), None)
        evaluation = Evaluation.load(folder if (folder / SUMMARY).is_file() else folder / "test")
    evaluation.save(out)
    if subgroups:
        subgroups.save(out)
    if ablation:
        ablation.save(out)
    title = f"{evaluation.model or 'A model'} on {evaluation.source or 'images'} ({evaluation.split})"
    return write_page(
        out / "report", title, list(_sections(evaluation, out, run, images, selections or {}, subgroups, ablation))
    )


def console_table(evaluation: Evaluation) -> Group:
    """The scores for a terminal (rich): those of all images with their intervals, then those of each class."""
    title = f"{evaluation.model} on {evaluation.source}, {evaluation.split}: {len(evaluation.names):,} images"
    ignored = evaluation.meta.get("ignored_labels")
    note = [Text(cost(evaluation.meta["tta"]))] if "tta" in evaluation.meta else []
    note += [Text(f"not scored, since only one side knows them: {', '.join(ignored)}")] if ignored else []
    scores = _console(("", *Tiles.headers[1:]), _headline(evaluation))
    classes = _console(CLASSES, metrics.class_rows(evaluation.summary()["per_class"]))
    return Group(Text(title, style="bold"), *note, "", scores, "", classes)


def console_subgroups(subgroups: Subgroups) -> Group:
    """The scores of each group, the gaps and the notes for a terminal (rich)."""
    blocks: list[RenderableType] = []
    for block in _subgroup_blocks(subgroups):
        if isinstance(block, Table):
            blocks += ["", _console(block.headers, block.rows)]
        elif isinstance(block, Paragraph):
            blocks += ["", Text(clean(block.text), style="dim")]
    return Group(*blocks)


def console_ablation(ablation: Ablation) -> Group:
    """The accuracy with each part switched off for a terminal (rich)."""
    return Group("", _console(HEADERS, ablation.table), "", Text(ABLATED, style="dim"))


def _console(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> ConsoleTable:
    table = ConsoleTable(box=None, pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    return table


def read_curves(path: Path) -> tuple[dict[str, list[tuple[float, float]]], str]:
    """The columns of a metrics.csv as points (x, value), and what x is: epochs counted from 1, or else steps.

    Empty cells and values that are not finite are left out. No file: no curves.
    """
    if not path.is_file():
        return {}, ""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else ()) if name not in ("epoch", "step")]
    for x_name, offset in (("epoch", 1), ("step", 0)):
        curves: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for row, name in ((row, name) for row in rows for name in names):
            with suppress(KeyError, TypeError, ValueError):
                x, y = float(row[x_name]) + offset, float(row[name])
                curves[name] += [(x, y)] if math.isfinite(x) and math.isfinite(y) else []
        if all(len({x for x, _ in points}) == len(points) for points in curves.values()):
            break
    return {name: points for name, points in curves.items() if points}, x_name


def _sections(
    evaluation: Evaluation,
    out: Path,
    run: Path | None,
    images: Callable[[int], np.ndarray] | None,
    selections: Mapping[str, Evaluation],
    subgroups: Subgroups | None,
    ablation: Ablation | None,
) -> Iterator[Section]:
    summary = evaluation.summary()
    meanings = "; ".join(f"{metric.title}: {metric.about}" for metric in metrics.SCORES.values() if metric.about)
    support = evaluation.confusion.sum(-1)
    baseline = (
        f"{len(evaluation.names):,} images. Always answering {evaluation.labels[support.argmax()]}, the most frequent "
        f"class, would give an accuracy of {support.max() / support.sum():.1%} and a UAR of "
        f"{1 / np.count_nonzero(support):.1%}."
    )
    if "tta" in evaluation.meta:
        baseline += f" Scored with {cost(evaluation.meta['tta'])}."
    yield "", [Tiles(_headline(evaluation)), Paragraph(baseline), Paragraph(f"{meanings}. {READING}")]
    if selections:
        yield "Selections of the images", [_selection_table({"all": evaluation, **selections})]
    if subgroups:
        yield "Subgroups", list(_subgroup_blocks(subgroups))
    if ablation:
        alt = "Points of accuracy lost or won with each part switched off, and their 95 % intervals"
        image = drawing(figures.ablation_figure(ablation.rows), out, "ablation", alt)
        yield "What the mixers do", [image, Table(HEADERS, ablation.table), Paragraph(ABLATED)]
    curves, x_name = read_curves(run / CURVES) if run else ({}, "")
    if curves:
        figure = figures.curves_figure(curves, x_name)
        yield "Training", [drawing(figure, out, "curves", "Loss, validation scores and learning rate over training")]
    classes = with_intervals(metrics.class_rows(summary["per_class"]), evaluation.confusion)
    write_tables(out / "scores", Tiles.headers, _headline(evaluation))
    write_tables(out / "classes", CLASSES, classes)
    yield "Classes", [Table(CLASSES, classes)]
    yield "Confusion", _confusion(evaluation, out)
    if ranked := _ranking(evaluation, out):
        yield "Ranking", ranked
    yield "Calibration", _calibration(evaluation, out)
    if len(rows := evaluation.mistakes(MISTAKES)):
        yield "Most confident mistakes", [_gallery(evaluation, rows, images)]
    about = {"model": summary["model"], "data": summary["source"], "split": summary["split"], "images": summary["n"]}
    known = {name: value for name, value in about.items() if value != ""}
    yield "About this evaluation", [Table(("what", "value"), list(_flat(known | evaluation.meta)), numbers=False)]
    if run and (run / RECIPE).is_file():
        yield "Recipe", [Listing(RECIPE, (run / RECIPE).read_text(encoding="utf-8", errors="replace"))]
    if run and (run / ENVIRONMENT).is_file():
        environment = read_json(run / ENVIRONMENT, "Remove it to have a report without it.")
        yield "Environment", [Table(("what", "value"), list(_flat(environment)), numbers=False)]
    yield "Intended use", [Paragraph(text) for text in INTENDED_USE]


def _headline(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(title, value, interval) of each score; dashes where one is not defined."""
    scored = [(metric, evaluation.scores.get(name)) for name, metric in metrics.SCORES.items()]
    return [
        (metric.title, metric.number(score.value), metric.interval(score))
        if score
        else (metric.title, metrics.UNDEFINED, "not defined")
        for metric, score in scored
    ]


def _selection_table(selections: Mapping[str, Evaluation], header: str = "images") -> Table:
    shown = metrics.of_confusion()
    rows = [
        (name, f"{len(part.names):,}", *(metric.text(part.scores.get(score)) for score, metric in shown.items()))
        for name, part in selections.items()
    ]
    return Table((header, "number", *(metric.title for metric in shown.values())), rows)


def _subgroup_blocks(subgroups: Subgroups) -> Iterator[Block]:
    for attribute, parts in subgroups.groups.items():
        yield _selection_table(
            {f"{value} (few)" if is_few(part) else value: part for value, part in parts.items()}, attribute
        )
    rows = []
    for gap in subgroups.gaps:
        metric = metrics.SCORES[gap.score]
        name, value = f"{gap.attribute}: {metric.title}", metric.number(gap.difference.value)
        numbers = (value, metric.interval(gap.difference), f"{gap.p:.4f}", f"{gap.p_holm:.4f}")
        rows.append((name, gap.best, gap.worst, *numbers))
    if rows:
        yield Table(("gap", "best", "worst", "difference", "95 % interval", "p", "p (Holm)"), rows)
    if alone := set(subgroups.groups) - {gap.attribute for gap in subgroups.gaps}:
        yield Paragraph(f"Not compared, for want of two groups of {FEW} images: {', '.join(sorted(alone))}.")
    if unknown := subgroups.unknown:
        more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        yield Paragraph(f"Without an attribute that can be read, so unknown: {', '.join(unknown[:LISTED])}{more}.")
    yield Paragraph(READING_GROUPS)


def _confusion(evaluation: Evaluation, out: Path) -> list[Block]:
    figure = figures.confusion_figure(evaluation.confusion, evaluation.labels)
    image = drawing(figure, out, "confusion", "Confusion matrix: share of each true class given each answer, in %")
    if len(evaluation.labels) > WIDEST_TABLE:
        return [image, Paragraph(f"The counts are in {SUMMARY}.")]
    rows = [
        (label, *(f"{count:,}" for count in row))
        for label, row in zip(evaluation.labels, evaluation.confusion.tolist(), strict=True)
    ]
    return [image, Table(("truth \\ predicted", *evaluation.labels), rows)]


def with_intervals(rows: Sequence[Sequence[str]], matrix: np.ndarray) -> list[tuple[str, ...]]:
    """The rows of classes with the 95 % interval of each share behind it."""
    ends = metrics.class_intervals(matrix)
    texts = []
    for number, (label, *cells, support) in enumerate(rows):
        spans = (ends[name][:, number] for name in ("precision", "recall", "f1"))
        shown = (
            f"{cell} ({low:.1%}–{high:.1%})" if np.isfinite(low) else cell
            for cell, (low, high) in zip(cells, spans, strict=True)
        )
        texts.append((label, *shown, support))
    return texts


def write_tables(path: Path, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """PATH.csv and PATH.tex (a tabular for booktabs)."""
    with atomic(path.with_suffix(".csv")) as new, new.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([headers, *([clean(cell) for cell in row] for row in rows)])
    lines = [" & ".join(map(latex, row)) + r" \\" for row in (headers, *rows)]
    body = ["\\begin{tabular}{l" + "r" * (len(headers) - 1) + "}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    write_text(path.with_suffix(".tex"), "\n".join([*body, r"\bottomrule", r"\end{tabular}", ""]))


def latex(text: str) -> str:
    """A text as LaTeX has it."""
    others = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}", "–": "--", "…": r"\ldots{}"}
    return re.sub(r"[&%$#_{}\\~^–…]", lambda found: others.get(found[0], f"\\{found[0]}"), clean(text))


def _ranking(evaluation: Evaluation, out: Path) -> list[Block]:
    found, precise = ranking.curves(evaluation.probs, evaluation.targets, evaluation.labels)
    if not found:
        return []
    about = (
        "Each class against all others, by its probability. Micro: every image and class is one decision; macro: the "
        "mean over the classes. AUC: the area below the curve; AP: the average precision."
    )
    return [
        drawing(figures.ranking_figure(found, "roc"), out, "roc", "ROC of each class, micro and macro average"),
        drawing(figures.ranking_figure(precise, "pr"), out, "precision_recall", "Precision against recall"),
        Paragraph(about),
    ]


def _calibration(evaluation: Evaluation, out: Path) -> list[Block]:
    tables = {"as trained": metrics.reliability(metrics.softmax(evaluation.logits), evaluation.targets)}
    text = "No temperature was fitted."
    if evaluation.temperature is not None:
        tables["after temperature"] = metrics.reliability(evaluation.probs, evaluation.targets)
        text = f"Logits are divided by the temperature {evaluation.temperature:.3f}, fitted on validation."
    alt = "Reliability diagram: accuracy against confidence, and the images of each bin"
    image = drawing(figures.reliability_figure(tables), out, "reliability", alt)
    return [image, Paragraph(f"On the diagonal is best. {text}")]


def _gallery(evaluation: Evaluation, rows: np.ndarray, images: Callable[[int], np.ndarray] | None) -> Gallery:
    """The mistakes in these rows, with a small image (JPEG) of each that can still be read."""
    lines: list[tuple[str, str]] = []
    thumbnails: list[bytes | None] = []
    for row in rows:
        truth, guess = evaluation.labels[evaluation.targets[row]], evaluation.labels[evaluation.predictions[row]]
        lines.append((evaluation.names[row], f"{truth}, predicted {guess} ({evaluation.probs[row].max():.0%})"))
        thumbnails.append(None)
        if images is not None:
            with suppress(InputError, OSError):
                array = np.asarray(images(int(evaluation.indices[row])))
                image = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
                image.thumbnail((THUMBNAIL, THUMBNAIL))
                image.save(file := io.BytesIO(), "JPEG", quality=85)
                thumbnails[-1] = file.getvalue()
    return Gallery(("image", "mistake"), lines, thumbnails)


def drawing(figure: Any, out: Path, name: str, alt: str) -> Drawing:
    """A figure, saved as OUT/NAME.png and, for papers, as NAME.svg, for a page in OUT."""
    image, vector = figures.to_png(figure), figures.to_vector(figure, name)
    for ending, data in ((".png", image), (".svg", vector.encode())):
        with atomic(out / f"{name}{ending}") as partial:
            partial.write_bytes(data)
    return Drawing(f"{name}.png", figures.to_svg(vector), alt)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{name}".replace("_", " "), {"True": "yes", "False": "no"}.get(text, text)
