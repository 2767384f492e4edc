"""Files and folders that appear whole or not at all; JSON that is read with care."""

import hashlib
import json
import math
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from facerwkv.core.errors import InputError


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` if the block succeeds, else remove it.

    The block writes one file under the yielded name. An operating-system error (a full disk, a folder that may not
    be written) becomes an InputError that names the file; an earlier file at `path` stays as it was.
    """
    target = Path(path)
    with named(target, "Choose another folder."):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        partial.touch(exist_ok=False)  # with the permissions of any new file
    try:
        with named(target, _NOTHING_LEFT):
            yield partial
            partial.replace(target)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a new folder beside `path`; it takes the place of `path` if the block succeeds, else it is removed.

    Errors are those of `atomic`; an earlier folder at `path` stays as it was.
    """
    target = Path(path)
    with named(target, "Choose another folder."):
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        new, old = beside / "new", beside / "old"
        new.mkdir()
    try:
        with named(target, _NOTHING_LEFT):
            yield new
            if target.exists():
                target.replace(old)
            try:
                new.replace(target)
            except OSError:
                if old.exists():
                    old.replace(target)
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def first_time(text: str) -> bool:
    """Whether this user is told a text for the first time on this machine: it is remembered below XDG_STATE_HOME."""
    home = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    mark = home / "facerwkv" / "told" / hashlib.sha256(text.encode()).hexdigest()[:16]
    if mark.exists():
        return False
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return True


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def cache_folder() -> Path:
    """Where caches lie unless a recipe names another folder: FACERWKV_HOME, else ~/.cache/facerwkv."""
    return Path(os.environ.get("FACERWKV_HOME") or "~/.cache/facerwkv").expanduser()


def read_json(path: str | os.PathLike, advice: str = "Restore it from a copy, or remove it.") -> dict[str, Any]:
    """The object in a JSON file. InputError, which ends with `advice`, where there is none or `parse_json` fails."""
    try:
        found = parse_json(Path(path).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no object, {...}")
        return found
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"{path} cannot be read as JSON: {reason}. {advice}") from error


def parse_json(text: str | bytes) -> Any:
    """A JSON text's value. ValueError also where it has a key twice, NaN or infinity, or is nested too deeply."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"it has {Counter(key for key, _ in pairs).most_common(1)[0][0]!r} twice")
    for key, value in pairs:
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{key} is {number}, which is no number")
    return found


_NOTHING_LEFT = "Nothing was left behind; free some space or choose another folder, then run the command again."


@contextmanager
def named(target: Path, advice: str) -> Iterator[None]:
    """Turn an OSError of the block into an InputError that names `target`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"Cannot write {target}: {error.strerror or error}. {advice}") from error
