"""The models. Importing this registers ours with timm: `timm.create_model("facerwkv4_small")` builds one."""

from facerwkv.models import registry
from facerwkv.models.compared.backbones import BackboneConfig
from facerwkv.models.compared.caer_net import CAERNet, CAERNetConfig
from facerwkv.models.compared.patt_lite import PAttLite, PAttLiteConfig
from facerwkv.models.compared.poster import Poster, PosterConfig
from facerwkv.models.facerwkv import FaceRWKV, ModelConfig
from facerwkv.models.vrwkv import VRWKV, VRWKVConfig, convert_vrwkv, load_vrwkv
from facerwkv.models.zoo import MODELS, Model, create_model, list_models, model_line

__all__ = [
    "MODELS",
    "VRWKV",
    "BackboneConfig",
    "CAERNet",
    "CAERNetConfig",
    "FaceRWKV",
    "Model",
    "ModelConfig",
    "PAttLite",
    "PAttLiteConfig",
    "Poster",
    "PosterConfig",
    "VRWKVConfig",
    "convert_vrwkv",
    "create_model",
    "list_models",
    "load_vrwkv",
    "model_line",
    "registry",
]
