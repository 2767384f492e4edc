"""Small videos, made with the ffmpeg command line."""

import shutil
import subprocess
from pathlib import Path

import pytest

COUNTED = "color=black:s=96x64:r=25:d={seconds},geq=lum='16+4*N':cb=128:cr=128"
"""Grey frames; the value says which it is."""


def ffmpeg(path: Path, *arguments: str) -> Path:
    """What ffmpeg makes of the arguments; the test is skipped where it is not installed, or cannot make it."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg command line, which makes the video, is not installed")
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", *arguments, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and ("Unknown encoder" in done.stderr or "No such filter" in done.stderr):
        pytest.skip(f"ffmpeg cannot make the video: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return path


def counted(seconds: float = 1, late: float = 0) -> list[str]:
    """The arguments for a video track of grey frames, 25 per second, the first at `late` seconds."""
    return ["-itsoffset", str(late), "-f", "lavfi", "-i", COUNTED.format(seconds=seconds)]


def tone(seconds: float = 1, late: float = 0, hertz: int = 440) -> list[str]:
    """The arguments for a sound."""
    return ["-itsoffset", str(late), "-f", "lavfi", "-i", f"sine={hertz}:d={seconds}:sample_rate=48000"]
