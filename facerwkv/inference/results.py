"""The faces of an image or of a video's frame with their expressions, as people and programs read them."""

import json
import os
import weakref
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.inference.options import Options
from facerwkv.media.arrays import Channels
from facerwkv.media.draw import draw_faces
from facerwkv.media.geometry import Box
from facerwkv.media.images import ImageSource, UnreadableImage, open_image

if TYPE_CHECKING:
    from rich.text import Text

Status = Literal["ok", "no_face", "unreadable"]
SHOWN = 3
DIGITS = 6
HTML_SIDE, HTML_MOST = 640, 20


@dataclass(frozen=True, slots=True, repr=False)
class Face:
    """One face, or the whole image where `box` is None, and its apparent expression.

    `probs` has each label's probability by name, in the model's order; `label` is the likeliest and `score` its
    probability. `box` is x1, y1, x2, y2 in pixels of the upright image, `detection` the detector's score, 0 to 1.
    `track` is the number that a face keeps through a video, from 1; None in an image. `threshold` is the score below
    which the label is unsure, None where none was given.
    """

    label: str
    score: float
    probs: dict[str, float]
    box: Box | None = None
    detection: float | None = None
    track: int | None = None
    threshold: float | None = None

    @property
    def unsure(self) -> bool:
        return self.threshold is not None and self.score < self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Plain values; probabilities and scores have DIGITS digits behind the point."""
        values: dict[str, Any] = {} if self.track is None else {"track": self.track}
        if self.box is not None:
            values |= {"box": list(self.box), "detection": self.detection and round(self.detection, DIGITS)}
        values |= {"label": self.label, "score": round(self.score, DIGITS)}
        values |= {} if self.threshold is None else {"unsure": self.score < self.threshold}
        return values | {"probs": {name: round(prob, DIGITS) for name, prob in self.probs.items()}}

    def __repr__(self) -> str:
        where = "whole image" if self.box is None else str(list(self.box))
        return where + ranked_text(self.probs, self.threshold)


class Kept:
    """A result's image, to draw on it: a path or encoded bytes, or pixels for as long as others hold them."""

    def __init__(self, image: ImageSource | None):
        self._kept = image if isinstance(image, str | bytes) else None
        if isinstance(image, os.PathLike):
            self._kept = os.fspath(image)
        elif isinstance(image, bytearray | memoryview):
            self._kept = bytes(image)
        lent = image is not None and self._kept is None and type(image).__weakrefoffset__
        self._lent = weakref.ref(image) if lent else None

    def __call__(self) -> ImageSource | None:
        return self._lent() if self._lent else self._kept

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, (self._kept,)


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """The faces of one image, or of one frame of a video.

    `status` is "ok", "no_face" or "unreadable"; `message` says why where the image counts as failed, and is empty
    otherwise. `size` is (width, height) in pixels of the upright image, (0, 0) if it is unreadable. A frame has its
    `time` on the file's clock, in seconds, and its number, `frame`, from 0; an image has None. `duration` is for how
    many seconds the frame is shown, where that is known. `drawn` is the file of its drawing, where one was written. A
    result does not hold pixels: `image` is a path or encoded bytes, or the array, frame or PIL image for as long as
    others hold it, a frame at least until the next result.
    """

    source: str
    status: Status
    faces: Sequence[Face] = ()
    size: tuple[int, int] = (0, 0)
    message: str = ""
    kept: Kept = field(default=Kept(None), compare=False)
    channels: Channels = "rgb"
    time: float | None = None
    frame: int | None = None
    duration: float | None = field(default=None, compare=False)
    drawn: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "faces", tuple(self.faces))

    @property
    def image(self) -> ImageSource | None:
        return self.kept()

    @property
    def failed(self) -> bool:
        return bool(self.message)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `facerwkv predict --json` prints them on one line."""
        moment = {} if self.frame is None else {"time": self.time, "frame": self.frame}
        known = {"status": self.status, "size": list(self.size), "faces": [face.to_dict() for face in self.faces]}
        maybe = {"message": self.message or None, "drawn": self.drawn}
        return {"source": self.source, **moment, **known} | {key: value for key, value in maybe.items() if value}

    @classmethod
    def from_dict(cls, values: dict[str, Any], threshold: float | None = None) -> "Result":
        """What `to_dict` gave, but for the threshold. The image is read again."""
        known = [{name: value for name, value in face.items() if name != "unsure"} for face in values["faces"]]
        boxes = [tuple(face["box"]) if "box" in face else None for face in known]
        faces = [Face(**face | {"box": box, "threshold": threshold}) for face, box in zip(known, boxes, strict=True)]
        size = tuple(values.get("size", (0, 0)))
        return cls(**(values | {"faces": faces, "size": size, "kept": Kept(values["source"])}))

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    def to_supervision(self) -> Any:
        """The boxes as supervision's Detections: `class_id` is the label's number in the model's order, `confidence`
        its probability, `data["class_name"]` its name. InputError without supervision.
        """
        try:
            supervision = import_module("supervision")
        except ImportError as error:
            raise InputError("Detections are supervision's: pip install supervision") from error
        faces = [face for face in self.faces if face.box]
        tracks = [face.track for face in faces if face.track is not None]
        return supervision.Detections(
            xyxy=np.array([face.box for face in faces], np.float32).reshape(-1, 4),
            confidence=np.array([face.score for face in faces], np.float32),
            class_id=np.array([[*face.probs].index(face.label) for face in faces], int),
            tracker_id=np.array(tracks, int) if faces and len(tracks) == len(faces) else None,
            data={"class_name": np.array([face.label for face in faces], dtype=str)},
        )

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row per face; see `Results`."""
        return Results([self]).to_dataframe()

    def plot(self, image: ImageSource | None = None, boxes_only: bool = False) -> Image.Image:
        """The image, read again, with its faces drawn; `image` is it, where the result does not have it any more.

        `boxes_only`: frames without labels. InputError if it cannot be read.
        """
        image = self.image if image is None else image
        if self.status == "unreadable" or image is None:
            lost = f"A result does not hold pixels, and those of {self.source} are gone. Give them: result.plot(image)"
            raise InputError(self.message or lost)
        rgb = open_image(image, self.channels, self.source)
        numbers = [face.track for face in self.faces] if self.frame is not None else ()
        unsure = [face.unsure for face in self.faces]
        return draw_faces(rgb, [(face.box, face.probs) for face in self.faces], numbers, unsure, boxes_only)

    def __repr__(self) -> str:
        return describe(self).plain

    def _repr_html_(self) -> str:
        """What a notebook shows: the drawing, at most HTML_SIDE pixels, and the text."""
        picture = ""
        with suppress(InputError):
            drawn = self.plot()
            drawn.thumbnail((HTML_SIDE, HTML_SIDE))
            drawn.save(file := BytesIO(), "JPEG", quality=85)
            picture = f'<img src="data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}">'
        return f"{picture}<pre>{escape(repr(self))}</pre>"


class Results(list[Result]):
    """Several results, as a list and as a table: a row per face, one for an image without."""

    def __init__(self, results: Iterable[Result] = (), labels: Sequence[str] = ()):
        super().__init__(results)
        self._labels = tuple(labels)

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of probabilities."""
        return self._labels or tuple(dict.fromkeys(name for each in self for face in each.faces for name in face.probs))

    def _columns(self) -> tuple[str, ...]:
        from facerwkv.inference.sinks import table_columns

        thresholds = [face.threshold for each in self for face in each.faces if face.threshold is not None]
        videos, drawn = any(each.frame is not None for each in self), any(each.drawn for each in self)
        return table_columns(videos, next(iter(thresholds), None), drawn)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, with the columns of a table (docs/how-to/predict). InputError without pandas."""
        from facerwkv.inference.sinks import rows_of

        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise InputError("A DataFrame needs pandas: pip install pandas") from error
        rows = [row for each in self for row in rows_of(each, self._columns(), self.labels)]
        return pandas.DataFrame(rows, columns=[*self._columns(), *self.labels])

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write the table; a name that ends in .parquet, .json or .jsonl is written as such."""
        from facerwkv.inference.sinks import writer

        with writer(os.fspath(path), self.labels, self._columns()) as write:
            for each in self:
                write(each)

    def _repr_html_(self) -> str:
        more = f"<p>and {len(self) - HTML_MOST} more</p>" if len(self) > HTML_MOST else ""
        return "".join(each._repr_html_() for each in self[:HTML_MOST]) + more


def raising(results: Iterable[Result]) -> Iterator[Result]:
    """The results up to the first that failed, which becomes an InputError."""
    for result in results:
        if result.failed:
            raise (UnreadableImage if result.status == "unreadable" else InputError)(result.message)
        yield result


class Crop(NamedTuple):
    """A face, or a whole image without a box, as the model takes it, uint8 (h, w, c), and the detector's score."""

    box: Box | None
    detection: float | None
    image: np.ndarray


class Opened(NamedTuple):
    """An image or a frame that was searched for faces: its crops, and the fields of its result but for the faces."""

    fields: dict[str, Any]
    crops: Sequence[Crop]
    options: Options

    def result(self, faces: Sequence[Face] = ()) -> Result:
        fields = {name: value for name, value in self.fields.items() if name != "image"}
        return Result(**fields, faces=tuple(faces), kept=Kept(self.fields.get("image")))


def describe(result: Result) -> "Text":
    """The lines that a person reads: the image, then each face with its likeliest labels."""
    from rich.text import Text

    text = Text().append(result.source.encode("utf-8", "replace").decode(), "bold")  # a file's name may be no Unicode
    if result.time is not None:
        text.append(f"  {result.time:.2f} s", style="dim")
    if result.status != "unreadable":
        width, height = result.size
        boxed = sum(face.box is not None for face in result.faces)
        text.append(f"  {width}x{height}", style="dim")
        text.append("  no face" if result.status == "no_face" else f"  {count_of(boxed, 'face')}" if boxed else "")
    for number, face in enumerate(result.faces, 1):
        line = Text(f"\n  {number if face.track is None else face.track}  {face!r}")
        line.highlight_words([face.label], "yellow" if face.unsure else "bold green")
        text.append_text(line)
    return text.append(f"\n  {result.message}", style="red") if result.message else text


def ranked_text(probs: Mapping[str, float], threshold: float | None) -> str:
    """The likeliest labels with their probabilities, and whether the first lies below the threshold."""
    ranked = sorted(probs.items(), key=lambda item: -item[1])[:SHOWN]
    doubt = f"  (unsure: below {threshold:g})" if threshold is not None and ranked[0][1] < threshold else ""
    return "".join(f"  {name} {prob:.2f}" for name, prob in ranked) + doubt


def count_of(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
