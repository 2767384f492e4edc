"""speed.json → speed.md and speed.png beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facerwkv.bench import GROUPS
from facerwkv.bench.rows import REASONS, ROWS, BenchRow
from facerwkv.core.files import atomic, write_text

JSON, PAGE, PLOT = "speed.json", "speed.md", "speed.png"
MAKERS = ("AMD", "Intel")
"""Of processors: each has a column. That of another one than speed.json's is from speed-MAKER.json, kept on such a
machine; without that it is empty."""
LENGTHS = [150, 300, 600, 1200, 2400, 4800, 9600]
NAMES = {
    "sdpa": "attention (SDPA)",
    "v1_hs1": "RWKV-1, heads of 1",
    "wkv7": "RWKV-7",
    "wkv6": "RWKV-6",
    "biwkv": "bidirectional WKV",
    "wkv4": "RWKV-4",
}
PANELS = {
    "seconds": ("Time of the forward pass", "milliseconds", 1e3),
    "bytes": ("Peak memory, forward and backward", "MB", 2**-20),
}
COLOURS = ("#000000", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#d55e00")  # Okabe and Ito's
MARKERS = "osD^vX"

_HEAD = """# Speed

Every number below was written by `make docs` from [speed.json](speed.json), kept by `facerwkv bench all --out docs`.
Both sides of a row run in turns, A B A B, in one process on {processors}, after a warm-up; the value is the ratio of
the medians, and the quartiles are those of the ratios of neighbours. Calls under 5 ms are repeated inside a sample. A
side gets at least 15 samples and 1.5 seconds, or 5 samples once both have taken a minute. Before it is timed, our
side's answer is compared with its reference in float64; a row whose answers disagree shows no number. SDPA is PyTorch's
`scaled_dot_product_attention` in float32, contiguous (1, 6, T, 64), in `inference_mode`. Both sides compute all tokens,
unless a row says that leaving some out is what it measures. This package's models, transformers among them, have one
way of multiplying matrices (MKL's, or oneDNN's where MKL leaves half of a vector unused). Peak memory is what a call
adds to a process of its own. A maker's column is empty where nothing was measured on its processors.

Measured on {processor}, {system}, torch {torch}, {marks}.
"""


def write_page(folder: Path) -> None:
    """FOLDER/speed.md and, where there are curves, FOLDER/speed.png, from FOLDER/speed.json."""
    kept = json.loads((folder / JSON).read_text(encoding="utf-8"))
    files = {maker: folder / f"speed-{maker.lower()}.json" for maker in MAKERS}
    others = {maker: json.loads(path.read_text(encoding="utf-8")) for maker, path in files.items() if path.is_file()}
    write_text(folder / PAGE, page(kept, others))
    if kept["curves"]:
        with atomic(folder / PLOT) as partial:
            partial.write_bytes(plot(kept["curves"]))


def page(kept: dict[str, Any], others: Mapping[str, dict[str, Any]] | None = None) -> str:
    """The whole page for the content of a speed.json, and of those of other makers' processors."""
    where, rows, curves = kept["environment"], kept["rows"], kept["curves"]
    threads = sorted({result["threads"] for result in rows.values()})
    marks = sorted({f"{result['date']} at commit {result['commit']}" for result in rows.values()})
    many = " or ".join(f"{count} thread{'s' * (count > 1)}" for count in threads)
    facts = {"processor": where["processor"], "system": where["platform"], "torch": where["packages"]["torch"]}
    parts = [_HEAD.format(processors=many, marks="; ".join(marks), **facts)]
    if curves:
        titles = " and ".join(PANELS[name][0].lower() for name in PANELS if name in curves)
        parts.append(f"![{titles.capitalize()} over 150 to 9,600 tokens, width 384]({PLOT})\n")
        parts.append("Width 384, batch 1, heads of 64; RWKV-1 has the published models' 8 heads of one channel.\n")
    for group, about in GROUPS.items():
        names = [name for name in ROWS if name in rows and ROWS[name].group == group]
        if names:
            parts.append(f"## {group.capitalize()}\n\n{about}\n")
            own = next((maker for maker in MAKERS if maker in where["processor"]), "measured")
            beside = [maker for maker in MAKERS if maker != own]
            heads = " | ".join((*beside, own))
            parts.append(f"| name | what | {heads} | quartiles | bar | met |")
            parts.append(f"|---|---|{'---:|' * (len(beside) + 3)}---|")
            for name in names:
                what, *texts = cells(ROWS[name], rows[name])
                known = [(others or {}).get(maker, {}).get("rows", {}).get(name) for maker in beside]
                values = [cells(ROWS[name], result)[1] if result else "" for result in known]
                parts.append(f"| `{name}` | {' | '.join((what, *values, *texts))} |")
            parts.append("")
    bars = {name: (ROWS[name].bar, result["value"]) for name, result in rows.items()}
    missed = [name for name, (bar, value) in bars.items() if bar and value is not None and not bar.met(value)]
    if missed:
        parts.append("## Bars that were missed\n")
        parts += [f"- `{name}`: {REASONS.get(name, 'the reason is not known yet.')}" for name in missed]
    return "\n".join(parts) + "\n"


def cells(row: BenchRow, result: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Five cells: what is measured, the value, its quartiles, the bar, and whether it is met."""
    value, bar = result["value"], f"{row.bar}" if row.bar else "–"
    if value is None:
        return row.what, "–", "–", bar, result["problem"]
    number = row.form.split("}")[0] + "}"
    spread = f"{number.format(result['low'])}–{number.format(result['high'])}" if result["low"] is not None else "–"
    met = "–" if row.bar is None else "yes" if row.bar.met(value) else "no"
    return row.what, row.form.format(value), spread, bar, met


def plot(curves: dict[str, dict[str, dict[str, float]]]) -> bytes:
    """PNG: one panel for each of PANELS that was measured, both axes logarithmic."""
    from matplotlib.figure import Figure

    from facerwkv.evaluation.figures import to_png

    shown = {name: panel for name, panel in PANELS.items() if name in curves}
    figure = Figure(figsize=(4.6 * len(shown) + 1.6, 4.2), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, (title, unit, factor)) in zip(panels, shown.items(), strict=True):
        for (key, label), colour, marker in zip(NAMES.items(), COLOURS, MARKERS, strict=True):
            points = {int(tokens): factor * value for tokens, value in curves[name].get(key, {}).items() if value}
            axes.plot(list(points), list(points.values()), color=colour, marker=marker, markersize=4, label=label)
        axes.set(title=title, xlabel="tokens", ylabel=unit, xscale="log", yscale="log")
        axes.set_xticks(LENGTHS, [f"{tokens:,}" for tokens in LENGTHS], fontsize=8)
        axes.minorticks_off()
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return to_png(figure)
