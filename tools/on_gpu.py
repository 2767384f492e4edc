"""What a GPU is asked when one is lent: tests, kernels, training; a result per step, and what is there is not repeated.

    python tools/on_gpu.py OUT                   (under ten minutes; if it was stopped, the same command goes on)

OUT/STEP.json   a step's numbers, with the GPU, the commit and the seconds; a step that fails has its error instead
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from facerwkv.core.files import write_text
from facerwkv.kernels.biwkv import biwkv
from facerwkv.kernels.wkv4 import wkv4
from facerwkv.models.zoo import create_model
from facerwkv.training.run import environment

LENGTHS = (600, 2400, 9600)
BATCH, WIDTH, HEADS, LABELS = 64, 384, 6, 7
IMAGES = 48_995 + 20_987  # of CAER-S
REPEATS = 10


def seconds(call: Callable[[], Any]) -> float:
    """The median of REPEATS calls, by the GPU's own clock, after three to warm up."""
    for _ in range(3):
        call()
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def tests() -> dict[str, Any]:
    """The tests that need CUDA or Triton, which skip elsewhere."""
    words = [sys.executable, "-m", "pytest", "-q", "-n", "4", "-k", "cuda or triton or gpu", "tests"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    return {"code": done.returncode, "said": done.stdout.splitlines()[-15:]}


attend = functional.scaled_dot_product_attention


def kernels() -> dict[str, Any]:
    """WKV-4 and bidirectional WKV in float32 against flash attention in bfloat16, forward, width 384, seconds."""
    found = {}
    for tokens in LENGTHS:
        w, u = torch.rand(WIDTH, device="cuda") + 0.1, torch.randn(WIDTH, device="cuda")
        k, v = torch.randn(2, 8, tokens, WIDTH, device="cuda").unbind(0)
        q = torch.randn(8, HEADS, tokens, WIDTH // HEADS, device="cuda", dtype=torch.bfloat16)
        with torch.inference_mode():
            found[str(tokens)] = {
                "wkv4": seconds(lambda w=w, u=u, k=k, v=v: wkv4(w, u, k, v)),
                "biwkv": seconds(lambda w=w, u=u, k=k, v=v: biwkv(w, u, k, v)),
                "attention": seconds(lambda q=q: attend(q, q, q)),
                "causal attention": seconds(lambda q=q: attend(q, q, q, is_causal=True)),
            }
    return found


def training(name: str, precision: torch.dtype) -> dict[str, Any]:
    """Images per second of whole steps with Adam on batches of 64 of 400 x 600, 600 tokens, and an epoch of CAER-S."""
    torch.manual_seed(0)
    model = create_model(name).cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    images: Tensor = torch.rand(BATCH, 3, 400, 600, device="cuda")
    targets = torch.randint(LABELS, (BATCH,), device="cuda")

    def step() -> None:
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            logits = model(images)
        functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.cuda.reset_peak_memory_stats()
    rate = BATCH / seconds(step)
    return {"images_per_second": rate, "epoch_seconds": IMAGES / rate, "bytes": torch.cuda.max_memory_allocated()}


STEPS: dict[str, Callable[[], dict[str, Any]]] = {"kernels": kernels}
for _name in (
    "facerwkv_large",
    "facerwkv_small",
    "facerwkv_medium",
    "facerwkv_hybrid",
    "facerwkv4_large",
    "facerwkv7_large",
):
    for _kind, _type in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        STEPS[f"train-{_name}-{_kind}"] = lambda name=_name, precision=_type: training(name, precision)
STEPS["tests"] = tests


def main() -> None:
    if len(sys.argv) != 2 or not torch.cuda.is_available():
        sys.exit("Write: python tools/on_gpu.py OUT, on a machine with a CUDA GPU.")
    out = Path(sys.argv[1])
    for name, step in STEPS.items():
        file, start = out / f"{name}.json", time.monotonic()
        if file.is_file():
            continue
        try:
            found = step()
        except Exception as error:  # one step that fails must not cost the minutes of the others
            found = {"error": f"{type(error).__name__}: {error}"}
        where = environment()
        facts = {"gpu": where["gpu"], "commit": where["commit"], "seconds": time.monotonic() - start}
        write_text(file, json.dumps(found | facts, indent=1) + "\n")
        print(f"{name}: {found}", flush=True)


if __name__ == "__main__":
    main()
