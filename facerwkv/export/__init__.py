"""Checkpoint → one ONNX file that needs neither PyTorch nor this package, checked against the original."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.core.packages import has_pytorch, pytorch
from facerwkv.models.card import known_licence
from facerwkv.models.folder import EXPORTED, Checkpoint, find
from facerwkv.models.onnx import OnnxModel, read_onnx, read_packed, whole_file


@dataclass(frozen=True)
class Exported:
    """A file that was written: its size in bytes, the licence of its weights, and the largest difference of logits.

    The difference is None for what was packed, and so compared with PyTorch's, before.
    """

    file: str
    model: str
    licence: str | None
    bytes: int
    difference: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        equal = "" if self.difference is None else f"logits within {self.difference:.0e} of PyTorch's"
        what = f"{self.model}, {self.bytes / 1e6:.1f} MB, {equal or 'as it was packed'}"
        return f"Wrote {self.file}: {what}. Licence: {self.licence or 'unknown'}"


def open_checkpoint(source: Checkpoint | str | Path) -> Checkpoint:
    """A checkpoint, or what is found under a name: in PyTorch, or, without it, as it was packed."""
    if isinstance(source, Checkpoint):
        return source
    if not has_pytorch():
        return read_packed(find(source))
    from facerwkv.models.checkpoint import load_checkpoint

    return load_checkpoint(source)


def export_onnx(source: Checkpoint | str | Path, out: str | Path, calibration: str | None = None) -> Exported:
    """Write a checkpoint, or what `find` finds under a name, as an ONNX file; `models/onnx.py` describes it.

    The graph takes images uint8 (B, h, w, c), 0..255, RGB or grey, as the evaluation transform gives them, in a batch
    of any size, and gives logits float32 (B, C). onnxruntime's answers to drawn images are compared with PyTorch's:
    where a logit differs by more than 1e-4, nothing is written. Without PyTorch, what was packed is joined to a file.
    InputError for that, for a model that cannot be exported, without onnx or onnxscript, and for a file that cannot be
    written.

    With `calibration`, a data set NAME:ROOT, convolutions and products have 8-bit factors, in ranges measured on its
    training images: faster, and not exact. The difference is then reported and not limited.
    """
    out = Path(out)
    if out.suffix.lower() != EXPORTED:
        raise InputError(f"{out} must end in {EXPORTED}; choose another name.")
    checkpoint = open_checkpoint(source)
    with atomic(out) as partial:
        difference = _write(checkpoint, partial)
        if calibration:
            pytorch("export --int8")
            from facerwkv.export.quantize import quantize

            difference = quantize(partial, checkpoint, calibration)
        size = partial.stat().st_size
    return Exported(str(out), checkpoint.title, known_licence(checkpoint.card), size, difference)


def _write(checkpoint: Checkpoint, path: Path) -> float | None:
    if not isinstance(checkpoint.model, OnnxModel):
        from facerwkv.models.graph import write_file

        return write_file(checkpoint, path)
    path.write_bytes(whole_file(checkpoint))
    read_onnx(path, "cpu")
    return None
