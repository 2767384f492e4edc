"""`facerwkv demo`: from nothing to a trained model and a drawn image, on the toy data set, in a few minutes."""

import shutil
from pathlib import Path

from PIL import Image
from rich.console import Console

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.data.load import load_dataset
from facerwkv.data.samples import read_image
from facerwkv.evaluation.evaluate import evaluate_folder, finish
from facerwkv.inference.predictor import load
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import RECIPE


def run(out: Path) -> None:
    """Train, evaluate, predict; print where everything is. An earlier demo in `out` is removed, and nothing else."""
    console = Console()
    if out.exists() and any(out.iterdir()):
        if not (out / RECIPE).is_file() or "facerwkv demo" not in Recipe.read(out / RECIPE).about:
            raise InputError(f"{out} is not an earlier demo; choose another folder with --out.")
        shutil.rmtree(out)
    console.print("[bold]1/3[/] Training a small FaceRWKV on drawn faces")
    train(Recipe.read("demo"), out)
    finish(out)
    console.print("[bold]2/3[/] Scoring it on the test images")
    scored = evaluate_folder(out)
    scored.print()
    model = load()
    console.print(f"\n[bold]3/3[/] Naming the expressions in one image with the shipped {model.checkpoint.name}")
    image = out / "image.png"  # a scene of the test split with several faces
    with atomic(image) as partial:
        Image.fromarray(read_image(load_dataset("toy").splits["test"][0])).save(partial, "PNG")
    result = model.predict(image, mode="face", on_no_face="scene")
    console.print(result)
    with atomic(out / "image_drawn.png") as partial:
        result.plot().save(partial, "PNG")
    for what, path in {
        "the report": scored.report,
        "the curves": scored.report.parent / "curves.png",
        "the drawn image": out / "image_drawn.png",
    }.items():
        console.print(f"{what:>18}: {path}")
