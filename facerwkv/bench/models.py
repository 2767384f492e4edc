"""Whole models against transformers of the same stem, head, width, depth and hidden size; all tokens."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from facerwkv.bench.answers import require_close
from facerwkv.bench.timing import BenchSetting, Call, Measured, relative, times_faster
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


def vs_transformer(name: str, tokens: int, setting: BenchSetting) -> Measured:
    """Forward, batch 1."""
    ours, peer = (model.eval() for model in pair(name, tokens, setting))
    return _faster(ours, peer, _images(1, tokens, setting), setting)


def vs_vit(name: str, tokens: int, setting: BenchSetting) -> Measured:
    """Forward, batch 1, against timm's ViT of the same width and depth."""
    from timm.models.vision_transformer import VisionTransformer

    ours = pair(name, tokens, setting)[0].eval()
    config = ours.config
    peer = VisionTransformer(
        img_size=_size(tokens, setting),
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        num_classes=config.num_classes,
        class_token=False,
        global_pool="avg",
    )
    return _faster(ours, peer.eval(), _images(1, tokens, setting), setting)


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
    return times_faster(mine, theirs, setting)


def train_step(model: FaceRWKV, batch: int, tokens: int, setting: BenchSetting) -> Call:
    images = _images(batch, tokens, setting)
    targets = torch.arange(batch) % model.num_classes
    optimiser = torch.optim.SGD(model.parameters(), LR)

    def step() -> None:
        cross_entropy(model.train()(images), targets).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def predict(name: str, products: str, setting: BenchSetting) -> Measured:
    """The best inference path against the eager model, whose matrix products have the implementation `products`."""
    plain, fast, image = _predictors(name, setting)
    for module in plain.modules():
        if isinstance(module, Linear | PatchEmbed):
            module.implementation = products
    require_close(fast(image), _exact(plain, image), TOLERANCE, "the logits")
    return relative(partial(_inference, fast, image), partial(_inference, plain, image), setting)


def predict_drift(name: str, setting: BenchSetting) -> Measured:
    """The largest difference of its logits from the eager model's in float64."""
    plain, fast, image = _predictors(name, setting)
    return Measured((_inference(fast, image) - _exact(plain, image)).abs().max().item())


def _predictors(name: str, setting: BenchSetting) -> tuple[nn.Module, Callable[[Tensor], Tensor], Tensor]:
    from facerwkv.models.fold import aot, fold

    torch.manual_seed(0)
    plain = create_model(name, image_size=_size(600, setting)).eval()
    image = _images(1, 600, setting)
    return plain, aot(fold(plain), image), image


def _faster(ours: FaceRWKV, peer: nn.Module, image: Tensor, setting: BenchSetting) -> Measured:
    def all_tokens(model: Any, image: Tensor) -> Tensor:
        """The forward pass by its two halves, so that no model may leave tokens out in its last block."""
        return model.forward_head(model.forward_features(image))

    got, exact = _inference(ours.forward_features, image), _exact(ours, image, "forward_features")
    require_close(got, exact, TOLERANCE, "the tokens after the last block")
    mine, theirs = (partial(_inference, partial(all_tokens, model), image) for model in (ours, peer))
    return times_faster(mine, theirs, setting)


def _exact(model: nn.Module, image: Tensor, method: str = "forward") -> Tensor:
    return _inference(getattr(deepcopy(model).double(), method), image.double())


def _inference(call: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    with torch.inference_mode():
        return call(image)


def _images(batch: int, tokens: int, setting: BenchSetting) -> Tensor:
    return torch.rand(batch, 3, *_size(tokens, setting), generator=torch.Generator().manual_seed(0))


def _size(tokens: int, setting: BenchSetting) -> tuple[int, int]:
    height, width = SIDES[tokens]
    return height // setting.shrink, width // setting.shrink
