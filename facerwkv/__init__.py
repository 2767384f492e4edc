"""FaceRWKV: apparent facial expressions with RWKV vision models.

    import facerwkv
    model = facerwkv.load("runs/demo")
    print(model.predict("party.jpg"))

Names are imported when they are first asked for, so `import facerwkv` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facerwkv.data.datasets import load_dataset as load_dataset
    from facerwkv.errors import InputError as InputError
    from facerwkv.export import export_onnx as export_onnx
    from facerwkv.labels import EXPRESSIONS as EXPRESSIONS
    from facerwkv.models import create_model as create_model
    from facerwkv.models import list_models as list_models
    from facerwkv.predict import Predictor as Predictor
    from facerwkv.predict import load as load
    from facerwkv.training.evaluate import Evaluation as Evaluation
    from facerwkv.training.module import train as train
    from facerwkv.training.recipe import Recipe as Recipe
    from facerwkv.video import stream as stream

_HOMES = {
    "EXPRESSIONS": "labels",
    "Evaluation": "training.evaluate",
    "InputError": "errors",
    "Predictor": "predict",
    "Recipe": "training.recipe",
    "create_model": "models",
    "export_onnx": "export",
    "list_models": "models",
    "load": "predict",
    "load_dataset": "data.datasets",
    "stream": "video",
    "train": "training.module",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("facerwkv")
    if name not in _HOMES:
        raise AttributeError(f"module 'facerwkv' has no attribute {name!r}")
    return getattr(import_module(f"facerwkv.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
