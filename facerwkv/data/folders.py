"""Folders of classes, below folders of splits. What lies beside them is counted in `problems`, not passed over."""

import os
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS_8
from facerwkv.data.readers import MissingLayout, meaning, named_splits
from facerwkv.data.samples import SPLITS, Sample, Split, Splits
from facerwkv.media.geometry import Box
from facerwkv.media.images import endings

NO_IMAGES = (".txt", ".csv", ".json", ".xml", ".yaml", ".md", ".html", ".npy", ".ini", ".db")
"""The endings of files that nobody takes for images; others that cannot be read are counted."""


def folders(root: Path) -> list[Path]:
    """The visible folders in `root`, by name."""
    return sorted(child for child in root.iterdir() if _visible(child.name) and child.is_dir()) if root.is_dir() else []


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def split_folders(root: Path, problems: list[str] | None = None) -> dict[Split, Path]:
    """The folders of `root` that are splits by their names; images beside them go to `problems`.

    Raises InputError for two folders of one split.
    """
    children = folders(root)
    meant = named_splits(child.name for child in children)
    homes: dict[Split, Path] = {}
    for child in children:
        split = meant.get(child.name)
        if split in homes:
            raise InputError(
                f"{homes[split]} and {child} are both the {split} split. Rename one, or put their images together."
            )
        if split:
            homes[split] = child
    if homes and problems is not None:
        beside = {child: len(list_images(child)) for child in children if child.name not in meant}
        problems += [
            f"{count} images in {child} were left out: it is none of the splits train, val, test by its name."
            for child, count in beside.items()
            if count
        ]
        _count_loose(root, problems)
    return {split: homes[split] for split in SPLITS if split in homes}


def _count_loose(home: Path, problems: list[str]) -> None:
    loose = [name for name in os.listdir(home) if _visible(name) and name.lower().endswith(endings())]
    if loose:
        problems.append(f"{len(loose)} images directly in {home} were left out: they are in no class's folder.")


def unwrapped(root: Path) -> Path:
    """`root`, or what its only folder holds, where that is a package's, with several folders in it and no images."""
    children = folders(root)
    while len(children) == 1 and not (
        {meaning(children[0].name)} & set(EXPRESSIONS_8) or named_splits([children[0].name])
    ):
        images = [*root.iterdir(), *children[0].iterdir()]
        if any(each.name.lower().endswith(endings()) for each in images) or not folders(children[0]):
            break
        root, children = children[0], folders(children[0])
    return root


def is_class(folder: Path, known: Container[str], numbers: Mapping[int, str] | None = None) -> bool:
    """Whether a folder is called like one of the classes, or by its number."""
    return meaning(folder.name) in known or (folder.name.isdecimal() and int(folder.name) in (numbers or {}))


def class_homes(
    root: Path, problems: list[str], known: Container[str], numbers: Mapping[int, str] | None = None
) -> dict[Split, Path]:
    """The folders of splits in `root`, or in its only folder, that contain folders of classes; else `root` itself where
    it does; else none."""
    only = folders(root)
    for base in (root, *(only if len(only) == 1 else ())):
        homes = split_folders(base)
        if homes and any(is_class(child, known, numbers) for home in homes.values() for child in folders(home)):
            return split_folders(base, problems)
    return {"train": root} if any(is_class(child, known, numbers) for child in folders(root)) else {}


def first_of(root: Path, *paths: str) -> Path:
    """The first of these paths that exists below `root`. Raises MissingLayout."""
    for path in paths:
        if (root / path).exists():
            return root / path
    raise MissingLayout(f"{root} contains no {' or '.join(paths)}.")


def list_images(folder: Path) -> list[Path]:
    """Every visible file below `folder` whose extension is an image's, by name."""
    return [path for path in _list_files(folder) if path.name.lower().endswith(endings())]


def _list_files(folder: Path) -> list[Path]:
    """Every visible file below `folder`, by name."""
    files = []
    for parent, children, names in os.walk(folder):
        children[:] = sorted(filter(_visible, children))
        files += [Path(parent, name) for name in sorted(filter(_visible, names))]
    return files


def file_sample(root: Path, path: Path, native: str, label: str, box: Box | None = None, group: str = "") -> Sample:
    """The sample of a file, named by its path below `root`; `native` is how the data set writes its class."""
    name = path.relative_to(root).as_posix()
    return Sample(name, path, label, box, group or None, attributes={"native": native})


def by_class(
    root: Path,
    splits: Mapping[Split, Path],
    problems: list[str],
    known: tuple[str, ...] | None = None,
    numbers: Mapping[int, str] | None = None,
) -> Splits:
    """The images of FOLDER/CLASS/ for the folder of each split, named by their path below `root`.

    With `known` a folder of another name is left out and listed; without, every folder is a class. numbers: the classes
    of folders that are called by a number.
    """
    samples: Splits = {split: [] for split in splits}
    for split, home in splits.items():
        _count_loose(home, problems)
        others: list[Path] = []
        for folder in folders(home):
            files = _list_files(folder)
            images = [path for path in files if path.name.lower().endswith(endings())]
            label = (numbers or {}).get(int(folder.name), folder.name) if folder.name.isdecimal() else folder.name
            if known and meaning(label) not in known:
                problems.append(f"{folder} is none of the classes; its {len(images)} images were left out.")
                continue
            others += [path for path in files if not path.name.lower().endswith((*endings(), *NO_IMAGES))]
            if not images:
                problems.append(f"{folder} contains no images.")
            samples[split] += [file_sample(root, path, folder.name, label) for path in images]
        if others:
            kinds = Counter(path.suffix.lower() or path.name for path in others).most_common()
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds)
            problems.append(
                f"{len(others)} files in {home} were left out: they are no images by their names ({listed})."
            )
    return samples
