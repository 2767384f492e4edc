"""One function per data set, its folder → samples per split, classes mapped by name; and the DATASETS table.

Where authors publish a "validation" set on which everyone reports scores (AffectNet, SFEW), it is `test`, so that no
model is chosen on it. Each function takes the root and a list to which it appends what it had to leave out.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from facerwkv.core.labels import EXPRESSIONS, EXPRESSIONS_8
from facerwkv.data import readers
from facerwkv.data.fer2013 import fer2013, ferplus
from facerwkv.data.folders import (
    by_class,
    class_homes,
    file_sample,
    first_of,
    folders,
    list_images,
    split_folders,
    unwrapped,
)
from facerwkv.data.layouts import hugging_face, parquet, yolo
from facerwkv.data.readers import MissingLayout, from_rows
from facerwkv.data.samples import UNKNOWN, DatasetSpec, Sample, Split, Splits
from facerwkv.media.geometry import Box


def caer_s(root: Path, problems: list[str]) -> Splits:
    """Frames of clips in folders of classes. Either split may write Anger or Angry; what is passed around as train and
    valid has no test."""
    for base in (root, root / "CAER-S"):
        if "train" in (homes := split_folders(base)) and len(homes) > 1:
            return by_class(root, split_folders(base, problems), problems, EXPRESSIONS)
    raise MissingLayout(f"{root} contains no folders train and test.")


RAF_DB = dict(enumerate(("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), 1))
_PERSON = {
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}


def rafdb(root: Path, problems: list[str]) -> Splits:
    """The list of labels, the aligned faces (else the originals) and, where they are given, gender, race and age."""
    base = root / "basic" if (root / "basic").is_dir() else root
    if not (base / "EmoLabel").is_dir():
        if homes := class_homes(root, problems, EXPRESSIONS, RAF_DB):
            return by_class(root, homes, problems, EXPRESSIONS, RAF_DB)
        if root.suffix == ".parquet" or any(root.rglob("*.parquet")):
            return parquet(root, problems)
    labels = first_of(base, "EmoLabel/list_patition_label.txt", "EmoLabel/list_partition_label.txt")
    images = first_of(base, "Image/aligned", "Image/original")
    ending = "_aligned.jpg" if images.name == "aligned" else ".jpg"

    def person(path: Path) -> dict[str, str]:
        """Three lines after those of the five landmarks; UNKNOWN where the file is damaged."""
        if not path.is_file():
            return {}
        try:
            numbers = path.read_text(encoding="utf-8").split()[2 * 5 :][: len(_PERSON)]
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
    if homes := class_homes(root, problems, EXPRESSIONS_8, AFFECTNET):
        return by_class(root, homes, problems, EXPRESSIONS_8, AFFECTNET)
    if root.suffix == ".parquet" or any(root.rglob("*.parquet")):
        return parquet(root, problems)
    for base in (root, *folders(root)):
        if any((home / "labels").is_dir() for home in (base, *split_folders(base).values())):
            return yolo(base, problems)
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
    """Folders of classes, also below train and test; a file's name begins with its subject. Or ckextended.csv, the
    pixels of all eight classes."""
    if path := next((path for path in (root, root / "ckextended.csv") if path.is_file()), None):
        names = readers.FER2013 | {7: "contempt"}
        rows = ((sample.name, sample) for sample in readers.pixel_rows(path, problems, names) if sample)
        return from_rows(rows, lambda sample: (readers.USAGE[sample.attributes["usage"]], sample), problems)
    homes = class_homes(root, problems, EXPRESSIONS_8) or {"train": first_of(root, "CK+48")}
    return {
        split: [replace(sample, group=Path(sample.name).name.split("_")[0]) for sample in samples]
        for split, samples in by_class(root, homes, problems, EXPRESSIONS_8).items()
    }


def jaffe(root: Path, problems: list[str]) -> Splits:
    """Files named subject.CODEn.id; or, where none is, folders of classes."""
    images, coded = list_images(root), re.compile(r"([A-Z]{2})\.([A-Z]{2})\d+\.\d+")
    if not any(coded.match(path.stem) for path in images) and (homes := class_homes(root, problems, EXPRESSIONS)):
        return by_class(root, homes, problems, EXPRESSIONS)

    def parse(path: Path) -> tuple[Split, Sample]:
        named = coded.fullmatch(path.stem)
        if not named or readers.meaning(named[2]) not in EXPRESSIONS:
            raise ValueError("its name is not of the form KA.AN1.39.tiff")
        return "train", file_sample(root, path, named[2], readers.meaning(named[2]), group=named[1])

    return from_rows(((str(path), path) for path in images), parse, problems)


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
    """Folders of classes, below train, val and test where there are such folders; all of it perhaps in one folder."""
    home = unwrapped(root)
    return by_class(root, split_folders(home, problems) or {"train": home}, problems)


def manifest(root: Path, problems: list[str]) -> Splits:
    """A CSV file whose paths are relative to it; columns that it does not know (gender, age, ...) become attributes."""
    if not root.is_file():
        raise MissingLayout(f"{root} is no file.")

    if root.suffix == ".parquet":
        return parquet(root, problems)
    rows = list(readers.csv_rows(root, required=("path", "label"), lower=True))
    meant = readers.named_splits({row.get("split", "") for _, row in rows})

    def parse(row: Mapping[str, str]) -> tuple[Split, Sample]:
        rest = {column: cell for column, cell in row.items() if cell}
        name = rest.pop("split", "train")
        split = meant.get(name, "train" if name == "train" else None)
        if split is None:
            raise ValueError(f"its split is {name!r}, none of train, val, test")
        path, label, group = rest.pop("path"), rest.pop("label"), rest.pop("group", None)
        if "\\" in path and not (root.parent / path).is_file():  # Windows'
            path = path.replace("\\", "/")
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


YOURS = "Yours: the terms under which you got the images."
_FER_TERMS = "Kaggle competition rules; the rights in the images, found by web search, are unresolved."

_SPECS = (
    DatasetSpec(
        name="caer_s",
        read=caer_s,
        layout="ROOT/{train,test}/{Anger,Disgust,Fear,Happy,Neutral,Sad,Surprise}/0001.png "
        "(or the same below ROOT/CAER-S); no validation split. Also {train,valid}.",
        terms="Frames of television series; treat as non-commercial research only.",
        source="https://caer-dataset.github.io",
        published={"train": 48_995, "test": 20_987},
    ),
    DatasetSpec(
        name="fer2013",
        read=fer2013,
        layout="ROOT/fer2013.csv (emotion,pixels,Usage: Training is train, PublicTest val, PrivateTest test), or its "
        "mirror ROOT/{train,test}/{angry,disgust,fear,happy,neutral,sad,surprise}/, which has no validation split. "
        "Also icml_face_data.csv, and train.csv without Usage.",
        terms=_FER_TERMS,
        source="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
        published={"train": 28_709, "val": 3_589, "test": 3_589},
        crops="*",
    ),
    DatasetSpec(
        name="ferplus",
        read=ferplus,
        labels=EXPRESSIONS_8,
        layout="ROOT/fer2013.csv and ROOT/fer2013new.csv, or ROOT/{FER2013Train,FER2013Valid,FER2013Test}/label.csv "
        "with the images; images on whose expression most of ten voters agree.",
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
        "Image/original), ROOT/basic/Annotation/manual; no validation split. Also ROOT/{train,test}/{1,...,7}, or the "
        "classes' names, and Parquet tables (image, label).",
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
        "validation set is test; images without an expression are left out; no validation split. Also folders of "
        "classes, by name or number 0 to 7; YOLO's images and labels with data.yaml; Parquet tables (image, label).",
        terms="Non-commercial research; only heads of laboratories and professors may request it.",
        source="http://mohammadmahoor.com/affectnet/",
        published={"train": 287_651, "test": 3_999},
        crops="*",
    ),
    DatasetSpec(
        name="ck48",
        read=ck48,
        labels=CK48,
        sometimes=("neutral",),
        layout="ROOT/{anger,contempt,disgust,fear,happy,sadness,surprise}/S010_004_00000017.png (or below ROOT/CK+48); "
        "only train, grouped by subject. Also {train,test}/CLASS, and ROOT/ckextended.csv (emotion,pixels,Usage) with "
        "neutral.",
        terms="Non-commercial research, no redistribution.",
        source="http://www.jeffcohn.net/Resources/",
        published={"train": 981},
        crops="*",
    ),
    DatasetSpec(
        name="jaffe",
        read=jaffe,
        layout="ROOT/KA.AN1.39.tiff (subject.CODEn.id); only train, grouped by subject. Also folders of classes.",
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
        terms=YOURS,
        source="your own folder",
    ),
    DatasetSpec(
        name="manifest",
        read=manifest,
        layout="ROOT is a CSV file with the columns path,label and, optionally, x1,y1,x2,y2,group,split and "
        "attributes such as gender,age,race; paths are relative to the file, a row without a split is train. "
        "Or a Parquet file (image, label).",
        terms=YOURS,
        source="your own file",
    ),
    DatasetSpec(
        name="hf",
        read=hugging_face,
        layout="A name on the Hugging Face Hub, or a folder, that the library `datasets` reads: a column image, and "
        "one of label, labels, expression, emotion, class.",
        terms="Those of the data set's own card.",
        source="your own choice",
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
