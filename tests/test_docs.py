"""What the documentation says is what the program does."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from facerwkv.bench import page as speed
from facerwkv.bench.rows import ROWS
from facerwkv.cli import app
from facerwkv.core import metrics
from facerwkv.evaluation.result import LOGITS, Evaluation
from facerwkv.experiments import claim_mixing
from facerwkv.experiments.study import Setting
from facerwkv.models.zoo import shipped
from facerwkv.training.run import ENVIRONMENT, RECIPE
from tools import claims
from tools import write_docs as docs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_tables_of_models_are_up_to_date():
    facts = docs.describe_all()
    assert docs.README.read_text(encoding="utf-8") == docs.readme(facts), "run `make docs`"
    assert docs.MODELS_PAGE.read_text(encoding="utf-8") == docs.models(facts), "run `make docs`"


def test_the_page_of_data_sets_is_up_to_date():
    assert docs.DATA_PAGE.read_text(encoding="utf-8") == docs.data_sets(), "run `make docs`"


def test_the_results_follow_from_the_kept_runs():
    assert docs.RESULTS.read_text(encoding="utf-8") == docs.results(), "run `make docs`"


def test_the_page_on_speed_follows_from_what_was_measured():
    kept = ROOT / "docs" / speed.JSON
    if not kept.is_file():
        pytest.skip("nothing is measured yet: facerwkv bench all --out docs")
    values = json.loads(kept.read_text(encoding="utf-8"))
    assert (ROOT / "docs" / speed.PAGE).read_text(encoding="utf-8") == speed.page(values), "run `make docs`"
    assert set(values["rows"]) <= set(ROWS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_named_exists_with_its_options(page):
    group = get_command(app)
    for line in re.findall(r"facerwkv ((?:[a-z]+ )?[a-z]+(?: [^\n`]*)?)", page.read_text(encoding="utf-8")):
        words = line.split("#")[0].split()
        command = getattr(group, "commands", {}).get(words[0])
        if command is None:
            continue
        for word in words[1:3]:  # `data check`, `data cache list`
            command = getattr(command, "commands", {}).get(word, command)
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= known, f"{line}: {used - known}"


def test_every_target_of_the_makefile_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))) <= targets


def test_no_kept_run_names_a_place_on_a_machine():
    kept = [
        path
        for folder in (docs.RUNS, docs.COMPARISONS)
        for path in folder.rglob("*")
        if path.suffix not in (".png", ".npz")
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in kept if path.is_file()}
    assert [path for path, text in texts.items() if re.search(r"[\s\"'=:]/\w+/", text)] == []


KEPT = sorted(path.parent for path in docs.RUNS.glob(f"*/{LOGITS}"))


def test_the_answers_of_every_shipped_model_are_kept():
    assert {f"{name}_seed0" for name in shipped()} <= {folder.name for folder in KEPT}


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_scores_computed_from_kept_answers_are_the_page_s(folder):
    page = json.loads((folder / docs.EVALUATION).read_text())
    scores = Evaluation.load(folder).scores
    for name, metric in metrics.SCORES.items():
        assert scores[name].value == pytest.approx(page[name]["value"], abs=1e-9 if metric.of == "confusion" else 5e-4)
    assert (folder / LOGITS).stat().st_size < 200_000


def test_seeds_share_a_section_with_their_mean_and_deviation(tmp_path, monkeypatch):
    kept = json.loads((docs.COMPARISONS / "fer2013_four_epochs.json").read_text(encoding="utf-8"))
    for seed, accuracy in enumerate((0.50, 0.54)):
        rows = [row | {"accuracy": row["accuracy"] | {"value": accuracy}} for row in kept["rows"][:1]]
        (tmp_path / f"some_seed{seed}.json").write_text(json.dumps(kept | {"rows": rows}), encoding="utf-8")
    runs = tmp_path / "runs"
    for seed, uar in enumerate((0.6, 0.6)):
        shutil.copytree(docs.RUNS / "fer2013_small", runs / f"run_seed{seed}")
        path = runs / f"run_seed{seed}" / docs.EVALUATION
        scores = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(scores | {"uar": scores["uar"] | {"value": uar}}), encoding="utf-8")
    (tmp_path / "ten").mkdir()
    (tmp_path / "ten" / docs.EVALUATION).write_text(json.dumps(scores | {"tta": "ten", "source": "fer2013:/d/fer2013"}))
    monkeypatch.setattr(docs, "COMPARISONS", tmp_path)
    monkeypatch.setattr(docs, "RUNS", runs)
    docs.keep_protocol(tmp_path / "ten", "run_seed1")
    text = docs.results()
    value = f"{100 * scores['accuracy']['value']:.2f}"
    assert f"| run | all 28,709 | {value} ± 0.00 |  | {value} (1 of 2 seeds) |  |" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## By protocol", "## some", "## run"]
    assert f"| {kept['rows'][0]['name']} | 52.00 ± 2.83 |" in text
    assert "| 50.0, 54.0 |" in text
    mean = next(line for line in text.splitlines() if line.startswith("| mean ± deviation, all |"))
    assert mean.split(" | ")[3] == "60.00 ± 0.00"


def test_a_claim_s_table_is_computed_from_its_kept_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "CLAIMS", tmp_path / "claims")
    folder = tmp_path / "claim_mixing" / "48x48"
    setting, names = Setting("toy", tmp_path, [0, 1], smoke=True), [f"{number}.png" for number in range(8)]
    for title, right in {claim_mixing.NONE: (3, 5), "attention": (6, 6), claim_mixing.CONV: (8,)}.items():
        for seed, count in enumerate(right):
            run = folder / claim_mixing.MIXERS[title]["mixer"] / f"seed{seed}"
            logits = np.eye(2)[(np.arange(8) >= count).astype(int)]
            Evaluation(("anger", "fear"), names, np.zeros(8, int), logits, source="toy").save(run / "test")
            recipe = claim_mixing.plan(setting, claim_mixing.MIXERS[title], seed)
            (run / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
            shutil.copy(docs.RUNS / "fer2013_small" / ENVIRONMENT, run)
    claims.keep_claim(folder, "mixing")
    text = "\n".join(claims.claims_kept())
    assert "## mixing" in text
    assert f"| {claim_mixing.NONE} | 50.00 ± 17.68 |  |  |  |" in text
    assert "| attention | 75.00 ± 0.00 | +25.00 | " in text
    assert "Not run yet, or not with all seeds: the mean of all tokens; " in text
    assert text.rstrip().endswith(f"{claim_mixing.CONV}.")
