import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from facerwkv.core.errors import InputError
from facerwkv.evaluation import figures, templates
from facerwkv.evaluation.ablation import Ablation
from facerwkv.evaluation.report import console_table, read_curves, write_report
from facerwkv.evaluation.result import Evaluation

pytestmark = pytest.mark.usefixtures("drawn")

SCRIPT = '<script>alert("x")</script> | *a*.png'
LABELS = ("anger", "fear", "happiness")
CURVES = "epoch,step,lr,train_loss,val_loss,val_accuracy,val_uar\n0,9,0.1,2.0,1.9,0.3,0.2\n1,19,0.05,1.5,nan,0.4,\n"


def evaluation(**changes) -> Evaluation:
    """The wrong answer is given for the file with a script in its name."""
    values = {
        "labels": LABELS,
        "names": ["a.png", SCRIPT, "c.png", "d.png"],
        "targets": np.array([0, 0, 1, 1]),
        "logits": np.log(np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.5, 0.4]])),
        "source": "toy",
        "model": "facerwkv_small",
        "indices": np.array([4, 5, 6, 7]),
    }
    return Evaluation(**values | changes)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text(CURVES)
    (folder / "recipe.yaml").write_text("model:\n  name: <b>facerwkv</b>\n")
    (folder / "environment.json").write_text(json.dumps({"packages": {"torch": "2.10"}, "gpu": None}))
    return folder


def shown(renderable) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


FIGURES = ("confusion", "curves", "precision_recall", "reliability", "roc")


def test_a_report_is_these_files(tmp_path, run):
    whole = evaluation(temperature=1.5, meta={"tta": "flip"})
    ablation = Ablation.of(whole.logits, {"all blocks": -whole.logits}, whole.targets)
    path = write_report(whole, tmp_path / "out", run=run, ablation=ablation)
    assert path == tmp_path / "out" / "report.html"
    assert {file.name for file in path.parent.iterdir()} == {
        "report.md", "report.html", "predictions.csv", "logits.npz", "evaluation.json", "ablation.json",
        "classes.csv", "classes.tex", "scores.csv", "scores.tex",
        *(f"{name}.{ending}" for name in (*FIGURES, "ablation") for ending in ("png", "svg")),
    }  # fmt: skip
    for name in FIGURES:
        assert Image.open(path.parent / f"{name}.png").format == "PNG"
    page = path.with_suffix(".md").read_text()
    assert "Scored with tta flip: logits averaged over 2 views of each image, 2 times the cost." in page
    assert "## What the mixers do\n\n![Points of accuracy" in page
    assert (
        "| nothing | 75.00% |  |  |  |  |\n| all blocks | 0.00% | -75.00 | -100.00 to -25.00 | 0.25 | 100.0% |" in page
    )


def test_the_page_is_self_contained_and_escapes_names(tmp_path, run):
    page = write_report(evaluation(), tmp_path, run=run).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; | *a*.png" in page
    assert "&lt;b&gt;facerwkv&lt;/b&gt;" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "@import" not in page
    assert page.count("<svg") == len(FIGURES)


def test_the_markdown_escapes_names_and_links_the_images(tmp_path, run):
    write_report(evaluation(), tmp_path, run=run)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert r'| &lt;script&gt;alert("x")&lt;/script&gt; \| \*a\*.png | anger, predicted fear (70%) |' in text
    for name in FIGURES:
        assert f"]({name}.png)" in text
    assert "| accuracy | 75.0% |" in text
    assert "| anger | 100.0% (100.0%–100.0%) | 50.0% (0.0%–100.0%) | 66.7% (0.0%–100.0%) | 2 |" in text
    assert "| happiness | – | – | – | 0 |" in text
    assert "| packages.torch | 2.10 |" in text


def test_mistakes_are_shown_as_images_where_images_are_given(tmp_path):
    asked = []

    def image(index: int) -> np.ndarray:
        asked.append(index)
        return np.zeros((500, 300, 3), np.uint8)

    page = write_report(evaluation(), tmp_path, images=image).read_text(encoding="utf-8")
    assert asked == [5]
    assert page.count("<img") == 1


def test_an_image_that_is_gone_leaves_its_line(tmp_path):
    def image(index: int) -> np.ndarray:
        raise InputError("gone")

    page = write_report(evaluation(), tmp_path, images=image).read_text(encoding="utf-8")
    assert "<img" not in page
    assert "anger, predicted fear (70%)" in page


def test_a_report_is_made_from_a_runs_folder(tmp_path, run):
    evaluation().save(run / "test")
    text = write_report(run, tmp_path / "out").with_name("report.md").read_text(encoding="utf-8")
    assert "## Recipe" in text
    assert "## Training" in text


def test_a_folder_without_evaluation_is_an_error(tmp_path):
    with pytest.raises(InputError, match="contains no evaluation"):
        write_report(tmp_path, tmp_path / "out")


def test_without_a_run_there_are_no_curves(tmp_path):
    write_report(evaluation(), tmp_path)
    assert not (tmp_path / "curves.png").exists()
    assert "## Training" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_selections_stand_beside_all_images(tmp_path):
    whole = evaluation()
    write_report(whole, tmp_path, selections={"without copies": whole.restrict({"a.png", "c.png"})})
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| without copies | 2 | 100.0% (100.0%–100.0%) |" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ["a"], "targets": np.array([0]), "logits": np.eye(1, 3), "indices": None},
        {"logits": np.tile([5.0, 0.0, 0.0], (4, 1))},
        {"labels": tuple(f"class ${number}$" for number in range(35)), "logits": np.eye(4, 35)},
    ],
    ids=["one image", "one answer for all", "many classes"],
)
def test_unusual_evaluations_make_a_report(tmp_path, changes):
    assert write_report(evaluation(**changes), tmp_path).is_file()


def test_the_console_table_shows_scores_and_classes():
    text = shown(console_table(evaluation(temperature=1.5, labels=("[red]anger[/red]", "fear", "happiness"))))
    assert "facerwkv_small on toy, test: 4 images" in text
    assert re.search(r"accuracy +75\.0% +25\.0%–100\.0%", text)
    assert re.search(r"\[red\]anger\[/red\] +100\.0% +50\.0% +66\.7% +2", text)
    assert "after temperature" in text


def test_the_console_table_says_which_classes_are_not_scored():
    assert "not scored, since only one side knows them: contempt" in shown(
        console_table(evaluation(meta={"ignored_labels": ["contempt"]}))
    )


def test_curves_count_epochs_from_one_and_skip_gaps(run):
    curves, x_name = read_curves(run / "metrics.csv")
    assert x_name == "epoch"
    assert curves["train_loss"] == [(1, 2.0), (2, 1.5)]
    assert curves["val_loss"] == [(1, 1.9)]


def test_curves_of_many_rows_an_epoch_count_steps(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train_loss\n0,9,2.0\n0,19,1.5\n")
    assert read_curves(tmp_path / "metrics.csv") == ({"train_loss": [(9, 2.0), (19, 1.5)]}, "step")


@pytest.mark.parametrize("content", [None, "", "epoch,step,lr\n"])
def test_no_curves_are_no_error(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    assert read_curves(tmp_path / "metrics.csv")[0] == {}


def test_images_take_the_colour_of_the_page():
    vector = figures.to_vector(figures.confusion_figure(np.eye(2, dtype=int), ("a", "<b>")), "confusion")
    svg = figures.to_svg(vector)
    assert "currentColor" in svg
    assert figures.INK not in svg
    assert "&lt;b&gt;" in svg
    assert svg.startswith("<svg")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("snake_case", "snake_case"), ("_a_", r"\_a\_"), ("a\nb", "a b"), ("[x](y)", r"\[x\](y)"), ("\udcff", r"\\udcff")],
)
def test_markdown_is_escaped(text, expected):
    assert templates.escape_markdown(text) == expected


def test_what_is_said_of_an_evaluation_is_in_words(tmp_path):
    write_report(evaluation(meta={"own_data": True, "without_box": 2}), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| own data | yes |\n| without box | 2 |" in text
