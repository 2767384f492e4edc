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
    from facerwkv.core.errors import InputError as InputError
    from facerwkv.core.labels import EXPRESSIONS as EXPRESSIONS
    from facerwkv.data.datasets import load_dataset as load_dataset
    from facerwkv.evaluation.evaluate import Evaluation as Evaluation
    from facerwkv.export import export_onnx as export_onnx
    from facerwkv.inference.predictor import Predictor as Predictor
    from facerwkv.inference.predictor import load as load
    from facerwkv.inference.stream import stream as stream
    from facerwkv.models.zoo import create_model as create_model
    from facerwkv.models.zoo import list_models as list_models
    from facerwkv.training.module import train as train
    from facerwkv.training.recipe import Recipe as Recipe

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
