"""The same answers in less time: a trained model with everything constant multiplied out, and its compiled forms."""

import copy
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from facerwkv.core.errors import InputError
from facerwkv.data.normalise import normalise
from facerwkv.data.transforms import TransformConfig
from facerwkv.kernels.products import Linear, onednn_pays
from facerwkv.models.facerwkv import Block, FaceRWKV
from facerwkv.models.position import Position
from facerwkv.models.stem import PatchEmbed

CONSTANT: dict[str, Any] = {"freezing": True}
"""Parameters become constants: ahead of time, matrices are packed for oneDNN."""
SEEN = 2  # a channel mix reads its own token and the one before


def fold(model: nn.Module, transform: TransformConfig | None = None) -> nn.Module:
    """A copy of a model that gives its logits in evaluation mode, exactly but for rounding, and only for inference.

    Mixers that can be folded are; batch norms are part of their convolutions; where the head reads the last token, the
    last block computes no other (with a row shift it does). With `transform`, the copy takes images as they are,
    uint8 or float (B, h, w, c) in 0..255: the normalisation is part of the first layer's weights, or a step before them
    where padding forbids that. A model that is no FaceRWKV gets the normalisation only.
    """
    folded: Any = copy.deepcopy(model).eval().requires_grad_(False)
    if not isinstance(model, FaceRWKV):
        return folded if transform is None else ForBytes(folded, transform)
    for module in list(folded.stem.modules()):
        for (name, conv), (behind, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, behind, nn.Identity())
    folded.stem.to(memory_format=torch.channels_last)  # as colour images come; grey ones' strides do not say it
    if transform is not None:
        folded.stem = _for_bytes(folded.stem, folded.config.first_conv, transform)
    elif type(folded.stem) is PatchEmbed:
        folded.stem = PatchMatrix(folded.stem, channels_last=False)
    if folded.config.position == "unused":
        folded.position = Position("none", (0, 0), 0)
    for block in folded.blocks:
        block.drop_path = nn.Identity()
        for half in ("time_mix", "channel_mix"):
            mix = getattr(block, half)
            setattr(block, half, mix.folded() if hasattr(mix, "folded") else mix)
    reads_last = folded.config.pool == "last" and folded.config.shift == "token"
    if reads_last and hasattr(folded.blocks[-1].time_mix, "last"):
        folded.blocks[-1] = LastToken(folded.blocks[-1])
    folded.drop = nn.Identity()
    for module in folded.modules():  # where oneDNN never pays, torch's own product without asking at each call
        if onednn_pays() or getattr(module, "implementation", None) != "auto":
            continue
        if type(module) is Linear:
            module.__class__ = nn.Linear  # type: ignore[assignment]
        elif isinstance(module, PatchEmbed):
            module.product = functional.linear  # type: ignore[assignment, method-assign]
    return folded


def compiled(model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """The model through torch.compile, ready for inputs of the example's shape; call it without gradients.

    Its parameters become constants. InputError if there is no C++ compiler.
    """
    need_compiler()
    form = torch.compile(model.eval(), options=CONSTANT)
    with torch.inference_mode():
        form(example)
    return form


def aot(model: nn.Module, example: Tensor, path: str | Path | None = None) -> Callable[[Tensor], Tensor]:
    """The model as a compiled library (AOTInductor), for inputs of the example's shape.

    `path` keeps it as a file that ends in .pt2, which torch._inductor.aoti_load_package reads. A native kernel in it
    (RWKV-4 to 7) is called in this process, so this package must be imported there. InputError if there is no C++
    compiler.
    """
    need_compiler()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        target = Path(folder) / "model.pt2" if path is None else Path(path)
        if target.suffix != ".pt2":
            raise InputError(f"{target} must end in .pt2; choose another name.")
        program = torch.export.export(model.eval(), (example,))
        torch._inductor.aoti_compile_and_package(program, package_path=str(target), inductor_configs=CONSTANT)
        library: Any = torch._inductor.aoti_load_package(str(target))
    return library


def need_compiler() -> None:
    """InputError where torch.compile would find no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError(
            "Compiling a model needs a C++ compiler, and neither g++ nor the one that CXX names was found. Install "
            "g++, or use the model that `fold` gives as it is."
        ) from error


class LastToken(nn.Module):
    """A block of which only the last token is wanted: (B, T, D) → (B, 1, D)."""

    def __init__(self, block: Block):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, grid: tuple[int, int], shared: dict[str, Tensor]) -> Tensor:
        block = self.block
        seen = x[:, -SEEN:]
        seen = seen + block.time_mix.last(block.norm1(x), SEEN, *((shared,) if block.shares else ()))
        return (seen + block.channel_mix(block.norm2(seen), grid))[:, -1:]


class ForBytes(nn.Module):
    """Images, uint8 or float (B, h, w, c) in 0..255, for a model or a stem that takes (B, c, h, w).

    They are normalised with `transform`; without one the first weights take them as they are.
    """

    def __init__(self, model: nn.Module, transform: TransformConfig | None = None):
        super().__init__()
        self.model, self.transform = model, transform

    def forward(self, x: Tensor) -> Any:
        if self.transform is not None:
            return self.model(normalise(x, self.transform))
        return self.model(x.permute(0, 3, 1, 2).to(torch.float32))  # still channels last in memory


class PatchMatrix(nn.Module):
    """A linear stem as one matrix product over patches of p x p pixels.

    Images are (B, h, w, c) with `channels_last`, otherwise (B, c, h, w); the weight's rows are in the patches' order.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, stem: PatchEmbed, channels_last: bool):
        super().__init__()
        self.patch_size, self.norm, self.grid = stem.patch_size, stem.norm, stem.grid
        self.channels_last = channels_last
        order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
        self.register_buffer("weight", stem.proj.weight.permute(order).flatten(1).mT.contiguous())
        self.register_buffer("bias", stem.proj.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        size = self.patch_size
        if self.channels_last:
            grid = self.grid(x.shape[1], x.shape[2])
            lines = x.flatten(2).unflatten(2, (-1, size * x.shape[3]))
            patches = lines.unflatten(1, (-1, size)).transpose(2, 3)  # (B, Hp, Wp, p, p c)
        else:
            grid = self.grid(x.shape[2], x.shape[3])
            cells = x.unflatten(3, (-1, size)).unflatten(2, (-1, size))
            patches = cells.permute(0, 2, 4, 1, 3, 5)  # (B, Hp, Wp, c, p, p)
        rows = patches.flatten(3).flatten(0, 2).to(self.weight.dtype)
        tokens = torch.addmm(self.bias, rows, self.weight).unflatten(0, (x.shape[0], -1))
        return self.norm(tokens), grid


def _for_bytes(stem: PatchEmbed, first_conv: str, transform: TransformConfig) -> nn.Module:
    """The stem for images as they are, uint8 or float (B, h, w, c) in 0..255; its first weights normalise them."""
    first: Any = stem.get_submodule(first_conv.removeprefix("stem."))
    if any(first.padding) and any(transform.mean):
        return ForBytes(stem, transform)  # zeros beyond the border stand for the mean, not for black
    mean, std = (torch.tensor(values).to(first.weight) for values in transform.normalisation)
    if any(transform.mean):
        shift = (first.weight * (mean / std).view(1, -1, 1, 1)).sum((1, 2, 3))
        first.bias = nn.Parameter((first.bias if first.bias is not None else 0) - shift, requires_grad=False)
    first.weight.data = first.weight / (255 * std).view(1, -1, 1, 1)
    return PatchMatrix(stem, channels_last=True) if first is stem.proj else ForBytes(stem)
