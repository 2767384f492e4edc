"""What can be asked of prediction: one field per option, checked once, read by all that predict.

The command line's parameters, the service's, Ray's workers and its journal are made of these fields: an option is added
here, and where it acts. Importing this module loads no torch.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from facerwkv.core.errors import InputError
from facerwkv.core.settings import Settings
from facerwkv.data.config import Views
from facerwkv.media.frames import Selection
from facerwkv.media.images import MAX_PIXELS
from facerwkv.media.tracks import smoother

Mode = Literal["auto", "scene", "face"]
OnNoFace = Literal["empty", "scene", "error"]
Errors = Literal["raise", "result"]
Kind = Literal["image", "video", "stream"]
"""What is predicted: an image, a video, or images that follow each other on a socket."""


@dataclass(frozen=True)
class Facts:
    """Where an option is taken besides Python, of which kinds it may be asked, and how help texts show its value."""

    command: bool = True
    service: bool = True
    kinds: tuple[Kind, ...] = get_args(Kind)
    metavar: str | None = None


VIDEO = Facts(kinds=("video",))
VIDEO_TIME = Facts(kinds=("video",), metavar="TIME")


def seconds(text: str | float) -> float:
    """The seconds that "90", "1:30" or "0:01:30.5" mean; a number is itself. InputError for anything else."""
    if not isinstance(text, str):
        return text
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text):
        raise InputError(f"{text!r} is no time: write seconds, 90.5, or minutes and seconds, 1:30.5.")
    total = 0.0
    for number in text.split(":"):
        total = 60 * total + float(number)
    return total


Seconds = Annotated[float, BeforeValidator(seconds, json_schema_input_type=float | str)]


class Options(Settings):
    """The options of prediction. `Options.of` builds them from keywords; an empty text counts as not given."""

    mode: Mode = "auto"
    """scene: the whole image; face: each face; auto: what the model was trained on."""
    on_no_face: OnNoFace = "empty"
    """An image without a face has an empty result, is classified whole (scene), or fails (error)."""
    errors: Annotated[Errors | None, Facts(command=False, service=False)] = None
    """A failure raises InputError, or is a result; left out: it raises for one source, and is a result for several."""
    channels: Annotated[Literal["rgb", "bgr"], Facts(command=False, service=False)] = "rgb"
    """The colour order of arrays; files know their own."""
    batch_size: Annotated[PositiveInt, Facts(service=False)] = 32
    """At most this many faces are classified together, and at most this many images wait for them."""
    threshold: Annotated[float | None, Field(ge=0, le=1)] = None
    """A label whose probability is below this is marked as unsure."""
    min_face: Annotated[NonNegativeInt, Facts(metavar="PIXELS")] = 0
    """Leave out faces whose box has a shorter side than this."""
    max_pixels: Annotated[PositiveInt, Facts(service=False, kinds=("image",))] = MAX_PIXELS
    """Refuse images that have more pixels, from their headers."""
    reduced: Annotated[bool, Facts(service=False, kinds=("image",))] = False
    """Decode large JPEG files no larger than the detector needs: sooner, with boxes and labels that differ a little."""
    align: Literal["none", "roll"] = "roll"
    """roll: faces that are tilted, lie or stand on their heads are turned upright before they are classified."""
    tta: Views = "none"
    """Average the logits of views: flip, also the mirror image, 2 times the cost; ten, five shifts of both, 10 x."""
    stride: Annotated[PositiveInt, VIDEO] = 1
    """Only each n-th frame."""
    fps: Annotated[float | None, VIDEO] = None
    """At most this many frames per second."""
    search_every: Annotated[PositiveInt, VIDEO] = 1
    """Search every n-th frame for faces, and the others only around those of the frame before: new faces come late."""
    start: Annotated[Seconds, VIDEO_TIME] = 0.0
    """Start here: seconds, or mm:ss."""
    end: Annotated[Seconds | None, VIDEO_TIME] = None
    """Stop before this time."""
    smooth: Annotated[str | None, Facts(kinds=("video", "stream"), metavar="HOW")] = None
    """Smooth each face's probabilities over frames: ema:0.6 (the new frame's weight) or median:5 (frames)."""
    audio: Annotated[bool, VIDEO] = True
    """The drawn video sounds as the file does: copied, or as AAC where MP4 cannot hold it."""
    temporal: Annotated[bool, VIDEO] = False
    """Experimental: carry a causal model's state from frame to frame, one per face. No model was trained that way."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty_texts(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if value != ""} if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.selection  # noqa: B018
        smoother(self.smooth)
        if self.temporal and self.tta != "none":
            raise InputError("temporal carries the state of the frames as they are. Leave tta out.")
        return self

    @property
    def selection(self) -> Selection:
        """Which frames of a video are wanted."""
        return Selection(self.stride, self.fps, self.start, self.end)

    @classmethod
    def of(
        cls, options: "Options | None" = None, changes: Mapping[str, Any] | None = None, kind: Kind | None = None
    ) -> "Options":
        """These options, or the defaults, with changes, which must be options of such a source.

        InputError names what is wrong, and the values that fit.
        """
        if options is not None and not changes:
            return options
        given = options.model_dump(exclude_unset=True) if options else {}
        try:
            made = (type(options) if options else cls).model_validate(given | dict(changes or {}))
        except ValidationError as error:
            raise InputError(" ".join(sentence(problem) for problem in error.errors())) from error
        return made.of_kind(kind, changes or ()) if kind else made

    def of_kind(self, kind: Kind, names: Collection[str] | None = None, service: bool = False) -> Self:
        """The same options. InputError if one of `names` (None: those that were given) has no meaning for such a
        source, or, with `service`, over HTTP."""
        fitting = [name for name, each in facts().items() if kind in each.kinds and (each.service or not service)]
        for name in sorted(facts().keys() & (self.model_fields_set if names is None else names)):
            if name not in fitting:
                kinds = " and ".join(f"{other}s" for other in facts()[name].kinds)
                limits = "Python and the command line" if kind in facts()[name].kinds else kinds
                raise InputError(f"{name} is an option for {limits}; {kind}s take {', '.join(fitting)} here.")
        return self


def facts() -> dict[str, Facts]:
    """Of each option, by name."""
    return {
        name: next((each for each in field.metadata if isinstance(each, Facts)), Facts())
        for name, field in Options.model_fields.items()
    }


def sentence(problem: Mapping[str, Any]) -> str:
    """One of pydantic's problems with options in words: which option, its value, and what fits."""
    name = str(problem["loc"][-1]) if problem["loc"] else ""
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "extra_forbidden":
        return f"There is no option {name!r}. Options: {', '.join(Options.model_fields)}."
    if problem["type"] == "missing":
        return f"{name} is missing."
    if problem["type"] == "literal_error":
        fitting = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"{name} is {problem['input']!r}; choose one of {fitting}."
    return f"{name} is {problem['input']!r}; {problem['msg'].replace('Input should', 'it should')}."
