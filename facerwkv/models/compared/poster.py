"""POSTER++: a face network and a landmark network, joined by cross-attention at three levels, then a transformer.

Source: Mao et al., POSTER++ (arXiv 2301.12149); github.com/Talented-Q/POSTER_V2. Images have ImageNet's mean and
deviation. What its code stores and never runs is not here: the face network's output layer, the landmark network's head
and some layers of the transformer, 14.5 of 58.3 million parameters. Its landmark network is frozen, yet its batch norms
keep following the training batches; here they are fixed, unless the network is trained.
"""

from collections import OrderedDict
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from timm.layers import DropPath, Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.core.settings import Rate
from facerwkv.models.arrays import read_weights
from facerwkv.models.classifier import Classifier
from facerwkv.models.config import ImageConfig

SIDE = 112  # pixels that both networks see
LEVELS = ((64, 2, 28), (128, 4, 14), (256, 8, 7))
"""Channels, heads and the map's side of the three levels."""
FACE_UNITS = ((64, 3), (128, 4), (256, 14))
WIDTH, HEADS, DEPTH = 768, 8, 2
TOKENS = 3 * 49
NEVER_RUN = {"face": ("output_layer.",), "landmarks": ("conv_6_dw.", "output_layer.", "linear.", "bn.")}
"""Network → how those keys of its public weights begin that POSTER++ does not run."""


class PosterConfig(ImageConfig):
    """Everything that decides a POSTER++'s shape; stored in its checkpoint."""

    landmarks: Literal["auto", "trained", "frozen"] = "auto"
    """Whether the landmark network learns too: auto freezes it, as published, where it starts from its own weights."""
    drop_path_rate: Rate = 0.25
    """Stochastic depth of the third level; the second gets half of it, the first none."""

    first_conv: ClassVar[str] = "face.input_layer.0"
    """The layer that reads the image."""


class Poster(Classifier):
    """Image (B, in_chans, H, W) of any size → logits (B, num_classes)."""

    tables = r"^(cls|position)$|\.bias_by_place$"

    def __init__(self, config: PosterConfig):
        super().__init__()
        self.config = config
        self.face, self.landmarks = FaceNet(config.in_chans), LandmarkNet(config.in_chans)
        self.narrow = nn.Conv2d(512, 256, 3, padding=1)
        drop = config.drop_path_rate / (len(LEVELS) - 1)
        self.levels = nn.ModuleList(Level(*level, i * drop) for i, level in enumerate(LEVELS))
        twice = nn.Sequential(nn.Conv2d(64, WIDTH, 3, 2, 1), nn.Conv2d(WIDTH, WIDTH, 3, 2, 1))
        # from each level's map to 7 x 7 tokens
        self.embed = nn.ModuleList([twice, nn.Conv2d(128, WIDTH, 3, 2, 1), nn.Conv2d(256, WIDTH, 1)])
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(torch.zeros(1, 1 + TOKENS, WIDTH))
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS, qkv_bias=True, norm_layer=norm) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.gate = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.Sigmoid())
        self.drop = nn.Dropout(config.drop_rate)
        self.num_features = self.head_hidden_size = WIDTH
        self.landmarks.requires_grad_(config.landmarks != "frozen")
        self.reset_classifier(config.num_classes)
        for table in (self.cls, self.position):
            nn.init.trunc_normal_(table, std=0.02)
        for part in (self.blocks, self.gate, self.classifier):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.trunc_normal_(layer.weight, std=0.01)
                    nn.init.zeros_(layer.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Image → tokens (B, 1 + 147, 768), the class token first."""
        x = functional.interpolate(x, size=(SIDE, SIDE))
        first, second, third = self.landmarks(x)
        marks = (first, second, self.narrow(third))
        maps = [level(face, mark) for level, face, mark in zip(self.levels, self.face(x), marks, strict=True)]
        tokens = torch.cat([embed(one).flatten(2).mT for embed, one in zip(self.embed, maps, strict=True)], 1)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), tokens], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def pool(self, x: Tensor) -> Tensor:
        """Tokens → what the classifier reads, the class token gated (B, 768)."""
        x = x[:, 0]
        return self.drop(x * self.gate(x))

    def load_part(self, part: str, source: str) -> None:
        """Start the "face" network or that of "landmarks" from its public weights (ir50.pth, MobileFaceNet's), a file
        with their key names. InputError for another part, and for another network's weights."""
        from facerwkv.models.checkpoint import load_weights

        if part not in NEVER_RUN:
            raise InputError(f"POSTER++ has no part {part!r} with weights of its own; it has {', '.join(NEVER_RUN)}.")
        weights = read_weights(source)
        kept = {key: value for key, value in weights.items() if not key.startswith(NEVER_RUN[part])}
        load_weights(getattr(self, part), kept, source)
        if part == "landmarks" and self.config.landmarks == "auto":
            self.landmarks.requires_grad_(False)

    def train(self, mode: bool = True) -> "Poster":
        """A frozen landmark network stays in evaluation mode."""
        super().train(mode)
        self.landmarks.train(mode and next(self.landmarks.parameters()).requires_grad)
        return self


class FaceNet(nn.Module):
    """IR-50 up to its third body: images → maps of 56, 28 and 14 pixels with 64, 128 and 256 channels."""

    def __init__(self, in_chans: int):
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(in_chans, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        width, bodies = 64, []
        for channels, units in FACE_UNITS:
            first = FaceUnit(width, channels, 2)
            bodies.append(nn.Sequential(first, *(FaceUnit(channels, channels, 1) for _ in range(units - 1))))
            width = channels
        self.body1, self.body2, self.body3 = bodies

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.body1(self.input_layer(x))
        second = self.body2(first)
        return first, second, self.body3(second)


class FaceUnit(nn.Module):
    """A residual unit of ArcFace's ResNet: no activation after the sum."""

    def __init__(self, width: int, channels: int, stride: int):
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if width != channels:
            narrow = nn.Conv2d(width, channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(narrow, nn.BatchNorm2d(channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Conv2d(width, channels, 3, padding=1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class LandmarkNet(nn.Module):
    """MobileFaceNet without its head: images → maps of 28, 14 and 7 pixels with 64, 128 and 512 channels."""

    def __init__(self, in_chans: int):
        super().__init__()
        self.conv1 = _convolution(in_chans, 64, 3, 2)
        self.conv2_dw = _convolution(64, 64, 3, groups=64)
        self.conv_23 = Inverted(64, 64, 128, 2)
        self.conv_3 = _repeated(4, 64, 128)
        self.conv_34 = Inverted(64, 128, 256, 2)
        self.conv_4 = _repeated(6, 128, 256)
        self.conv_45 = Inverted(128, 128, 512, 2)
        self.conv_5 = _repeated(2, 128, 256)
        self.conv_6_sep = _convolution(128, 512, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(x))))
        second = self.conv_4(self.conv_34(first))
        return first, second, self.conv_6_sep(self.conv_5(self.conv_45(second)))


class Inverted(nn.Module):
    """Widen, convolve each channel by itself, narrow without an activation; a residual where the stride is 1."""

    def __init__(self, width: int, channels: int, expanded: int, stride: int = 1):
        super().__init__()
        self.residual = stride == 1
        self.conv = _convolution(width, expanded, 1)
        self.conv_dw = _convolution(expanded, expanded, 3, stride, groups=expanded)
        self.project = _convolution(expanded, channels, 1, active=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class Level(nn.Module):
    """Landmarks (queries) look at the face (keys, values) over one whole map."""

    def __init__(self, width: int, heads: int, side: int, drop_path: float):
        super().__init__()
        self.heads = heads
        self.reduce = nn.Conv2d(width, width, 3, 2, 1)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.kv, self.proj = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.mlp = Mlp(width, 4 * width)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((width,), 1e-5)) for _ in range(2))
        self.bias_by_place = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_by_place, std=0.02)
        at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        down, across = at[:, :, None] - at[:, None] + side - 1
        self.places: Tensor  # (side², side²): the row of the table for how two cells of a map lie to each other
        self.register_buffer("places", down * (2 * side - 1) + across, persistent=False)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, face: Tensor, marks: Tensor) -> Tensor:
        """face (B, C, 2 s, 2 s), marks (B, C, s, s) → (B, C, s, s)."""
        x = self.norm1(self.reduce(face).flatten(2).mT)  # (B, s s, C)
        weights, v = self.attend(x, marks)
        y = (weights @ v).transpose(1, 2).flatten(2)
        x = x + self.drop_path(self.scale1 * self.proj(y))
        x = x + self.drop_path(self.scale2 * self.mlp(self.norm2(x)))
        return x.mT.unflatten(2, marks.shape[2:])

    def attend(self, x: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
        """Where each landmark token looks, (B, heads, T, T), and the values (B, heads, T, S)."""
        k, v = self.kv(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q = marks.flatten(2).mT.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        bias = self.bias_by_place[self.places].permute(2, 0, 1)
        return (q @ k.mT * q.shape[-1] ** -0.5 + bias).softmax(-1), v


def _convolution(width: int, channels: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True):
    parts = {
        "conv": nn.Conv2d(width, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        "bn": nn.BatchNorm2d(channels),
    }
    return nn.Sequential(OrderedDict(parts | ({"prelu": nn.PReLU(channels)} if active else {})))


def _repeated(count: int, width: int, expanded: int) -> nn.Sequential:
    blocks = nn.Sequential(*(Inverted(width, width, expanded) for _ in range(count)))
    return nn.Sequential(OrderedDict(model=blocks))
