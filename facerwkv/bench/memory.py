"""Peak memory of one call in a process of its own: `python -m facerwkv.bench.memory JOB [VALUE]...` prints bytes.

The call runs once with few tokens, so that code and threads are there, and what that left free goes back to the system;
then the call's peak is taken above what was resident.
"""

import ctypes
import gc
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from facerwkv.bench.timing import BenchSetting, Call, Measured

MB = 2**20
WARM = 64  # tokens
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def v1_peak(tokens: int, setting: BenchSetting) -> Measured:
    """Forward and backward of RWKV-1's core, heads of 1 channel, in MB."""
    from facerwkv.bench.kernels import CHECKED, check

    check("v1_hs1", setting.tokens(CHECKED), gradients=True)
    return Measured(peak("kernel", "v1_hs1", setting.tokens(tokens), threads=setting.threads) / MB)


def train_peak(name: str, batch: int, setting: BenchSetting) -> Measured:
    """A train step of a model as a part of its transformer's, both in bytes above the model itself."""
    ours, peer = (peak("train", name, side, batch, setting.shrink, threads=setting.threads) for side in (0, 1))
    return Measured(ours / max(peer, 1))


def curve(setting: BenchSetting, lengths: list[int]) -> dict[str, dict[int, float]]:
    """Peak bytes of forward and backward at each length, of the kernels that the time is drawn of."""
    names = ("wkv4", "biwkv", "wkv6", "wkv7", "v1_hs1", "sdpa")
    return {
        name: {tokens: peak("kernel", name, tokens, threads=setting.threads) for tokens in lengths} for name in names
    }


def peak(job: str, *values: str | int, threads: int = 1) -> int:
    """Bytes that a job of `_calls` adds at its peak, measured in a fresh process."""
    command = [sys.executable, "-m", "facerwkv.bench.memory", job, str(threads), *map(str, values)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"the process that measures memory failed: {last}")
    return json.loads(done.stdout)["bytes"]


def _calls(job: str, name: str, *values: int) -> tuple[Call, Call]:
    """The warm-up and the call of a job: "kernel" NAME TOKENS, forward and backward, or "train" NAME SIDE BATCH SHRINK,
    a train step of a model (side 0) or of its transformer (1)."""
    if job == "kernel":
        from facerwkv.bench.kernels import call

        (tokens,) = values
        return call(name, min(WARM, tokens), train=True), call(name, tokens, train=True)
    if job != "train":
        raise KeyError(job)
    from facerwkv.bench.models import pair, train_step

    side, batch, shrink = values
    setting = BenchSetting(shrink=shrink)
    model = pair(name, 600, setting)[side]
    return train_step(model, 1, 600, BenchSetting(shrink=5)), train_step(model, batch, 600, setting)


def main(arguments: list[str]) -> None:
    job, threads, name, *values = arguments
    torch.set_num_threads(int(threads))
    warm_up, call = _calls(job, name, *map(int, values))
    warm_up()
    gc.collect()
    with suppress(OSError, AttributeError):  # memory that glibc keeps free would hide a small call's need
        ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    with suppress(OSError):  # where the system can forget the earlier peak, it does
        RESET.write_text("5", encoding="utf-8")
    call()
    print(json.dumps({"bytes": max(_resident("VmHWM") - before, 0)}))


def _resident(key: str) -> int:
    """The resident set now ("VmRSS") or at its peak ("VmHWM"), in bytes; where the system does not say, its peak."""
    if STATUS.exists():
        lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines() if ":" in line)
        if measured := int(lines.get(key, "0 kB").split()[0]):
            return measured * 1024
    try:
        import resource
    except ImportError:
        sys.exit("Windows does not say what a process needed at its peak: measure memory on Linux or macOS.")

    in_bytes = sys.platform == "darwin"  # other systems count in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if in_bytes else 1024)


if __name__ == "__main__":
    main(sys.argv[1:])
