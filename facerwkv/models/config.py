"""What every model's configuration holds; a model's own adds to it."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from facerwkv.core.settings import Settings

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class ImageConfig(Settings):
    """Images in, classes out; stored in a model's checkpoint. A single number is a square's side."""

    two_inputs: ClassVar[bool] = False
    """Whether the model looks at a scene and at a face: what a transform with crop "both" gives."""
    image_size: tuple[Count, Count] = (224, 224)
    """Height and width in pixels."""
    in_chans: Count = 3
    num_classes: Annotated[int, Field(ge=0)] = 7
    """0 gives what the classifier would read."""
    drop_rate: Rate = 0.0
    """Dropout before the classifier."""

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int) else size
