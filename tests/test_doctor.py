import json

import pytest
from rich.console import Console

from facerwkv import doctor, faces
from facerwkv.doctor import Check, diagnose, table
from facerwkv.errors import InputError


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.name: check for check in diagnose()}


def test_every_line_of_the_table_of_checks_is_there(checks):
    assert checks.keys() >= doctor.CHECKS.keys() | {"disk"}


def test_this_installation_is_sound(checks):
    assert [check for check in checks.values() if check.status == "fail"] == []


def test_lines_are_plain_values(checks):
    lines = json.loads(json.dumps([check.to_dict() for check in checks.values()]))
    assert all(line.keys() == {"name", "status", "found", "next_step"} for line in lines)


def test_the_rendered_table_shows_what_was_found_and_the_next_step():
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table([Check("cache", "warn", "[full]", "empty it")]))
    assert console.export_text().split() == ["warn", "cache", "[full]", "→", "empty", "it"]


def test_the_cache_folder_is_the_one_of_the_environment(monkeypatch, tmp_path):
    (tmp_path / "some.npy").write_bytes(bytes(2**20))
    monkeypatch.setenv("FACERWKV_HOME", str(tmp_path))
    cache = next(check for check in diagnose() if check.name == "cache")
    assert cache.found == f"{tmp_path}, 1.0 MiB"


@pytest.mark.parametrize("error", [InputError("No face detector: give one."), RuntimeError("broken")])
def test_what_goes_wrong_is_a_line_and_the_rest_is_examined(monkeypatch, error):
    def fail() -> None:
        raise error

    monkeypatch.setattr(faces, "packaged_model", fail)
    checks = {check.name: check for check in diagnose()}
    assert checks["face detector"].status == "fail"
    assert str(error) in checks["face detector"].found
    assert checks["forward pass"].status == "ok"
