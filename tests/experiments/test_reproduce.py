"""Experiments from plan to page: what is run, what is not run twice, what a missing part does to the rest."""

import errno
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facerwkv.cli import app
from facerwkv.core.errors import InputError
from facerwkv.evaluation.templates import Drawing, Paragraph, Table
from facerwkv.experiments import EXPERIMENTS, chosen, experiment, study
from facerwkv.experiments import reproduce as page
from facerwkv.experiments.reproduce import UNTRAINED, reproduce
from facerwkv.experiments.study import SCORE, Figure, Incomplete, Row, Setting, Study, mean_and_deviation

TINY = Study("Tiny", "none.", "seconds.", (Row("Small", ("model.name=facerwkv_small",), 61.41, curve=(0.2, 0.3)),))
DRAWN = Figure("Figure 0: tiny", "none.", TINY.rows)
TITLES = (
    *("Section 5.1", "Table 1: sizes", "Table 2: scaling", "Table 3: the hybrid", "Table 4: the systems"),
    *("Table 4 as the paper prints it", "Table 5: ablation", "Figure 4: ", "Figure 5: ", "Figure 6: ", "Figure 7: "),
    *("Section 3: augmentation", "Section 3, convergence", "Section 4.1: ", "Section 4.2: ", "Section 5.5: "),
    *("The time mix&#39;s width", "The schedule", "Row shift and 2-D positions"),
    *("Outlook: newer versions", "Outlook: ViT&#39;s sizes"),
)


@pytest.fixture
def only(monkeypatch):
    """Let these runs be all the experiments there are."""

    def replaced(**runs):
        monkeypatch.setattr(page, "chosen", lambda name: list(runs))
        monkeypatch.setattr(page, "experiment", runs.__getitem__)

    return replaced


def written(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob(SCORE)}


def test_every_experiment_has_a_file_and_says_its_command():
    for name in EXPERIMENTS:
        experiment(name)
        text = Path(page.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        assert f"facerwkv reproduce {name}" in text.split('"""')[1]
    assert chosen("all") == list(EXPERIMENTS)
    with pytest.raises(InputError, match=r"Unknown experiment 'table9'. Known experiments: all, "):
        experiment("table9")


@pytest.mark.parametrize(
    ("values", "text"), [([0.5], "50.00"), ([0.5, 0.6], "55.00 ± 7.07"), ([0.1429, 0.1429, 0.1429], "14.29 ± 0.00")]
)
def test_seeds_become_a_mean_and_a_deviation(values, text):
    assert mean_and_deviation(values) == text


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Setting, str]:
    """Where the study has been run, and what was printed."""
    setting = Setting("toy", tmp_path_factory.mktemp("study"), [5], smoke=True)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr(page, "chosen", lambda name: [name])
        patch.setattr(page, "experiment", lambda name: TINY.run)
        assert reproduce("tiny", setting)[1] == []
    return setting, printed.getvalue()


def test_a_study_is_run_once_and_its_page_has_both_numbers(trained, only):
    setting, printed = trained
    scores = written(setting.out)
    assert len(scores) == 2
    assert all(set(json.loads(path.read_text())) == {"train", "test", "curve"} for path in scores)
    text = (setting.out / "reproduce.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| Small |"))
    paper, ours, difference = (cell.strip() for cell in row.split("|")[2:5])
    assert paper == "61.41"
    assert float(difference) == pytest.approx(float(ours) - 61.41, abs=0.011)
    assert "numbers mean nothing" in (setting.out / "reproduce.html").read_text(encoding="utf-8")
    assert printed.splitlines()[0].strip() == "Tiny"
    assert printed.count("61.41") == 1
    only(drawn=DRAWN.run, tiny=TINY.run)
    reproduce("all", setting)
    assert written(setting.out) == scores
    with pytest.raises(InputError, match=r"was trained under another recipe \(optim.lr was 0.001, now 0.5\)"):
        TINY.run(replace(setting, changes=["optim.lr=0.5"]))


@pytest.fixture
def scored(monkeypatch):
    """Every run is right on 0.6 of training and 0.5 of test; nothing is trained."""
    monkeypatch.setattr(study, "_run", lambda *of: {"train": 0.6, "test": 0.5, "curve": [0.5]})


def table_of(**row):
    ((_, (_, _, table, *_)),) = replace(TINY, rows=(replace(TINY.rows[0], **row),)).run(
        Setting("toy", Path("out"), [0])
    )
    return table


@pytest.mark.usefixtures("scored")
def test_the_papers_number_and_the_difference_stand_beside_ours():
    found = table_of()
    assert found.headers[1:5:2] == ("the paper, %", "difference")
    assert found.rows == [("Small", "61.41", "50.00", "-11.41", "+10.0", "50.00", "+10.0")]


@pytest.mark.usefixtures("scored")
def test_where_the_paper_has_no_number_there_is_no_column_for_it():
    found = table_of(paper=None)
    assert found.headers[1] == "official split, random validation"
    assert found.rows == [("Small", "50.00", "+10.0", "50.00", "+10.0")]


def test_a_figure_shows_the_authors_log_beside_ours(trained):
    scores = written(trained[0].out)
    ((title, (claim, numbers, image)),) = DRAWN.run(trained[0])
    assert title == "Figure 0: tiny"
    assert claim.text == "none. Ours: official split, random validation, seed 5."
    assert numbers.headers == ("validation accuracy, %", "epoch 1", "epoch 2")
    assert [row[0] for row in numbers.rows] == ["Small", "Small, the authors' log"]
    assert numbers.rows[0][2] == "-"
    assert numbers.rows[1][1:] == ("20.00", "30.00")
    assert (trained[0].out / "figure_0.png").read_bytes().startswith(b"\x89PNG")
    assert image.file == "figure_0.png"
    assert written(trained[0].out) == scores


def test_what_cannot_run_is_said_on_the_page_and_stops_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "chosen", lambda name: ["table2_scaling", "table1_sizes"])
    html, problems = reproduce("all", Setting("caer_s:/nowhere", tmp_path))
    assert len(problems) == 1
    assert problems[0].startswith("table2_scaling: /nowhere does not exist.")
    text = html.read_text(encoding="utf-8")
    assert "Missing. /nowhere does not exist." in text
    assert "14,784,039" in text


def incomplete(setting):
    raise Incomplete(["one: no face", "two: no box"], [("What there is", [Paragraph("here")])])


def test_a_part_that_cannot_run_is_a_problem_and_the_others_stand_on_the_page(tmp_path, only):
    only(table=incomplete, whole=lambda setting: [("Whole", [])])
    html, problems = reproduce("all", Setting("toy", tmp_path))
    assert problems == ["table: one: no face", "table: two: no box"]
    text = html.read_text(encoding="utf-8")
    assert all(f"<h2>{title}</h2>" in text for title in ("What there is", "Whole"))


@pytest.fixture
def half(monkeypatch):
    """A table and a figure of two rows, of which the second cannot run."""

    def found(row, setting, protocol, seed):
        if row.name == "Large":
            raise InputError("no weights there.")
        return {"test": 0.6, "train": 0.7, "curve": [0.5, 0.6]}

    monkeypatch.setattr(study, "_run", found)
    rows = (*TINY.rows, Row("Large", ("model.name=facerwkv_large",), 70.82, curve=(0.4, 0.5)))
    return replace(TINY, rows=rows), replace(DRAWN, rows=rows)


def test_a_row_that_cannot_run_leaves_the_others_on_the_page(tmp_path, half):
    for part in half:
        with pytest.raises(Incomplete) as caught:
            part.run(Setting("toy", tmp_path))
        assert caught.value.problems == ["Large: no weights there."]
        ((title, blocks),) = caught.value.sections
        assert title == part.title
        names = [row[0] for block in blocks if isinstance(block, Table) for row in block.rows]
        assert "Small" in names
        assert "Large" not in names
        assert blocks[-1] == Paragraph("Missing. Large: no weights there.")


def test_a_row_that_cannot_run_stops_no_other_part_of_its_experiment(tmp_path, half):
    with pytest.raises(Incomplete) as caught:
        study.run_all(half, Setting("toy", tmp_path))
    assert [title for title, _ in caught.value.sections] == ["Tiny", "Figure 0: tiny"]
    assert caught.value.problems == ["Large: no weights there."] * 2


def test_the_command_ends_with_1_where_a_part_is_missing(tmp_path, only):
    only(table=incomplete)
    done = CliRunner().invoke(app, ["reproduce", "table", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "facerwkv: table: two: no box" in done.stderr
    assert f"The page: {tmp_path / 'reproduce.html'}" in done.stdout


def test_experiments_of_earlier_commands_stay_on_the_page_with_what_was_asked(tmp_path, only):
    only(
        fig4=lambda setting: [("Figure four", [Table(("a", "b"), [("1", "2")]), Drawing("x.png", "<svg></svg>", "x")])]
    )
    reproduce("fig4", Setting("toy", tmp_path, [0], changes=["train.epochs=1"]))
    only(table1=lambda setting: [("First", [])], table2=incomplete)
    html, _ = reproduce("all", Setting("toy", tmp_path, [3]))
    text = html.read_text(encoding="utf-8")
    assert all(f"<h2>{title}</h2>" in text for title in ("Figure four", "First", "What there is"))
    assert "<svg></svg>" in text
    assert "as the paper&#39;s text has it, but for train.epochs=1. Seeds: 0" in text
    assert "as the paper&#39;s text has it. Seeds: 3" in text
    only(fig4=lambda setting: [("Figure four", [Paragraph("anew")])])
    assert reproduce("fig4", Setting("toy", tmp_path, [0]))[0].read_text(encoding="utf-8").count("Figure four") == 1
    only(fig4=lambda setting: TINY.run(replace(setting, data="caer_s:/nowhere")))
    reproduce("fig4", Setting("toy", tmp_path))
    only(first=lambda setting: [("First", [])])
    assert "anew" in reproduce("first", Setting("toy", tmp_path))[0].read_text(encoding="utf-8"), (
        "a failure replaces none"
    )


@pytest.mark.parametrize("name", UNTRAINED)
def test_changes_of_an_experiment_that_trains_nothing_are_refused(name, tmp_path):
    with pytest.raises(InputError, match=f"{name} trains nothing, so 'train.epochs=1' changes nothing"):
        reproduce(name, Setting("toy", tmp_path, changes=["train.epochs=1"]))


def test_a_full_disk_is_a_sentence_and_stops_nothing_else(tmp_path, only):
    def full(setting):
        raise OSError(errno.ENOSPC, "No space left on device", "events.out")

    only(full=full, whole=lambda setting: [("Whole", [])])
    html, problems = reproduce("all", Setting("toy", tmp_path))
    assert problems == [
        "full: Cannot use events.out: No space left on device. Once that is mended, rerun the same command to resume."
    ]
    assert "<h2>Whole</h2>" in html.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_for_a_while_stops_nothing(tmp_path, only):
    tmp_path.joinpath("reproduce.md").mkdir()
    only(first=lambda setting: [("First", [])], second=lambda setting: tmp_path.joinpath("reproduce.md").rmdir() or [])
    html, _ = reproduce("all", Setting("toy", tmp_path))
    assert "<h2>First</h2>" in html.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_in_the_end_is_a_sentence(tmp_path, only):
    tmp_path.joinpath("reproduce.md").mkdir()
    only(first=lambda setting: [])
    with pytest.raises(InputError, match=r"Cannot write .*reproduce\.md: Is a directory"):
        reproduce("all", Setting("toy", tmp_path))


def test_an_interrupted_one_goes_on_with_the_same_command(tmp_path, only, monkeypatch):
    only(drawn=DRAWN.run)
    command = ["reproduce", "drawn", "--smoke", "--out", str(tmp_path)]

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(study, "evaluate_folder", interrupted)
        stopped = CliRunner().invoke(app, command)
    assert stopped.exit_code == 1
    assert "Stopped. Rerun the same command to resume." in stopped.stderr
    (curves,) = tmp_path.rglob("metrics.csv")
    before = curves.read_text()
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert len(written(tmp_path)) == 1
    assert curves.read_text() == before


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_everything_runs_small(tmp_path):
    html, problems = reproduce("all", Setting("toy", tmp_path, [0], smoke=True))
    assert problems == []
    text = html.read_text(encoding="utf-8")
    assert [title for title in TITLES if f"<h2>{title}" not in text] == []
    shutil.rmtree(tmp_path)
