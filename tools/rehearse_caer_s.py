"""CAER-S at its true size, rehearsed: a made-up tree with its names, checked, cached, trained on, killed, resumed.

    python tools/rehearse_caer_s.py /d/rehearsal            (69,982 images of 400 x 600; under 10 GB, a cache of 50)
    python tools/rehearse_caer_s.py /tmp/small --share 0.002 --size 40 60

Writes FOLDER/rehearsal.json and .md, a row per step: seconds, the peak resident set of the process, the disk after it.
The tree, the cache and the runs are removed in the end, unless --keep. A step that fails ends the rehearsal.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from facerwkv.data.datasets import DATASETS
from facerwkv.data.toy.scenes import render

DRAWN = 500  # different images; the files that show the same differ behind the image's end
QUALITY = 92
FOLDERS = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
MODELS = ("facerwkv_small", "facerwkv4_small")


@dataclass(frozen=True)
class Step:
    """A command of the rehearsal: what it took. peak: the largest resident set of the process, in bytes."""

    name: str
    seconds: float
    peak: int
    disk: int


def build(root: Path, share: float, size: tuple[int, int]) -> int:
    """Draw the tree: its number of images. Numbers start at 0001 in each class, as in the published one."""
    drawn = root / "drawn"
    drawn.mkdir(parents=True)
    count = 0
    for split, published in DATASETS["caer_s"].published.items():
        for folder in FOLDERS:
            (root / "CAER-S" / split / folder).mkdir(parents=True)
        for number in range(max(round(share * published), 3 * len(FOLDERS))):
            source = drawn / f"{count % DRAWN}.jpg"
            if not source.exists():
                scene = Image.fromarray(render(count, "train").image).resize(size[::-1], Image.Resampling.BICUBIC)
                grain = np.random.default_rng(count).normal(0, 6, (*size, 1))
                Image.fromarray((np.asarray(scene) + grain).clip(0, 255).astype(np.uint8)).save(source, quality=QUALITY)
            folder = FOLDERS[number % len(FOLDERS)]
            file = root / "CAER-S" / split / folder / f"{number // len(FOLDERS) + 1:04d}.png"
            file.write_bytes(source.read_bytes() + b"0" * (count // DRAWN))  # a size of its own, as films' frames have
            count += 1
    return count


def run(name: str, words: list[str], root: Path, kill_at: Path | None = None) -> Step:
    """Run a command to its end, or until `kill_at` exists, then kill -9. SystemExit where it fails; a check may find
    something, since the tree has copies."""
    start, environment = time.monotonic(), os.environ | {"FACERWKV_HOME": str(root / "home")}
    with (root / "log.txt").open("a") as log:
        process = subprocess.Popen([sys.executable, "-m", "facerwkv", *words], stdout=log, stderr=log, env=environment)
        while kill_at and not kill_at.exists() and process.poll() is None:
            time.sleep(0.01)
        if kill_at:
            process.send_signal(signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
    expected = (-signal.SIGKILL,) if kill_at else (0, 1) if words[0] == "data" else (0,)
    if (code := os.waitstatus_to_exitcode(status)) not in expected:
        sys.exit(f"{name} ended with {code}; see {root / 'log.txt'}.")
    spent, disk = time.monotonic() - start, sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return Step(name, spent, usage.ru_maxrss * 1024, disk)


def rehearse(root: Path, share: float, size: tuple[int, int]) -> list[Step]:
    """All steps, in their order."""
    source, start = f"caer_s:{root / 'CAER-S'}", time.monotonic()
    count = build(root, share, size)
    steps = [Step(f"{count:,} images drawn", time.monotonic() - start, 0, 0)]
    steps.append(run("data check --leaks", ["data", "check", source, "--leaks", "--json"], root))
    steps.append(run("data check --leaks, again", ["data", "check", source, "--leaks", "--json"], root))
    every = max(1, round(share * 300))
    for model in MODELS:
        out = root / "runs" / model
        words = ["train", "--recipe", "paper", "--data", source, "--out", str(out), f"model.name={model}"]
        words += [f"transform.image_size=[{size[0]},{size[1]}]", "train.epochs=1", f"train.save_every={every}"]
        steps.append(run(f"{model}: half an epoch, kill -9", words, root, kill_at=out / "resume.ckpt"))
        steps.append(run(f"{model}: the rest", ["train", "--resume", str(out)], root))
        steps.append(run(f"{model}: evaluate", ["evaluate", "--model", str(out)], root))
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the 69,982 images")
    parser.add_argument("--size", type=int, nargs=2, default=(400, 600), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    root = asked.folder / "rehearsal"
    if root.exists():
        sys.exit(f"{root} exists: remove it, or name another folder.")
    steps = rehearse(root, asked.share, tuple(asked.size))
    rows = [f"| {s.name} | {s.seconds:,.0f} | {s.peak / 1e9:.2f} | {s.disk / 1e9:.2f} |" for s in steps]
    table = "\n".join(["| step | s | peak resident set, GB | disk, GB |", "|---|---:|---:|---:|", *rows]) + "\n"
    (asked.folder / "rehearsal.md").write_text(table, encoding="utf-8")
    (asked.folder / "rehearsal.json").write_text(json.dumps([asdict(step) for step in steps], indent=1) + "\n")
    print(table)
    if not asked.keep:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
