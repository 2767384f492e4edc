"""PyTorch's network as an ONNX graph: whole, for an exported file, or without its weights, for a checkpoint's folder.

onnxruntime's answers to drawn images are compared with PyTorch's before a file stays.
"""

import logging
import warnings
from collections.abc import Container, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facerwkv.core import packages
from facerwkv.core.errors import InputError, first_line
from facerwkv.core.files import atomic
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.normalise import normalise
from facerwkv.data.toy.scenes import render
from facerwkv.data.transforms import EvalTransform, TransformConfig
from facerwkv.models.checkpoint import load_folder, save_checkpoint
from facerwkv.models.evidence import patch_grid
from facerwkv.models.fold import ForBytes, fold
from facerwkv.models.folder import GRAPH, Checkpoint, made_for, without_paths
from facerwkv.models.onnx import (
    INPUT,
    MADE_FOR,
    OUTPUT,
    PATCHES,
    Description,
    OnnxModel,
    open_session,
    read_arrays,
)
from facerwkv.models.protobuf import joined

PACKAGES = ("onnx", "onnxscript")
TOLERANCE = 1e-4  # between logits


def save_packed(folder: Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """`save_checkpoint` and `write_graph`. Where the graph cannot be written the reason is logged: PyTorch will do."""
    save_checkpoint(folder, checkpoint, half)
    try:
        write_graph(folder)
    except InputError as error:
        logging.getLogger("facerwkv").warning(f"{folder} was written, but it runs in PyTorch only: {error}")


def write_graph(folder: Path) -> float:
    """Write the graph beside a checkpoint's weights, with which it runs without PyTorch; the difference of logits.

    InputError for a model that cannot be exported, without a package, and where a logit differs by more than 1e-4.
    """
    checkpoint, (stored, weights) = load_folder(folder), read_arrays(folder)
    images, expected = _expected(checkpoint)
    network = ForBytes(checkpoint.model, checkpoint.transform)
    rows, columns = patch_grid(checkpoint.model, checkpoint.transform.image_size)
    graph = _traced(network, checkpoint, {MADE_FOR: made_for(stored), PATCHES: f"{rows}x{columns}"}, weights)
    difference = _difference(checkpoint.title, joined(graph, weights), folder / GRAPH, images, expected)
    with atomic(folder / GRAPH) as partial:
        partial.write_bytes(graph)
    return difference


def write_file(checkpoint: Checkpoint, path: Path) -> float:
    """Write the folded model with its description as an ONNX file; the largest difference of logits.

    InputError as for `write_graph`.
    """
    images, expected = _expected(checkpoint)
    description = Description.of(checkpoint, without_paths(checkpoint.card))
    model = _traced(fold(checkpoint.model, checkpoint.transform).cpu(), checkpoint, description.metadata())
    difference = _difference(checkpoint.title, model, path, images, expected)
    path.write_bytes(model)
    return difference


def _traced(
    network: nn.Module, checkpoint: Checkpoint, metadata: Mapping[str, str], without: Container[str] = ()
) -> bytes:
    """A network that takes images uint8 (B, h, w, c) as an ONNX file, but for the weights called as in `without`."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError(f"Export needs {', '.join(missing)}, not installed here: {packages.INSTALL}")
    from onnxscript import optimizer

    for name, module in network.named_modules():  # an ONNX graph has PyTorch's operators only, none of our kernels
        if name.endswith("time_mix") and hasattr(module, "implementation"):
            module.implementation = module.portable
    example, sizes = drawn_images(checkpoint.transform)[:2], ({0: torch.export.Dim("batch")},)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(network, (example,), dynamic_shapes=sizes)
            names: dict[str, Any] = {
                "input_names": [INPUT],
                "output_names": [OUTPUT],
                "dynamic_shapes": ({0: "batch"},),
            }
            exported: Any = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False, **names)
    except RuntimeError as error:
        raise InputError(
            f"{checkpoint.title} cannot be exported: {first_line(error).rstrip('.')}. Use the checkpoint itself."
        ) from error
    graph = exported.model.graph
    weights = [graph.initializers.pop(name) for name in list(graph.initializers) if _own(name) in without]
    for weight in weights:
        weight.name, weight.const_value = _own(weight.name), None
    graph.inputs.extend(weights)  # so that nothing is made of them here
    # All of onnxscript's optimiser makes it 2.5 times as long for RWKV-7, and onnxruntime answers no sooner for it.
    optimizer.fold_constants(exported.model)
    optimizer.remove_unused_nodes(exported.model)
    for weight in weights:
        graph.inputs.remove(weight)
    exported.model.metadata_props.update(metadata)
    for node in graph.all_nodes():
        node.metadata_props.clear()  # where in which file of this computer it was traced
    return bytes(exported.model_proto.SerializeToString())


def _own(name: str) -> str:
    """A weight's name in the checkpoint, where the network is inside ForBytes."""
    return name.removeprefix("model.")


def _expected(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """Drawn images, uint8 (B, h, w, c), and PyTorch's logits for them, float32 (B, C)."""
    images = drawn_images(checkpoint.transform)
    return images.numpy(), logits_of(checkpoint, images).numpy()


def _difference(title: str, model: bytes, path: Path, images: np.ndarray, expected: np.ndarray) -> float:
    """Between the logits of PyTorch and of onnxruntime, at most; InputError where it is too large."""
    exported = OnnxModel(open_session(model, path))
    found = np.concatenate([exported(images), exported(images[:1])])  # in one batch, and the first image alone
    difference = float(np.abs(found - np.concatenate([expected, expected[:1]])).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"onnxruntime's logits for {title} differ from PyTorch's by {difference:.1e}, and {TOLERANCE:.0e} is "
            f"allowed; {path} is not written. Use the checkpoint itself, and report this model."
        )
    return difference


def drawn_images(transform: TransformConfig) -> Tensor:
    """The toy data set's first seven test images, one per expression, as the model gets them: uint8 (7, h, w, c)."""
    scenes = [render(index, "test") for index in range(len(EXPRESSIONS))]
    shown = [EvalTransform(transform)(scene.image, scene.box) for scene in scenes]
    return torch.from_numpy(np.stack(shown))


@torch.no_grad()
def logits_of(checkpoint: Checkpoint, images: Tensor) -> Tensor:
    """PyTorch's logits for images uint8 (B, h, w, c), float32 (B, C). InputError where it is not finite."""
    device = next(checkpoint.model.parameters()).device
    logits = checkpoint.model.eval()(normalise(images.to(device), checkpoint.transform)).float().cpu()
    if not torch.isfinite(logits).all():
        raise InputError(f"{checkpoint.title} answers with NaN or infinity: its weights are broken; train it again.")
    return logits
