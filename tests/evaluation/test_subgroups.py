"""Scores by who is shown: the groups, the gap between them, and whether chance alone makes one as large."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from facerwkv.cli import app
from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.transforms import TransformConfig
from facerwkv.evaluation.report import console_subgroups, write_report
from facerwkv.evaluation.result import Evaluation
from facerwkv.evaluation.subgroups import Subgroups, choose_attributes, holm, score_subgroups
from facerwkv.models.checkpoint import save_checkpoint
from facerwkv.models.folder import Checkpoint
from facerwkv.models.zoo import create_model
from tests.data import trees

LABELS = ("anger", "fear")
LEAST = 1 / 2001  # of p: no shuffle reaches the gap


def evaluation(targets, predictions) -> Evaluation:
    names = [f"{number}.png" for number in range(len(targets))]
    return Evaluation(LABELS, names, np.array(targets), np.eye(2)[predictions], source="people", model="some")


def of(**columns: list[str]) -> list[dict[str, str]]:
    """Attributes of every image, from a list for each attribute."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.fixture(scope="module")
def unfair() -> Subgroups:
    """40 men, all right; 40 women, half right; 10 of unsure gender; 2 of whom nothing is known."""
    targets = [0, 1] * 46
    right = np.array([1] * 40 + [1, 1, 0, 0] * 10 + [1] * 12, bool)
    predictions = np.where(right, targets, 1 - np.array(targets))
    genders = ["male"] * 40 + ["female"] * 40 + ["unsure"] * 10 + ["unknown"] * 2
    return score_subgroups(evaluation(targets, predictions), of(gender=genders), ["gender"])


def test_every_group_is_scored_like_any_selection_of_images(unfair):
    groups = unfair.groups["gender"]
    assert {name: len(part.names) for name, part in groups.items()} == {
        "female": 40,
        "male": 40,
        "unsure": 10,
        "unknown": 2,
    }
    assert groups["male"].scores["accuracy"].value == groups["male"].scores["uar"].value == 1
    assert groups["female"].scores["accuracy"].value == 0.5
    assert unfair.unknown == ["90.png", "91.png"]


def test_the_gap_is_that_of_the_best_and_the_worst_with_its_interval(unfair):
    assert [(gap.attribute, gap.score, gap.best, gap.worst) for gap in unfair.gaps] == [
        ("gender", score, "male", "female") for score in ("accuracy", "uar", "macro_f1")
    ]
    accuracy = unfair.gaps[0].difference
    assert accuracy.value == 0.5
    half = 1.96 * (0.25 / 40) ** 0.5  # of a binomial's interval
    assert (accuracy.low, accuracy.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.03)


def test_p_is_corrected_for_the_number_of_gaps(unfair):
    assert [gap.p for gap in unfair.gaps] == [LEAST] * 3
    assert [gap.p_holm for gap in unfair.gaps] == [3 * LEAST] * 3


def test_holms_method():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_a_gap_that_the_classes_alone_explain_is_none():
    """All anger is found and no fear; one group shows mostly anger, the other mostly fear."""
    targets = [0] * 30 + [1] * 10 + [0] * 10 + [1] * 30
    groups = of(group=["a"] * 40 + ["b"] * 40)
    accuracy, *_ = score_subgroups(evaluation(targets, [0] * 80), groups, ["group"]).gaps
    assert (accuracy.best, accuracy.difference.value, accuracy.p) == ("a", 0.5, 1.0)


def test_groups_drawn_by_chance_differ_significantly_one_time_in_twenty():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(60):
        answers = evaluation(rng.integers(0, 2, 90), rng.integers(0, 2, 90))
        groups = of(group=rng.permutation(["a"] * 30 + ["b"] * 60).tolist())
        found.append(score_subgroups(answers, groups, ["group"]).gaps[0].p <= 0.05)
    assert 1 <= sum(found) <= 7


def test_small_groups_are_shown_and_not_compared():
    groups = of(race=["Asian"] * 29 + ["Caucasian"] * 31)
    found = score_subgroups(evaluation([0, 1] * 30, [0] * 60), groups, ["race"])
    assert found.gaps == []
    assert found.to_dict()["attributes"]["race"]["gaps"] == {}
    assert {name: group["few"] for name, group in found.to_dict()["attributes"]["race"]["groups"].items()} == {
        "Asian": True,
        "Caucasian": False,
    }


def test_ages_stand_in_their_order():
    ages = ["70+", "4-19", "unknown", "0-3", "40-69", "20-39"]
    found = score_subgroups(evaluation([0] * 6, [0] * 6), of(age=ages), ["age"])
    assert list(found.groups["age"]) == ["0-3", "4-19", "20-39", "40-69", "70+", "unknown"]


def test_what_programs_read(unfair):
    said = json.loads(json.dumps(unfair.to_dict(), allow_nan=False))
    assert said == unfair.to_dict()
    gender = said["attributes"]["gender"]
    assert gender["groups"]["female"].keys() == {"n", "few", "accuracy", "uar", "macro_f1"}
    assert gender["gaps"]["uar"].keys() == {"best", "worst", "value", "low", "high", "p", "p_holm"}
    assert said["unknown"] == ["90.png", "91.png"]


SEEN = [
    {"native": "1", "usage": "PrivateTest", "gender": "male", "id": str(number), "eyes": "unknown"}
    for number in range(51)
]


def test_all_means_every_attribute_of_the_people():
    assert choose_attributes("all", [*SEEN, {"race": "Asian"}], "people") == ("gender", "race")
    assert choose_attributes("race, gender,race", [*SEEN, {"race": "Asian"}], "people") == ("race", "gender")


@pytest.mark.parametrize(
    ("wanted", "attributes", "message"),
    [
        (
            "all",
            [{"native": "1"}],
            "people does not say who is shown, so it has no subgroups. rafdb does, and a manifest",
        ),
        (
            "sex",
            SEEN,
            "people has no attribute 'sex' with at most 50 values. It has gender; write --subgroups with some",
        ),
        ("gender,id", SEEN, "no attribute 'id'"),
        ("", SEEN, "no attribute ''"),
    ],
)
def test_an_attribute_that_is_not_there_is_told_which_are(wanted, attributes, message):
    with pytest.raises(InputError, match=message):
        choose_attributes(wanted, attributes, "people")


def test_the_report_shows_groups_gaps_and_how_to_read_them(unfair, tmp_path):
    page = write_report(evaluation([0, 1], [0, 1]), tmp_path, subgroups=unfair)
    text = page.with_name("report.md").read_text(encoding="utf-8")
    assert "## Subgroups" in text
    assert "| gender | number | accuracy | UAR | macro-F1 |" in text
    assert "| male | 40 | 100.0% (100.0%–100.0%) |" in text
    assert "| unsure (few) | 10 |" in text
    assert "| gender: accuracy | male | female | 50.0% | 3" in text
    assert "| 0.0005 | 0.0015 |" in text
    assert "so unknown: 90.png, 91.png." in text
    assert text.count("p is how often a gap") == 1
    assert "<h2>Subgroups</h2>" in page.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "subgroups.json").read_text(encoding="utf-8")) == unfair.to_dict()


def test_another_evaluation_in_the_same_folder_leaves_no_old_subgroups(unfair, tmp_path):
    write_report(evaluation([0, 1], [0, 1]), tmp_path, subgroups=unfair)
    write_report(tmp_path, tmp_path)
    assert (tmp_path / "subgroups.json").is_file()
    write_report(evaluation([0, 1], [1, 1]), tmp_path)
    assert not (tmp_path / "subgroups.json").exists()


def test_the_terminal_shows_the_same(unfair):
    console = Console(width=110, file=io.StringIO())
    console.print(console_subgroups(unfair))
    text = " ".join(console.file.getvalue().split())
    assert "female 40 50.0% (35.0%–65.0%)" in text
    assert "gender: UAR male female 50.0%" in text
    assert "p is how often a gap" in text


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    options = {"image_size": (24, 24), "patch_size": 12, "width": 16, "depth": 2}
    model = create_model("facerwkv4_small", num_classes=7, **options)
    save_checkpoint(folder, Checkpoint(model, "facerwkv4_small", EXPRESSIONS, TransformConfig(image_size=(24, 24))))
    return folder


def evaluate(checkpoint, source, out, *options):
    arguments = ["evaluate", "--model", checkpoint, "--data", source, "--out", out, "--device", "cpu", *options]
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_scores_rafdb_by_gender_race_and_age(checkpoint, tmp_path):
    trees.build_rafdb(tmp_path / "raf", tests=15)
    (tmp_path / "raf/basic/Annotation/manual/test_00004_manu_attri.txt").write_bytes(b"1 2")
    done = evaluate(checkpoint, f"rafdb:{tmp_path / 'raf'}", tmp_path / "out", "--subgroups", "gender,age", "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)["subgroups"]
    assert said["unknown"] == ["basic/Image/aligned/test_00004_aligned.jpg"]
    counts = {
        attribute: {value: group["n"] for value, group in values["groups"].items()}
        for attribute, values in said["attributes"].items()
    }
    assert counts == {
        "gender": {"female": 35, "male": 34, "unsure": 35, "unknown": 1},
        "age": {"0-3": 21, "4-19": 21, "20-39": 21, "40-69": 20, "70+": 21, "unknown": 1},
    }
    assert said["attributes"]["gender"]["gaps"].keys() == {"accuracy", "uar", "macro_f1"}
    assert said["attributes"]["age"]["gaps"] == {}
    assert "Not compared, for want of two groups of 30 images: age." in (tmp_path / "out/report.md").read_text()


def test_names_that_are_no_unicode_are_shown_and_kept(tmp_path):
    answers = evaluation([0, 1], [0, 1])
    odd = Evaluation(LABELS, ["\udcff.png", "b.png"], answers.targets, answers.logits)
    found = score_subgroups(odd, of(gender=["unknown", "\udcfe"]), ["gender"])
    write_report(odd, tmp_path, subgroups=found)
    assert json.loads((tmp_path / "subgroups.json").read_text())["unknown"] == ["\udcff.png"]
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    console.print(console_subgroups(found))


def test_the_command_tells_what_a_data_set_lacks(checkpoint, tmp_path):
    source = trees.build("manifest", tmp_path)
    assert "It has gender" in str(evaluate(checkpoint, source, tmp_path / "out", "--subgroups", "age").exception)
    assert not (tmp_path / "out").exists()
