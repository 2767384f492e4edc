"""An evaluation, and the run it came from, as pages to read: report.md, report.html, images, tables."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Group, RenderableType
from rich.table import Table as ConsoleTable
from rich.text import Text

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, write_text
from facerwkv.evaluation import figures, pages
from facerwkv.evaluation.evaluate import SUMMARY, Evaluation
from facerwkv.evaluation.subgroups import FEW, Gap, Subgroups, is_few
from facerwkv.evaluation.subgroups import FILE as SUBGROUPS
from facerwkv.training.run import CURVES, ENVIRONMENT, RECIPE

MISTAKES = 12
LISTED = 5  # images that lack attributes
THUMBNAIL = 192  # pixels
WIDEST_TABLE = 30  # classes
SCORES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1"}
ERRORS = {"ece": "calibration error", "ece_calibrated": "after temperature"}
_META = {"model": "model", "source": "data", "split": "split", "n": "images"}

READING = (
    "UAR is the mean recall of the classes, macro-F1 the mean of their F1; both count the classes that occur in the "
    "truth, each alike. The calibration error (ECE, 15 bins) is the mean distance between the probability a model "
    "shows and how often it is right. Intervals hold 95 % of 2,000 resamples of the images; they do not cover the "
    "variation between training runs."
)
READING_GROUPS = (
    f"The groups are those that the data set's annotators saw. One of fewer than {FEW} images is marked (few); it and "
    "unknown are not compared. A gap is the best group's score minus the worst's, with the 95 % interval of these two "
    "groups' difference. p is how often a gap between any two groups is as large when the groups are shuffled among "
    "the images of each class, 2,000 times; p (Holm) is corrected for the number of gaps. A group's UAR and macro-F1 "
    "count the classes that the group shows; its accuracy also depends on how often it shows each."
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
) -> Path:
    """Write report.md, report.html, confusion.png, curves.png, reliability.png and the evaluation; return report.html.

    source: an evaluation, or a folder that holds one (a run's folder: that of its test split). run: the folder whose
    curves, recipe and environment belong to it. images: index in the data set → uint8 (H, W, 3) RGB or (H, W), for
    small images of the mistakes; without it no image goes into the report. selections: evaluations of parts of the
    images, by what they are called ("without the copies"). subgroups: scores by who is shown, also written to
    subgroups.json.
    """
    fresh = isinstance(source, Evaluation)
    if not isinstance(source, Evaluation):
        run = run or _run_of(Path(source))
        source = Evaluation.load(_evaluation_in(Path(source)))
    out = Path(out)
    source.save(out)
    if subgroups:
        subgroups.save(out)
    elif fresh:
        (out / SUBGROUPS).unlink(missing_ok=True)  # an earlier evaluation's
    title = f"{source.model or 'A model'} on {source.source or 'images'} ({source.split})"
    sections = list(_sections(source, out, Path(run) if run else None, images, selections or {}, subgroups))
    write_text(out / "report.md", pages.to_markdown(title, sections))
    write_text(out / "report.html", pages.to_html(title, sections))
    return out / "report.html"


def console_table(evaluation: Evaluation) -> Group:
    """The scores for a terminal (rich): those of all images with their intervals, then those of each class."""
    scores = _console(("", "value", "95 % interval"), _headline(evaluation))
    classes = _console(*_class_rows(evaluation))
    title = f"{evaluation.model} on {evaluation.source}, {evaluation.split}: {len(evaluation.names):,} images"
    ignored = evaluation.meta.get("ignored_labels")
    note = [Text(f"not scored, since only one side knows them: {', '.join(ignored)}")] if ignored else []
    return Group(Text(title, style="bold"), *note, "", scores, "", classes)


def console_subgroups(subgroups: Subgroups) -> Group:
    """The scores of every group, the gaps and the notes for a terminal (rich)."""
    parts: list[RenderableType] = [_console(table.headers, table.rows) for table in _subgroup_tables(subgroups)]
    parts += [Text(pages.clean(note), style="dim") for note in _subgroup_notes(subgroups)]
    return Group(*(line for part in parts for line in ("", part)))


def _console(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> ConsoleTable:
    table = ConsoleTable(box=None, pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(pages.clean(cell)) for cell in row))
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
        curves = {name: [(x + offset, y) for x, y in _points(rows, x_name, name)] for name in names}
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
) -> Iterator[pages.Section]:
    yield "", [pages.Tiles(_headline(evaluation)), pages.Paragraph(_baseline(evaluation)), pages.Paragraph(READING)]
    if selections:
        yield "Parts of the images", [_selection_table({"all": evaluation, **selections})]
    if subgroups:
        yield "Subgroups", [*_subgroup_tables(subgroups), *map(pages.Paragraph, _subgroup_notes(subgroups))]
    curves, x_name = read_curves(run / CURVES) if run else ({}, "")
    if curves:
        figure = figures.curves_figure(curves, x_name)
        yield "Training", [_image(figure, out, "curves", "Loss, validation scores and learning rate over training")]
    yield "Classes", [pages.Table(*_class_rows(evaluation))]
    yield "Confusion", _confusion(evaluation, out)
    yield "Calibration", _calibration(evaluation, out)
    if len(rows := evaluation.mistakes(MISTAKES)):
        yield "Most confident mistakes", [_gallery(evaluation, rows, images)]
    yield "About this evaluation", [pages.Table(("what", "value"), list(_about(evaluation)), numbers=False)]
    if run:
        yield from _run_sections(run)
    yield "Intended use", [pages.Paragraph(text) for text in INTENDED_USE]


def _headline(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(name, value, interval): shares in per cent, calibration errors as they are."""
    scores = evaluation.scores
    shares = [(SCORES[name], score, "{:.1%}") for name, score in scores.items() if name in SCORES]
    errors = [(ERRORS[name], score, "{:.3f}") for name, score in scores.items() if name in ERRORS]
    return [
        (name, form.format(score.value), f"{form.format(score.low)} – {form.format(score.high)}")
        for name, score, form in shares + errors
    ]


def _baseline(evaluation: Evaluation) -> str:
    support = evaluation.confusion.sum(-1)
    top = int(support.argmax())
    return (
        f"{len(evaluation.names):,} images. Always answering {evaluation.labels[top]}, the most frequent class, would "
        f"give an accuracy of {support[top] / support.sum():.1%} and a UAR of {1 / np.count_nonzero(support):.1%}."
    )


def _selection_table(selections: Mapping[str, Evaluation], header: str = "images") -> pages.Table:
    rows = [
        (name, f"{len(part.names):,}", *(f"{value} ({interval})" for _, value, interval in _headline(part)[:3]))
        for name, part in selections.items()
    ]
    return pages.Table((header, "number", *SCORES.values()), rows)


def _subgroup_tables(subgroups: Subgroups) -> Iterator[pages.Table]:
    for attribute, parts in subgroups.groups.items():
        named = {f"{value} (few)" if is_few(part) else value: part for value, part in parts.items()}
        yield _selection_table(named, attribute)
    if subgroups.gaps:
        headers = ("gap", "best", "worst", "difference", "95 % interval", "p", "p (Holm)")
        yield pages.Table(headers, list(map(_gap_row, subgroups.gaps)))


def _gap_row(gap: Gap) -> tuple[str, ...]:
    value, low, high = (f"{share:.1%}" for share in (gap.difference.value, gap.difference.low, gap.difference.high))
    p, corrected = (f"{p:.4f}" for p in (gap.p, gap.p_holm))
    return f"{gap.attribute}: {SCORES[gap.score]}", gap.best, gap.worst, value, f"{low} – {high}", p, corrected


def _subgroup_notes(subgroups: Subgroups) -> Iterator[str]:
    if alone := set(subgroups.groups) - {gap.attribute for gap in subgroups.gaps}:
        yield f"Not compared, for want of two groups of {FEW} images: {', '.join(sorted(alone))}."
    if unknown := subgroups.unknown:
        more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        yield f"Without an attribute that can be read, so unknown: {', '.join(unknown[:LISTED])}{more}."
    yield READING_GROUPS


def _class_rows(evaluation: Evaluation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = metrics.per_class(evaluation.confusion)
    rows = [
        (label, *(_share(columns[name][row]) for name in ("precision", "recall", "f1")), f"{columns['support'][row]:,}")
        for row, label in enumerate(evaluation.labels)
    ]
    return ("class", "precision", "recall", "F1", "images"), rows


def _confusion(evaluation: Evaluation, out: Path) -> list[pages.Block]:
    figure = figures.confusion_figure(evaluation.confusion, evaluation.labels)
    image = _image(figure, out, "confusion", "Confusion matrix: share of each true class given each answer, in %")
    if len(evaluation.labels) > WIDEST_TABLE:
        return [image, pages.Paragraph(f"The counts stand in {SUMMARY}.")]
    rows = [
        (label, *(f"{count:,}" for count in row))
        for label, row in zip(evaluation.labels, evaluation.confusion.tolist(), strict=True)
    ]
    return [image, pages.Table(("truth \\ predicted", *evaluation.labels), rows)]


def _calibration(evaluation: Evaluation, out: Path) -> list[pages.Block]:
    bins = {"as trained": metrics.calibration_bins(metrics.softmax(evaluation.logits), evaluation.targets)}
    text = "No temperature was fitted."
    if evaluation.temperature is not None:
        bins["after temperature"] = metrics.calibration_bins(evaluation.probs, evaluation.targets)
        text = f"Logits are divided by the temperature {evaluation.temperature:.3f}, fitted on validation."
    figure = figures.reliability_figure(bins)
    alt = "Reliability diagram: accuracy against confidence, and the images of each bin"
    return [_image(figure, out, "reliability", alt), pages.Paragraph(f"On the diagonal is best. {text}")]


def _gallery(evaluation: Evaluation, rows: np.ndarray, images: Callable[[int], np.ndarray] | None) -> pages.Gallery:
    items = []
    for row in rows:
        truth, guess = evaluation.labels[evaluation.targets[row]], evaluation.labels[evaluation.predictions[row]]
        line = f"{truth}, taken for {guess} ({evaluation.probs[row].max():.0%})"
        items.append((_thumbnail(images, int(evaluation.indices[row])), evaluation.names[row], line))
    return pages.Gallery(("image", "mistake"), items)


def _thumbnail(images: Callable[[int], np.ndarray] | None, index: int) -> bytes | None:
    """JPEG bytes; None without images, or where this one can no longer be read."""
    if images is None:
        return None
    try:
        array = np.asarray(images(index))
    except (InputError, OSError):
        return None
    image = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _about(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    summary = evaluation.summary()
    for key, name in _META.items():
        if summary[key] not in (None, ""):
            yield name, str(summary[key])
    yield from _flat(evaluation.meta)


def _run_sections(run: Path) -> Iterator[pages.Section]:
    if (run / RECIPE).is_file():
        yield "Recipe", [pages.Listing("recipe.yaml", (run / RECIPE).read_text(encoding="utf-8", errors="replace"))]
    if (run / ENVIRONMENT).is_file():
        yield "Environment", [pages.Table(("what", "value"), list(_flat(_read(run / ENVIRONMENT))), numbers=False)]


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove it to have a report without it.") from error


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", " ".join(map(str, value))
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def _image(figure: Any, out: Path, name: str, alt: str) -> pages.Drawing:
    with atomic(out / f"{name}.png") as partial:
        partial.write_bytes(figures.to_png(figure))
    return pages.Drawing(f"{name}.png", figures.to_svg(figure, name), alt)


def _points(rows: list[dict[str, str]], x_name: str, y_name: str) -> Iterator[tuple[float, float]]:
    for row in rows:
        try:
            point = float(row[x_name]), float(row[y_name])
        except (KeyError, TypeError, ValueError):
            continue
        if all(map(math.isfinite, point)):
            yield point


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"


def _evaluation_in(folder: Path) -> Path:
    """The folder itself, or its test split's where it is a run."""
    return folder if (folder / SUMMARY).is_file() else folder / "test"


def _run_of(folder: Path) -> Path | None:
    return next((path for path in (folder, folder.parent) if (path / RECIPE).is_file()), None)
