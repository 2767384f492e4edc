"""Images that are in two splits: exact copies by their pixels, near copies by their look."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from facerwkv.core.devices import cores
from facerwkv.core.files import cache_folder
from facerwkv.core.threads import map_ahead
from facerwkv.data.kept import kept
from facerwkv.data.readers import progress
from facerwkv.data.record import contents
from facerwkv.data.samples import Dataset, Sample, Split, Splits, read_image
from facerwkv.media.images import UnreadableImage

NEAR = 6
"""Looks that differ in at most this many of their 64 bits are near copies.

Measured on FER2013 (PrivateTest against Training, exact copies apart): 80 to 86 % of the pairs at 0 to 6 bits share
their label, 53 % at 8. Of ten pairs looked at, 10, 10, 9, 7 and 3 show one image twice at 0, 2, 4, 6 and 8 bits.
imagehash's phash finds as many pairs, as good ones, in half as much time again (docs/log.md), and needs SciPy.
"""
FLAT = 4.0
"""An image whose grey values have a lower standard deviation has no look: every plain wall is like every other."""

Pair = tuple[Split, Split]
PAIRS: tuple[Pair, ...] = (("val", "train"), ("test", "train"), ("test", "val"))
_SIDE = 32
STORE = "fingerprints.jsonl"  # a line per image: its key, and what `_search` found
_COSINES = np.cos(np.pi / _SIDE * np.outer(np.arange(8), np.arange(_SIDE) + 0.5)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A sample; its pixels as a hash; its look as 64 bits, None for a flat image; or why it cannot be read."""

    sample: Sample
    pixels: bytes | None = None
    look: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """The names of an image of one split and of the image of the other split that it copies."""

    name: str
    of: str
    same_label: bool


@dataclass(frozen=True)
class Leaks:
    """Copies by (split, other split), one per image of the first: exact ones, and near ones that are not exact.

    `within` counts the files of a split whose pixels another file of that split has already, `contradicting` those of
    them that have another label than the first.
    """

    exact: Mapping[Pair, list[Copy]]
    near: Mapping[Pair, list[Copy]]
    within: Mapping[Split, int]
    contradicting: Mapping[Split, int]

    def to_dict(self) -> dict[str, Any]:
        """Counts by "test in train", with the first ten pairs of names; plain values."""
        counts: dict[str, Any] = {"exact": {}, "near": {}, "within": dict(self.within)}
        counts["within_other_label"] = dict(self.contradicting)
        for kind, pairs in {"exact": self.exact, "near": self.near}.items():
            for (split, other), copies in pairs.items():
                counts[kind][f"{split} in {other}"] = {
                    "images": len(copies),
                    "same_label": sum(copy.same_label for copy in copies),
                    "examples": [[copy.name, copy.of] for copy in copies[:10]],
                }
        return counts


def drop_leaks(dataset: Dataset) -> Dataset:
    """Leave out the training samples whose exact pixels are in val or test, too. Every image is read
    once."""
    if "train" not in dataset.splits or len(dataset.splits) == 1:
        return dataset
    prints = fingerprints(dataset.splits)
    taken = {each.pixels for split in dataset.splits if split != "train" for each in prints[split]} - {None}
    clean = [each.sample for each in prints["train"] if each.pixels not in taken]
    return replace(dataset, splits=dataset.splits | {"train": clean})


def apart(train: Sequence[Sample], val: Sequence[Sample]) -> list[Sample]:
    """The training samples whose files are no copies, byte by byte, of a validation file. Few files are read."""

    def sizes(samples: Sequence[Sample]) -> dict[Sample, int]:
        files = {each: each.image for each in samples if isinstance(each.image, Path)}
        return {each: path.stat().st_size for each, path in files.items() if path.is_file()}

    ours, theirs = sizes(train), sizes(val)
    same = {*ours.values()} & {*theirs.values()}
    held = {content for content, _ in contents([each for each, size in theirs.items() if size in same])}
    asked = [each for each, size in ours.items() if size in same]
    copies = {each for each, (content, _) in zip(asked, contents(asked), strict=True) if content in held}
    return [each for each in train if each not in copies]


def copies_in_training(dataset: Dataset, split: Split = "test") -> set[str]:
    """The names of the samples of `split` whose exact pixels are in training, too. Both splits are read."""
    prints = fingerprints({each: dataset.splits.get(each, []) for each in ("train", split)})
    return {copy.name for copy in _exact(prints[split], prints["train"])}


def fingerprints(splits: Splits, anew: bool = False) -> dict[Split, list[Fingerprint]]:
    """What every image is, read with a progress bar. The answers are kept in STORE of the cache: an image that is as it
    was is not read again, unless `anew`."""
    samples, title = [sample for split in splits.values() for sample in split], "Reading the images"
    if anew:
        found = [print_ for _, print_ in progress(_search(samples), title, len(samples))]
    else:
        found = kept(samples, cache_folder() / STORE, _search, title, "The images' fingerprints")
    prints = (
        Fingerprint(sample, bytes.fromhex(pixels) or None, look, problem)
        for sample, (pixels, look, problem) in zip(samples, found, strict=True)
    )
    return {split: list(islice(prints, len(those))) for split, those in splits.items()}


def _search(samples: Sequence[Sample]) -> Iterator[tuple[Sample, tuple[str, int | None, str]]]:
    """Each sample's pixels as a digest in hexadecimal digits, its look, and the reason where it cannot be read."""

    def fingerprint(sample: Sample) -> tuple[Sample, tuple[str, int | None, str]]:
        try:
            image = read_image(sample)
        except UnreadableImage as error:
            return sample, ("", None, str(error))
        digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).hexdigest()
        return sample, (digest, look(image), "")

    return map_ahead(fingerprint, samples, cores())  # decoding lets other threads run


def look(image: np.ndarray) -> int | None:
    """A 64-bit perceptual hash of uint8 (H, W, 3): which of its lowest 8 x 8 cosine terms exceed their median.

    None for a flat image. A change of size, light or compression changes few bits.
    """
    grey = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(grey, np.float32)
    if values.std() < FLAT:
        return None
    terms = (_COSINES @ values @ _COSINES.T).ravel()
    terms[0] = -np.inf  # how bright the image is
    return int.from_bytes(np.packbits(terms > np.median(terms[1:])).tobytes(), "big")


def compare(prints: Mapping[Split, Sequence[Fingerprint]], near: bool = True) -> Leaks:
    """The leaks between the splits of which there are fingerprints; unreadable images are passed over."""
    pairs = [pair for pair in PAIRS if set(pair) <= prints.keys()]
    exact = {(split, other): _exact(prints[split], prints[other]) for split, other in pairs}
    alike: dict[Pair, list[Copy]] = {}
    for split, other in pairs if near else ():
        known = {copy.name for copy in exact[split, other]}
        rest = [each for each in prints[split] if each.sample.name not in known]
        alike[split, other] = _near(rest, prints[other])
    within, contradicting = {}, {}
    for split, those in prints.items():  # a file that several samples share (faces of one image) counts once
        files = {each.sample.image if isinstance(each.sample.image, Path) else id(each): each for each in those}
        read = [each for each in files.values() if each.pixels]
        first: dict[bytes | None, str] = {}
        for each in read:
            first.setdefault(each.pixels, each.sample.label)
        within[split] = len(read) - len(first)
        contradicting[split] = sum(each.sample.label != first[each.pixels] for each in read)
    return Leaks(exact, alike, within, contradicting)


def _exact(ours: Sequence[Fingerprint], theirs: Sequence[Fingerprint]) -> list[Copy]:
    """Ours whose pixels theirs have; of several copies the first with the same label, else the first."""
    known: dict[tuple[bytes | None, str], Sample] = {}
    for each in theirs:
        known.setdefault((each.pixels, each.sample.label), each.sample)
        known.setdefault((each.pixels, ""), each.sample)
    copies = []
    for each in ours:
        of = known.get((each.pixels, each.sample.label)) or known.get((each.pixels, ""))
        if each.pixels and of:
            copies.append(Copy(each.sample.name, of.name, of.label == each.sample.label))
    return copies


def _near(ours: Sequence[Fingerprint], theirs: Sequence[Fingerprint]) -> list[Copy]:
    """Ours whose nearest look among theirs differs in at most NEAR bits."""
    ours, theirs = ([each for each in those if each.look is not None] for those in (ours, theirs))
    if not ours or not theirs:
        return []
    looks = (np.array([each.look for each in those], np.uint64) for those in (ours, theirs))
    rows = zip(ours, *nearest(*looks), strict=True)
    pairs = [(each.sample, theirs[row].sample) for each, bits, row in rows if bits <= NEAR]
    return [Copy(sample.name, of.name, of.label == sample.label) for sample, of in pairs]


def nearest(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of ours, uint64 (N,), the least Hamming distance to theirs (M,), and the index of the first so near."""
    one, other = (looks.view(np.uint8).reshape(-1, 8) for looks in (ours, theirs))
    bits, indices = cv2.batchDistance(one, other, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=1)
    return np.asarray(bits)[:, 0], np.asarray(indices)[:, 0]
