"""A checkpoint in PyTorch, called as an OnnxModel is: bytes in, numbers out. And the network itself, to look into."""

import copy
import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError
from facerwkv.core.processes import PerProcess
from facerwkv.models.checkpoint import load_folder
from facerwkv.models.evidence import patch_grid
from facerwkv.models.fold import fold
from facerwkv.models.folder import Checkpoint
from facerwkv.models.onnx import OnnxModel

SMALL = 2_000_000
"""Weights times images up to which threads take turns in the model: such a batch is many short operations, and threads
that are in them at once wait for Python's lock at each."""


class TorchModel:
    """Images, uint8 (B, h, w, c), any B → logits, float32 (B, C), by `network`, the folded model on `device`.

    `weights` is their number. `precision` is that of convolutions and products: "bfloat16" by PyTorch's autocast.

    InputError if there is no such device.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", precision: str = "float32"):
        self.device, self._dtype = choose_device(device), getattr(torch, precision)
        self.network = fold(checkpoint.model, checkpoint.transform).to(self.device)
        self.weights = sum(weight.numel() for weight in checkpoint.model.parameters())
        self.runs_on = str(self.device) if precision == "float32" else f"{self.device}, {precision}"
        self.patches = patch_grid(checkpoint.model, checkpoint.transform.image_size)
        self._in_turn = SMALL // max(1, self.weights) if self.device.type == "cpu" else 0
        self._turn = PerProcess(threading.Lock)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        torch.get_num_threads()  # else a new thread's first products and kernels take all cores, whatever was set
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        autocast = torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32)
        with torch.inference_mode(), autocast, self._turn() if len(images) <= self._in_turn else nullcontext():
            return self.network(batch).float().cpu().numpy()


def unfolded(checkpoint: Checkpoint, device: str) -> Any:
    """A copy of a checkpoint's own network, frozen, on a device: whoever trains it goes on undisturbed.

    InputError for an exported model.
    """
    if isinstance(checkpoint.model, OnnxModel):
        if checkpoint.model.folder is None:
            raise InputError(f"An exported {checkpoint.title} has no gradients, tokens or states; give its checkpoint.")
        checkpoint = load_folder(checkpoint.model.folder)
    return copy.deepcopy(checkpoint.model).eval().requires_grad_(False).to(choose_device(device))
