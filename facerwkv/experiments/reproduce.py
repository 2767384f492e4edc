"""Run experiments one after the other, print their tables, and write one page: OUT/reproduce.html and .md.

OUT/reproduce/NAME.json has what an experiment put on the page, so that those of earlier commands stay there.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from rich import table as rich
from rich.console import Console
from rich.text import Text

from facerwkv.core.errors import InputError
from facerwkv.core.files import read_json, write_text
from facerwkv.evaluation.templates import Block, Drawing, Paragraph, Section, Table, write_page
from facerwkv.experiments import EXPERIMENTS, chosen, experiment, runs_of
from facerwkv.experiments.study import Incomplete, Setting

TITLE = "FaceRWKV, reproduced"
UNTRAINED = ("table1_sizes", "section4_1_recurrent")
WIDE = 140  # columns of a printed table, lest numbers are cut off


def reproduce(name: str, setting: Setting, seeds: Mapping[str, Sequence[int]] | None = None) -> tuple[Path, list[str]]:
    """Run what is missing of one experiment, or of "all"; the page, and a sentence for each row that could not run.

    seeds: experiment → those that a budget allows; an experiment that has none is left out, unless it trains nothing.

    The page is written anew after every experiment; experiments that were run into the same folder before stay on it.
    One that fails stops no other. InputError for an unknown name, for changes of an experiment that trains nothing, and
    for a page that cannot be written in the end.
    """
    runs = {each: experiment(each) for each in chosen(name)}
    if setting.only:
        runs = {each: run for each, run in runs.items() if each in EXPERIMENTS and runs_of(each, setting)}
        if not runs:
            raise InputError(f"--only {' '.join(setting.only)} fits no row of {name}. Name rows as its tables do.")
    if setting.changes and name in UNTRAINED:
        raise InputError(f"{name} trains nothing, so {setting.changes[0]!r} changes nothing. Leave it out.")
    page, about = setting.out / "reproduce", _about(setting)
    parts = {path.stem: _kept(path) for path in sorted(page.glob("*.json"))}
    problems: list[str] = []
    for each, run in runs.items():
        missing: list[str] = []
        whole, own = True, setting
        if seeds is not None and each not in UNTRAINED:
            if not seeds.get(each):
                problems.append(f"{each}: left out, the budget does not allow it.")
                continue
            own = replace(setting, seeds=seeds[each])
        try:
            added = run(own)
        except Incomplete as error:
            added, missing = error.sections, error.problems
        except (InputError, OSError) as error:
            what = str(error)
            if isinstance(error, OSError):
                where, why = error.filename or setting.out, error.strerror or error
                what = f"Cannot use {where}: {why}. Once that is mended, rerun the same command to resume."
            added, missing, whole = [(each, [Paragraph(f"Missing. {what}")])], [what], False
        _print(added)
        parts[each] = (about, added)
        problems += [f"{each}: {problem}" for problem in missing]
        with suppress(InputError):
            if whole:
                _keep(page / f"{each}.json", about, added)
            write_page(page, TITLE, _in_order(parts))
    return write_page(page, TITLE, _in_order(parts)), problems


def _in_order(parts: Mapping[str, tuple[str, list[Section]]]) -> list[Section]:
    """The sections in the order of EXPERIMENTS, with what was asked above those for which it differs."""
    order, sections, said = [*EXPERIMENTS], list[Section](), ""
    for name in sorted(parts, key=lambda name: order.index(name) if name in order else len(order)):
        about, added = parts[name]
        sections += [("", [Paragraph(about)])] if about != said else []
        sections, said = sections + added, about
    return sections


def _keep(path: Path, about: str, sections: list[Section]) -> None:
    blocks = [(title, [(type(block).__name__, asdict(block)) for block in those]) for title, those in sections]
    write_text(path, json.dumps({"about": about, "sections": blocks}, indent=1) + "\n")


def _kept(path: Path) -> tuple[str, list[Section]]:
    stored = read_json(path)
    kinds: dict[str, type[Block]] = {kind.__name__: kind for kind in (Drawing, Paragraph, Table)}
    try:
        sections: list[Section] = [
            (title, [kinds[kind](**values) for kind, values in those]) for title, those in stored["sections"]
        ]
        return stored["about"], sections
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no part of a page ({error!r}); remove it.") from error


def _print(sections: list[Section]) -> None:
    console = Console(markup=False, highlight=False)
    console.width = max(console.width, WIDE)
    for heading, block in ((heading, block) for heading, blocks in sections for block in blocks):
        if isinstance(block, Table):
            table = rich.Table(title=Text(heading), title_justify="left", box=None, pad_edge=False)
            for column, header in enumerate(block.headers):
                number = block.numbers and column > 0
                table.add_column(Text(header), justify="right" if number else "left", no_wrap=not column)
            for row in block.rows:
                table.add_row(*map(Text, row))
            console.print(table, "")


def _about(setting: Setting) -> str:
    seeds = ", ".join(map(str, setting.seeds))
    how = "as the authors' code ran" if setting.as_coded else "as the paper's text has it"
    how += f", but for {', '.join(setting.changes)}" if setting.changes else ""
    where = "a trial of the program on drawn faces, whose numbers mean nothing" if setting.smoke else setting.data
    return (
        f"Data: {where}. Recipe: {how}. Seeds: {seeds}; ± is the deviation between them. Frames of one film are in "
        "training and test of CAER-S alike, so the official split, and random validation most of all, reward "
        "remembering a scene. The blocks of neighbouring frames do so less: of every class the first 80 % of the "
        "training and the last 15 % of the test images, by their numbers, and validation in runs of neighbours."
    )
