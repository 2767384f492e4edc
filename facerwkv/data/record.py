"""Which image was in which split of a training, by content: a run keeps it, so that evaluation never has to guess.

RUN/splits.csv: image,split,content,stat. content: a hash of the file's bytes, or of an array. stat: one of the file's
path, size and time: an image that is as it was need not be read again. An image that was in no split has none.
"""

import csv
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from facerwkv.core.devices import cores
from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.data.readers import progress
from facerwkv.data.samples import SPLITS, Sample, Splits, mark

COLUMNS = ("image", "split", "content", "stat")
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
PROBE = 100  # images by which a data set is recognised


def same_source(one: str, other: str) -> bool:
    """Whether two spellings of NAME:ROOT name the same place."""
    (name, _, path), (kind, _, place) = one.partition(":"), other.partition(":")
    return name == kind and Path(os.path.expanduser(path)).resolve() == Path(os.path.expanduser(place)).resolve()


def contents(samples: Sequence[Sample], known: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Each image's content and stat; files whose stat is `known` (stat → content) are not read."""

    def look(sample: Sample) -> tuple[str, str]:
        stat = _digest(mark(sample))
        if (known and stat in known) or not isinstance(sample.image, Path):
            return (known or {}).get(stat, stat), stat
        try:
            return _digest(sample.image.read_bytes()), stat
        except OSError:
            return "", stat

    with ThreadPoolExecutor(cores()) as pool:  # reading and hashing let others run
        return list(progress(pool.map(look, samples), "Reading the images", len(samples)))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def write_record(path: Path, loaded: Splits, made: Splits) -> None:
    """Write down the splits that were made of a data set as it was loaded."""
    used = {sample for those in made.values() for sample in those}
    rows: list[tuple[str, Sample]] = [(split, sample) for split, those in made.items() for sample in those]
    rows += [("", sample) for those in loaded.values() for sample in those if sample not in used]
    known = contents([sample for _, sample in rows])
    with atomic(path) as partial, partial.open("w", **ENCODING) as file:  # type: ignore[call-overload]
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((each.name, split, *hashes) for (split, each), hashes in zip(rows, known, strict=True))


class Record:
    """What `write_record` wrote. Raises InputError for a file that is damaged."""

    def __init__(self, path: Path):
        try:
            with path.open(**ENCODING) as file:  # type: ignore[call-overload]
                rows = [tuple(row[column] for column in COLUMNS) for row in csv.DictReader(file)]
            self.rows = [(split, name, content) for name, split, content, _ in rows]
            self.known = {stat: content for *_, content, stat in rows}
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise InputError(f"{path} is damaged ({error}); remove it to evaluate without it.") from error
        self._by_image: dict[tuple[str, str], list[str]] = {}
        self._by_content: dict[str, list[str]] = {}
        for split, name, content in self.rows:
            self._by_image.setdefault((name, content), []).append(split)
            self._by_content.setdefault(content, []).append(split)

    def splits_of(self, name: str, content: str) -> list[str] | None:
        """The splits in which this image was; of another name one with its content, training first; None: unknown."""
        known = self._by_image.get((name, content)) or self._by_content.get(content)
        return ["train"] if known and "train" in known and (name, content) not in self._by_image else known

    def trained_on(self, samples: Sequence[Sample]) -> set[Sample]:
        """The samples whose images were in the training split."""
        hashes = contents(samples, self.known)
        known = (self.splits_of(each.name, content) or () for each, (content, _) in zip(samples, hashes, strict=True))
        return {sample for sample, splits in zip(samples, known, strict=True) if "train" in splits}

    def covers(self, samples: Sequence[Sample]) -> bool:
        """Whether most of some of the samples have a content that is recorded: it is the same data set, or part."""
        probe = samples[:: max(1, len(samples) // PROBE)]
        return 2 * sum(content in self._by_content for content, _ in contents(probe)) > len(probe)

    def restore(self, loaded: Splits, made: Splits) -> tuple[Splits, str]:
        """The splits as they were in training, and a sentence where the data have changed since.

        Images that are new or changed are left out of training and validation, those that went to another of the data
        set's own splits altogether.
        """
        samples = [(split, sample) for split, those in loaded.items() for sample in those]
        hashes = contents([sample for _, sample in samples], self.known)
        content = {sample: each for (_, sample), (each, _) in zip(samples, hashes, strict=True)}
        now = [(split, each.name, content[each]) for split, those in made.items() for each in those]
        if now == [row for row in self.rows if row[0]]:
            return made, ""
        ranks = {row: rank for rank, row in enumerate(self.rows)}
        ranked: dict[str, list[tuple[int, Sample]]] = {}
        moved = 0
        for split, sample in samples:
            was = self.splits_of(sample.name, content[sample])
            homes = ["test"] if split == "test" else []  # of an image that is new or changed
            if was is not None:
                homes = [each for each in was if each == split or each not in loaded]
                moved += not homes
            for home in filter(None, homes):  # "" is that of an image which was in no split
                rank = ranks.get((home, sample.name, content[sample]), len(ranks))
                ranked.setdefault(home, []).append((rank, sample))
        splits: Splits = {
            split: [sample for _, sample in sorted(ranked[split], key=lambda pair: pair[0])]
            for split in SPLITS
            if split in ranked
        }
        return splits, self._changes(content, moved)

    def _changes(self, content: Mapping[Sample, str], moved: int) -> str:
        """A sentence on what became of the recorded images, given what those now there contain; "" for no change."""
        names, there, kept = {name for _, name, _ in self.rows}, {each.name for each in content}, {*content.values()}
        gone = len({name for _, name, each in self.rows if name not in there and each not in kept})
        unknown = [sample.name for sample, each in content.items() if self.splits_of(sample.name, each) is None]
        changed = sum(name in names for name in unknown)
        if not (gone or unknown or moved):
            return ""
        return (
            f"The data have changed since the training: of {len(names)} images {gone} are gone, {changed} are changed "
            f"and {moved} are in another split; {len(unknown) - changed} are new. Only images as they were count as "
            "train or val."
        )
