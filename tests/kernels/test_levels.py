"""One library for every processor: each level computes the same, and the processor gets the highest that it runs."""

import ctypes
import ctypes.util
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from facerwkv.bench.answers import require_accurate
from facerwkv.bench.kernels import KERNELS
from facerwkv.core.errors import InputError
from facerwkv.kernels import calls, gates
from facerwkv.kernels.calls import library, problem
from facerwkv.kernels.native import loading

needs_library = pytest.mark.skipif(library() is None, reason=str(problem()))
LEVELS = ["baseline", "v2", "v3", "v4"] if library() and library().level != "plain" else ["plain"]
QEMU = shutil.which("qemu-x86_64")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed (Debian: apt install qemu-user)")
PROCESSORS = {"Nehalem": "v2", "Haswell": "v3", "Skylake-Server": "v3"}  # qemu has no AVX-512


def load_or_skip(level: str) -> loading.Library:
    if level == "v4" and library().level != "v4":
        pytest.skip("this processor has no AVX-512")
    return loading.load(level)


@needs_library
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", KERNELS)
def test_each_level_computes_the_recurrences(monkeypatch, level, name):
    forced, kernel = load_or_skip(level), KERNELS[name]
    monkeypatch.setattr(calls, "library", lambda: forced)
    require_accurate(kernel.form("native"), kernel.form("reference"), kernel.inputs(77), gradients=True)


@needs_library
@pytest.mark.parametrize("level", LEVELS)
def test_each_level_computes_the_gates(monkeypatch, level):
    forced = load_or_skip(level)
    monkeypatch.setattr(calls, "library", lambda: forced)
    k, v, mixes, last = torch.randn(2, 9, 37), torch.randn(2, 9, 37), torch.rand(3, 37), torch.randn(2, 37)
    every = {"mish_gate": (k, v), "sigmoid_gate": (k, v), "squared_relu": (k,), "token_mix": (k, mixes, last)}
    for name, inputs in every.items():
        call = getattr(gates, name)
        forms = [lambda *x, call=call, form=form: call(*x, implementation=form) for form in ("native", "reference")]
        require_accurate(*forms, inputs, gradients=True)


@needs_library
def test_a_level_that_the_processor_does_not_run_is_refused():
    with pytest.raises(InputError, match=r"This processor runs the C kernels at the levels .*, not 'v9'\."):
        loading.load("v9")


@pytest.mark.parametrize("content", [None, b"\x7fELF of another processor"])
def test_what_cannot_be_loaded_is_said_once_with_what_to_type(monkeypatch, caplog, tmp_path, content):
    path = tmp_path / "_native.so"
    if content:
        path.write_bytes(content)
    monkeypatch.setattr(loading.load, "__defaults__", (None, path))
    loading.loaded.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, logger="facerwkv"):
            assert [calls.library(), calls.library()] == [None, None]
        (said,) = [record.getMessage() for record in caplog.records]
        assert said == problem()
        assert str(path) in said
        assert re.search(r"slower PyTorch forms run: .*pip install --force-reinstall --no-deps --no-cache-dir", said)
    finally:
        loading.loaded.cache_clear()


def test_the_library_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    with pytest.raises(InputError, match=r"cannot be loaded.*facerwkv_levels"):
        loading.load(path=Path(__file__))


@needs_library
def test_a_library_of_other_sources_is_refused(tmp_path):
    path = Path(shutil.copy(loading.PATH, tmp_path))
    assert loading.load(path=path).level == library().level  # as in a wheel, without any
    for source in loading.PATH.parent.glob("*.[ch]"):
        shutil.copy(source, tmp_path)
    assert loading.load(path=path).level == library().level
    with (tmp_path / "lanes.h").open("a") as header:
        header.write("/* changed */")
    with pytest.raises(InputError, match=r"was built from other sources than those beside it\. .*pip install"):
        loading.load(path=path)


ALONE = """
import ctypes, sys
ctypes.CDLL("libgomp.so.1", ctypes.RTLD_GLOBAL)
library = ctypes.CDLL(sys.argv[1])
library.facerwkv_levels.restype = ctypes.c_char_p
levels = library.facerwkv_levels().decode().split()
k, y = (ctypes.c_float * 40)(*range(-20, 20)), (ctypes.c_float * 40)()
for level in levels:
    getattr(library, f"squared_relu_forward_{level}")(*map(ctypes.c_long, (2, 20, 20)), k, y)
    assert list(y) == [max(x, 0) ** 2 for x in k], level
print(*levels)
"""


def under_qemu(processor: str, *command: object, **changes: str) -> str:
    done = subprocess.run(
        [QEMU, "-cpu", processor, sys.executable, *map(str, command)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | changes,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


@needs_library
@needs_qemu
@pytest.mark.parametrize(
    ("processor", "levels"), [("core2duo", "baseline"), ("Nehalem", "baseline v2"), ("Haswell", "baseline v2 v3")]
)
def test_an_older_processor_runs_the_levels_that_are_chosen_for_it(processor, levels):
    """Alone, since NumPy runs on x86-64-v2 and later."""
    if ctypes.util.find_library("gomp") is None:
        pytest.skip("there is no libgomp.so.1 without torch's")
    assert under_qemu(processor, "-S", "-c", ALONE, loading.PATH).strip() == levels


@needs_library
@needs_qemu
@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_older_processor_runs_doctor(processor):
    printed = under_qemu(processor, "-m", "facerwkv", "doctor", COLUMNS="300")
    assert f"level {PROCESSORS[processor]}" in printed
    assert re.search(r"^ok +forward pass", printed, re.MULTILINE)


@needs_library
@needs_qemu
@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_older_processor_names_an_expression(processor, shared, tmp_path):
    with Image.open(shared / "media" / "couple.jpg") as image:
        image.thumbnail((400, 400))
        image.save(tmp_path / "small.png")
    assert '"label": "' in under_qemu(processor, "-m", "facerwkv", "predict", tmp_path / "small.png")
