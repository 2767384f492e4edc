"""The models. Importing this tells timm of ours: `timm.create_model("facerwkv4_small")` builds one."""

from importlib import import_module
from typing import TYPE_CHECKING

import wrapt

from facerwkv.core.lazy import lazy_names

if TYPE_CHECKING:
    from facerwkv.models.config import BackboneConfig as BackboneConfig
    from facerwkv.models.config import ModelConfig as ModelConfig
    from facerwkv.models.config import VRWKVConfig as VRWKVConfig
    from facerwkv.models.facerwkv import FaceRWKV as FaceRWKV
    from facerwkv.models.vrwkv import VRWKV as VRWKV
    from facerwkv.models.vrwkv import convert_vrwkv as convert_vrwkv
    from facerwkv.models.vrwkv import load_vrwkv as load_vrwkv
    from facerwkv.models.zoo import MODELS as MODELS
    from facerwkv.models.zoo import Model as Model
    from facerwkv.models.zoo import create_model as create_model
    from facerwkv.models.zoo import list_models as list_models
    from facerwkv.models.zoo import model_line as model_line

_HOMES = {
    "BackboneConfig": "config",
    "FaceRWKV": "facerwkv",
    "MODELS": "zoo",
    "Model": "zoo",
    "ModelConfig": "config",
    "VRWKV": "vrwkv",
    "VRWKVConfig": "config",
    "convert_vrwkv": "vrwkv",
    "create_model": "zoo",
    "list_models": "zoo",
    "load_vrwkv": "vrwkv",
    "model_line": "zoo",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)


@wrapt.when_imported("timm.models")
def _register(timm_models: object) -> None:
    """Names ours for timm: at once where timm has been imported, otherwise as soon as it is."""
    import_module("facerwkv.models.registry")
