"""What clients may ask of the service."""

from pydantic import PositiveInt

from facerwkv.settings import Settings

MiB = 2**20


class Limits(Settings):
    """All of them are numbers above 0; sizes are in bytes."""

    upload_bytes: PositiveInt = 32 * MiB
    """One request with pictures, or one message of a stream."""
    video_bytes: PositiveInt = 512 * MiB
    """One request with a video."""
    memory_bytes: PositiveInt = 512 * MiB
    """The pictures of all requests that are there at a time."""
    pixels: PositiveInt = 40_000_000
    """One picture, or one frame of a video."""
    files: PositiveInt = 16
    """Pictures of one request."""
    waiting: PositiveInt = 256
    """Pictures that wait for their turn, and explanations."""
    frames: PositiveInt = 20_000
    """Frames of a video that are looked at; what comes after them is left out."""
    seconds: PositiveInt = 1800
    """Time that is spent on a video."""
    jobs: PositiveInt = 8
    """Videos that are uploaded, wait, are worked on or are kept, at a time."""
    kept_seconds: PositiveInt = 3600
    """Time after which the files of a video are removed."""
    streams: PositiveInt = 8
    """Cameras at a time."""
    idle_seconds: PositiveInt = 60
    """Time that a camera may send nothing."""
    header_seconds: PositiveInt = 20
    """Time that the headers of a request may take."""
    upload_seconds: PositiveInt = 600
    """Time that an upload may take."""
