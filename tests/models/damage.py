"""Every way in which a stored file may be broken, for tests that read it: nothing here knows what the files mean."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONG = "x" * 10_000
WRONG = (None, "", [], {}, -1, float("nan"), float("inf"), LONG, "1.5", 10**9, 10**30, 1e308, True)
"""What takes the place of every field."""
CUTS = 10


def fields(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """The path of every field and list entry below a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*at, key)
        yield from fields(part, (*at, key))


def changed(value: Any, path: tuple, wrong: Any) -> Any:
    """A copy with another value at the path."""
    value = copy.deepcopy(value)
    part = value
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = wrong
    return value


def broken_files(path: Path) -> Iterator[str]:
    """Break the file in one way after another, and say how; afterwards it is whole again."""
    whole = path.read_bytes()
    contents = {f"cut to {cut} tenths": whole[: len(whole) * cut // CUTS] for cut in range(CUTS)}
    contents |= {"zeros": bytes(len(whole)), "no UTF-8": b"\xff\xfe" + whole, "another text": b"I am a text."}
    contents |= {f"zeros from {cut} tenths on": _zeroed(whole, cut) for cut in (2, 5, 9)}
    if whole.startswith(b"{"):
        contents["a key twice"] = b'{"%s": 1, ' % next(iter(json.loads(whole))).encode() + whole[1:].lstrip()
        contents["nested deeply"] = b'{"card": ' * 100_000 + b"1" + b"}" * 100_000
        contents["a list"] = json.dumps([json.loads(whole)]).encode()
    for how, content in contents.items():
        path.write_bytes(content)
        yield how
    path.unlink()
    path.mkdir()
    yield "a folder"
    path.rmdir()
    path.symlink_to(path.name)
    yield "a link to itself"
    path.unlink()
    yield "gone"
    path.write_bytes(whole)


def _zeroed(content: bytes, tenths: int) -> bytes:
    start = len(content) * tenths // CUTS
    return content[:start] + bytes(len(content) - start)
