"""Files that are either whole or not there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from facerwkv.core.errors import InputError


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` if the block succeeds, else remove it.

    The block writes one file under the yielded name. An operating-system error (a full disk, a folder that may not
    be written) becomes an InputError that names the file; what stood at `path` before stays as it was.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"Cannot write {target}: {error.strerror or error}. Choose another folder.") from error
    partial = Path(name)
    try:
        yield partial
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, target)
    except OSError as error:
        raise InputError(
            f"Cannot write {target}: {error.strerror or error}. Nothing was left behind; free some space or choose "
            "another folder, then run the command again."
        ) from error
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; it takes that one's place if the block succeeds, else it is removed.

    An operating-system error becomes an InputError that names `target`; what stood there before stays as it was.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise InputError(f"Cannot write {target}: {error.strerror or error}. Choose another folder.") from error
    new, old = beside / "new", beside / "old"
    try:
        new.mkdir()
        yield new
        if target.exists():
            target.replace(old)
        new.replace(target)
    except OSError as error:
        if old.exists():
            old.replace(target)
        raise InputError(
            f"Cannot write {target}: {error.strerror or error}. Nothing was left behind; free some space or choose "
            "another folder, then run the command again."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
