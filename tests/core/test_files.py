import pytest

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "report.md"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError):
        _fail_in_mid_write(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def _fail_in_mid_write(target):
    with atomic(target) as partial:
        partial.write_text("half")
        raise ZeroDivisionError


def test_a_full_disk_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"report\.md: No space left"), atomic(tmp_path / "report.md"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Choose another folder"):
        write_text(tmp_path / "file" / "report.md", "text")
