"""What is measured, under which name, against which bar: the ROWS table. A missed bar has its line in REASONS."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from facerwkv.bench import data, kernels, memory, models, predict
from facerwkv.bench.timing import BenchSetting, Measured

FASTER, PART, MEGABYTES, GROWTH = "{:.2f} times faster", "{:.4f} of its time", "{:.1f} MB", "{:.2f} times the time"
MEMORY, SHARE = "{:.2f} of its memory", "{:.1e}"


@dataclass(frozen=True)
class Bar:
    """The value that a row must reach, from below or from above, and one that would be better still."""

    limit: float
    at_least: bool = False
    stretch: float | None = None

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __format__(self, form: str) -> str:
        sign = "≥" if self.at_least else "≤"
        stretch = f" (stretch {self.stretch:g})" if self.stretch else ""
        return f"{sign} {self.limit:.2g}{stretch}" if self.limit < 0.01 else f"{sign} {self.limit:g}{stretch}"


@dataclass(frozen=True)
class BenchRow:
    """One number: what it means, how its value is written, how it is measured, and its bar where it has one."""

    group: str
    what: str
    form: str
    measure: Callable[[BenchSetting], Measured]
    bar: Bar | None = None


_at_least = partial(Bar, at_least=True)


def _kernel(name: str, what: str, peer: str, tokens: int, bar: float | None = None) -> BenchRow:
    """A kernel against a peer of `kernels.versus`: attention over all tokens or the earlier ones, or its plain form."""
    measure, limit = partial(kernels.versus, name, peer, tokens), Bar(bar) if bar else None
    if peer == "plain":
        what = f"{what}, {tokens:,} tokens, forward and backward, against the plain form"
        return BenchRow("kernels", what, FASTER, measure, replace(limit, at_least=True) if limit else None)
    what = (
        f"{what}, width 384, {tokens:,} tokens, forward, against {'causal' if peer == 'causal_sdpa' else 'full'} SDPA"
    )
    return BenchRow("kernels", what, PART, measure, limit)


def _growth(name: str, what: str, train: bool, bar: float | None = None) -> BenchRow:
    what = f"{what}, forward{' and backward' if train else ''}: 9,600 tokens against 2,400"
    measure = partial(kernels.growth, name, train, 2400, 9600)
    return BenchRow("kernels", what, GROWTH, measure, Bar(bar) if bar else None)


def _model(size: str, peer: str, tokens: int, bar: float | None = None) -> BenchRow:
    """A whole model against a peer of `models.forward`."""
    against = {
        "transformer": "a pre-norm SDPA transformer of its shape",
        "vit": "timm's ViT of its width and depth",
    }
    name, limit = f"facerwkv4_{size}", _at_least(bar) if bar else None
    what = f"{name}, {tokens:,} tokens, batch 1, forward, against {against[peer]}"
    return BenchRow("models", what, FASTER, partial(models.forward, name, peer, tokens), limit)


def _classify(peer: str, batch: int, what: str) -> BenchRow:
    """The shipped model in PyTorch against a peer of `predict.classify`."""
    images = "one face" if batch == 1 else f"{batch} faces"
    what = f"facerwkv_fer in PyTorch, {images} of 48 x 48, against {what}"
    return BenchRow("predict", what, FASTER, partial(predict.classify, peer, batch))


V1 = "RWKV-1's core, 8 heads of"
WKV4, BIWKV, WKV6, WKV7 = "Native WKV-4", "Native bidirectional WKV", "WKV-6, best CPU form", "WKV-7, best CPU form"
ROWS: dict[str, BenchRow] = {
    "v1_core_hs1_600": _kernel("v1_hs1", f"{V1} 1", "plain", 600, 25),
    "v1_core_hs1_2400": _kernel("v1_hs1", f"{V1} 1", "plain", 2400, 300),
    "v1_core_hs64_600": _kernel("v1_hs64", f"{V1} 64", "plain", 600, 4),
    "v1_core_hs64_2400": _kernel("v1_hs64", f"{V1} 64", "plain", 2400, 12),
    "v1_memory_9600": BenchRow(
        "memory",
        "RWKV-1's core, 8 heads of 1, 9,600 tokens, forward and backward: peak",
        MEGABYTES,
        partial(memory.v1_peak, 9600),
        Bar(32),
    ),
    "wkv4_vs_sdpa_600": _kernel("wkv4", WKV4, "sdpa", 600, 0.12),
    "wkv4_vs_sdpa_9600": _kernel("wkv4", WKV4, "sdpa", 9600, 0.012),
    "wkv4_vs_causal_sdpa_600": _kernel("wkv4", WKV4, "causal_sdpa", 600),
    "wkv4_vs_causal_sdpa_9600": _kernel("wkv4", WKV4, "causal_sdpa", 9600),
    "biwkv_vs_sdpa_600": _kernel("biwkv", BIWKV, "sdpa", 600, 0.15),
    "biwkv_vs_sdpa_9600": _kernel("biwkv", BIWKV, "sdpa", 9600, 0.018),
    "wkv4_vs_copy": BenchRow(
        "kernels",
        "Native WKV-4, width 384, 9,600 tokens (14.7 MB per tensor, beyond the second-level cache), forward, against "
        "1.5 times `y.copy_(x)` of one of its tensors",
        "{:.2f} times its time",
        partial(kernels.versus, "wkv4", "copy", 9600),
        Bar(5, stretch=3),
    ),
    "wkv6_vs_sdpa_600": _kernel("wkv6", WKV6, "sdpa", 600, 0.60),
    "wkv6_vs_sdpa_9600": _kernel("wkv6", WKV6, "sdpa", 9600, 0.04),
    "wkv6_vs_causal_sdpa_600": _kernel("wkv6", WKV6, "causal_sdpa", 600),
    "wkv6_vs_causal_sdpa_9600": _kernel("wkv6", WKV6, "causal_sdpa", 9600),
    "wkv7_vs_sdpa_2400": _kernel("wkv7", WKV7, "sdpa", 2400, 0.45),
    "wkv7_vs_causal_sdpa_2400": _kernel("wkv7", WKV7, "causal_sdpa", 2400),
    "growth_wkv4": _growth("wkv4", WKV4, False, 4.8),
    "growth_wkv4_train": _growth("wkv4", WKV4, True, 5.5),
    "growth_biwkv": _growth("biwkv", BIWKV, False, 4.8),
    "growth_biwkv_train": _growth("biwkv", BIWKV, True, 5.5),
    "growth_wkv6": _growth("wkv6", WKV6, False),
    "growth_wkv6_train": _growth("wkv6", WKV6, True),
    "growth_wkv7": _growth("wkv7", WKV7, False),
    "growth_wkv7_train": _growth("wkv7", WKV7, True),
    "model_medium_600": _model("medium", "transformer", 600, 1.25),
    "model_medium_2400": _model("medium", "transformer", 2400, 2.4),
    "model_medium_9600": _model("medium", "transformer", 9600, 5),
    "model_large_600": _model("large", "transformer", 600, 1.05),
    "model_large_2400": _model("large", "transformer", 2400, 1.8),
    "model_large_9600": _model("large", "transformer", 9600, 3.8),
    "vit_medium_600": _model("medium", "vit", 600),
    "vit_medium_2400": _model("medium", "vit", 2400),
    "vit_large_600": _model("large", "vit", 600),
    "vit_large_2400": _model("large", "vit", 2400),
    "train_large_600": BenchRow(
        "models",
        "facerwkv4_large, 600 tokens, batch 8: a train step (forward, cross-entropy, backward, SGD without momentum), "
        "against the same transformer",
        FASTER,
        partial(models.train, "facerwkv4_large", 8, 600),
        _at_least(1, stretch=1.2),
    ),
    "train_large_600_memory": BenchRow(
        "memory",
        "The same step: peak above the model itself, against the transformer's",
        MEMORY,
        partial(memory.train_peak, "facerwkv4_large", 8),
        Bar(1),
    ),
    "predict_small": BenchRow(
        "models",
        "Published facerwkv_small, batch 1, best inference path (folded, pruned, compiled), against its plain eager "
        "form, whose matrix products are torch.nn.Linear's",
        PART,
        partial(models.predict, "facerwkv_small", "reference"),
        Bar(0.5),
    ),
    "predict_small_vs_eager": BenchRow(
        "models",
        "The same against its eager form as it is, whose matrix products are the fastest here",
        PART,
        partial(models.predict, "facerwkv_small", "auto"),
    ),
    "predict_small_drift": BenchRow(
        "models",
        "The same: largest difference of a logit from the eager form's in float64",
        SHARE,
        partial(models.predict, "facerwkv_small", "auto", drift=True),
        Bar(1e-5),
    ),
    "detect_640x360": BenchRow(
        "predict",
        "Finding the faces of an image of 640 x 360 pixels, against OpenCV's YuNet with the same two searches",
        PART,
        predict.detect,
        Bar(0.35),
    ),
    "classify_1_vs_onnx": _classify("onnx", 1, "the same in onnxruntime"),
    "classify_32_vs_onnx": _classify("onnx", 32, "the same in onnxruntime"),
    "classify_32_vs_mobilenet": _classify("mobilenetv3_small_100", 32, "timm's MobileNetV3-small"),
    "classify_32_vs_resnet18": _classify("resnet18", 32, "timm's ResNet-18"),
    "classify_32_bfloat16": BenchRow(
        "predict",
        "facerwkv_fer in PyTorch, 32 faces of 48 x 48, products of 16 bits against float32; 0.3 % of PrivateTest's "
        "labels differ",
        PART,
        partial(predict.classify_short, "torch-bfloat16"),
        Bar(0.45),
    ),
    "classify_32_int8": BenchRow(
        "predict",
        "The same in onnxruntime, factors of 8 bits against float32; about 2 % of the labels differ",
        PART,
        partial(predict.classify_short, "onnx"),
        Bar(0.7),
    ),
    "video_640x360": BenchRow(
        "predict",
        "A video of 640 x 360 pixels with one face, from the file to the label of every frame",
        "{:.0f} frames per second",
        partial(predict.video, None),
        _at_least(90),
    ),
    "video_640x360_vs_fer": BenchRow(
        "predict",
        "The same against the package fer: OpenCV's cascade and a quantised network",
        FASTER,
        partial(predict.video, "fer"),
        _at_least(6),
    ),
    "folder_two_cores": BenchRow(
        "predict",
        "A folder of photographs of 640 x 427, faces found and named, two cores against one",
        FASTER,
        predict.folder,
        _at_least(1.8),
    ),
    "two_threads": BenchRow(
        "predict",
        "Images of 640 x 360 pixels with a face, one by one, on two cores: two threads that share a predictor against "
        "one",
        FASTER,
        predict.two_threads,
        _at_least(1.7),
    ),
    "fifty_clients": BenchRow(
        "predict",
        "Answers of the service to 50 clients, each with one face in 320 x 180 pixels",
        "{:.0f} per second",
        predict.fifty_clients,
    ),
    "install_size": BenchRow(
        "predict",
        "What `pip install facerwkv` brings, without extras and bytecode, as `du` counts",
        MEGABYTES,
        predict.install_size,
        Bar(350),
    ),
    "first_image_seconds": BenchRow(
        "predict",
        "`facerwkv predict IMAGE` from start to end: seconds of the processor",
        "{:.2f} s",
        partial(predict.first_image, "seconds"),
        Bar(1.2),
    ),
    "first_image_memory": BenchRow(
        "predict",
        "The same: largest resident memory",
        MEGABYTES,
        partial(predict.first_image, "memory"),
        Bar(250),
    ),
    "loader": BenchRow(
        "data",
        "Images per second of the loader, 720 x 480 JPEG to 400 x 600, against Pillow's decoding and antialiased "
        "bilinear resizing",
        FASTER,
        data.loader,
        _at_least(1.4, stretch=2),
    ),
    "loader_difference": BenchRow(
        "data",
        "The mean difference of the loader's images from Pillow's, as a part of the range of values",
        SHARE,
        partial(data.loader, timed=False),
        Bar(data.LEVEL),
    ),
    "cache": BenchRow(
        "data",
        "Images per second of the cache with conversion and normalisation, against Pillow's decoding and resizing",
        FASTER,
        data.cache,
        _at_least(8),
    ),
}
REASONS: dict[str, str] = {
    "detect_640x360": "OpenCV's own time has two modes in one process, 9.6 and 17.9 ms against our 6.5, which give "
    "0.68 and 0.36. Factors of 8 bits and a fixed size did not make ours faster.",
    "classify_32_bfloat16": "the bar is for processors with AMX, which this one has not.",
    "video_640x360": "faces are found anew in every frame, which takes half of the time.",
    "video_640x360_vs_fer": "fer needs 21 ms a frame here; we find faces anew in every frame, which is half of our 13.",
}
"""Name of a row → why it misses its bar, as a sentence."""
