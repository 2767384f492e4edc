"""Run experiments one after the other, print their tables, and write one page: OUT/reproduce.html and .md."""

from contextlib import suppress
from pathlib import Path

from rich import table as rich
from rich.console import Console
from rich.text import Text

from facerwkv.core.errors import InputError
from facerwkv.evaluation.templates import Paragraph, Section, Table, write_page
from facerwkv.experiments import chosen, experiment
from facerwkv.experiments.study import Incomplete, Setting

TITLE = "FaceRWKV, reproduced"
WIDE = 140  # columns of a printed table, lest numbers are cut off


def reproduce(name: str, setting: Setting) -> tuple[Path, list[str]]:
    """Run what is missing of one experiment, or of "all"; the page, and a sentence for each row that could not run.

    The page is written anew after every experiment. One that fails stops no other. InputError for an unknown name, and
    for a page that cannot be written in the end.
    """
    runs = {each: experiment(each) for each in chosen(name)}
    page = setting.out / "reproduce"
    sections: list[Section] = [("", [Paragraph(_about(setting))])]
    problems: list[str] = []
    for each, run in runs.items():
        missing: list[str] = []
        try:
            added = run(setting)
        except Incomplete as error:
            added, missing = error.sections, error.problems
        except (InputError, OSError) as error:
            what = str(error)
            if isinstance(error, OSError):
                where, why = error.filename or setting.out, error.strerror or error
                what = f"Cannot use {where}: {why}. Once that is mended, rerun the same command to resume."
            added, missing = [(each, [Paragraph(f"Missing. {what}")])], [what]
        _print(added)
        sections += added
        problems += [f"{each}: {problem}" for problem in missing]
        with suppress(InputError):
            write_page(page, TITLE, sections)
    return write_page(page, TITLE, sections), problems


def _print(sections: list[Section]) -> None:
    console = Console(highlight=False)
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
    where = "a trial of the program on drawn faces, whose numbers mean nothing" if setting.smoke else setting.data
    return (
        f"Data: {where}. Recipe: {how}. Seeds: {seeds}; ± is the deviation between them. Frames of one film are in "
        "training and test of CAER-S alike, so the official split, and random validation most of all, reward "
        "remembering a scene. The blocks of neighbouring frames do so less: of every class the first 80 % of the "
        "training and the last 15 % of the test images, by their numbers, and validation in runs of neighbours."
    )
