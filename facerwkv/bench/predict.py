"""Prediction from pixels to labels: finding faces, naming them, whole videos, and what a first image costs."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import facerwkv
from facerwkv.bench.answers import Disagreement, Skipped, require_close
from facerwkv.bench.memory import MB
from facerwkv.bench.peers import fer, opencv_detector
from facerwkv.bench.service import service
from facerwkv.bench.timing import BenchSetting, Measured, in_turns, relative
from facerwkv.data.toy.scenes import render
from facerwkv.export import export_onnx
from facerwkv.inference.predictor import Predictor, load
from facerwkv.inference.stream import stream
from facerwkv.media.faces import COARSE_SIDE, FaceDetector
from facerwkv.media.frames import VideoWriter, read_frames
from facerwkv.media.geometry import overlap
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.graph import drawn_images

MODEL = "facerwkv_fer"
WIDTH, HEIGHT = 640, 360
FRAMES, RATE = 50, 25
IMAGES = 200
CALLS = 32
SAME = 0.95  # intersection over union
TOLERANCE = 1e-4
SHORT = {"torch-bfloat16": 0.05, "onnx": 0.25}  # the difference, as a part of the largest logit, that is allowed


def detect(setting: BenchSetting) -> Measured:
    """Finding the faces of 640 x 360 pixels, against OpenCV's YuNet with the same searches."""
    detector = FaceDetector(threads=setting.threads)
    peer, image, sides = opencv_detector(detector.threshold), _scene(), [WIDTH, COARSE_SIDE]
    found = np.array([[face.x1, face.y1, face.x2, face.y2] for face in detector(image)])
    theirs = peer(image, sides)[:, :4].clip(0, [WIDTH, HEIGHT] * 2)
    if not len(found) or overlap(found, theirs).max(1).min() < SAME or overlap(theirs, found).max(1).min() < 0.5:
        raise Disagreement("the faces are not those that OpenCV finds")
    return relative(partial(detector, image), partial(peer, image, sides), setting)


def classify(name: str, batch: int, setting: BenchSetting) -> Measured:
    """Naming a batch of faces of 48 x 48 pixels in the model's inference form, against the same in onnxruntime ("onnx")
    or a network of timm for the same input."""
    predictor = load(MODEL, "cpu", engine="torch")
    transform = predictor.checkpoint.transform
    shape = (batch, *transform.image_size, transform.channels)
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    if name == "onnx":
        torch.set_num_threads(setting.threads)
        peer = load(MODEL, "cpu", engine="onnx").model
        mine, its = (torch.from_numpy(model(images)) for model in (predictor.model, peer))
        require_close(mine, its, TOLERANCE, "the logits")
        return relative(partial(predictor.model, images), partial(peer, images), setting)
    timm = importlib.import_module("timm")
    peer = timm.create_model(name, num_classes=len(predictor.labels), in_chans=transform.in_chans).eval()
    given = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    return relative(partial(predictor.model, images), partial(torch.inference_mode()(peer), given), setting)


def classify_short(engine: str, setting: BenchSetting) -> Measured:
    """Naming 32 faces with shorter factors against float32 in the same engine: "torch-bfloat16", or "onnx" with 8 bits,
    calibrated on drawn faces."""
    torch.set_num_threads(setting.threads)  # which a session keeps
    exact = load(MODEL, "cpu", engine="onnx" if engine == "onnx" else "torch")
    with TemporaryDirectory() as folder:
        exported = Path(folder) / "int8.onnx"
        if engine == "onnx":
            export_onnx(MODEL, exported, "toy")
        short = load(exported, "cpu") if engine == "onnx" else load(MODEL, "cpu", engine="torch-bfloat16")
    images = drawn_images(exact.checkpoint.transform).repeat(5, 1, 1, 1)[:32].numpy()
    mine, its = (torch.from_numpy(each.model(images)) for each in (short, exact))
    require_close(mine, its, SHORT[engine], "a logit")
    return relative(partial(short.model, images), partial(exact.model, images), setting)


def video(against: str | None, setting: BenchSetting) -> Measured:
    """Frames per second from a file to the labels of every frame; with a peer, the package "fer", how many times as
    fast as it our pipeline is."""
    peer = fer() if against else None
    with TemporaryDirectory() as folder:
        path, frames = Path(folder) / "film.mp4", max(2, FRAMES // setting.shrink)
        with closing(VideoWriter(path)) as film:
            for number in range(frames):
                film.write(number / RATE, np.roll(_scene(), number % 8, 1))
        predictor = cache(lambda: Predictor(load_checkpoint(MODEL), "cpu"))  # made on as many cores as are timed

        def ours() -> None:
            faces = [len(result.faces) for result in stream(predictor(), path)]
            if faces != [1] * frames:
                raise Disagreement(f"of {frames} frames with one face, {faces.count(1)} have one")

        if peer:
            theirs = partial(_each, peer, path)
            return relative(ours, theirs, setting, inverse=True)
        (taken,) = in_turns([ours], setting)
        rates = [frames / seconds for seconds in taken]
        return Measured(*(float(np.quantile(rates, share)) for share in (0.5, 0.25, 0.75)))


def _each(peer: Callable[[np.ndarray], object], path: Path) -> None:
    for frame in read_frames(path):
        peer(frame.rgb)


def folder(setting: BenchSetting) -> Measured:
    """A folder of photographs, searched for faces and classified: how many times as fast on two cores as on one."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(allowed) < 2:
        raise Skipped("there are no two cores here that a process may choose")
    with TemporaryDirectory() as name:
        paths = [Path(name) / f"{number:04d}.jpg" for number in range(max(8, IMAGES // setting.shrink**2))]
        for number, path in enumerate(paths):
            Image.fromarray(render(number % 20, "test").image).resize((WIDTH, 427)).save(path, quality=90)
        predictors: dict[int, Predictor] = {}

        def on(count: int) -> list[str]:
            os.sched_setaffinity(0, allowed[-count:])
            torch.set_num_threads(count)
            if count not in predictors:
                predictors[count] = load(MODEL, "cpu")
            return [face.label for result in predictors[count].predict_iter(paths) for face in result.faces]

        try:
            if on(1) != on(2):
                raise Disagreement("two cores name other faces than one")
            return relative(partial(on, 2), partial(on, 1), replace(setting, threads=2), inverse=True)
        finally:
            os.sched_setaffinity(0, allowed)


def two_threads(setting: BenchSetting) -> Measured:
    """Images with a face, one by one, from two threads that share a predictor: how many times as fast as from one."""
    torch.set_num_threads(1)  # a session keeps it: each call has a core, as docs/how-to/embed.md advises
    predictor, image, count = load(MODEL, "cpu"), _scene(), max(2, CALLS // setting.shrink**2)

    def on(threads: int) -> list[str]:
        with ThreadPoolExecutor(threads) as pool:
            return [result.faces[0].label for result in pool.map(predictor.predict, [image] * count)]

    if on(1) != on(2):
        raise Disagreement("two threads name other faces than one")
    return relative(partial(on, 2), partial(on, 1), replace(setting, threads=2), inverse=True)


_USED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(done.returncode)
"""
"""Runs a command for a process that may itself be large: a child's peak is at least what its parent occupied."""


def first_image(what: str, setting: BenchSetting) -> Measured:
    """The command line from start to end for one image: its CPU "seconds", or its largest resident "memory" in MB."""
    with TemporaryDirectory() as folder:
        path, values = Path(folder) / "image.png", []
        installed = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        Image.fromarray(_scene()).save(path)
        for _ in range(1 + (setting.repeats or 3)):  # the first one compiles, and reads from the disk
            command = [sys.executable, "-c", _USED, sys.executable, "-m", "facerwkv", "predict", str(path)]
            done = subprocess.run([*command, "--device", "cpu"], env=installed, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError("facerwkv predict fails; run it to see why")
            seconds, peak = map(float, done.stdout.split())
            values.append(seconds if what == "seconds" else peak * (1 if sys.platform == "darwin" else 1024) / MB)
        return Measured(median(values[1:]))


def fifty_clients(setting: BenchSetting) -> Measured:
    """Answers per second of the service to fifty clients, who each show one face."""
    return service(MODEL, np.asarray(Image.fromarray(_scene()).resize((320, 180))), 50, setting)


def install_size(setting: BenchSetting) -> Measured:
    """MiB that the package and all that it brings without an extra occupy, as `du` counts, without bytecode."""
    waiting, known, files = ["facerwkv"], set(), [*Path(facerwkv.__file__).parent.rglob("*")]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in known:
            continue
        known.add(name)
        found = metadata.distribution(name)
        for need in map(Requirement, found.requires or []):
            waiting += [need.name] * (need.marker is None or need.marker.evaluate({"extra": ""}))
        files += [Path(str(found.locate_file(file))) for file in found.files or []] if name != "facerwkv" else []
    sizes = [file.stat().st_size for file in {*files} if file.is_file() and file.suffix != ".pyc"]
    return Measured(sum(-(-size // 4096) for size in sizes) / 256)


@cache
def _scene() -> np.ndarray:
    """A drawn scene with one face that is found."""
    detector = FaceDetector()
    for number in range(20):
        image = Image.fromarray(render(number, "test").image).resize((WIDTH, HEIGHT))
        if len(detector(np.asarray(image))) == 1:
            return np.asarray(image)
    raise Disagreement("no drawn scene has one face")
