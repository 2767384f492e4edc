"""Arrays and tensors, as programs hand them over → uint8 RGB. No other package than NumPy is imported."""

from typing import Any, Literal

import numpy as np
from PIL import Image

from facerwkv.core.packages import imported_pytorch

Channels = Literal["rgb", "bgr"]
DEPTHS = (1, 3, 4)
"""Channels of an image: grey, RGB, RGBA."""
WANTED = (
    "wanted is (H, W), (H, W, c) or a tensor (c, H, W) with 1, 3 or 4 channels: uint8 from 0 to 255 as in uint8 "
    "(H, W, 3), uint16 of the whole range, bool, or float from 0 to 1"
)


def is_array(source: object) -> bool:
    """Whether a source is an array or a tensor, of whatever library; a table's column is none."""
    foreign = hasattr(source, "__dlpack__") or hasattr(source, "numpy")
    return isinstance(source, np.ndarray) or (foreign and hasattr(source, "shape") and not isinstance(source, type))


def array_to_rgb(source: Any, channels: Channels, name: str) -> np.ndarray:
    """uint8 (H, W, 3) RGB, of an array or a tensor whose first or last dimension may be its channels.

    Where both fit, an array's last and a tensor's first dimension count. ValueError, in a sentence that begins with
    `name`, for what could mean several things: floats beyond 0..1, wide integers, other shapes.
    """
    array = _as_numpy(source, name)
    about = f"{name} is {array.dtype} {array.shape}"
    if array.ndim == 3:
        first, last = array.shape[0] in DEPTHS, array.shape[2] in DEPTHS
        array = array.transpose(1, 2, 0) if first and (not last or array is not source) else array
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in DEPTHS or array.size == 0:
        raise ValueError(f"{about}; {WANTED}.")
    array = _eight_bits(array, about)
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    if channels == "bgr":
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    if array.shape[2] == 4:
        return over_white(Image.fromarray(np.ascontiguousarray(array), "RGBA"))
    return np.ascontiguousarray(array)


def over_white(image: Image.Image) -> np.ndarray:
    """What is transparent lies over white."""
    layer = image.convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))


def scaled_16_bits(values: np.ndarray) -> np.ndarray:
    """0..65535 → uint8, rounded."""
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _as_numpy(source: Any, name: str) -> np.ndarray:
    if isinstance(source, np.ndarray):
        return source
    torch = imported_pytorch()
    try:
        if torch and isinstance(source, torch.Tensor):
            tensor = source.detach().cpu()
            return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        return np.asarray(source)
    except Exception as error:  # of another library: another device, a sparse layout
        raise ValueError(f"{name} cannot be read as an array: {error}. Give a NumPy array; {WANTED}.") from error


def _eight_bits(array: np.ndarray, about: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "uif":
        raise ValueError(f"{about}; {WANTED}.")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(array * np.float32(255)).astype(np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2 and not 0 < high <= 255:
        return scaled_16_bits(array)
    raise ValueError(f"{about} with values from {low:g} to {high:g}; {WANTED}.")
