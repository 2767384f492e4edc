import os
import threading

import pytest

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, atomic_folder, first_time, write_text


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


@pytest.fixture
def mask():
    """A umask that is nobody's default."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="other systems have no umask")
def test_a_file_and_a_folder_have_the_permissions_of_any_new_one_and_the_umask_is_never_touched(
    tmp_path, mask, monkeypatch
):
    monkeypatch.setattr(os, "umask", None)  # a process has one, so other threads' files would get none
    write_text(tmp_path / "file", "text")
    with atomic_folder(tmp_path / "folder") as new:
        write_text(new / "file", "text")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder", "folder/file")] == [
        0o666 & ~mask,
        0o777 & ~mask,
        0o666 & ~mask,
    ]
    monkeypatch.undo()


def test_many_threads_may_write_one_file(tmp_path):
    texts = [str(number) * 10_000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(tmp_path / "file", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"report\.md: No space left"), atomic(tmp_path / "report.md"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Choose another folder"):
        write_text(tmp_path / "file" / "report.md", "text")


def test_a_text_is_told_once_per_user_and_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert [first_time(text) for text in ("a", "a", "b")] == [True, False, True]
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))  # nothing can be kept there
    assert [first_time("a"), first_time("a")] == [True, True]
