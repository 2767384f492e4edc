"""Files of weights that others made, by name. A pickle is read by torch's restricted reader or not at all."""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facerwkv.core.errors import InputError

PICKLES = (".pth", ".pt", ".tar")


def _read_arrays(path: Path) -> dict[str, Tensor] | None:
    """What a .npz or .safetensors file holds, by name; None where there is no such file."""
    if path.suffix == ".npz" and path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if path.suffix == ".safetensors" and path.is_file():
        from safetensors.torch import load_file

        return load_file(path)
    return None


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """The weights in a .npz, .safetensors or .pth file, the latter read without running anything in it.

    What lies under "state_dict" there is taken out, and "module." removed from names. InputError when there is no such
    file, or when it holds anything but weights.
    """
    path = Path(source).expanduser()
    weights = _read_arrays(path)
    if weights is None and path.suffix in PICKLES and path.is_file():
        weights = _read_pickle(path)
    if weights is None:
        raise InputError(f"No weights in {source}: give an existing .safetensors, .npz or .pth file.")
    return {name.removeprefix("module."): value for name, value in weights.items()}


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"{path} is damaged or holds more than weights, so it is not opened. Save its state_dict as safetensors."
        ) from error
    held = held.get("state_dict", held) if isinstance(held, dict) else None
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise InputError(f"{path} holds no weights by name. Save a network's state_dict as safetensors.")
    return held
