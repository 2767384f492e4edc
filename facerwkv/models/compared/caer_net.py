"""CAER-Net-S: a face stream and a context stream that does not see the face, fused by weights of their own.

Source: Lee, Kim, Kim, Park and Sohn, Context-Aware Emotion Recognition Networks (ICCV 2019), section 4, static form;
where the paper leaves it open, github.com/ndkhanh360/CAER. There, as here, both streams' vectors pass a batch norm
that the paper does not have: a mean over maps whose attention sums to one would make the context vanish.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from facerwkv.core.settings import Rate, Side, Size
from facerwkv.models.classifier import Classifier
from facerwkv.models.config import ImageConfig

WIDTHS = (32, 64, 128, 256, 256)
WIDTH, HIDDEN = WIDTHS[-1], 128


class CAERNetConfig(ImageConfig):
    """Everything that decides a CAER-Net-S's shape; stored in its checkpoint."""

    two_inputs = True
    image_size: tuple[Side, Side] = (112, 112)
    in_chans: Size = 6
    """Those of the scene whose face is hidden, then as many of the face."""
    streams: Literal["both", "face", "context"] = "both"
    """What is looked at: one stream alone has no fusion."""
    drop_rate: Rate = 0.5

    @property
    def first_conv(self) -> str:
        """The layer that reads the image."""
        return "face.0" if self.streams != "context" else "context.0"


class CAERNet(Classifier):
    """Scene and face (B, in_chans, H, W) → logits (B, num_classes)."""

    def __init__(self, config: CAERNetConfig):
        super().__init__()
        self.config = config
        streams = ("face", "context") if config.streams == "both" else (config.streams,)
        width = config.in_chans // 2
        self.face = _convolutions(width, *WIDTHS, pool=True) if "face" in streams else None
        self.context = _convolutions(width, *WIDTHS, pool=True) if "context" in streams else None
        self.attention = _convolutions(WIDTH, 128, 1) if self.context else None
        self.norms = nn.ModuleDict({stream: nn.BatchNorm1d(WIDTH) for stream in streams})
        gates = streams if len(streams) > 1 else ()
        self.gates = nn.ModuleDict(
            {stream: nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)) for stream in gates}
        )
        self.hidden = nn.Sequential(nn.Linear(WIDTH * len(streams), HIDDEN), nn.ReLU(), nn.Dropout(config.drop_rate))
        self.num_features, self.head_hidden_size = WIDTH * len(streams), HIDDEN
        self.reset_classifier(config.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Scene and face → the streams' vectors, weighed (B, 256 for each stream)."""
        vectors = self.encode(x)
        if not self.gates:
            return next(iter(vectors.values()))
        shares = self.fusion(vectors).unbind(1)
        return torch.cat([share[:, None] * vector for share, vector in zip(shares, vectors.values(), strict=True)], 1)

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """Scene and face → each stream's vector (B, 256)."""
        scene, face = x.chunk(2, 1)
        vectors = {}
        if self.face is not None:
            vectors["face"] = self.face(face).mean((2, 3))
        if self.context is not None:
            maps = self.context(scene)
            vectors["context"] = (maps * self.attend(maps)).mean((2, 3))
        return {stream: self.norms[stream](vector) for stream, vector in vectors.items()}

    def attend(self, maps: Tensor) -> Tensor:
        """The context's maps (B, 256, h, w) → where to look, (B, 1, h, w), which sums to 1."""
        assert self.attention is not None, "a face stream alone looks everywhere alike"
        return self.attention(maps).flatten(1).softmax(1).view(maps.shape[0], 1, *maps.shape[2:])

    def fusion(self, vectors: dict[str, Tensor]) -> Tensor:
        """How much face and context count, (B, 2), which sums to 1."""
        return torch.cat([self.gates[stream](vector) for stream, vector in vectors.items()], 1).softmax(1)

    def pool(self, x: Tensor) -> Tensor:
        """The streams' vectors → what the classifier reads (B, 128)."""
        return self.hidden(x)


def _convolutions(*widths: int, pool: bool = False) -> nn.Sequential:
    """A convolution from each width to the next; with `pool` each halves what the one before it gives."""
    layers: list[nn.Module] = []
    for width, channels in pairwise(widths):
        if pool and layers:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)
