"""The next step that an error names can be typed: its commands, options and settings exist where it is printed."""

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

from facerwkv.cli import app
from facerwkv.inference.options import facts
from facerwkv.training.recipe import Recipe
from tests.commands import facerwkv

PACKAGE = Path(__file__).resolve().parents[1] / "facerwkv"
TRAINING = ("train", "compare", "reproduce")
SCORING = (*TRAINING, "evaluate")
FACES = ("predict", "explain", "serve")
PRINTED_BY = {
    "cli.py": ("export",),
    "core/labels.py": TRAINING,
    "core/runtime.py": FACES,
    "data/": SCORING,
    "media/frames.py": ("predict",),
    "media/faces.py": ("predict", "serve"),
    "models/onnx.py": FACES,
    "models/": TRAINING,
    "training/recipe.py": SCORING,
    "training/": TRAINING,
    "inference/ray_runner.py": ("predict",),
    "evaluation/compare.py": ("compare", "reproduce"),
    "evaluation/": ("evaluate",),
    "experiments/demo.py": ("demo",),
    "experiments/": ("reproduce",),
    "export/": ("export",),
    "web/": ("serve",),
}
"""Beginning of a file's path → the commands that print its advice; the first that fits."""
PIP = {"--force-reinstall"}
SAID = {"InputError", "MissingLayout", "UnreadableImage", "UnreadableVideo", "Incomplete", "_note", "append", "warning"}
COMMANDS = get_command(app).commands
SETTING = re.compile(r"\b((?:data|train|model|transform|optim|augment|schedule)(?:\.[a-z]\w*)+)=")


def _text(node: ast.AST) -> str:
    """A string in the source, with {} for what is inserted; "" for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _messages():
    """File, line and text of every message: the strings inside the calls that raise or print one."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(getattr(call, "func", None), "id", "") or getattr(getattr(call, "func", None), "attr", "")
            if isinstance(call, ast.Call) and name in SAID:
                inside = {
                    id(part) for node in ast.walk(call) if isinstance(node, ast.JoinedStr) for part in node.values
                }
                texts = [_text(node) for node in ast.walk(call) if id(node) not in inside]
                yield from ((path.relative_to(PACKAGE).as_posix(), call.lineno, text) for text in texts if text)


MESSAGES = sorted(set(_messages()))
ADVICE = [
    message for message in MESSAGES if re.search(r"--[a-z]|\bfacerwkv [a-z]", message[2]) or SETTING.search(message[2])
]


def _options(command) -> set[str]:
    shown = {option for parameter in command.params for option in parameter.opts}
    return shown | (
        {f"--{name.replace('_', '-')}" for name in facts()} if "Prediction" in type(command).__name__ else set()
    )


def _takes(command: str, key: str) -> bool:
    """Whether a command takes such a setting as an argument, KEY=VALUE."""
    owner = Recipe
    for name in key.split("."):
        field = getattr(owner, "model_fields", {}).get(name)
        if field is None:
            return owner is dict
        owner = field.annotation if hasattr(field.annotation, "model_fields") else dict if "dict" in str(field) else str
    changes = any(parameter.name in ("changes", "names") for parameter in COMMANDS[command].params)
    return changes and (key.startswith("data.") or command != "evaluate")


def _row(file: str) -> str:
    assert file.startswith(tuple(PRINTED_BY)), f"{file} gives advice now: add to PRINTED_BY which commands print it"
    return next(start for start in PRINTED_BY if file.startswith(start))


@pytest.mark.parametrize(("file", "line", "text"), ADVICE)
def test_the_next_step_of_an_error_can_be_typed(file, line, text):
    printed_by = PRINTED_BY[_row(file)]
    for piece in re.split(r"[;,)`]|\.(?=\s|$)|\.?(?= Then )", text):
        named = re.search(r"\bfacerwkv (\w+)(?: (list|check|info|pack)\b)?(.*)", piece)
        before = piece[: named.start()] if named else piece
        if named:
            command = COMMANDS[named[1]]
            command = command.commands[named[2]] if named[2] else command
            assert set(re.findall(r"--[a-z-]+", named[3])) <= _options(command), f"{file}:{line}"
            needed = {
                parameter.opts[0] for parameter in command.params if parameter.required and parameter.opts[0][0] == "-"
            }
            assert needed <= set(named[3].split()) or not named[3].strip(), f"{file}:{line} lacks {needed}"
            assert all(_takes(named[1], key) for key in SETTING.findall(named[3])), f"{file}:{line}"
        for each in printed_by:
            assert set(re.findall(r"--[a-z][a-z-]+", before)) - PIP <= _options(COMMANDS[each]), (
                f"{file}:{line}: {each}"
            )
            assert all(_takes(each, key) for key in SETTING.findall(before)), f"{file}:{line}: {each}"


def test_there_is_advice_to_check():
    assert len(ADVICE) > 40
    assert {_row(file) for file, _, _ in ADVICE} == set(PRINTED_BY)
    assert {"data.labels", "data.boxes"} <= {key for _, _, text in ADVICE for key in SETTING.findall(text)}


@pytest.fixture
def three(tmp_path, colours):
    """A folder of three classes without splits."""
    for label in ("anger", "fear", "sadness"):
        (tmp_path / "three").mkdir(exist_ok=True)
        (tmp_path / "three" / label).symlink_to(colours / "train" / label)
    return f"imagefolder:{tmp_path}/three"


def test_the_labels_that_an_error_names_are_taken(three, tmp_path, monkeypatch):
    monkeypatch.setattr("facerwkv.evaluation.compare._row", lambda *of: pytest.fail("it is only planned"))
    command = ("compare", "facerwkv4_small", "--split", "val", "--data", three)
    (advice,) = re.findall(r"data\.labels=\[.*\]", facerwkv(*command, cwd=tmp_path).stderr)
    monkeypatch.setattr("facerwkv.evaluation.compare._row", lambda *of: {"name": "x", "n": 1})
    monkeypatch.setattr("facerwkv.evaluation.compare.Comparison.save", lambda *of: None)
    monkeypatch.setattr("facerwkv.evaluation.compare.Comparison.print", lambda *of: None)
    assert facerwkv(*command, advice, cwd=tmp_path).returncode == 0


def test_a_check_counts_the_classes_that_there_are(three):
    done = facerwkv("data", "check", three)
    assert done.returncode == 0
    assert "surprise" not in done.stdout
    assert "fear" in done.stdout
