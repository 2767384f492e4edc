"""Run experiments one after the other, print their tables, and write one page: OUT/reproduce.html and .md."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich import table as rich
from rich.console import Console
from rich.text import Text

from facerwkv.core.errors import InputError
from facerwkv.core.files import write_text
from facerwkv.evaluation.templates import Block, Paragraph, Section, Table, to_html, to_markdown
from facerwkv.experiments import chosen, experiment
from facerwkv.experiments.study import Incomplete, Setting

TITLE = "FaceRWKV, reproduced"
WIDE = 140  # columns of a printed table, lest numbers are cut off


def reproduce(name: str, setting: Setting) -> tuple[Path, list[str]]:
    """Run what is missing of one experiment, or of "all"; the page, and a sentence for each part that could not run.

    The page is written anew after every experiment. One that fails stops no other. InputError for an unknown name, and
    for a page that cannot be written in the end.
    """
    runs = {each: experiment(each) for each in chosen(name)}
    sections: list[Section] = [("", [Paragraph(_what(setting))])]
    problems: list[str] = []
    for each, run in runs.items():
        found, failed = _attempt(each, run, setting)
        for heading, blocks in found:
            _print(heading, blocks)
        sections += found
        problems += failed
        with suppress(InputError):
            _write(setting.out, sections)
    return _write(setting.out, sections), problems


def _attempt(
    name: str, run: Callable[[Setting], list[Section]], setting: Setting
) -> tuple[Sequence[Section], list[str]]:
    """An experiment's part of the page, and a sentence for each part of it that could not run."""
    try:
        return run(setting), []
    except Incomplete as error:
        return error.sections, [f"{name}: {problem}" for problem in error.problems]
    except InputError as error:
        missing = str(error)
    except OSError as error:
        where = error.filename or setting.out
        missing = f"Cannot use {where}: {error.strerror or error}. Mend that, then run the command again; it goes on."
    return [(name, [Paragraph(f"Missing. {missing}")])], [f"{name}: {missing}"]


def _print(heading: str, blocks: Sequence[Block]) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, WIDE)
    for block in blocks:
        if isinstance(block, Table):
            table = rich.Table(title=Text(heading), title_justify="left", box=None, pad_edge=False)
            for place, header in enumerate(block.headers):
                number = block.numbers and place > 0
                table.add_column(Text(header), justify="right" if number else "left", no_wrap=not place)
            for row in block.rows:
                table.add_row(*map(Text, row))
            console.print(table, "")


def _write(out: Path, sections: Sequence[Section]) -> Path:
    write_text(out / "reproduce.md", to_markdown(TITLE, sections))
    write_text(out / "reproduce.html", to_html(TITLE, sections))
    return out / "reproduce.html"


def _what(setting: Setting) -> str:
    seeds = ", ".join(map(str, setting.seeds))
    how = "as the authors' code ran" if setting.as_coded else "as the paper's text has it"
    where = "a trial of the program on drawn faces, whose numbers mean nothing" if setting.smoke else setting.data
    return (
        f"Data: {where}. Recipe: {how}. Seeds: {seeds}; ± is the deviation between them. Frames of one film stand in "
        "training and test of CAER-S alike, so the official split, and random validation most of all, reward "
        "remembering a scene. The blocks of neighbouring frames do so less: of every class the first 80 % of the "
        "training and the last 15 % of the test images, by their numbers, and validation in runs of neighbours."
    )
