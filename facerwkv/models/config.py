"""The configurations of our own models and of timm's networks. They load no torch: recipes are checked against them."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from facerwkv.core.errors import shown
from facerwkv.core.settings import LARGEST, Rate, Settings, Side, Size
from facerwkv.mixers import MIXERS


class Stem(NamedTuple):
    """A line of STEMS: its class in models/stem.py, and the layer of that class that reads the image."""

    class_name: str
    first_conv: str


STEMS = {
    "linear": Stem("PatchEmbed", "proj"),
    "conv": Stem("ConvPatchEmbed", "convs.0.0"),
    "residual": Stem("ResidualPatchEmbed", "convs.0.0"),
    "vgg": Stem("VGGPatchEmbed", "convs.0.0"),
    "resnet": Stem("ResNetPatchEmbed", "conv1"),
    "resnet_layer2": Stem("ResNetLayer2PatchEmbed", "conv1"),
    "resnet_frozen": Stem("FrozenResNetPatchEmbed", "conv1"),
    "resnet_frozen_as_coded": Stem("AsCodedFrozenResNetPatchEmbed", "conv1"),
}
POSITIONS = {  # what `Position` in models/position.py adds to the tokens
    "none": "nothing: a recurrent mixer knows the order",
    "unused": "nothing: the published models count a table that they never add; it is kept for the counts, and frozen",
    "learned": "one learned vector per token, as the authors tried (section 5.4.1)",
    "2d": "one vector per row plus one per column, zero at first: RWKV's author's advice for images (RWKV-LM, README)",
}
CHOICES: dict[str, dict[str, Any]] = {"mixer": MIXERS, "stem": STEMS, "position": POSITIONS}


class ImageConfig(Settings):
    """Images in, classes out: what every model's configuration contains, stored in its checkpoint.

    A single number as image_size is a square's side.
    """

    two_inputs: ClassVar[bool] = False
    """Whether the model looks at a scene and at a face: what a transform with crop "both" gives."""
    image_size: tuple[Side, Side] = (224, 224)
    """Height and width in pixels."""
    in_chans: Size = 3
    num_classes: Annotated[int, Field(ge=0, le=LARGEST)] = 7
    """0 gives what the classifier would read."""
    drop_rate: Rate = 0.0
    """Dropout before the classifier."""

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list) else size


class ModelConfig(ImageConfig):
    """Everything that decides a FaceRWKV's shape."""

    image_size: tuple[Side, Side] = (400, 600)
    """Height and width in pixels for which position tables are made."""
    stem: str = "linear"
    """A name in STEMS."""
    patch_size: Side = 20
    """In pixels; after a ResNet stem in cells of its feature map, 4 pixels each."""
    width: Size = 128
    depth: Annotated[int, Field(ge=1, le=256)] = 2
    heads: Size = 2
    mixer: str = "rwkv4"
    """A name in MIXERS."""
    scan: Literal["forward", "both"] = "forward"
    """Whether a token sees those before it, or all (RWKV-4 to 7)."""
    shift: Literal["token", "row"] = "token"
    """The neighbour that a token is mixed with before it is projected: the one before it, or the one above it (RWKV-1,
    RWKV's author's advice for images)."""
    time_mix_dim: Size | None = None
    """Width inside the time mix; None is the model's width."""
    hidden: Size | None = None
    """Width inside the channel mix; None is what the mixer's generation uses."""
    position: str = "none"
    """A name in POSITIONS."""
    pool: Literal["last", "mean", "flatten"] = "last"
    head: Literal["mlp", "linear"] = "mlp"
    drop_path_rate: Rate = 0.0
    """Stochastic depth of the last block; earlier blocks get proportionally less."""

    @property
    def first_conv(self) -> str:
        """The layer that reads the image."""
        return f"stem.{STEMS[self.stem].first_conv}"

    @field_validator(*CHOICES)
    @classmethod
    def _known(cls, name: str, info: Any) -> str:
        if name not in CHOICES[info.field_name]:
            raise ValueError(f"there is none called {shown(name)}; choose {', '.join(CHOICES[info.field_name])}")
        return name


FRAME: dict[str, Any] = {  # what all sizes of Vision-RWKV share
    "mixer": "vrwkv",
    "image_size": (224, 224),
    "patch_size": 16,
    "depth": 12,
    "heads": 1,
    "position": "learned",
    "pool": "mean",
    "head": "linear",
}


class VRWKVConfig(ModelConfig):
    """Everything that decides a Vision-RWKV's shape."""

    layer_scale: float = 1.0
    """What the scales by channel start from, where the mixer has them."""


class BackboneConfig(ImageConfig):
    """Everything that decides the shape of a network of timm or torchvision."""

    architecture: str
    """timm's name, a tag of its weights included where wanted ("resnet50.a1_in1k"), or "alexnet"."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """What else timm's model takes, say {"patch_size": 8} for a ViT; no number above 65,536."""

    @field_validator("model_kwargs")
    @classmethod
    def _bounded(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, value in options.items():
            if isinstance(value, int | float) and abs(value) > LARGEST:
                raise ValueError(f"{name} is {shown(value)}; at most {LARGEST:,}")
        return options
