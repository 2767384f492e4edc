"""Our lines of MODELS, not those of timm and torchvision, as entry points of timm."""

import sys
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from facerwkv.models.config import BackboneConfig
from facerwkv.models.zoo import MODELS, create_model, licence_of, shipped


def _entry_point(name: str):
    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        # timm hands every architecture some arguments of its own; None means "not given".
        options = {key: value for key, value in options.items() if value is not None}
        return build_model_with_cfg(
            lambda **kept: create_model(name, pretrained=pretrained, **kept),
            name,
            False,
            feature_cfg={"out_indices": 3, "feature_cls": "getter"},
            **options,
        )

    build.__name__ = build.__qualname__ = name
    build.__module__ = __name__
    build.__doc__ = MODELS[name].about
    return build


__all__: list[str] = []
OURS = {name: line for name, line in MODELS.items() if not isinstance(line.config, BackboneConfig)}
default_cfgs = generate_default_cfgs(
    {
        name: {
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
            "license": licence_of(name) if name in shipped() else line.licence.lower(),
        }
        for name, line in OURS.items()
    }
)
for _name in OURS:
    setattr(sys.modules[__name__], _name, register_model(_entry_point(_name)))
