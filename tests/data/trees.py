"""Tiny made-up copies of every data set of DATASETS, in its layout: `build_NAME(root)`.

Each image is noise that follows from its path, so no two are alike and every build is the same.
"""

import csv
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SEVEN = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
FOLDERS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
USAGES = ("Training", "PublicTest", "PrivateTest")
VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def build(name: str, root: Path) -> str:
    """Build the data set below `root`; return its source, NAME:ROOT."""
    globals()[f"build_{name}"](root)
    place = {"manifest": root / "manifest.csv", "toy": "train=14,val=7,test=7"}.get(name, root)
    return f"{name}:{place}"


def noise(seed: str, height: int = 12, width: int = 10) -> np.ndarray:
    """Grey noise, uint8 (height, width)."""
    return np.random.default_rng(zlib.crc32(seed.encode())).integers(0, 256, (height, width), dtype=np.uint8)


def image(path: Path, height: int = 12, width: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise("/".join(path.parts[-3:]), height, width)).convert("RGB").save(path)


def folders(root: Path, classes: tuple[str, ...], count: int, form: str = "{:04d}.png") -> None:
    for label in classes:
        for number in range(1, count + 1):
            image(root / label / form.format(number))


def table(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def build_caer_s(root: Path) -> None:
    """As it is passed around: Angry in one split, Anger in the other, with the litter of file managers."""
    folders(root / "CAER-S/train", ("Angry", *SEVEN[1:]), 3)
    folders(root / "CAER-S/test", SEVEN, 2)
    (root / "CAER-S/train/.cache").mkdir()
    (root / "CAER-S/train/Fear/.DS_Store").touch()
    (root / "CAER-S/test/__MACOSX/Anger").mkdir(parents=True)
    (root / "CAER-S/test/Anger/Thumbs.db").touch()


def fer2013_rows(per_class: int = 2) -> list[list]:
    header = ["emotion", "pixels", "Usage"]
    keys = [(usage, number, copy) for usage in USAGES for number in range(7) for copy in range(per_class)]
    return [header] + [
        [number, " ".join(map(str, noise(f"{usage}{number}{copy}", 48, 48).ravel())), usage]
        for usage, number, copy in keys
    ]


def build_fer2013(root: Path) -> None:
    table(root / "fer2013.csv", fer2013_rows())


def build_fer2013_mirror(root: Path) -> None:
    folders(root / "train", FOLDERS, 3, "Training_{:d}.jpg")
    folders(root / "test", FOLDERS, 2, "PrivateTest_{:d}.jpg")


def build_ferplus(root: Path) -> None:
    """Every split: eight rows with nine votes for one name each, then four on which voters do not agree."""
    rows = fer2013_rows()
    clear = [[9 * (place == label) for place in range(10)] for label in range(8)]
    unclear = [
        [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],  # no majority
        [3, 0, 0, 0, 0, 0, 0, 0, 7, 0],  # unknown
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],  # not a face
        [4, 2, 1, 1, 1, 1, 0, 0, 0, 0],  # a majority once single votes are gone
    ]
    votes = [[*vote, 0][:10] for vote in clear + unclear] + [[0] * 9 + [10]] * 2
    table(root / "fer2013.csv", rows)
    named = [[row[2], f"fer{number:07d}.png"] for number, row in enumerate(rows[1:], 100)]
    table(
        root / "fer2013new.csv",
        [["Usage", "Image name", *VOTES]] + [a + b for a, b in zip(named, votes * 3, strict=True)],
    )


build_ferplus_soft = build_ferplus


def build_rafdb(root: Path, images: str = "aligned", tests: int = 1) -> None:
    """Two training images a class and `tests` test images; every third is of a man, ..."""
    lines = []
    for split, count in (("train", 2), ("test", tests)):
        for number in range(7 * count):
            stem = f"{split}_{number + 1:05d}"
            image(root / "basic/Image" / images / (f"{stem}_aligned.jpg" if images == "aligned" else f"{stem}.jpg"))
            lines.append(f"{stem}.jpg {number % 7 + 1}\n")
            person = root / f"basic/Annotation/manual/{stem}_manu_attri.txt"
            person.parent.mkdir(parents=True, exist_ok=True)
            person.write_text("10.5\t20.5\n" * 5 + f"{number % 3}\n{number % 3}\n{number % 5}\n")
    (root / "basic/EmoLabel").mkdir()
    (root / "basic/EmoLabel/list_patition_label.txt").write_text("".join(lines))


def build_affectnet(root: Path) -> None:
    """The release of 2021; numbers are stored as text or as integers; 8, 9 and 10 are no expressions."""
    for home, count in (("train_set", 2), ("val_set", 1)):
        for number in range(11 * count):
            expression = number % 11
            image(root / home / f"images/{number}.jpg")
            marks = root / home / "annotations"
            marks.mkdir(exist_ok=True)
            np.save(marks / f"{number}_exp.npy", np.array(str(expression) if number % 2 else expression))
            np.save(marks / f"{number}_val.npy", np.array("0.5"))


def build_affectnet_older(root: Path) -> None:
    """The csv files; the one of validation has no header, as published."""
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    lists = {"training.csv": [header.split(",")], "validation.csv": []}
    for file, rows in lists.items():
        for number in range(11):
            place = f"{number}/{file[:5]}{number}.jpg"
            image(root / "Manually_Annotated_Images" / place)
            rows.append([place, 1, 2, 5, 6, "1.0;2.0;3.0", number, -0.5, 0.25])
        table(root / "Manual_Annot_files" / file, rows)


def build_ck48(root: Path) -> None:
    for label in ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"):
        for subject in (5, 10, 999):
            image(root / label / f"S{subject:03d}_001_00000012.png")


def build_jaffe(root: Path) -> None:
    for subject in ("KA", "YM"):
        for number, code in enumerate(("NE", "AN", "DI", "FE", "HA", "SA", "SU"), 30):
            image(root / f"{subject}.{code}1.{number}.tiff")
    (root / "README").touch()


def build_sfew(root: Path) -> None:
    classes = ("Angry", *SEVEN[1:])
    folders(root / "Train", classes, 2, "Film_{:09d}.png")
    folders(root / "Val", classes, 1, "Film_{:09d}.png")


def build_expw(root: Path) -> None:
    """Two faces in every image."""
    lines = []
    for number in range(7):
        image(root / f"data/image/actor_{number}.jpg", 40, 60)
        lines += [f"actor_{number}.jpg {face} 4 {5 + face} 25 30 52.5 {number}\n" for face in (0, 1)]
    (root / "data/label").mkdir()
    (root / "data/label/label.lst").write_text("".join(lines))


def build_imagefolder(root: Path) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        folders(root / split, FOLDERS, count, "{:d}.jpg")


def build_manifest(root: Path) -> None:
    rows: list[list] = [["path", "label", "x1", "y1", "x2", "y2", "group", "split", "gender"]]
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for label in SEVEN:
            for number in range(count):
                place = f"{split}/{label}{number}.png"
                image(root / place)
                rows.append([place, label, 1, 2, 8, 9, f"clip {number}", split, "female"])
    table(root / "manifest.csv", rows)


def build_toy(root: Path) -> None:
    """Nothing: it is rendered."""


def build_hf(root: Path) -> None:
    """What the library `datasets`, an extra, reads as folders of classes."""
    pytest.importorskip("datasets", reason="the extra hf is not installed")
    for split in ("train", "test"):
        folders(root / split, FOLDERS, 2)
