"""What the pages name exists: paths, public names, messages; and the notebook runs."""

import ast
import re
from pathlib import Path

import pytest

import facerwkv
from tools import write_lists
from tools.notebook_page import execute

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("how-to/*.md"))]
PATH = re.compile(r"`((?:facerwkv|tests|tools|docs)/[\w./-]+)`")
BLOCKS = re.findall(
    r"^```console\n(.*?)^```", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
MESSAGES = [message for block in BLOCKS for message in block.splitlines()]


@pytest.fixture(scope="module")
def templates() -> dict[re.Pattern, int]:
    """The strings of the package as patterns in which an inserted value may be anything → their fixed characters."""
    found = {}
    for path in (ROOT / "facerwkv").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            fixed = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            length = sum(len(text) for text in fixed if isinstance(text, str))
            if length >= 8 and all(text is None or (isinstance(text, str) and "\n" not in text) for text in fixed):
                found[re.compile("".join("(.+)" if text is None else re.escape(text) for text in fixed))] = length
    return found


def fixed_characters(message: str, templates: dict[re.Pattern, int]) -> int:
    """How many characters of a message stand in the package, in one string and in those that it inserts."""
    matches = {match: length for pattern, length in templates.items() if (match := pattern.fullmatch(message))}
    return max(
        (
            length + sum(fixed_characters(part, templates) for part in match.groups())
            for match, length in matches.items()
        ),
        default=0,
    )


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_of_the_program(message, templates):
    share = fixed_characters(message, templates) / len(message)
    assert share >= 0.33, "no message of the program reads so"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_named_exists(page):
    named = {path for path in PATH.findall(page.read_text(encoding="utf-8")) if "NAME" not in path}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_the_tree_of_the_architecture_is_that_of_the_package():
    tree = re.search(r"^facerwkv/\n(.*?)^tools/", (DOCS / "architecture.md").read_text(encoding="utf-8"), re.M | re.S)
    shown = set(re.findall(r"^[├└]── ([\w.]+)", tree[1], re.MULTILINE))
    there = {path.name for path in (ROOT / "facerwkv").iterdir()} - {"__pycache__", "__main__.py", "py.typed"}
    assert shown == there


def test_the_reference_has_every_public_name():
    described = re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    public = {f"facerwkv.{name}" for name in facerwkv.__all__ if name != "__version__"}
    assert public <= set(described)
    assert len(described) == len(set(described))


@pytest.mark.parametrize("name", write_lists.LISTS)
def test_the_lists_are_up_to_date(name):
    assert (write_lists.HOW_TO / f"{name}.md").read_text(encoding="utf-8") == write_lists.page(name), "run `make docs`"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    outputs = [output for cell in execute(tmp_path).cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if "text" in output)
    before, after = map(int, re.findall(r"^(?:before|after): (\d+)%", printed, re.MULTILINE))
    assert after > before + 20
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 2
