"""PAtt-Lite: a truncated MobileNetV1, three convolutions over its map, attention, a classifier.

Source: Ngwe, Lim, Lim, Ong and Alqahtani, PAtt-Lite (IEEE Access 2024); github.com/JLREx/PAtt-Lite. Images have
values in -1..1. Its published code gives the attention one vector per image, so that the images of a batch attend to
each other, and its test images come sorted by class: that is `variant="as_published"`, whose answers depend on the
batch. Here the four patches of an image attend to each other.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.core.settings import Rate
from facerwkv.models.classifier import Classifier
from facerwkv.models.config import ImageConfig

BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1))
"""MobileNetV1's blocks up to the eighth: channels, stride. Of the ninth only the depthwise convolution is used."""
PATCH_WIDTH, HIDDEN = 256, 32
SIDE = 224  # pixels that the backbone sees


class PAttLiteConfig(ImageConfig):
    """Everything that decides a PAtt-Lite's shape; stored in its checkpoint."""

    variant: Literal["patches", "as_published"] = "patches"
    """Who attends to whom: an image's patches to each other, or, as published, a batch's images."""
    drop_rate: Rate = 0.1
    """Dropout before the hidden layer."""

    first_conv: ClassVar[str] = "backbone.1"
    """The layer that reads the image."""


class PAttLite(Classifier):
    """Image (B, in_chans, H, W) of any size → logits (B, num_classes)."""

    def __init__(self, config: PAttLiteConfig):
        super().__init__()
        self.config = config
        self.backbone = _mobilenet(config.in_chans)
        self.patches = nn.Sequential(
            nn.Conv2d(512, 512, 4, stride=4, padding=1, groups=512, bias=False),
            nn.Conv2d(512, PATCH_WIDTH, 1),
            nn.ReLU(),
            nn.Conv2d(PATCH_WIDTH, PATCH_WIDTH, 2, stride=2, groups=PATCH_WIDTH, bias=False),
            nn.Conv2d(PATCH_WIDTH, PATCH_WIDTH, 1),
            nn.ReLU(),
            nn.Conv2d(PATCH_WIDTH, PATCH_WIDTH, 1),
            nn.ReLU(),
        )
        self.drop = nn.Dropout(config.drop_rate)
        self.hidden = nn.Sequential(nn.Linear(PATCH_WIDTH, HIDDEN), nn.ReLU())
        self.norm = nn.BatchNorm1d(HIDDEN, eps=1e-3, momentum=0.01)
        self.scale = nn.Parameter(torch.ones(()))
        self.num_features, self.head_hidden_size = PATCH_WIDTH, HIDDEN
        self.reset_classifier(config.num_classes)
        for layer in self.modules():  # Keras' start: Glorot's uniform weights, biases of 0
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Image, resized as published → the map of its patches (B, 256, 2, 2)."""
        x = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear")
        return self.patches(self.backbone(x))

    def pool(self, x: Tensor) -> Tensor:
        """Patches → what the classifier reads (B, 32)."""
        return self.attend(x)[0]

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Patches → what the classifier reads (B, 32), and who attended to whom: (B, N, N), as published (B, B)."""
        published = self.config.variant == "as_published"
        tokens = x.mean((2, 3)) if published else x.flatten(2).mT  # (B, 256) or (B, N, 256)
        tokens = self.hidden(self.drop(tokens))
        tokens = self.norm(tokens) if published else self.norm(tokens.mT).mT
        weights = (self.scale * tokens @ tokens.mT).softmax(-1)
        mixed = weights @ tokens
        return mixed if published else mixed.mean(1), weights


def _mobilenet(in_chans: int) -> nn.Sequential:
    """Images → (B, 512, H / 16, W / 16)."""
    layers, width = _convolution(in_chans, 32, kernel=3, stride=2), 32
    for channels, stride in BLOCKS:
        layers += _convolution(width, width, kernel=3, stride=stride, groups=width)
        layers += _convolution(width, channels, kernel=1)
        width = channels
    return nn.Sequential(*layers, *_convolution(width, width, kernel=3, groups=width))


def _convolution(width: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """With a stride Keras pads on the right and below only."""
    edge = kernel // 2
    pad = nn.ZeroPad2d((0, edge, 0, edge) if stride > 1 else edge)
    convolution = nn.Conv2d(width, channels, kernel, stride, groups=groups, bias=False)
    return [pad, convolution, nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), nn.ReLU6()]
