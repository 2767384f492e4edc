"""Faces as a detector gives them: the shipped models on test faces that are shifted, turned, blurred, dark or small.

    facerwkv reproduce claim_robustness --data fer2013:/d/fer2013

Nothing is trained. FER2013's images are the detector's box almost exactly (docs/log.md); a box in use is not. Goal: at
most five points of accuracy lost on the average of these. `data.limit=700` takes the first hundred faces of each class.
"""

from collections.abc import Callable

import cv2
import numpy as np
from torch.utils.data import DataLoader

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.data.config import DataConfig
from facerwkv.data.loader import DataModule
from facerwkv.evaluation.evaluate import align_labels
from facerwkv.evaluation.templates import Paragraph, Section, Table
from facerwkv.experiments.study import SMOKE_DATA, Setting
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.engine import TorchModel
from facerwkv.models.zoo import shipped
from facerwkv.training.recipe import apply


def moved(across: float = 0.0, down: float = 0.0, scale: float = 1.0, degrees: float = 0.0) -> Callable:
    """What shifts by parts of the side, enlarges and turns an image about its middle; edges are repeated."""

    def move(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
        matrix[:, 2] += (across * width, down * height)
        return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return move


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    half = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(half, (width, height), interpolation=cv2.INTER_LINEAR)


def _jpeg(image: np.ndarray) -> np.ndarray:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))


DISTURBANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "box a tenth to the right": moved(across=-0.1),
    "box a tenth lower": moved(down=-0.1),
    "box a tenth larger": moved(scale=1 / 1.1),
    "box a tenth smaller": moved(scale=1.1),
    "turned by 20 degrees": moved(degrees=20),
    "blurred, deviation 1 pixel": lambda image: cv2.GaussianBlur(image, (0, 0), 1.0),
    "dark, 0.3 of the light": lambda image: (image * 0.3).round().astype(np.uint8),
    "JPEG, quality 30": _jpeg,
    "half the pixels": _small,
}
"""Name → image, uint8 (h, w) or (h, w, 3), → image of the same shape. Of FER2013 half the pixels are 24."""
CLAIM = (
    "Accuracy in per cent, and the difference from the images as they are in points, with the 95 % bootstrap interval "
    "of the pairs. The mean is over the disturbances. Edges are repeated where the box leaves the image."
)


def run(setting: Setting) -> list[Section]:
    """A table per shipped model."""
    return [(f"Faces as a detector gives them: {name}", [Paragraph(CLAIM), table(name, setting)]) for name in shipped()]


def table(name: str, setting: Setting) -> Table:
    """A shipped model's accuracy under each disturbance of the test images."""
    checkpoint = load_checkpoint(name)
    values = {"data": DataConfig(source=SMOKE_DATA if setting.smoke else setting.data).model_dump(mode="json")}
    if wrong := [change for change in setting.changes if not change.startswith("data.")]:
        raise InputError(f"{wrong[0]!r} changes nothing, since nothing is trained; only data.KEY=VALUE does.")
    apply(values, setting.changes)
    data = DataModule(DataConfig.parse(values["data"]), checkpoint.transform, 0, None, checkpoint.labels, True)
    data.setup()
    model, parts = TorchModel(checkpoint), []
    for batch in DataLoader(data.images("test"), batch_size=64):
        images = batch["image"].numpy()
        target = batch["target"] if batch["target"].ndim == 1 else batch["target"].argmax(-1)
        seen = [images, *(np.stack([change(one) for one in images]) for change in DISTURBANCES.values())]
        parts.append((np.stack([model(each.reshape(images.shape)) for each in seen], 1), target.numpy()))
    logits, targets = (np.concatenate(each) for each in zip(*parts, strict=True))
    right = np.stack(
        [_right(logits[:, number], targets, checkpoint.labels, data.labels) for number in range(len(seen))]
    )
    return _table(right)


def _right(logits: np.ndarray, targets: np.ndarray, ours: tuple[str, ...], theirs: tuple[str, ...]) -> np.ndarray:
    answers, truth, _, _ = align_labels(logits, targets, ours, theirs)
    return answers.argmax(-1) == truth


def _table(right: np.ndarray) -> Table:
    """right: bool (1 + disturbances, N), the images as they are first."""
    rows = [("as they are", f"{right[0].mean():.2%}", "", "")]
    for name, those in zip(DISTURBANCES, right[1:], strict=True):
        difference, _ = metrics.paired(right[0], those)
        value, low, high = (f"{100 * each:+.2f}" for each in (difference.value, difference.low, difference.high))
        rows.append((name, f"{those.mean():.2%}", value, f"{low} to {high}"))
    lost = 100 * (right[1:].mean() - right[0].mean())
    rows.append(("mean of these", f"{right[1:].mean():.2%}", f"{lost:+.2f}", ""))
    return Table(("faces", "accuracy", "points", "95 % interval"), rows)
