"""A temporary folder that goes when its service ends; and when the next one starts, should it have been killed."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "facerwkv-serve-"
LOCK = "lock"


class Workplace:
    """A folder at `path`, locked while this process lives. Close it, and it is gone."""

    def __init__(self) -> None:
        _clear()
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self._lock = FileLock(self.path / LOCK)
        self._lock.acquire()

    def close(self) -> None:
        self._lock.release()
        self._folder.cleanup()


def _clear() -> None:
    """Remove the folders whose lock nobody holds any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):  # another person's, or in use
            if (folder / LOCK).is_file() and not folder.is_symlink():
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
