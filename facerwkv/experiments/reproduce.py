"""Run experiments of the paper, one after the other, and write one page: OUT/reproduce.html and .md."""

from pathlib import Path

from facerwkv.errors import InputError
from facerwkv.experiments import chosen, experiment
from facerwkv.experiments.study import Setting
from facerwkv.files import write_text
from facerwkv.training.pages import Paragraph, Section, to_html, to_markdown

TITLE = "FaceRWKV, reproduced"


def reproduce(name: str, setting: Setting) -> tuple[Path, list[str]]:
    """Run what is missing of one experiment, or of "all"; the page, and a sentence for each that could not run.

    The page is written anew after every experiment. One that fails stops no other. InputError for an unknown name.
    """
    runs = {each: experiment(each) for each in chosen(name)}
    sections: list[Section] = [("", [Paragraph(_what(setting))])]
    problems: list[str] = []
    for each, run in runs.items():
        try:
            sections += run(setting)
        except InputError as error:
            problems.append(f"{each}: {error}")
            sections.append((each, [Paragraph(f"Missing. {error}")]))
        write_text(setting.out / "reproduce.md", to_markdown(TITLE, sections))
        write_text(setting.out / "reproduce.html", to_html(TITLE, sections))
    return setting.out / "reproduce.html", problems


def _what(setting: Setting) -> str:
    seeds = ", ".join(map(str, setting.seeds))
    how = "as the authors' code ran" if setting.as_coded else "as the paper's text has it"
    where = "a trial of the program on drawn faces, whose numbers mean nothing" if setting.smoke else setting.data
    return (
        f"Data: {where}. Recipe: {how}. Seeds: {seeds}; ± is the deviation between them. Frames of one film stand in "
        "training and test of CAER-S alike, so the official split, and random validation most of all, reward "
        "remembering a scene; blocks of neighbouring frames in validation reward it less."
    )
