"""`facerwkv demo`: from nothing to a trained model that names a drawn image, in a few minutes; then a photograph."""

import shutil
from pathlib import Path

from PIL import Image
from rich.console import Console

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.data.load import load_dataset
from facerwkv.data.samples import read_image
from facerwkv.evaluation.evaluate import evaluate_folder, finish
from facerwkv.inference.predictor import Predictor, load
from facerwkv.media.images import open_image
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import RECIPE


def run(out: Path, photo: Path | None = None) -> None:
    """Train, evaluate, predict; print where everything is. An earlier demo in `out` is removed, and nothing else.

    The faces in `photo` are named by the shipped model: what was trained here has seen drawn faces alone.
    """
    console, steps = Console(markup=False), 4 if photo else 3
    if photo:
        open_image(photo)  # before minutes are spent
    if out.exists() and any(out.iterdir()):
        if not (out / RECIPE).is_file() or "facerwkv demo" not in Recipe.read(out / RECIPE).about:
            raise InputError(f"{out} is not an earlier demo; choose another folder with --out.")
        shutil.rmtree(out)
    console.print(f"1/{steps} Training a small FaceRWKV on drawn faces")
    train(Recipe.read("demo"), out)
    finish(out)
    console.print(f"2/{steps} Scoring it on the test images")
    scored = evaluate_folder(out)
    scored.print()
    console.print(f"\n3/{steps} Naming the expressions in one image with the model that was just trained")
    image = out / "image.png"  # a scene of the test split with several faces
    with atomic(image) as partial:
        Image.fromarray(read_image(load_dataset("toy").splits["test"][0])).save(partial, "PNG")
    written = {"the report": scored.report, "the curves": scored.report.parent / "curves.png"}
    written["the drawn image"] = _name(load(out), image, out / "image_drawn.png", console)
    if photo:
        model = load()
        console.print(f"\n4/4 Naming the faces in {photo} with the shipped {model.checkpoint.title}")
        written["the drawn photo"] = _name(model, photo, out / "photo_drawn.png", console)
    for what, path in written.items():
        console.print(f"{what:>18}: {path}")


def _name(model: Predictor, image: Path, drawn: Path, console: Console) -> Path:
    """Print a model's answer for an image, and draw it."""
    result = model.predict(image, on_no_face="scene")
    console.print(result)
    with atomic(drawn) as partial:
        result.plot().save(partial, "PNG")
    return drawn
