"""Images of bytes → planes of numbers, by a table that holds what becomes of each of the 256 values."""

import torch
from torch import Tensor

from facerwkv.core.errors import InputError
from facerwkv.kernels import choose
from facerwkv.kernels.native import missing, run


def runs_natively(images: Tensor) -> bool:
    """Whether the C form takes these images. It is no operator: no gradient passes through bytes."""
    here = images.device.type == "cpu" and images.dtype == torch.uint8 and type(images) is Tensor
    return here and not torch.compiler.is_compiling() and missing("pixels") is None


def look_up(images: Tensor, table: Tensor, implementation: str = "auto") -> Tensor:
    """images uint8 (B, h, w, c), table (c, 256) → (B, c, h, w) in the table's dtype.

    implementation: "reference" or "native" (C; CPU, float32, not inside torch.compile); "auto" is native where it runs.
    InputError for another name, and where "native" cannot run.
    """
    form = choose(IMPLEMENTATIONS, implementation, "native" if runs_natively(images) else "reference")
    return form(images, table)


def _reference(images: Tensor, table: Tensor) -> Tensor:
    planes = zip(table, images.unbind(-1), strict=True)
    return torch.stack([values[channel.long()] for values, channel in planes], 1)


def _native(images: Tensor, table: Tensor) -> Tensor:
    if not runs_natively(images):
        reason = missing("pixels") or f"No C kernel looks up {images.dtype} on {images.device}."
        raise InputError(f"{reason} Or use implementation='reference'.")
    images, table = images.contiguous(), table.to(torch.float32).contiguous()
    batch, height, width, channels = images.shape
    y = torch.empty(batch, channels, height, width)
    run("pixels_forward", (batch, height * width, channels), [images, table, y])
    return y


IMPLEMENTATIONS = {"reference": _reference, "native": _native}
