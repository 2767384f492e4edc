"""Section 4.1: the recurrent form: the same answers, a state, a time for each token. Nothing is trained.

    facerwkv reproduce section4_1_recurrent

The paper: token by token RWKV works "with a constant memory footprint and speed, regardless of the sequence length". It
shows no numbers, and its code has no recurrent form. RWKV-1, which it ran, weights tokens by a free table: it must keep
every token, so its state and its time grow. From RWKV-4 on they do not. Under a minute on one core of a CPU.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from facerwkv.evaluation.templates import Paragraph, Section, Table
from facerwkv.experiments.study import Setting
from facerwkv.models.zoo import create_model
from facerwkv.training.run import environment

NAMES = (
    "facerwkv_small_fullwidth",
    *("facerwkv4_small", "facerwkv5_small", "facerwkv6_small", "facerwkv7_small"),
)
SIZES = {150: (200, 300), 600: (400, 600), 2400: (800, 1200)}
"""Tokens → height and width of an image with that many, in pixels."""
STEPS = 16  # tokens that come one by one, at the end
NOISE = 0.1  # added to every weight, since a fresh mixer hands on nothing
CLAIM = "The paper: constant memory and speed, whatever the length. That holds from RWKV-4 on, not for its RWKV-1."
NOTE = (
    "difference: the largest between the logits of the recurrent and of the parallel form, as a share of the largest "
    "logit. state: the numbers kept after that many tokens. ms: for one token there. The weights are random."
)


def run(setting: Setting) -> list[Section]:
    """The table's section of the page."""
    head = ("model", "difference", *(f"state after {count}" for count in SIZES), *(f"ms at {count}" for count in SIZES))
    where = environment()
    about = f"{NOTE} Measured on {where['processor']}, {where['threads']} threads."
    rows = []
    for name in NAMES:
        differences, states, seconds = zip(*measured(name), strict=True)
        times = (f"{1000 * each:.2f}" for each in seconds)
        rows.append((name, f"{max(differences):.0e}", *(f"{state:,}" for state in states), *times))
    return [("Section 4.1: the recurrent form", [Paragraph(CLAIM), Table(head, rows), Paragraph(about)])]


@torch.inference_mode()
def measured(name: str) -> Iterator[tuple[float, int, float]]:
    """For each of SIZES: how far the two forms differ, the numbers in the state, the seconds of a late token."""
    torch.manual_seed(0)
    model: Any = create_model(name, image_size=list(SIZES.values())[-1]).eval()
    for parameter in model.parameters():
        parameter.add_(NOISE * torch.randn_like(parameter))
    for count, size in SIZES.items():
        image = torch.rand(1, 3, *size)
        tokens, _ = model.embed(image)
        logits, state = model.stream(tokens[:, : count - STEPS])
        seconds = []
        for token in tokens[:, count - STEPS :].split(1, 1):
            start = time.perf_counter()
            logits, state = model.stream(token, state)
            seconds.append(time.perf_counter() - start)
        whole = model(image)
        difference = ((logits - whole).abs().max() / whole.abs().max()).item()
        yield difference, numbers(state["blocks"]), statistics.median(seconds)


def numbers(state: Any) -> int:
    """The number of elements in the tensors of a state."""
    if isinstance(state, Tensor):
        return state.numel()
    parts = state.values() if isinstance(state, dict) else state or ()
    return sum(map(numbers, parts))
