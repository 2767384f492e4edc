"""The DATASETS table, and NAME:ROOT → samples per split, labelled by name."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS, EXPRESSIONS_8, canonical
from facerwkv.data import readers
from facerwkv.data.boxes import add_boxes
from facerwkv.data.readers import MissingLayout, meaning
from facerwkv.data.samples import SPLITS, Dataset, DatasetSpec, Sample, Split, read_image

__all__ = ["DATASETS", "Dataset", "DatasetSpec", "Sample", "Split", "load_dataset", "read_image"]

_CLASSES = "{Anger,Disgust,Fear,Happy,Neutral,Sad,Surprise}"
_YOURS = "Yours: the terms under which you got the images."
_FER_TERMS = "Kaggle competition rules; the rights in the images, found by web search, are unresolved."

_SPECS = (
    DatasetSpec(
        name="caer_s",
        read=readers.caer_s,
        labels=EXPRESSIONS,
        layout=f"ROOT/{{train,test}}/{_CLASSES}/0001.png (or the same below ROOT/CAER-S); no validation split.",
        terms="Frames of television series; treat as non-commercial research only.",
        source="https://caer-dataset.github.io",
        published={"train": 48_995, "test": 20_987},
    ),
    DatasetSpec(
        name="fer2013",
        read=readers.fer2013,
        labels=EXPRESSIONS,
        layout="ROOT/fer2013.csv (emotion,pixels,Usage: Training is train, PublicTest val, PrivateTest test), or its "
        "mirror ROOT/{train,test}/{angry,disgust,fear,happy,neutral,sad,surprise}/, which has no validation split.",
        terms=_FER_TERMS,
        source="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
        published={"train": 28_709, "val": 3_589, "test": 3_589},
    ),
    DatasetSpec(
        name="ferplus",
        read=readers.ferplus,
        labels=EXPRESSIONS_8,
        layout="ROOT/fer2013.csv and ROOT/fer2013new.csv; images on whose expression most of ten voters agree.",
        terms=f"Votes: MIT. Images: {_FER_TERMS}",
        source="https://github.com/microsoft/FERPlus",
        published={"train": 25_060, "val": 3_199, "test": 3_153},
    ),
    DatasetSpec(
        name="ferplus_soft",
        read=partial(readers.ferplus, keep_votes=True),
        labels=EXPRESSIONS_8,
        layout="As ferplus; the target of an image is the share of the votes of every expression.",
        terms=f"Votes: MIT. Images: {_FER_TERMS}",
        source="https://github.com/microsoft/FERPlus",
    ),
    DatasetSpec(
        name="rafdb",
        read=readers.rafdb,
        labels=EXPRESSIONS,
        layout="ROOT/basic/EmoLabel/list_patition_label.txt, ROOT/basic/Image/aligned/train_00001_aligned.jpg (or "
        "Image/original), ROOT/basic/Annotation/manual; no validation split.",
        terms="Non-commercial research, on request; no copies to third parties.",
        source="http://www.whdeld.cn/RAF/model1.html",
        published={"train": 12_271, "test": 3_068},
    ),
    DatasetSpec(
        name="affectnet",
        read=readers.affectnet,
        labels=EXPRESSIONS_8,
        layout="ROOT/{train_set,val_set}/images/1.jpg and annotations/1_exp.npy, or the older "
        "ROOT/Manual_Annot_files/{training,validation}.csv and ROOT/Manually_Annotated_Images. The published "
        "validation set is test; images without an expression are left out; no validation split.",
        terms="Non-commercial research; only heads of laboratories and professors may request it.",
        source="http://mohammadmahoor.com/affectnet/",
        published={"train": 287_651, "test": 3_999},
    ),
    DatasetSpec(
        name="ck48",
        read=readers.ck48,
        labels=readers.CK48,
        layout="ROOT/{anger,contempt,disgust,fear,happy,sadness,surprise}/S010_004_00000017.png (or below ROOT/CK+48); "
        "only train, grouped by subject.",
        terms="Non-commercial research, no redistribution.",
        source="http://www.jeffcohn.net/Resources/",
        published={"train": 981},
    ),
    DatasetSpec(
        name="jaffe",
        read=readers.jaffe,
        labels=EXPRESSIONS,
        layout="ROOT/KA.AN1.39.tiff (subject.CODEn.id); only train, grouped by subject.",
        terms="Non-commercial research.",
        source="https://zenodo.org/records/14974867",
        published={"train": 213},
    ),
    DatasetSpec(
        name="sfew",
        read=readers.sfew,
        labels=EXPRESSIONS,
        layout="ROOT/{Train,Val}/{Angry,Disgust,Fear,Happy,Neutral,Sad,Surprise}/ (or {Train,Val}_Aligned_Faces). The "
        "published validation set is test; no validation split.",
        terms="Academic use under a licence agreement; frames of films.",
        source="https://cs.anu.edu.au/few/",
        published={"test": 431},
    ),
    DatasetSpec(
        name="expw",
        read=readers.expw,
        labels=EXPRESSIONS,
        layout="ROOT/data/image/*.jpg and label.lst (in ROOT, ROOT/data or their folder label); one sample per face, "
        "only train, grouped by image.",
        terms="No explicit licence was found; images from web search.",
        source="http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html",
        published={"train": 91_793},
    ),
    DatasetSpec(
        name="imagefolder",
        read=readers.imagefolder,
        labels=EXPRESSIONS,
        layout="ROOT/CLASS/*.jpg, or ROOT/{train,val,test}/CLASS/*.jpg (each optional).",
        terms=_YOURS,
        source="your own folder",
    ),
    DatasetSpec(
        name="manifest",
        read=readers.manifest,
        labels=EXPRESSIONS,
        layout="ROOT is a CSV file with the columns path,label and, if you like, x1,y1,x2,y2,group,split and "
        "attributes such as gender,age,race; paths are relative to the file, a row without a split is train.",
        terms=_YOURS,
        source="your own file",
    ),
    DatasetSpec(
        name="toy",
        read=readers.toy,
        labels=EXPRESSIONS,
        layout="No folder: toy, or toy:seed=1,train=700,val=70,test=70,context=1.",
        terms="None: rendered by this program, Apache-2.0.",
        source="facerwkv",
    ),
)

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}


def load_dataset(source: str, *, labels: Sequence[str] | None = None, boxes: Path | str | None = None) -> Dataset:
    """Read the lists of a data set: "NAME:ROOT", or "toy". No image is opened unless faces are to be detected.

    labels: the classes in the wanted order, by any of their names ("Happy", "happiness") or names of one's own for
    one's own folders; images of other classes are left out. boxes: a CSV file `path,label,x1,y1,x2,y2` of faces (as
    published for CAER-S), paths as below the root; or "detect", for the largest face that the detector finds where the
    data set has no box, kept in the cache. Raises InputError for a source, layout or label that it does not know, and
    for a class without training images.
    """
    spec, root = _parse(source)
    problems: list[str] = []
    try:
        found = spec.read(root, problems)
        found = add_boxes(found, str(boxes), problems) if boxes else found
    except MissingLayout as error:
        raise InputError(f"{error} {spec.name} lies on the disk like this: {spec.layout}") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{source} cannot be read: {error}.") from error
    names = _own_names(labels or spec.labels)
    splits = {split: _relabel(found[split], names, own=bool(labels)) for split in SPLITS if split in found}
    left_out = sum(map(len, found.values())) - sum(map(len, splits.values()))
    if left_out:
        problems.append(f"{left_out} images are of other classes than {', '.join(names.values())}.")
    kept = {split: samples for split, samples in splits.items() if samples}
    dataset = Dataset(spec, root, tuple(names.values()), kept, problems)
    _require_classes(source, dataset)
    return dataset


def _parse(source: str) -> tuple[DatasetSpec, Path]:
    name, _, place = source.partition(":")
    if name not in DATASETS:
        raise InputError(f"Unknown data set {name!r} in {source!r}. Write NAME:ROOT; names: {', '.join(DATASETS)}.")
    spec, root = DATASETS[name], Path(place).expanduser()
    if name != "toy" and not place:
        raise InputError(f"{name} needs its place, {name}:ROOT. It lies on the disk like this: {spec.layout}")
    if name != "toy" and not root.exists():
        raise InputError(f"{root} does not exist. {name} lies on the disk like this: {spec.layout}")
    return spec, root


def _own_names(labels: Sequence[str]) -> dict[str, str]:
    """What a label means → the label."""
    names = {meaning(label): label for label in labels}
    if len(names) < len(labels):
        raise InputError(f"Two of the labels {', '.join(labels)} mean the same. Name every class once.")
    return names


def _relabel(samples: list[Sample], names: dict[str, str], own: bool) -> list[Sample]:
    """Call every class by its name in `names`; with `own` leave others out, else raise InputError."""
    kept = []
    for sample in samples:
        label = names.get(meaning(sample.label))
        if label is None and not own:
            try:
                canonical(sample.label, names.values())
            except InputError as error:
                raise InputError(f"{sample.name}: {error}") from error
        if label is not None:
            kept.append(replace(sample, label=label, votes=_renamed(sample.votes, names)))
    return kept


def _renamed(votes: Mapping[str, float] | None, names: dict[str, str]) -> dict[str, float] | None:
    if votes is None:
        return None
    kept = {names[label]: share for label, share in votes.items() if label in names}
    return {label: share / sum(kept.values()) for label, share in kept.items()}


def _require_classes(source: str, dataset: Dataset) -> None:
    hint = f" ({dataset.problems[0].rstrip('.')})" if dataset.problems else ""
    if not dataset.splits:
        raise InputError(
            f"{source} holds no images of {', '.join(dataset.labels)}{hint}. {dataset.spec.name} lies on the disk "
            f"like this: {dataset.spec.layout}"
        )
    present = {sample.label for sample in dataset.splits.get("train", ())}
    missing = [label for label in dataset.labels if label not in present]
    if present and missing:
        raise InputError(
            f"{source} has no training images of {', '.join(missing)}{hint}. Add some, or name the classes that "
            f"there are: data.labels=[{', '.join(label for label in dataset.labels if label in present)}]."
        )
