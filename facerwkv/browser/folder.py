"""A folder that is either whole or not there."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facerwkv.errors import InputError


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
