"""What is told of a release agrees: versions, dates, licences, addresses, links."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from facerwkv.models.zoo import licence_of, shipped
from tools import write_docs as docs

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
VERSION, DATE = re.search(
    r"^## (\S+), (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
).groups()


def test_version_date_and_licence_are_the_same_everywhere():
    assert PROJECT["version"] == str(CITATION["version"]) == VERSION
    assert str(CITATION.get("date-released", "unreleased")) == DATE
    assert PROJECT["license"] == CITATION["license"] == "Apache-2.0"
    assert CITATION["url"] == PROJECT["urls"]["Repository"]
    assert [author["name"] for author in PROJECT["authors"]] == [author["name"] for author in CITATION["authors"]]


def test_every_link_of_the_readme_is_absolute_and_every_file_behind_it_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README) if not link.startswith("#")]
    assert [link for link in links if not link.startswith("https://")] == []
    prefix = re.compile(rf"{re.escape(PROJECT['urls']['Repository'])}/(?:raw|blob|tree)/main/(.+)")
    files = [found[1] for link in links if (found := prefix.fullmatch(link))]
    assert len(files) > 8
    assert [name for name in files if not (ROOT / name).exists()] == []
    pages = [found[1] for url in PROJECT["urls"].values() if (found := prefix.fullmatch(url))]
    assert [name for name in pages if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", shipped())
def test_the_terms_of_shipped_weights_are_in_licenses(name):
    text = (docs.LICENSES / f"{name}.txt").read_text(encoding="utf-8")
    assert text == docs.terms(name), "run `make docs`"
    assert licence_of(name) in text


def test_there_is_a_file_of_terms_for_each_shipped_model_and_the_detector():
    assert sorted(path.stem for path in docs.LICENSES.iterdir()) == sorted([*shipped(), "YuNet"])
    patterns = PROJECT["license-files"]
    assert {path for pattern in patterns for path in ROOT.glob(pattern)} == {ROOT / "LICENSE", *docs.LICENSES.iterdir()}


def test_a_workflow_names_an_action_by_its_major_version():
    for path in (ROOT / ".github").rglob("*.yml"):
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text), path
        versions = re.findall(r"uses: \S+@(\S+)", text)
        assert [version for version in versions if not re.fullmatch(r"v\d+|release/v\d+", version)] == [], path


def test_each_kept_run_tells_its_commit():
    places = [folder / "environment.json" for folder in docs.RUNS.iterdir()]
    commits = [json.loads(place.read_text(encoding="utf-8"))["commit"] for place in places]
    assert all(commit is None or re.fullmatch(r"[0-9a-f]{12}\+?", commit) for commit in commits)
    assert docs.RESULTS.read_text(encoding="utf-8").count("commit not recorded") == commits.count(None)
