"""One function per data set, its folder → samples per split, classes mapped by name; and the DATASETS table.

Where authors publish a "validation" set on which everyone reports scores (AffectNet, SFEW), it is `test`, so that no
model is chosen on it. Each function takes the root and a list to which it appends what it had to leave out.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS, EXPRESSIONS_8
from facerwkv.data import readers
from facerwkv.data.folders import by_class, file_sample, first_of, folders, list_images, split_folders
from facerwkv.data.readers import MissingLayout, from_rows
from facerwkv.data.samples import UNKNOWN, DatasetSpec, Sample, Split, Splits
from facerwkv.media.geometry import Box


def caer_s(root: Path, problems: list[str]) -> Splits:
    """Frames of clips in folders of classes. Either split may write Anger or Angry."""
    for base in (root, root / "CAER-S"):
        if {"train", "test"} <= (homes := split_folders(base)).keys():
            split_folders(base, problems)
            return by_class(root, homes, problems, EXPRESSIONS)
    raise MissingLayout(f"{root} contains no folders train and test.")


def fer2013(root: Path, problems: list[str]) -> Splits:
    """The csv of pixels; or the folders of its mirror, where `test` contains PublicTest and PrivateTest together."""
    path = root if root.is_file() else root / "fer2013.csv"
    if path.is_file():
        rows = ((sample.name, sample) for sample in readers.pixel_rows(path, problems) if sample)
        return from_rows(rows, lambda sample: (readers.USAGE[sample.attributes["usage"]], sample), problems)
    if homes := split_folders(root, problems):
        return by_class(root, homes, problems, EXPRESSIONS)
    raise MissingLayout(f"{root} contains neither fer2013.csv nor the folders train and test.")


FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_VOTED = (*FERPLUS, "unknown", "NF")


def ferplus(root: Path, problems: list[str], keep_votes: bool = False) -> Splits:
    """FER2013's images with ten votes each, joined by the order of rows (the number in `ferNNNNNNN.png` is no row).

    Single votes are removed first. An image counts when more than half of the votes name one expression; or, with
    `keep_votes`, when one has more votes than "unknown" and than "not a face", and then it keeps their shares.
    """
    folder = root.parent if root.is_file() else root
    images = readers.pixel_rows(first_of(folder, "fer2013.csv"), problems)
    judged = list(readers.csv_rows(first_of(folder, "fer2013new.csv"), required=("Usage", *_VOTED)))
    usages = [row["Usage"] for _, row in judged]
    if len(images) != len(judged) or any(a and a.attributes["usage"] != b for a, b in zip(images, usages, strict=True)):
        raise InputError(
            f"The rows of fer2013.csv ({len(images)}) and fer2013new.csv ({len(judged)}) in {folder} do not belong "
            "together; both must be complete and in their original order."
        )

    def parse(pair: tuple[Sample | None, Mapping[str, str]]) -> tuple[Split, Sample] | None:
        sample, row = pair
        votes = np.array([int(row[name]) for name in _VOTED])
        votes[votes <= 1] = 0
        expressions, others = votes[: len(FERPLUS)], votes[len(FERPLUS) :]
        if sample is None or expressions.max() <= (others.max() if keep_votes else votes.sum() / 2):
            return None
        winner = int(expressions.argmax())
        shares = {name: float(share) for name, share in zip(FERPLUS, expressions / expressions.sum(), strict=True)}
        votes_kept = {name: share for name, share in shares.items() if share} if keep_votes else None
        attributes = {"native": str(winner), "usage": row["Usage"]}
        kept = replace(sample, label=FERPLUS[winner], votes=votes_kept, attributes=attributes)
        return readers.USAGE[row["Usage"]], kept

    rows = ((line, (sample, row)) for sample, (line, row) in zip(images, judged, strict=True))
    return from_rows(rows, parse, problems)


RAF_DB = dict(enumerate(("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), 1))
_PERSON = {
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}


def rafdb(root: Path, problems: list[str]) -> Splits:
    """The list of labels, the aligned faces (else the originals) and, where they are given, gender, race and age."""
    base = root / "basic" if (root / "basic").is_dir() else root
    labels = first_of(base, "EmoLabel/list_patition_label.txt", "EmoLabel/list_partition_label.txt")
    images = first_of(base, "Image/aligned", "Image/original")
    ending = "_aligned.jpg" if images.name == "aligned" else ".jpg"

    def person(path: Path) -> dict[str, str]:
        """Three lines after those of the five landmarks; UNKNOWN where the file is damaged."""
        if not path.is_file():
            return {}
        try:
            numbers = path.read_text().split()[2 * 5 :][: len(_PERSON)]
            pairs = zip(_PERSON.items(), numbers, strict=True)
            return {kind: readers.class_name(number, dict(enumerate(names))) for (kind, names), number in pairs}
        except (ValueError, OSError):
            problems.append(f"{path} does not say {', '.join(_PERSON)}; they count as unknown for its image.")
            return dict.fromkeys(_PERSON, UNKNOWN)

    def parse(cells: list[str]) -> tuple[Split, Sample]:
        file, number = cells
        stem = Path(file).stem
        attributes = person(base / "Annotation/manual" / f"{stem}_manu_attri.txt")
        sample = file_sample(root, images / (stem + ending), number, readers.class_name(number, RAF_DB))
        return readers.SPLIT_NAMES[file.split("_")[0]], replace(sample, attributes={**sample.attributes, **attributes})

    return from_rows(readers.text_rows(labels), parse, problems)


AFFECTNET = dict(enumerate(("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")))


def affectnet(root: Path, problems: list[str]) -> Splits:
    """The release of 2021 (a folder of .npy files) or the older one (csv files); the published validation is `test`."""

    def sample(split: Split, path: Path, number: str, box: Box | None = None) -> tuple[Split, Sample] | None:
        if number in ("8", "9", "10"):  # none, uncertain, no face
            return None
        return split, file_sample(root, path, number, readers.class_name(number, AFFECTNET), box)

    def parse_npy(split: Split, path: Path) -> tuple[Split, Sample] | None:
        image = path.parents[1] / "images" / path.name.replace("_exp.npy", ".jpg")
        return sample(split, image, readers.npy_number(path))

    def parse_csv(split: Split, row: Mapping[str, str]) -> tuple[Split, Sample] | None:
        x, y, width, height = (float(row[f"face_{side}"]) for side in ("x", "y", "width", "height"))
        box = readers.face_box(x, y, x + width, y + height)
        return sample(split, images / row["subDirectory_filePath"], row["expression"], box)

    splits: Splits = {}
    names: dict[Split, tuple[str, str]] = {
        "train": ("train_set", "training.csv"),
        "test": ("val_set", "validation.csv"),
    }
    if any((root / home).is_dir() for home, _ in names.values()):
        for split, (home, _) in names.items():
            marks = sorted((root / home / "annotations").glob("*_exp.npy"))
            read = readers.progress(marks, f"Reading the annotations of {home}", len(marks))
            splits |= from_rows(((str(path), path) for path in read), partial(parse_npy, split), problems)
        return splits
    columns = "subDirectory_filePath face_x face_y face_width face_height facial_landmarks expression valence arousal"
    lists = first_of(root, "Manual_Annot_files", "Manually_Annotated_file_lists")
    images = first_of(root, "Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", ".")
    for split, (_, table) in names.items():
        if (lists / table).is_file():
            cells = readers.csv_rows(lists / table, header=columns.split())
            splits |= from_rows(cells, partial(parse_csv, split), problems)
    return splits


CK48 = tuple(label for label in EXPRESSIONS_8 if label != "neutral")


def ck48(root: Path, problems: list[str]) -> Splits:
    """Folders of classes; a file's name begins with its subject."""
    home = (
        root
        if any(readers.meaning(child.name) in EXPRESSIONS_8 for child in folders(root))
        else first_of(root, "CK+48")
    )
    samples = by_class(root, {"train": home}, problems, CK48)["train"]
    return {"train": [replace(sample, group=Path(sample.name).name.split("_")[0]) for sample in samples]}


def jaffe(root: Path, problems: list[str]) -> Splits:
    """Files named subject.CODEn.id."""

    def parse(path: Path) -> tuple[Split, Sample]:
        named = re.fullmatch(r"([A-Z]{2})\.([A-Z]{2})\d+\.\d+", path.stem)
        if not named or readers.meaning(named[2]) not in EXPRESSIONS:
            raise ValueError("its name is not of the form KA.AN1.39.tiff")
        return "train", file_sample(root, path, named[2], readers.meaning(named[2]), group=named[1])

    return from_rows(((str(path), path) for path in list_images(root)), parse, problems)


def sfew(root: Path, problems: list[str]) -> Splits:
    """Film frames in folders of classes, whole or (where there are no others) aligned; published validation is `test`.

    Its own Test folder has no labels and is not read."""
    names: dict[Split, str] = {"train": "Train", "test": "Val"}
    endings = ("", "_Aligned_Faces", "_Aligned_Faces_new")
    homes = {split: first_of(root, *(name + ending for ending in endings)) for split, name in names.items()}
    return by_class(root, homes, problems, EXPRESSIONS)


def expw(root: Path, problems: list[str]) -> Splits:
    """One line per face: image, face number, top, left, right, bottom, confidence, label."""
    labels = first_of(root, "data/label/label.lst", "data/label.lst", "label/label.lst", "label.lst")
    images = first_of(root, "data/image/origin", "data/image", "image/origin", "image")

    def parse(cells: list[str]) -> tuple[Split, Sample]:
        file, face, *sides, _, number = cells
        top, left, right, bottom = map(float, sides)
        box = readers.face_box(left, top, right, bottom)
        sample = file_sample(root, images / file, number, readers.class_name(number, readers.FER2013), box, file)
        return "train", replace(sample, name=f"{sample.name}#{face}")

    return from_rows(readers.text_rows(labels), parse, problems)


def imagefolder(root: Path, problems: list[str]) -> Splits:
    """Folders of classes, below train, val and test where there are such folders."""
    return by_class(root, split_folders(root, problems) or {"train": root}, problems)


def manifest(root: Path, problems: list[str]) -> Splits:
    """A CSV file whose paths are relative to it; columns that it does not know (gender, age, ...) become attributes."""
    if not root.is_file():
        raise MissingLayout(f"{root} is no file.")

    rows = list(readers.csv_rows(root, required=("path", "label")))
    meant = readers.named_splits({row.get("split", "") for _, row in rows})

    def parse(row: Mapping[str, str]) -> tuple[Split, Sample]:
        rest = {column: cell for column, cell in row.items() if cell}
        name = rest.pop("split", "train")
        split = meant.get(name, "train" if name == "train" else None)
        if split is None:
            raise ValueError(f"its split is {name!r}, none of train, val, test")
        path, label, group = rest.pop("path"), rest.pop("label"), rest.pop("group", None)
        corners = (
            [float(rest.pop(corner)) for corner in readers.CORNERS] if any(map(rest.get, readers.CORNERS)) else None
        )
        box = readers.face_box(*corners) if corners else None
        return split, Sample(path, root.parent / path, label, box, group, attributes={"native": label} | rest)

    return from_rows(rows, parse, problems)


def toy(root: Path, problems: list[str]) -> Splits:
    """Rendered scenes; the root is no folder but options: `seed=1,train=70,val=14,test=14,context=1`."""
    from facerwkv.data.toy.scenes import samples_of

    return samples_of(str(root))


_YOURS = "Yours: the terms under which you got the images."
_FER_TERMS = "Kaggle competition rules; the rights in the images, found by web search, are unresolved."

_SPECS = (
    DatasetSpec(
        name="caer_s",
        read=caer_s,
        layout="ROOT/{train,test}/{Anger,Disgust,Fear,Happy,Neutral,Sad,Surprise}/0001.png "
        "(or the same below ROOT/CAER-S); no validation split.",
        terms="Frames of television series; treat as non-commercial research only.",
        source="https://caer-dataset.github.io",
        published={"train": 48_995, "test": 20_987},
    ),
    DatasetSpec(
        name="fer2013",
        read=fer2013,
        layout="ROOT/fer2013.csv (emotion,pixels,Usage: Training is train, PublicTest val, PrivateTest test), or its "
        "mirror ROOT/{train,test}/{angry,disgust,fear,happy,neutral,sad,surprise}/, which has no validation split.",
        terms=_FER_TERMS,
        source="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
        published={"train": 28_709, "val": 3_589, "test": 3_589},
        crops="*",
    ),
    DatasetSpec(
        name="ferplus",
        read=ferplus,
        labels=EXPRESSIONS_8,
        layout="ROOT/fer2013.csv and ROOT/fer2013new.csv; images on whose expression most of ten voters agree.",
        terms=f"Votes: MIT. Images: {_FER_TERMS}",
        source="https://github.com/microsoft/FERPlus",
        published={"train": 25_060, "val": 3_199, "test": 3_153},
        crops="*",
    ),
    DatasetSpec(
        name="ferplus_soft",
        read=partial(ferplus, keep_votes=True),
        labels=EXPRESSIONS_8,
        layout="As ferplus; the target of each image is the share of votes per expression.",
        terms=f"Votes: MIT. Images: {_FER_TERMS}",
        source="https://github.com/microsoft/FERPlus",
        crops="*",
    ),
    DatasetSpec(
        name="rafdb",
        read=rafdb,
        layout="ROOT/basic/EmoLabel/list_patition_label.txt, ROOT/basic/Image/aligned/train_00001_aligned.jpg (or "
        "Image/original), ROOT/basic/Annotation/manual; no validation split.",
        terms="Non-commercial research, on request; no copies to third parties.",
        source="http://www.whdeld.cn/RAF/model1.html",
        published={"train": 12_271, "test": 3_068},
        crops="*_aligned.jpg",
    ),
    DatasetSpec(
        name="affectnet",
        read=affectnet,
        labels=EXPRESSIONS_8,
        layout="ROOT/{train_set,val_set}/images/1.jpg and annotations/1_exp.npy, or the older "
        "ROOT/Manual_Annot_files/{training,validation}.csv and ROOT/Manually_Annotated_Images. The published "
        "validation set is test; images without an expression are left out; no validation split.",
        terms="Non-commercial research; only heads of laboratories and professors may request it.",
        source="http://mohammadmahoor.com/affectnet/",
        published={"train": 287_651, "test": 3_999},
        crops="*",
    ),
    DatasetSpec(
        name="ck48",
        read=ck48,
        labels=CK48,
        layout="ROOT/{anger,contempt,disgust,fear,happy,sadness,surprise}/S010_004_00000017.png (or below ROOT/CK+48); "
        "only train, grouped by subject.",
        terms="Non-commercial research, no redistribution.",
        source="http://www.jeffcohn.net/Resources/",
        published={"train": 981},
        crops="*",
    ),
    DatasetSpec(
        name="jaffe",
        read=jaffe,
        layout="ROOT/KA.AN1.39.tiff (subject.CODEn.id); only train, grouped by subject.",
        terms="Non-commercial research.",
        source="https://zenodo.org/records/14974867",
        published={"train": 213},
    ),
    DatasetSpec(
        name="sfew",
        read=sfew,
        layout="ROOT/{Train,Val}/{Angry,Disgust,Fear,Happy,Neutral,Sad,Surprise}/ (or {Train,Val}_Aligned_Faces). The "
        "published validation set is test; no validation split.",
        terms="Academic use under a licence agreement; frames of films.",
        source="https://cs.anu.edu.au/few/",
        published={"test": 431},
    ),
    DatasetSpec(
        name="expw",
        read=expw,
        layout="ROOT/data/image/*.jpg and label.lst (in ROOT, ROOT/data or their folder label); one sample per face, "
        "only train, grouped by image.",
        terms="No explicit licence was found; images from web search.",
        source="http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html",
        published={"train": 91_793},
    ),
    DatasetSpec(
        name="imagefolder",
        read=imagefolder,
        layout="ROOT/CLASS/*.jpg, or ROOT/{train,val,test}/CLASS/*.jpg (each optional).",
        terms=_YOURS,
        source="your own folder",
    ),
    DatasetSpec(
        name="manifest",
        read=manifest,
        layout="ROOT is a CSV file with the columns path,label and, optionally, x1,y1,x2,y2,group,split and "
        "attributes such as gender,age,race; paths are relative to the file, a row without a split is train.",
        terms=_YOURS,
        source="your own file",
    ),
    DatasetSpec(
        name="toy",
        read=toy,
        layout="No folder: toy, or toy:seed=1,train=700,val=70,test=70,context=1.",
        terms="None: rendered by this program, Apache-2.0.",
        source="facerwkv",
    ),
)

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
