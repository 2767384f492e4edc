"""Whole models against transformers of the same stem, head, width, depth and hidden size; all tokens."""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from facerwkv.bench.answers import require_close
from facerwkv.bench.timing import BenchSetting, Call, Measured, relative
from facerwkv.kernels.products import Linear
from facerwkv.models.facerwkv import FaceRWKV, ModelConfig
from facerwkv.models.stem import PatchEmbed
from facerwkv.models.zoo import create_model, model_line

SIDES = {600: (400, 600), 2400: (800, 1200), 9600: (1600, 2400)}
"""Tokens → the image's height and width, in patches of 20."""
TOLERANCE = 1e-4  # of the largest number, float32 against float64
LR = 1e-3
PEER = "attention"


def pair(name: str, tokens: int, setting: BenchSetting) -> tuple[FaceRWKV, FaceRWKV]:
    """A model of MODELS and the transformer of its shape, both with weights that leave no part at zero."""
    config = model_line(name).config.model_dump() | {"image_size": _size(tokens, setting)}
    config["hidden"] = config["hidden"] or 4 * config["width"]
    models = []
    for change in ({}, {"mixer": PEER}):
        model, source = FaceRWKV(ModelConfig(**config | change)), torch.Generator().manual_seed(0)
        for weights in model.parameters():
            if weights.ndim > 1:
                nn.init.normal_(weights, std=weights[0].numel() ** -0.5, generator=source)
        models.append(model)
    return models[0], models[1]


def forward(name: str, peer: str, tokens: int, setting: BenchSetting) -> Measured:
    """Forward, batch 1, against the "transformer" of its shape or timm's "vit" of the same width and depth."""
    ours, other = pair(name, tokens, setting)
    image, config = _images(1, tokens, setting), ours.config
    models: list[Any] = [ours.eval(), other.eval()]
    if peer == "vit":
        from timm.models.vision_transformer import VisionTransformer

        models[1] = VisionTransformer(
            img_size=_size(tokens, setting),
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            num_classes=config.num_classes,
            class_token=False,
            global_pool="avg",
        ).eval()
    got = torch.inference_mode()(ours.forward_features)(image)
    require_close(got, _exact(ours, image, "forward_features"), TOLERANCE, "the tokens after the last block")
    mine, theirs = (  # by their two halves, so that no model may leave tokens out in its last block
        torch.inference_mode()(partial(lambda model: model.forward_head(model.forward_features(image)), model))
        for model in models
    )
    return relative(mine, theirs, setting, inverse=True)


def train(name: str, batch: int, tokens: int, setting: BenchSetting) -> Measured:
    """Forward, cross-entropy, backward and a step of SGD without momentum."""
    ours, peer = pair(name, tokens, setting)
    image, exact = _images(1, tokens, setting), deepcopy(ours).double()
    for model, x in ((ours, image), (exact, image.double())):
        cross_entropy(model(x), torch.zeros(len(x), dtype=torch.int64)).backward()
    for (weights, of_ours), right in zip(ours.named_parameters(), exact.parameters(), strict=True):
        if of_ours.grad is not None and right.grad is not None:
            require_close(of_ours.grad, right.grad, TOLERANCE, f"the gradient of {weights}")
    ours.zero_grad(set_to_none=True)
    mine, theirs = (train_step(model, batch, tokens, setting) for model in (ours, peer))
    return relative(mine, theirs, setting, inverse=True)


def train_step(model: FaceRWKV, batch: int, tokens: int, setting: BenchSetting) -> Call:
    images = _images(batch, tokens, setting)
    targets = torch.arange(batch) % model.num_classes
    optimiser = torch.optim.SGD(model.parameters(), LR)

    def step() -> None:
        cross_entropy(model.train()(images), targets).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def predict(name: str, products: str, setting: BenchSetting, drift: bool = False) -> Measured:
    """The best inference path against the eager model, whose matrix products have the implementation `products`.

    For `drift`, the largest difference of its logits from the eager model's in float64.
    """
    from facerwkv.models.fold import aot, fold

    torch.manual_seed(0)
    plain = create_model(name, image_size=_size(600, setting)).eval()
    image = _images(1, 600, setting)
    fast = torch.inference_mode()(aot(fold(plain), image))
    if drift:
        return Measured((fast(image) - _exact(plain, image)).abs().max().item())
    for module in plain.modules():
        if isinstance(module, Linear | PatchEmbed):
            module.implementation = products
    require_close(fast(image), _exact(plain, image), TOLERANCE, "the logits")
    return relative(partial(fast, image), partial(torch.inference_mode()(plain.__call__), image), setting)


def _exact(model: nn.Module, image: Tensor, method: str = "forward") -> Tensor:
    return torch.inference_mode()(getattr(deepcopy(model).double(), method))(image.double())


def _images(batch: int, tokens: int, setting: BenchSetting) -> Tensor:
    return torch.rand(batch, 3, *_size(tokens, setting), generator=torch.Generator().manual_seed(0))


def _size(tokens: int, setting: BenchSetting) -> tuple[int, int]:
    height, width = SIDES[tokens]
    return height // setting.shrink, width // setting.shrink
