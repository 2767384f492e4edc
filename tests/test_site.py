"""Every command and every example of the documentation's pages is run, in a folder that has what they name."""

import re
import shlex
import shutil
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from facerwkv.cli import app
from facerwkv.data.toy.scenes import render
from facerwkv.media.frames import VideoWriter
from tests.data import trees

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "pip install": "tests/test_wheel.py installs the package",
    "uv pip install": "needs a network",
    "facerwkv serve": "tests/web",
    "facerwkv reproduce all": "tests/experiments/test_reproduce.py",
    "facerwkv reproduce sanity": "tests/experiments/test_sanity.py",
    "facerwkv bench all": "an hour of measuring; its parts in tests/bench",
    "facerwkv predict photos/ --runner ray": "tests/test_distributed.py",
    "facerwkv train --recipe fer --data fer2013:/d/fer2013 --out runs/two": "tests/training/test_distributed.py",
}
SMALL = {
    "facerwkv train --recipe modern": "transform.image_size=[48,48] 'model.options={patch_size: 8}'",
    "facerwkv train": "train.epochs=1 data.limit=7 data.batch_size=4 data.validation=random",
    "facerwkv compare": (
        "train.epochs=1 data.limit=7 data.batch_size=4 transform.image_size=[48,48] 'model.options={patch_size: 8}'"
    ),
}
"""What makes a training short, put behind its command."""
LONG = ("bench", "compare", "data", "evaluate", "export", "index", "models", "predict", "reproduce", "train")
INCOMPLETE = "facerwkv data check fer2013"  # says, with exit code 1, that this made-up tree is smaller than published


def blocks(page: Path) -> list[tuple[str, str]]:
    return FENCE.findall(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with party.jpg, photos/, talk.mp4, docs/ and the data sets below d/."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / "photos").mkdir()
    scenes = [render(index, "test").image for index in range(3)]
    Image.fromarray(scenes[0]).save(folder / "party.jpg")
    for index, scene in enumerate(scenes):
        Image.fromarray(scene).save(folder / "photos" / f"{index}.png")
    with closing(VideoWriter(folder / "talk.mp4", 10)) as video:
        for number in range(25):
            video.write(number / 10, np.roll(scenes[0], number, axis=1))
    places = {"ferplus_soft": "fer2013", "caer_s": "CAER-S", "rafdb": "rafdb", "imagefolder": "faces", "ck48": "CK+48"}
    for name, place in places.items():
        trees.build(name, folder / "d" / place)
    for label in ("bored", "awake"):
        (folder / "d" / "moods" / label).mkdir(parents=True)
        for index, scene in enumerate(scenes):
            Image.fromarray(scene).save(folder / "d" / "moods" / label / f"{label}{index}.png")
    return folder


@pytest.fixture
def there(world, monkeypatch) -> Path:
    monkeypatch.chdir(world)
    return world


def run(line: str) -> None:
    """One line of a page, made short where it trains, its data taken from d/."""
    listing, _, command = line.rpartition(" | ")
    command = command.replace("/d/", "d/")
    fixed = "--resume" in command or command.startswith(
        ("facerwkv compare runs/", "facerwkv compare docs/")
    )  # nothing is trained anew
    small = " ".join(more for start, more in SMALL.items() if command.startswith(start) and not fixed)
    given = "\n".join(map(str, sorted(Path("photos").glob("*.png")))) if listing else None
    result = CliRunner().invoke(app, shlex.split(f"{command} {small}")[1:], input=given)
    assert result.exit_code == int(command.startswith(INCOMPLETE)), f"{command}\n{result.output}\n{result.exception!r}"


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=pytest.mark.slow if page.stem in LONG else ()) for page in PAGES]
)
def test_everything_on_a_page_runs(page, there):
    shutil.rmtree(there / "runs", ignore_errors=True)
    if "runs/fer" in page.read_text(encoding="utf-8") and page.stem != "train":
        run("facerwkv train --recipe fer --data fer2013:/d/fer2013 --out runs/fer")
    if page.stem == "compare":
        for name in ("small", "large"):
            run(f"facerwkv train --recipe modern --data fer2013:/d/fer2013 --model facerwkv4_small --out runs/{name}")
    if page.stem == "embed":
        pytest.importorskip("flask")
    for kind, text in blocks(page):
        if "import gradio" in text and find_spec("gradio") is None:
            continue  # tests/test_embed.py says so
        if kind == "python":
            exec(compile(text, page.name, "exec"), {"__name__": "page"})
            continue
        for line in text.splitlines():
            if not line.startswith(tuple(ELSEWHERE)):
                run(line)


def test_what_is_run_elsewhere_is_on_a_page():
    lines = [line for page in PAGES for kind, text in blocks(page) if kind == "sh" for line in text.splitlines()]
    assert [start for start in ELSEWHERE if not any(line.startswith(start) for line in lines)] == []
    assert [line for line in lines if not line.startswith(("facerwkv ", "ls ", *ELSEWHERE))] == []


def test_the_site_is_built_without_a_network(tmp_path):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site")))
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")]
    assert len(pages) >= 25
    asked = {place for page in pages for place in re.findall(r'(?:src|<link[^>]*href)="(https?://[^"]+)"', page)}
    assert asked == set()
