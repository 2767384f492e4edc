"""Image → what a model is shown: one geometry for training, evaluation, prediction and export. It loads no torch.

It works on uint8 images, so that its result can be cached; `normalise` makes the model's numbers of them.
"""

import cv2
import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.data.config import TransformConfig
from facerwkv.media.geometry import Box
from facerwkv.media.resize import resized


class EvalTransform:
    """The geometry that training, evaluation, prediction and export share.

    Takes uint8 (H, W, 3) RGB and, for faces, a box x1 y1 x2 y2 in its pixels; gives uint8 (h, w, channels). Raises
    InputError for a box that is not in the image, and for none where there must be one.
    """

    def __init__(self, config: TransformConfig):
        self.config = config

    def __call__(self, image: np.ndarray, box: Box | None = None) -> np.ndarray:
        config, (height, width) = self.config, image.shape[:2]
        if config.crop == "scene":
            return self._sized(image)
        if not box and config.no_box == "error":
            whole = "" if config.crop == "both" else ", or the whole of it, facerwkv train transform.no_box=whole"
            raise InputError(
                "An image has no face box, and this model looks at faces. Give boxes (data.boxes=FILE), let the "
                "detector find them (data.boxes=detect), or train a model that takes the image's middle for the face, "
                f"facerwkv train transform.no_box=centre{whole}."
            )
        if not box and config.no_box == "centre":
            box = (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
        face = self._sized(_cut(image, crop_box(box, config.margin, (height, width))) if box else image)
        if config.crop == "face":
            return face
        scene = image.copy() if box else np.zeros_like(image)
        if box:
            left, top, right, bottom = (max(0, round(edge)) for edge in box)
            scene[top:bottom, left:right] = 0
        return np.concatenate([self._sized(scene), face], 2)

    def _sized(self, image: np.ndarray) -> np.ndarray:
        """Resized to image_size, in grey where the model wants that."""
        image = np.ascontiguousarray(image)
        if self.config.interpolation == "bilinear":
            image = resized(image, self.config.image_size)
        else:
            image = cv2.resize(image, self.config.image_size[::-1], interpolation=cv2.INTER_LINEAR_EXACT)
        if self.config.in_chans == 3:
            return image
        weighted = image.astype(np.uint32) @ np.array((19595, 38470, 7471), np.uint32)  # Pillow's integers, of 65,536
        return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., None]


def crop_box(box: Box, margin: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square x1 y1 x2 y2, in whole pixels, around a face's box enlarged by margin x its longer side on each side.

    size: height and width of the image. The square shares the box's centre and may leave the image. Raises
    InputError for a box that is empty, lies outside the image or is more than twice as large as it.
    """
    x1, y1, x2, y2 = box
    height, width = size
    longer = max(x2 - x1, y2 - y1)
    if not (max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height) and longer <= 2 * max(size)):
        numbers = ", ".join(f"{value:g}" for value in box)
        raise InputError(
            f"The box ({numbers}) is not a face's in an image {width} wide and {height} high. Boxes are x1, y1, x2, "
            "y2 in pixels; correct it or leave it out."
        )
    side = max(1, round(longer * (1 + 2 * margin)))
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    return left, top, left + side, top + side


def _cut(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The pixels of a box; beyond the image those of its border are repeated."""
    left, top, right, bottom = box
    height, width = image.shape[:2]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return image[top:bottom, left:right]
    rows, columns = np.arange(top, bottom).clip(0, height - 1), np.arange(left, right).clip(0, width - 1)
    return image[rows[:, None], columns]
