"""Checkpoint → one ONNX file that needs neither PyTorch nor this package, checked against the original."""

import warnings
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.core.runtime import EXTRA
from facerwkv.data.normalise import normalise
from facerwkv.data.toy.scenes import render
from facerwkv.data.transforms import EvalTransform, TransformConfig
from facerwkv.models.card import known_licence
from facerwkv.models.checkpoint import EXPORTED, Checkpoint, load_checkpoint, without_paths
from facerwkv.models.fold import fold
from facerwkv.models.onnx import INPUT, OUTPUT, Description, read_onnx

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # between logits


@dataclass(frozen=True)
class Exported:
    """A file that was written: its size in bytes, the licence of its weights, and the largest difference of logits."""

    file: str
    model: str
    licence: str | None
    bytes: int
    difference: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        what = f"{self.model}, {self.bytes / 1e6:.1f} MB, logits equal to PyTorch's within {self.difference:.0e}"
        return f"Wrote {self.file}: {what}. Licence: {self.licence or 'unknown'}"


def export_onnx(source: Checkpoint | str | Path, out: str | Path) -> Exported:
    """Write a checkpoint, or what `load_checkpoint` finds under a name, as an ONNX file; `models/onnx.py` describes it.

    The graph takes images uint8 (B, h, w, c), 0..255, RGB or grey, as the evaluation transform gives them, in a batch
    of any size, and gives logits float32 (B, C). onnxruntime's answers to drawn images are compared with PyTorch's:
    where a logit differs by more than 1e-4, nothing is written. InputError for that, for a model that cannot be
    exported, where a package of the extra "export" is missing, and for a file that cannot be written.
    """
    out = Path(out)
    if out.suffix.lower() != EXPORTED:
        raise InputError(f"{out} must end in {EXPORTED}; choose another name.")
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError(f"Export needs {', '.join(missing)}, not installed here: {EXTRA}")
    checkpoint = source if isinstance(source, Checkpoint) else load_checkpoint(source)
    with atomic(out) as partial:
        images = drawn_images(checkpoint.transform)
        expected = logits_of(checkpoint, images)
        _write(checkpoint, images[:2], partial)
        model = read_onnx(partial, "cpu").model
        logits = torch.cat([model(images), model(images[:1])])  # in one batch, and the first image alone
        difference = float((logits - torch.cat([expected, expected[:1]])).abs().max())
        if not difference <= TOLERANCE:
            raise InputError(
                f"onnxruntime's logits for {checkpoint.title} differ from PyTorch's by {difference:.1e}, and "
                f"{TOLERANCE:.0e} is allowed; {out} is not written. Use the checkpoint itself, and report this model."
            )
        size = partial.stat().st_size
    return Exported(str(out), checkpoint.title, known_licence(checkpoint.card), size, difference)


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


def _write(checkpoint: Checkpoint, example: Tensor, path: Path) -> None:
    """Write the graph of the folded model, with the checkpoint's description in its metadata."""
    from onnxscript import optimizer

    model = fold(checkpoint.model, checkpoint.transform).cpu()
    for name, module in model.named_modules():  # an ONNX graph has PyTorch's operators only, none of our kernels
        if name.endswith("time_mix") and hasattr(module, "implementation"):
            module.implementation = module.portable
    sizes = ({0: torch.export.Dim("batch")},)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (example,), dynamic_shapes=sizes)
            names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
            names["dynamic_shapes"] = ({0: "batch"},)
            exported: Any = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False, **names)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"{checkpoint.title} cannot be exported: {reason}. Use the checkpoint itself.") from error
    # All of onnxscript's optimiser makes it 2.5 times as long for RWKV-7, and onnxruntime answers no sooner for it.
    optimizer.fold_constants(exported.model)
    optimizer.remove_unused_nodes(exported.model)
    description = Description.of(checkpoint, without_paths(checkpoint.card))
    exported.model.metadata_props.update(description.metadata())
    for node in exported.model.graph.all_nodes():
        node.metadata_props.clear()  # where in which file of this computer it was traced
    exported.save(str(path), external_data=False)
