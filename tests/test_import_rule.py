"""A module imports from lower floors or its own folder, never sideways or up; importing the package does nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from facerwkv.kernels.calls import constant

PREDICTS = """
import sys, time
before = time.process_time()
from facerwkv.cli import main
image, drawing = sys.argv[1:]
for command in ("predict --json", f"explain --method occlusion --mode scene --out {drawing}"):
    sys.argv = ["facerwkv", *command.split(), image, "--device", "cpu"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
print(time.process_time() - before, *(name for name in %r if name in sys.modules))
"""
UNUSED = ("torch", "timm", "torchvision", "sympy", "triton", "huggingface_hub", "yaml", "jinja2")
UNUSED += (
    "lightning",
    "torchmetrics",
    "matplotlib",
    "pandas",
    "pyarrow",
    "scipy",
    "onnx",
    "ray",
    "fastapi",
)
PACKAGE = Path(__file__).resolve().parents[1] / "facerwkv"
FLOORS = [
    {"core"},
    {"kernels", "media"},
    {"mixers", "data"},
    {"models"},
    {"training", "inference"},
    {"evaluation", "export"},
    {"experiments", "bench", "web"},
    {"doctor", "subcommands"},
    {"cli"},
    {"__main__"},
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
NEVER = {"export": {"training"}, "web": {"training", "evaluation"}}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported_parts(path):
    """The first name below facerwkv of every import in a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("facerwkv."))


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_or_stay_in_the_folder(path):
    own = part_of(path)
    assert own in FLOOR, f"{own} stands on no floor; name it in this test and in the design"
    for other in imported_parts(path):
        assert other == own or FLOOR[other] < FLOOR[own], f"{path.relative_to(PACKAGE)} imports {other}"
        assert other not in NEVER.get(own, ()), f"{path.relative_to(PACKAGE)} imports {other}"


def test_files_stay_readable():
    long = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


def test_importing_the_package_loads_nothing_heavy():
    code = "import facerwkv, sys; print([m for m in ('torch', 'cv2', 'numpy', 'timm', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_predicting_and_explaining_an_image_load_no_torch_and_little_else(tmp_path):
    image = tmp_path / "image.jpg"
    Image.new("RGB", (64, 64), "grey").save(image)
    command = [sys.executable, "-c", PREDICTS % (UNUSED,), str(image), str(tmp_path / "drawing.png")]
    subprocess.run(command, capture_output=True, check=True)  # compiles what is not compiled yet
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that wait for each other count as work
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=alone)
    seconds, *loaded = done.stdout.splitlines()[-1].split()
    assert loaded == []
    assert float(seconds) < 2.5  # of the processor; 0.7 on a fast one


def test_a_constant_has_torch_s_own_mark():
    assert vars(constant(lambda: 0)) == vars(torch.compiler.assume_constant_result(lambda: 0)) != {}
