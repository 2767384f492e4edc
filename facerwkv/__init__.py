"""FaceRWKV: apparent facial expressions with RWKV vision models.

    import facerwkv
    print(facerwkv.predict("party.jpg"))
    model = facerwkv.load("runs/demo")
    print(model("party.jpg"))

Names are imported when they are first asked for, so `import facerwkv` costs nothing.
"""

from typing import TYPE_CHECKING, Any

from facerwkv.core.lazy import lazy_names

if TYPE_CHECKING:
    from facerwkv.core.errors import InputError as InputError
    from facerwkv.core.labels import EXPRESSIONS as EXPRESSIONS
    from facerwkv.data.load import load_dataset as load_dataset
    from facerwkv.evaluation.evaluate import evaluate_folder as evaluate_folder
    from facerwkv.evaluation.evaluate import finish as finish
    from facerwkv.evaluation.result import Evaluation as Evaluation
    from facerwkv.export import export_onnx as export_onnx
    from facerwkv.inference.explain import explain as explain
    from facerwkv.inference.predictor import Predictor as Predictor
    from facerwkv.inference.predictor import load as load
    from facerwkv.inference.predictor import predict as predict
    from facerwkv.inference.stream import stream as stream
    from facerwkv.media.faces import FaceDetector as FaceDetector
    from facerwkv.media.images import open_image as open_image
    from facerwkv.models.zoo import create_model as create_model
    from facerwkv.models.zoo import list_models as list_models
    from facerwkv.training.module import train as train
    from facerwkv.training.recipe import Recipe as Recipe

_HOMES = {
    "EXPRESSIONS": "core.labels",
    "Evaluation": "evaluation.result",
    "FaceDetector": "media.faces",
    "InputError": "core.errors",
    "Predictor": "inference.predictor",
    "Recipe": "training.recipe",
    "create_model": "models.zoo",
    "evaluate_folder": "evaluation.evaluate",
    "explain": "inference.explain",
    "export_onnx": "export",
    "finish": "evaluation.evaluate",
    "list_models": "models.zoo",
    "load": "inference.predictor",
    "load_dataset": "data.load",
    "open_image": "media.images",
    "predict": "inference.predictor",
    "stream": "inference.stream",
    "train": "training.module",
}
__all__ = sorted([*_HOMES, "__version__"])
_get, __dir__ = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("facerwkv")
    return _get(name)
