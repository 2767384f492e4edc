"""Files of weights that others made, by name. A pickle is read by torch's restricted reader or not at all."""

import os
import pickle
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from facerwkv.core.errors import InputError

PICKLES = (".pth", ".pt", ".tar")
DAMAGED = (OSError, ValueError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError, BadZipFile, zlib.error)
"""What the readers raise for a file that was cut off or overwritten."""


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """The weights by name in a .npz, .safetensors or .pth file; of the latter nothing is executed.

    "state_dict" is looked into, and "module." removed from names. InputError where there is no such file, or where it
    contains anything but weights.
    """
    path = Path(os.path.expanduser(source))
    if path.suffix not in (".npz", ".safetensors", *PICKLES) or not os.path.isfile(path):
        raise InputError(f"No weights in {source}: give an existing .safetensors, .npz or .pth file.")
    weights: Any
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        elif path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGED, TypeError) as error:
        raise InputError(
            f"{path} is damaged or contains more than weights, so it is not opened. Save its state_dict as safetensors."
        ) from error
    if path.suffix in PICKLES:
        weights = weights.get("state_dict", weights) if isinstance(weights, dict) else None
        if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise InputError(f"{path} contains no weights by name. Save a network's state_dict as safetensors.")
    return {name.removeprefix("module."): value for name, value in weights.items()}
