"""Our lines of MODELS, not those of timm and torchvision, as entry points of timm."""

import sys
from collections.abc import Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from facerwkv.core.files import read_json
from facerwkv.models.config import BackboneConfig
from facerwkv.models.zoo import CONFIG, MODELS, SHIPPED, create_model, shipped


def _entry_point(name: str):
    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        # timm hands every architecture some arguments of its own; None means "not given".
        options = {key: value for key, value in options.items() if value is not None}
        return build_model_with_cfg(
            lambda **kept: create_model(name, pretrained=pretrained, **kept),
            name,
            False,
            feature_cfg={"out_indices": min(3, getattr(OURS[name].config, "depth", 3)), "feature_cls": "getter"},
            **options | _other_colours(name, options),
        )

    build.__name__ = build.__qualname__ = name
    build.__module__ = __name__
    build.__doc__ = MODELS[name].about
    return build


def _config(name: str) -> dict[str, Any]:
    """timm's configuration of a model: a shipped one's is its checkpoint's own, and contains its labels in order."""
    line = OURS[name]
    config = {
        "num_classes": line.config.num_classes,
        "input_size": (line.config.in_chans, *line.config.image_size),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "fixed_input_size": False,
        "mean": (0.0,) * line.config.in_chans,
        "std": (1.0,) * line.config.in_chans,
        "first_conv": line.config.first_conv,
        "classifier": "classifier",
        "license": line.licence.lower(),
    }
    if name in shipped():
        stored = read_json(SHIPPED / name / CONFIG)
        transform = stored["transform"]
        config |= {key: tuple(transform[key]) for key in ("mean", "std")} | {"license": stored["card"]["licence"]}
        config |= {"input_size": (transform["in_chans"], *transform["image_size"])}
        config |= {"label_names": tuple(stored["labels"]), "file": str(SHIPPED / name / "model.safetensors")}
    return config


def _other_colours(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What timm must know of a model that is built for another number of channels."""
    config, colours = _config(name), options.get("in_chans")
    if colours in (None, config["input_size"][0]):
        return {}
    changes = {key: config[key][:1] * colours for key in ("mean", "std") if len(set(config[key])) == 1}
    changes["input_size"] = (colours, *config["input_size"][1:])
    return {"pretrained_cfg_overlay": changes | dict(options.get("pretrained_cfg_overlay") or {})}


__all__: list[str] = []
OURS = {name: line for name, line in MODELS.items() if not isinstance(line.config, BackboneConfig)}
default_cfgs = generate_default_cfgs({name: _config(name) for name in OURS})
for _name in OURS:
    setattr(sys.modules[__name__], _name, register_model(_entry_point(_name)))
