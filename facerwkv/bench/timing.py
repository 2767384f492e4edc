"""Two calls timed in turns in one process, so that whatever slows the machine slows both."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from statistics import median, quantiles

import torch

Call = Callable[[], object]
SAMPLES, SECONDS = 15, 1.5
"""What each side gets at least ..."""
FEW, ENOUGH = 5, 60.0
"""... unless both together have taken ENOUGH seconds: then FEW samples do."""
SAMPLE = 0.005  # seconds; shorter calls are repeated inside a sample


@dataclass(frozen=True)
class BenchSetting:
    """How to measure: threads; repeats, samples per side (None: as many as the constants above ask for); shrink, by
    which the sides of images are divided, and the numbers of tokens by its square (tests have no time for 9,600)."""

    threads: int = 1
    repeats: int | None = None
    shrink: int = 1

    def tokens(self, count: int) -> int:
        return count // self.shrink**2


@dataclass(frozen=True)
class Measured:
    """A row's value, the quartiles around it where it was timed, and the median seconds of both sides."""

    value: float
    low: float | None = None
    high: float | None = None
    ours: float | None = None
    peer: float | None = None


def relative(ours: Call, peer: Call, setting: BenchSetting, inverse: bool = False) -> Measured:
    """Our time as a part of the peer's, or by `inverse` the peer's as a multiple of ours."""
    mine, theirs = in_turns([ours, peer], setting)
    return ratio(mine, theirs, inverse)


def ratio(ours: list[float], peer: list[float], inverse: bool = False) -> Measured:
    """The ratio of the medians, ours to the peer's or the `inverse`; quartiles are of the ratios of neighbours."""
    above, below = (peer, ours) if inverse else (ours, peer)
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    low, _, high = quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
    return Measured(median(above) / median(below), low, high, median(ours), median(peer))


def in_turns(calls: list[Call], setting: BenchSetting) -> list[list[float]]:
    """Seconds per call of each of `calls`, warmed up, one sample after another in turns A B A B."""
    with _prepared(setting.threads):
        loops = []  # how many calls make a sample
        for call in calls:
            _timed(call, 1)
            loops.append(ceil(SAMPLE / max(_timed(call, 1), 1e-6)))
        samples: list[list[float]] = [[] for _ in calls]
        enough = False
        while not enough:
            for call, count, taken in zip(calls, loops, samples, strict=True):
                taken.append(_timed(call, count))
            done, spent = len(samples[0]), [sum(taken) * inner for taken, inner in zip(samples, loops, strict=True)]
            enough = (done >= SAMPLES and min(spent) >= SECONDS) or (done >= FEW and sum(spent) >= ENOUGH)
            if setting.repeats is not None:
                enough = done >= setting.repeats
    return samples


def _timed(call: Call, loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - start) / loops


@contextmanager
def _prepared(threads: int) -> Iterator[None]:
    """This many threads on as many processors, where the system lets a process choose; no collection of garbage."""
    before, collected = torch.get_num_threads(), gc.isenabled()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    torch.set_num_threads(threads)
    gc.disable()
    try:
        if allowed:
            os.sched_setaffinity(0, sorted(allowed)[-threads:])
        yield
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
        torch.set_num_threads(before)
        if collected:
            gc.enable()
