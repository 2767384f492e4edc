"""Text in any script: DejaVu Sans, and for characters that it lacks a font that is installed."""

import importlib.util
import logging
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont

SANS = "DejaVuSans.ttf"
FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
ENDINGS = (".ttf", ".otf", ".ttc")
TRIED = 13
"""The size at which a font is opened to see what it has: one with pictures of one size only, as colour emoji, fails."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
logger = logging.getLogger("facerwkv")


class Writer:
    """Draws single lines at one size, each character in the first font that has it."""

    def __init__(self, size: int):
        self.size = size

    def length(self, text: str) -> float:
        """In pixels."""
        return sum(font.getlength(part) for font, part in self._parts(text))

    def draw(self, brush: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: str, anchor: str) -> None:
        """`anchor` is Pillow's: "lm" has the text begin at the place, "rm" end there, in the middle of its height."""
        x, y = place
        x -= self.length(text) if anchor == "rm" else 0
        for font, part in self._parts(text):
            brush.text((x, y), part, colour, font, "lm")
            x += font.getlength(part)

    def _parts(self, text: str) -> Iterator[tuple[Font, str]]:
        for file, characters in groupby(text, font_file):
            yield _opened(file, self.size), "".join(characters)


@cache
def font_file(character: str) -> str | None:
    """The file of a font that has a character; None for Pillow's own. A warning says once where no font has it."""
    sans = _sans()
    if not character.isprintable() or character.isspace() or (sans and _has(sans, character)):
        return sans
    if sans is None and _has(None, character):
        return None
    for file in _installed(character):
        if _has(file, character):
            return file
    logger.warning(
        "No installed font has %r, which is drawn as a box. Install one that does, Noto Sans say.", character
    )
    return sans


@cache
def _sans() -> str | None:
    """DejaVu Sans, which matplotlib brings (it is not imported), or the system's."""
    found = importlib.util.find_spec("matplotlib")
    folders = [Path(found.origin).parent / "mpl-data/fonts/ttf"] if found and found.origin else []
    folders += [Path("/usr/share/fonts/truetype/dejavu"), Path("/usr/share/fonts/dejavu")]
    return next((str(folder / SANS) for folder in folders if (folder / SANS).is_file()), None)


def _installed(character: str) -> list[str]:
    """The fonts that fontconfig knows to have a character; without fontconfig, all that are in the usual places."""
    if shutil.which("fc-list"):
        words = ["fc-list", "-f", "%{file}\n", f":charset={ord(character):x}"]
        return sorted(subprocess.run(words, capture_output=True, text=True, check=False).stdout.split("\n")[:-1])
    return _files()


@cache
def _files() -> list[str]:
    folders = (Path(folder).expanduser() for folder in FOLDERS)
    return [str(file) for folder in folders for file in sorted(folder.rglob("*")) if file.suffix.lower() in ENDINGS]


@cache
def _opened(file: str | None, size: int) -> Font:
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def _has(file: str | None, character: str) -> bool:
    """Whether a font draws a character otherwise than one that no font has."""
    try:
        font: Any = _opened(file, TRIED)
        drawn, missing = (bytes(font.getmask(text)) for text in (character, "\U0010ffff"))
    except OSError:
        return False
    return drawn != missing
