import json

import pytest

from facerwkv import doctor
from facerwkv.core.errors import InputError
from facerwkv.doctor import Check, Diagnosis, diagnose
from facerwkv.media import faces


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.name: check for check in diagnose().checks}


def test_every_line_of_the_table_of_checks_is_there(checks):
    assert checks.keys() >= doctor.CHECKS.keys() | {"disk"}


def test_this_installation_is_sound(checks):
    assert [check for check in checks.values() if check.status == "fail"] == []


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
    Diagnosis([Check("cache", "warn", "[full]", "empty it")]).print()
    assert capsys.readouterr().out.split() == ["warn", "cache", "[full]", "→", "empty", "it"]


def test_what_an_exported_model_needs_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda distribution: None)
    (check,) = doctor.CHECKS["onnxruntime"]()
    assert (check.status, check.next_step) == ("ok", "pip install 'facerwkv[export]'")


def test_the_cache_folder_is_the_one_of_the_environment(monkeypatch, tmp_path):
    (tmp_path / "some.npy").write_bytes(bytes(2**20))
    monkeypatch.setenv("FACERWKV_HOME", str(tmp_path))
    cache = next(check for check in diagnose().checks if check.name == "cache")
    assert cache.found == f"{tmp_path}, 1.0 MiB"


@pytest.mark.parametrize("error", [InputError("No face detector: give one."), RuntimeError("broken")])
def test_what_goes_wrong_is_a_line_and_the_rest_is_examined(monkeypatch, error):
    def fail() -> None:
        raise error

    monkeypatch.setattr(faces, "packaged_model", fail)
    checks = {check.name: check for check in diagnose().checks}
    assert checks["face detector"].status == "fail"
    assert str(error) in checks["face detector"].found
    assert checks["forward pass"].status == "ok"
