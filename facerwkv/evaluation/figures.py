"""The report's images: drawn once, saved as PNG for files and as SVG that takes the page's colours.

Colours are from the Okabe-Ito palette, and lines differ in dash and marker too, so that nobody needs to tell colours
apart. No pyplot: nothing global is left behind.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from facerwkv.core import metrics
from facerwkv.evaluation.ranking import Curve
from facerwkv.media.fonts import SANS, font_file

INK = "#010203"  # represents the text colour of the page
BLUE, VERMILION = "#0072b2", "#d55e00"
COLOURS = (BLUE, VERMILION, "#009e73", "#cc79a7", "#e69f00")
LINES: list[dict[str, Any]] = [
    {"color": colour, "linestyle": dash, "marker": marker, "markersize": 3.5, "linewidth": 1.5}
    for colour, dash, marker in zip(COLOURS, ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))), "osD^v", strict=True)
]
SHADES = LinearSegmentedColormap.from_list("blues", [(0, 0.29, 0.55, 0), (0, 0.29, 0.55, 1)])
COUNTED, NUMBERED = 10, 20  # classes, up to which a cell shows its count, or a number at all
DARK_CELL = 0.7  # from this share on, the cell's numbers are white
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,
}


def _fonts(texts: Iterable[str]) -> dict[str, Any]:
    """DejaVu Sans, and behind it the installed fonts that have what it lacks of these texts."""
    names = ["DejaVu Sans"]
    for file in dict.fromkeys(font_file(character) for text in texts for character in text):
        if file and Path(file).name != SANS:
            fontManager.addfont(file)
            names.append(FontProperties(fname=file).get_name())
    return {"font.family": names}


def confusion_figure(matrix: np.ndarray, labels: Sequence[str]) -> Figure:
    """Rows are the truth, each shaded by its share of the row; the count is below the share in per cent."""
    count, names = len(labels), [shortened(label) for label in labels]
    share = matrix / np.maximum(matrix.sum(-1, keepdims=True), 1)
    with matplotlib.rc_context(_STYLE | _fonts(labels)):
        side = min(max(2.2, 0.6 * count), 10.5)
        room = 1.0 + 0.07 * max(map(len, names))  # inches, for the names
        figure = Figure(figsize=(side + room + 0.7, side + 0.8 * room + 0.3), layout="compressed")
        axes = figure.subplots()
        cells = axes.pcolormesh(share, cmap=SHADES, vmin=0, vmax=1, rasterized=count > 30)
        bar = figure.colorbar(cells, ax=axes, format=PercentFormatter(1, 0), fraction=0.05, pad=0.03)
        bar.outline.set_visible(False)
        axes.set(xlabel="predicted", ylabel="truth", aspect="equal", xlim=(0, count), ylim=(count, 0))
        axes.set_title("% of each class" + (", and images" if count <= COUNTED else ""))
        axes.set_xticks(np.arange(count) + 0.5, names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(np.arange(count) + 0.5, names)
        axes.tick_params(length=0)
        for row, column in np.ndindex(matrix.shape) if count <= NUMBERED else ():
            colour = "white" if share[row, column] >= DARK_CELL else INK
            style: Any = {"ha": "center", "va": "center", "color": colour}
            height = row + (0.4 if count <= COUNTED else 0.5)
            axes.text(column + 0.5, height, f"{100 * share[row, column]:.0f}", **style)
            if count <= COUNTED:
                axes.text(column + 0.5, row + 0.72, f"{matrix[row, column]}", fontsize=6.5, alpha=0.75, **style)
    return figure


def shortened(label: str, length: int = 24) -> str:
    """A name of at most that many letters, the middle of a longer one left out."""
    half = (length - 1) // 2
    return label if len(label) <= length else f"{label[: length - half - 1]}…{label[-half:]}"


def ranking_figure(curves: Mapping[str, Curve], kind: Literal["roc", "pr"]) -> Figure:
    """The curves of `ranking.curves`: averages thick, classes thin, areas in the legend."""
    x, y, area = ("false alarms", "found (recall)", "AUC") if kind == "roc" else ("recall", "precision", "AP")
    with matplotlib.rc_context(_STYLE | _fonts(curves)):
        figure = Figure(figsize=(6.6, 4.2), layout="constrained")
        axes = figure.subplots()
        if kind == "roc":
            axes.plot((0, 1), (0, 1), color=INK, alpha=0.4, linewidth=1)
        looks: Iterator[dict[str, Any]] = cycle({**line, "marker": "", "linewidth": 1} for line in LINES)
        for number, (name, curve) in enumerate(list(curves.items())[: NUMBERED + 2]):
            look = next(looks) if number > 1 else {"color": INK, "linewidth": 2.2, "linestyle": ("-", "--")[number]}
            look = look | ({"drawstyle": "steps-pre"} if kind == "pr" and number != 1 else {})
            axes.plot(curve.x, curve.y, **look, label=f"{shortened(name)}, {area} {curve.area:.3f}")
        axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.15, color=INK)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return figure


def curves_figure(curves: Mapping[str, Sequence[tuple[float, float]]], x_name: str) -> Figure:
    """Training curves, one panel below another. curves: column of metrics.csv → its points (x, value)."""
    panels = (
        ("loss", {"train_loss": "training", "val_loss": "validation"}),
        ("validation score", {f"val_{name}": metric.title for name, metric in metrics.of_confusion().items()}),
        ("learning rate", {"lr": ""}),
    )
    shown = [(title, names) for title, names in panels if any(curves.get(name) for name in names)]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.2, 1.9 * len(shown) + 0.4), layout="constrained")
        grid = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
        for axes, (title, names) in zip(grid, shown, strict=True):
            axes.set_title(title)
            for style, (name, label) in zip(cycle(LINES), names.items(), strict=False):
                if curves.get(name):
                    axes.plot(*zip(*curves[name], strict=True), **style, label=label)
            axes.grid(alpha=0.15, color=INK)
            if len(names) > 1:
                axes.legend()
        grid[-1].set_xlabel(x_name)
        grid[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def reliability_figure(tables: Mapping[str, np.ndarray]) -> Figure:
    """Accuracy against confidence, and below it the images of each bin. tables: name → metrics.reliability's."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 5.6), layout="constrained")
        top, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        top.plot((0, 1), (0, 1), color=INK, alpha=0.4, linewidth=1)
        for style, (name, (count, confidence, right)) in zip(LINES, tables.items(), strict=False):
            full = count > 0
            top.plot(confidence[full] / count[full], right[full] / count[full], **style, label=name)
            edges = np.linspace(0, 1, len(count) + 1)
            below.stairs(count, edges, color=style["color"], linestyle=style["linestyle"], linewidth=1.5)
        top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        below.set(xlabel="confidence (highest probability)", ylabel="images")
        top.grid(alpha=0.15, color=INK)
        top.legend(loc="upper left")
    return figure


def ablation_figure(rows: Sequence[Any]) -> Figure:
    """The difference of each row of an ablation, in points, with its interval; the first on top."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.2, 0.9 + 0.24 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, alpha=0.4, linewidth=1)
        for height, each in enumerate(row.difference for row in rows):
            axes.plot((100 * each.low, 100 * each.high), (height, height), color=BLUE, linewidth=1.5)
            axes.plot(100 * each.value, height, "o", color=BLUE, markersize=4)
        axes.set(xlabel="accuracy, points from the whole model's", ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.grid(alpha=0.15, color=INK, axis="x")
        axes.tick_params(axis="y", length=0)
    return figure


def comparison_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The first of SCORES with its interval, and images per second, of each row of a comparison, the first on top."""
    leading, metric = next(iter(metrics.SCORES.items()))
    with matplotlib.rc_context(_STYLE | _fonts(str(row.get("name", "")) for row in rows)):
        figure = Figure(figsize=(8, 1.1 + 0.28 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for height, row in enumerate(rows):
            if score := row[leading]:
                left.plot((score["low"], score["high"]), (height, height), color=BLUE, linewidth=1.5)
                left.plot(score["value"], height, "o", color=BLUE, markersize=4)
        timed = [(row["images_per_second"], height) for height, row in enumerate(rows) if row["images_per_second"]]
        for speed, height in timed:
            right.plot(speed, height, "o", color=BLUE, markersize=4)
        left.set(title=f"{metric.title}, 95 % interval", ylim=(len(rows) - 0.5, -0.5))
        left.set_yticks(range(len(rows)), [row["name"] for row in rows])
        left.xaxis.set_major_formatter(PercentFormatter(1, 0))
        right.set(title="images per second, the model alone", xscale="log")
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        right.xaxis.set_minor_formatter(NullFormatter())
        for axes in (left, right):
            axes.grid(alpha=0.15, color=INK, axis="x")
            axes.tick_params(axis="y", length=0)
    return figure


def epochs_figure(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> Figure:
    """Validation accuracy, 0..1, after each epoch, by name: ours as lines, what others logged dashed, in one colour."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.2, 3.6), layout="constrained")
        axes = figure.subplots()
        for number, (name, values) in enumerate(ours.items()):
            look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "linewidth": 1.5}
            axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3, label=name, **look)
            logged = theirs.get(name, ())
            if logged:
                axes.plot(range(1, len(logged) + 1), logged, linestyle="--", label=f"{name}, the authors' log", **look)
        axes.set(xlabel="epoch", title="validation accuracy", ylim=(0, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.grid(alpha=0.15, color=INK)
        axes.legend(loc="lower right")
    return figure


def to_png(figure: Figure) -> bytes:
    """PNG on white, 150 dots per inch; where all is drawn is settled with it, for an SVG of the same figure too."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    figure.set_layout_engine(None)  # with one, each further file takes nearly as long again to lay out
    return file.getvalue()


def to_vector(figure: Figure, name: str) -> str:
    """An SVG file on white, for papers: black on white wherever it is shown. `name`: for its ids."""
    file = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    return file.getvalue()


def to_svg(vector: str) -> str:
    """`to_vector`'s file as an <svg> element without background, in a page's text colour, as wide as its container."""
    text = vector[vector.index("<svg") :]
    width = round(float(re.search(r' width="([\d.]+)pt"', text)[1]) * 96 / 72)  # type: ignore[index]
    for part in (r"<metadata>.*?</metadata>", r' width="[\d.]+pt"', r' height="[\d.]+pt"', r'<g id="patch_1">.*?</g>'):
        text = re.sub(part, "", text, count=1, flags=re.DOTALL)
    return text.replace(INK, "currentColor").replace("<svg", f'<svg style="max-width:{width}px"', 1)
