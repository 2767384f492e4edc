"""Image → tokens and their grid: patch embedding, convolutional stem, the ResNet stem of the paper's hybrid."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from facerwkv.core.errors import InputError
from facerwkv.kernels.products import linear
from facerwkv.models.arrays import read_weights

RESNET_STRIDE = 4


class PatchEmbed(nn.Module):
    """Non-overlapping patches, one linear projection, LayerNorm (the paper's figure 3).

    (B, in_chans, H, W) → tokens (B, T, D) in raster order and their grid (Hp, Wp), T = Hp·Wp.
    """

    reduction = 1
    layers: tuple[str, ...] = ()
    """What images pass before they are cut into patches, in this order."""
    implementation = "auto"  # of the matrix product

    def __init__(self, in_chans: int, patch_size: int, width: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, width, patch_size, patch_size)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        grid = self.grid(x.shape[-2], x.shape[-1])
        x = self.features(x)
        # `proj` as one matrix product: patches do not overlap. Up to twice as fast as the convolution on a CPU.
        size = self.proj.kernel_size[0]
        patches = x.unflatten(3, (grid[1], size)).unflatten(2, (grid[0], size)).permute(0, 2, 4, 1, 3, 5)
        rows, weight = patches.flatten(3).flatten(1, 2), self.proj.weight.flatten(1)
        return self.norm(self.product(rows, weight, self.proj.bias)), grid

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias, self.implementation)

    def features(self, x: Tensor) -> Tensor:
        """Image → the map that is cut into patches."""
        for layer in self.layers:
            x = getattr(self, layer)(x)
        return x

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The grid for an image of height x width pixels. InputError when the patch does not divide it."""
        step = self.patch_size * self.reduction
        if height % step or width % step or not height or not width:
            raise InputError(
                f"An image of {height} x {width} pixels cannot be cut into patches of {step} x {step}; "
                f"use a height and a width that {step} divides, or another patch_size."
            )
        return height // step, width // step


class ConvPatchEmbed(PatchEmbed):
    """3 x 3 convolutions of stride 2, doubling the channels, until a patch is one cell; then a linear projection.

    Source: Early Convolutions Help Transformers See Better (arXiv 2106.14881). The patch size is a power of 2, from 2.
    """

    layers = ("convs",)
    looks, residual = False, False
    """Whether each size is looked at by a convolution before it is halved, by a residual block after that."""

    def __init__(self, in_chans: int, patch_size: int, width: int):
        super().__init__(in_chans, patch_size, width)
        stages = patch_size.bit_length() - 1
        if stages < 1 or patch_size != 1 << stages:
            raise InputError(f"A convolutional stem's patch_size is 2, 4, 8, 16, ..., not {patch_size}.")
        channels = [in_chans, *(max(width >> (stages - 1 - stage), 8) for stage in range(stages))]
        self.convs = nn.Sequential(*(self.stage(*pair) for pair in pairwise(channels)))
        self.proj = nn.Conv2d(channels[-1], width, 1)

    def stage(self, in_chans: int, out_chans: int) -> nn.Sequential:
        """Half the height and the width."""
        stage = nn.Sequential()
        for stride in (1, 2) if self.looks else (2,):
            conv = nn.Conv2d(in_chans, out_chans, 3, stride, padding=1, bias=False)
            stage.extend([conv, nn.BatchNorm2d(out_chans), nn.ReLU(inplace=True)])
            in_chans = out_chans
        return stage.append(BasicBlock(out_chans)) if self.residual else stage


class BasicBlock(nn.Module):
    """ResNet-18's block: two convolutions, added to what they look at. Modules carry timm's and torchvision's names."""

    def __init__(self, chans: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(chans, chans, 3, padding=1, bias=False), nn.BatchNorm2d(chans)
        self.conv2, self.bn2 = nn.Conv2d(chans, chans, 3, padding=1, bias=False), nn.BatchNorm2d(chans)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


class ResidualPatchEmbed(ConvPatchEmbed):
    """A convolutional stem with a residual block after each halving, as in ResNet-18 (arXiv 1512.03385)."""

    residual = True


class VGGPatchEmbed(ConvPatchEmbed):
    """A convolutional stem that looks at each size before it halves it, as VGG does (arXiv 1409.1556), with batch norm.

    Its first convolution sees every pixel, which small faces need.
    """

    looks = True


class ResNetPatchEmbed(PatchEmbed):
    """The stem of ResNet-50 (conv1, bn1, relu, maxpool: what the paper calls its "initial 4 blocks"), then patches.

    Modules carry torchvision's names. The feature map is a quarter of the image's height and width, 64 channels.
    """

    reduction = RESNET_STRIDE
    layers: tuple[str, ...] = ("conv1", "bn1", "relu", "maxpool")
    from_imagenet: tuple[str, ...] = ("conv1", "bn1")
    """The layers that `load_imagenet` sets."""
    out_chans = 64
    frozen, fixed_statistics = False, False
    """Whether the weights of conv1 and bn1 are trained, and whether bn1's statistics follow the training images."""

    def __init__(self, in_chans: int, patch_size: int, width: int):
        super().__init__(self.out_chans, patch_size, width)
        self.conv1 = nn.Conv2d(in_chans, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if "maxpool" in self.layers else nn.Identity()
        if "layer2" in self.layers:
            from torchvision.models.resnet import Bottleneck, ResNet

            resnet = ResNet(Bottleneck, [3, 4, 1, 1])
            self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        if self.frozen:
            self.conv1.requires_grad_(False)
            self.bn1.requires_grad_(False)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.fixed_statistics:
            self.bn1.eval()
        return self

    def load_imagenet(self, weights: Mapping[str, Tensor]) -> None:
        """Take the layers `from_imagenet` from weights with torchvision's key names; other keys are left alone."""
        own = {name: value for name, value in weights.items() if name.split(".")[0] in self.from_imagenet}
        needed = [name for name in self.state_dict() if name.split(".")[0] in self.from_imagenet]
        missing = [name for name in needed if name not in own and not name.endswith("num_batches_tracked")]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            lacking = ", ".join(missing[:3]) + more
            raise InputError(f"The stem's weights lack {lacking}; a ResNet-50 of torchvision has them.")
        if self.conv1.in_channels == 1:
            own["conv1.weight"] = own["conv1.weight"].sum(1, keepdim=True)
        self.load_state_dict(own, strict=False)


class FrozenResNetPatchEmbed(ResNetPatchEmbed):
    """The stem is not trained, and neither are its batch-norm statistics."""

    frozen, fixed_statistics = True, True


class AsCodedFrozenResNetPatchEmbed(ResNetPatchEmbed):
    """The authors' "frozen": the weights are fixed, but the batch-norm statistics follow the training images."""

    frozen = True


class ResNetLayer2PatchEmbed(ResNetPatchEmbed):
    """ResNet-50 up to its layer2, without the pool: for faces of 48 pixels, of which the pool would leave too little.

    The feature map is a quarter of the image's height and width, 512 channels.
    """

    layers = ("conv1", "bn1", "relu", "layer1", "layer2")
    from_imagenet = ("conv1", "bn1", "layer1", "layer2")
    out_chans = 512


def has_resnet_stem(model: nn.Module) -> bool:
    return isinstance(getattr(model, "stem", None), ResNetPatchEmbed)


def from_imagenet(model: nn.Module) -> list[str]:
    """The names of the parameters that `load_stem` sets; none without a ResNet stem."""
    layers: tuple[str, ...] = getattr(getattr(model, "stem", None), "from_imagenet", ())
    starts = tuple(f"stem.{layer}." for layer in layers)
    return [name for name, _ in model.named_parameters() if name.startswith(starts)]


def load_stem(model: nn.Module, source: str) -> None:
    """Start a model's ResNet stem from ImageNet.

    source: torchvision's name of ResNet-50 weights ("IMAGENET1K_V1", downloaded on use), or a file for `read_weights`
    with torchvision's keys.
    """
    stem = getattr(model, "stem", None)
    if not isinstance(stem, ResNetPatchEmbed):
        raise InputError(f"This model has no ResNet stem to load {source!r} into; leave stem_weights out.")
    if Path(source).suffix:
        stem.load_imagenet(read_weights(source))
        return
    from torchvision.models import ResNet50_Weights

    if source not in ResNet50_Weights.__members__:
        known = ", ".join(ResNet50_Weights.__members__)
        raise InputError(f"torchvision has no ResNet-50 weights called {source!r}; it has {known}. A file works too.")
    try:
        stem.load_imagenet(ResNet50_Weights[source].get_state_dict(progress=True, check_hash=True))
    except OSError as error:
        raise InputError(
            f"ResNet-50's weights {source} could not be downloaded ({error}). Name a local file instead: "
            "model.stem_weights=FILE.npz, or train the stem from scratch: model.stem_weights=null."
        ) from error
