import json
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from facerwkv import doctor
from facerwkv.core.errors import InputError
from facerwkv.doctor import Check, Diagnosis, diagnose
from facerwkv.kernels.native import loading
from facerwkv.media import faces


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.name: check for check in diagnose().checks}


def test_every_line_of_the_table_of_checks_is_there(checks):
    assert checks.keys() >= doctor.CHECKS.keys() | {"disk"}


def test_this_installation_is_sound(checks):
    assert [check for check in checks.values() if check.status == "fail"] == []


def test_the_c_kernels_load_before_pytorch_was_asked_for():
    """They take PyTorch's OpenMP."""
    if not loading.PATH.is_file():
        pytest.skip("the C kernels were not built")
    words = "from facerwkv.kernels.native.loading import load; print(load().level)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (loading.load().level, "")


def test_what_programs_read():
    broken = Diagnosis([Check("disk", "ok", "much"), Check("cache", "fail", "read-only", "free it")])
    assert json.loads(json.dumps(broken.to_dict())) == {
        "ok": False,
        "checks": [
            {"name": "disk", "status": "ok", "found": "much", "next_step": ""},
            {"name": "cache", "status": "fail", "found": "read-only", "next_step": "free it"},
        ],
    }


def test_what_people_read(capsys):
    Check("cache", "warn", "[full]", "empty it").print()
    assert capsys.readouterr().out.split() == ["warn", "cache", "[full]", "→", "empty", "it"]


def test_doctor_says_what_predicts_and_why(monkeypatch):
    (check,) = doctor.CHECKS["prediction"]()
    where = "cuda" if torch.cuda.is_available() else "onnxruntime's CPUExecutionProvider, as there is no GPU"
    assert (check.status, where in check.found) == ("ok", True)
    monkeypatch.setitem(sys.modules, "torch", None)
    (check,) = doctor.CHECKS["prediction"]()
    assert "facerwkv_fer on onnxruntime's CPUExecutionProvider, as PyTorch is not here" in check.found
    (devices,) = doctor.CHECKS["devices"]()
    assert (devices.status, devices.next_step) == ("ok", 'pip install "facerwkv[train]"')


def test_the_cache_folder_is_the_one_of_the_environment(monkeypatch, tmp_path):
    (tmp_path / "some.npy").write_bytes(bytes(2**20))
    monkeypatch.setenv("FACERWKV_HOME", str(tmp_path))
    cache = next(check for check in diagnose().checks if check.name == "cache")
    assert cache.found == f"{tmp_path}, 1.0 MiB"


@pytest.mark.parametrize("error", [InputError("No face detector: give one."), RuntimeError("broken")])
def test_what_goes_wrong_is_a_line_and_the_rest_is_examined(monkeypatch, error):
    def fail(*arguments) -> None:
        raise error

    monkeypatch.setattr(faces, "_opened", fail)
    checks = {check.name: check for check in diagnose().checks}
    assert checks["face detector"].status == "fail"
    assert str(error) in checks["face detector"].found
    assert checks["forward pass"].status == "ok"


def test_each_line_is_shown_before_the_next_check_runs(monkeypatch, capsys):
    shown: list[str] = []
    checks = {name: lambda name=name: shown.append(f"{name} runs") or [Check(name, "ok", "")] for name in ("a", "b")}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    diagnose(lambda check: shown.append(check.name))
    assert shown == ["a runs", "a", "b runs", "b"]


def test_the_c_kernels_are_named_with_their_level_and_file_or_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "load", lambda: SimpleNamespace(level="v2", threaded=False))
    (check,) = doctor.CHECKS["C kernels"]()
    assert check == Check(
        "C kernels", "ok", f"level v2; toeplitz in PyTorch; one thread, without OpenMP, {loading.PATH}"
    )
    monkeypatch.undo()
    monkeypatch.setattr(loading, "load", partial(loading.load, path=tmp_path / "_native.so"))
    (check,) = doctor.CHECKS["C kernels"]()
    assert check.status == "warn"
    assert check.found.endswith(f"slower PyTorch forms run: there is no {tmp_path}/_native.so.")
    assert "pip install --force-reinstall --no-deps --no-cache-dir --editable" in check.next_step
