"""Which images, how they become a model's input, and how training varies them: configurations that load no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from facerwkv.core.settings import Count, NotNegative, Settings, Share, Side, utf8

Name = Annotated[str, Field(min_length=1)]
CropMode = Literal["scene", "face", "both"]
Views = Literal["none", "flip", "ten"]
"""Over which views of an image logits are averaged: data/views.py."""


def as_tuple(given: Any) -> Any:
    """A single name as a tuple of it: auto."""
    return (given,) if isinstance(given, str) else given


class DataConfig(Settings):
    """Which images, split how, in which batches."""

    source: Annotated[str, AfterValidator(utf8)] = "toy"
    """NAME:ROOT, say caer_s:/d/CAER-S; `facerwkv data list` names the data sets."""
    labels: Annotated[tuple[Name, ...] | None, BeforeValidator(as_tuple)] = None
    """The classes in order; auto for those that occur, by name; null for the data set's own."""
    rename: dict[str, str] | None = None
    """Other names for classes as the data set writes them, say {1: surprise}; two of one name become one class."""
    boxes: str | None = None
    """A file of face boxes where the data set has one, or `detect` for the boxes that the detector finds."""
    split: Literal["official", "blocks"] = "official"
    """`blocks`: of every class only the first 80 % of the training and the last 15 % of the test images, by file
    number, so that few test images have a neighbour in training."""
    validation: Literal["random", "per_class", "contiguous", "group", "copied", "test"] = "contiguous"
    """How validation images are taken from training where the data set has none of its own; `test`: none are taken, the
    test images are watched, as the authors did for one run. Then train.select must be last."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Hold out this share for test where the data set has none, by the rule of `validation`, the same for each seed."""
    folds: Annotated[int, Field(ge=2)] | Literal["all"] | None = None
    """Cut all images into so many folds, of which `fold` is test; all: one for each group (leave one subject out)."""
    fold: Annotated[int, Field(ge=0)] = 0
    by: str | None = None
    """With folds: what must not be on both sides, `group` or an attribute, say subject."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    drop_leaks: bool = False
    """Leave out training images that are also in val or test, pixel by pixel."""
    batch_size: Count = 64
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read images; none is needed with a cache."""
    balance: Literal["none", "sampler", "loss", "loss_sqrt"] = "none"
    """`sampler`: every class is drawn equally often, with repetition. `loss`: classes weigh equally in the loss;
    `loss_sqrt`: half-way there, by the root of their counts."""
    cache: bool | str = True
    """Keep decoded images: true for the default folder, or a folder; false decodes them in every epoch."""
    limit: Count | None = None
    """At most this many images per split, the first ones of each class, for a quick try."""


class TransformConfig(Settings):
    """How an image becomes the model's input. It is stored in every checkpoint."""

    image_size: tuple[Side, Side] = (400, 600)
    """Height and width in pixels."""
    crop: CropMode = "scene"
    """`scene`: the whole image, squashed to image_size. `face`: the square around a face's box. `both`: the scene,
    the face's box in it blackened, and behind it, in more channels, the face."""
    no_box: Annotated[Literal["whole", "centre", "error"], Field(validate_default=True)] = "whole"
    """What is cropped where there is no box: the whole image, as in FER2013; its middle, half as wide and high; or
    nothing, with an error. For `both`, `whole` is read as `error`: the scene without its face would be black."""
    margin: Annotated[float, Field(ge=0, le=5)] = 0.2
    """Added on each side of a face's box, as a fraction of its longer side."""
    in_chans: Literal[1, 3] = 3
    """3 for RGB, 1 for grey (ITU-R 601, as Pillow's "L"); `both` has this many of the scene and as many of the face."""
    mean: tuple[Annotated[float, Field(ge=-10, le=10)], ...] = (0.0, 0.0, 0.0)
    """Subtracted from values in 0..1: one number, or one per channel."""
    std: tuple[Annotated[float, Field(gt=0, le=10)], ...] = (1.0, 1.0, 1.0)
    """Divides the difference: one number, or one per channel."""
    interpolation: Literal["bilinear", "bilinear_aliased"] = "bilinear"
    """Antialiased, as Pillow does it; `bilinear_aliased` reads four pixels for each, as the paper's authors did."""

    @property
    def geometry(self) -> str:
        """What decides the pixels that a model is given, before they are normalised."""
        faces = {"no_box", "margin"} if self.sees_faces else set()
        return self.model_dump_json(include={"image_size", "crop", "in_chans", "interpolation"} | faces)

    @property
    def channels(self) -> int:
        """The number of channels that the model gets."""
        return self.in_chans * (2 if self.crop == "both" else 1)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """mean and std: one number each, or one for each of `channels`."""
        mean, std = (values[: self.in_chans] for values in (self.mean, self.std))
        twice = 2 if self.crop == "both" else 1
        return (mean * twice if len(mean) > 1 else mean), (std * twice if len(std) > 1 else std)

    @property
    def sees_faces(self) -> bool:
        """Whether a face's box matters."""
        return self.crop != "scene"

    @field_validator("no_box")
    @classmethod
    def _no_black_scene(cls, no_box: str, info: ValidationInfo) -> str:
        return "error" if (info.data.get("crop"), no_box) == ("both", "whole") else no_box

    @model_validator(mode="after")
    def _one_a_channel(self) -> Self:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, 3, self.in_chans) or (len(values) != self.in_chans and len(set(values)) > 1):
                raise ValueError(f"{name} must have one number, or one for each of {self.in_chans} channels")
        return self


class AugmentConfig(Settings):
    """What changes from epoch to epoch; everything is off by default."""

    flip: Share = 0.0
    """Probability of a mirror image."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle, in degrees, to either side."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest change of size, as a part of it: 0.1 for 90 to 110 %."""
    translate: Share = 0.0
    """Largest shift, as a part of the width and of the height."""
    brightness: Share = 0.0
    """Largest change of brightness, as a part of it."""
    contrast: Share = 0.0
    """Largest change of the distance from the mean, as a part of it."""
    contrast_mean: Literal["image", "channel"] = "image"
    """Whose mean that is: the image's, or each channel's own."""
    erase: Share = 0.0
    """Probability that a rectangle of the image takes the image's mean colour."""
    erase_area: tuple[Share, Share] = (0.02, 0.2)
    """The least and the largest rectangle, as parts of the image."""
    mixup: NotNegative = 0.0
    """Alpha of the Beta distribution of the shares (Zhang et al., arXiv 1710.09412); 0 for none."""
    cutmix: NotNegative = 0.0
    """Alpha of the Beta distribution of the shares (Yun et al., arXiv 1905.04899); 0 for none. With mixup: in turns."""
    mixup_off_epoch: Annotated[int, Field(ge=0)] = 0
    """From this epoch on, counted from 0, neither mixup nor cutmix; 0 for never off (timm's name)."""

    @property
    def any_image(self) -> bool:
        """Whether images are changed one by one, before a batch is mixed."""
        return any((self.flip, self.rotate, self.scale, self.translate, self.brightness, self.contrast, self.erase))
