"""What was found out about each image of a data set, kept in a file: a line per image, its key and a JSON value."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from facerwkv.core.errors import InputError
from facerwkv.data.readers import progress
from facerwkv.data.samples import Sample, mark

Search = Callable[[Sequence[Sample]], Iterable[tuple[Sample, Any]]]


def kept(samples: Sequence[Sample], store: Path, search: Search, title: str, what: str) -> list[Any]:
    """What `search` finds, as JSON knows it, for each sample, in their order; what `store` lists is not searched again.

    An interrupted search is resumed where it stopped. Of several processes one searches and the others wait. A file
    that changed is searched again. Raises InputError, about `what`, where `store` cannot be written.
    """
    keys = [hashlib.blake2b(mark(sample), digest_size=16).hexdigest() for sample in samples]
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(store.with_suffix(".lock")), store.open("a+", encoding="utf-8", errors="replace") as file:
            file.seek(0)
            known = dict(_lines(file))
            key_of = {sample: key for sample, key in zip(samples, keys, strict=True) if key not in known}
            missing = list({key: sample for sample, key in key_of.items()}.values())
            for sample, value in progress(search(missing), title, len(missing)):
                known[key_of[sample]] = value
                # the line's end in front, so that one that was cut off spoils no other
                file.write("\n" + json.dumps([key_of[sample], value]))
                file.flush()
    except OSError as error:
        raise InputError(
            f"{what} cannot be kept in {store}: {error.strerror or error}. Name another folder in FACERWKV_HOME."
        ) from error
    return [known[key] for key in keys]


def _lines(file: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for line in file:
        try:
            key, value = json.loads(line)
        except (ValueError, TypeError):  # a line that was cut off is searched again
            continue
        if isinstance(key, str):
            yield key, value
