"""Other people's networks by name: all of timm's, and torchvision's AlexNet, which timm does not have."""

from difflib import get_close_matches
from typing import Any

import timm
from torch import Tensor, nn
from torchvision.models import AlexNet as TorchvisionAlexNet
from torchvision.models import AlexNet_Weights

from facerwkv.core.errors import InputError, first_line
from facerwkv.models.classifier import Classifier
from facerwkv.models.config import BackboneConfig

ALEXNET = "alexnet"
ALEXNET_LEAST = 63  # pixels, or its last pool has nothing left to look at


class AlexNet(Classifier):
    """torchvision's AlexNet, its 224 x 224 pixels first pooled to 6 x 6 maps, with timm's methods."""

    last = "classifier.6"
    classifier: nn.Sequential

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.config = config
        if config.model_kwargs:
            raise InputError("AlexNet is torchvision's and takes no model_kwargs; they are for timm's models.")
        if min(config.image_size) < ALEXNET_LEAST:
            size = " x ".join(map(str, config.image_size))
            raise InputError(f"AlexNet needs images of {ALEXNET_LEAST} x {ALEXNET_LEAST} pixels or more, not {size}.")
        network = TorchvisionAlexNet(config.num_classes or 1, config.drop_rate)
        self.features, self.avgpool, self.classifier = network.features, network.avgpool, network.classifier
        if config.in_chans != 3:
            self.features[0] = nn.Conv2d(config.in_chans, 64, kernel_size=11, stride=4, padding=2)
        self.num_features, self.head_hidden_size = 256, 4096
        self.reset_classifier(config.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Image (B, c, h, w) → maps (B, 256, h', w')."""
        return self.features(x)

    def pool(self, x: Tensor) -> Tensor:
        """Maps → what the classifier reads (B, 4096)."""
        return self.classifier[:-1](self.avgpool(x).flatten(1))


def build_backbone(config: BackboneConfig, pretrained: bool = False) -> nn.Module:
    """The network, with its config; `pretrained` starts it from ImageNet, all but its classifier.

    InputError for a name that timm does not know, and where the weights cannot be fetched.
    """
    try:
        if config.architecture == ALEXNET:
            model: Any = AlexNet(config)
            if pretrained:
                weights = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
                own = model.state_dict()
                fitting = {name: value for name, value in weights.items() if own[name].shape == value.shape}
                model.load_state_dict(fitting, strict=False)
        else:
            model = _timm(config, pretrained)
    except (OSError, ValueError, RuntimeError) as error:
        if not pretrained:
            raise
        raise InputError(
            f"The ImageNet weights of {config.architecture} could not be fetched ({first_line(error)}). Connect to the "
            "network once, they are kept; or train from scratch with model.pretrained=false."
        ) from error
    model.config = config
    return model


def backbone_config(architecture: str) -> BackboneConfig:
    """A timm network with the image size of its own weights. InputError names those with a like name."""
    plain, _, tag = architecture.partition(".")
    if plain not in timm.list_models():
        close = get_close_matches(plain, timm.list_models(), 3) or timm.list_models("*resnet*")[:3]
        raise InputError(f"timm has no model {architecture!r}. It has {', '.join(close)}, among others.")
    tags = timm.list_pretrained(f"{plain}.*")
    if tag and architecture not in tags:
        known = ", ".join(name.partition(".")[2] for name in tags) or "none"
        raise InputError(f"timm's {plain} has no weights called {tag!r}; it has {known}.")
    cfg = timm.models.get_pretrained_cfg(architecture)
    channels, height, width = cfg.input_size if cfg else (3, 224, 224)
    return BackboneConfig(architecture=architecture, image_size=(height, width), in_chans=channels)


def _timm(config: BackboneConfig, pretrained: bool) -> Any:
    cfg = timm.models.get_pretrained_cfg(config.architecture)
    sized: dict[str, Any] = {"img_size": config.image_size} if cfg and cfg.fixed_input_size else {}
    try:
        return timm.create_model(
            config.architecture,
            pretrained=pretrained,
            num_classes=config.num_classes,
            in_chans=config.in_chans,
            drop_rate=config.drop_rate,
            **sized | config.model_kwargs,
        )
    except (TypeError, AssertionError) as error:
        if not config.model_kwargs:
            raise
        raise InputError(
            f"timm's {config.architecture} does not take model_kwargs {config.model_kwargs}: {str(error).rstrip('.')}."
        ) from error
