"""A page of blocks, written as HTML and as Markdown by the templates beside this file, which escape every text."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from facerwkv.core.files import write_text

MARKDOWN, HTML = "page.md", "page.html"


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of texts; all columns but the first are numbers, set flush right, unless `numbers` is false."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True


@dataclass(frozen=True)
class Tiles:
    """The numbers to see first: (name, value, small print)."""

    rows: Sequence[tuple[str, str, str]]
    headers = ("score", "value", "95 % interval")
    numbers = True


@dataclass(frozen=True)
class Drawing:
    """A drawing: the file beside the Markdown page, and the <svg> element inside the HTML page."""

    file: str
    svg: str
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Small images (JPEG bytes, or None) with two lines each, `rows`; in Markdown only the lines."""

    headers: tuple[str, str]
    rows: Sequence[tuple[str, str]]
    images: Sequence[bytes | None]
    numbers = False


@dataclass(frozen=True)
class Listing:
    """A text to be shown as it is, folded away in HTML."""

    title: str
    text: str

    @property
    def fence(self) -> str:
        """What encloses the text in Markdown: more backticks than occur in it."""
        return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", self.text)), default=0))


Block = Paragraph | Table | Tiles | Drawing | Gallery | Listing
Section = tuple[str, Sequence[Block]]
"""A heading, or "" for none, and what is below it."""


def write_page(out: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write OUT.md and OUT.html, one self-contained page without script; return the latter."""
    for name in (MARKDOWN, HTML):
        text = _environment().get_template(name).render(title=title, sections=sections)
        path = out.with_suffix(Path(name).suffix)
        write_text(path, text)
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name != MARKDOWN,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    return environment


@pass_context
def _printable(context: Context, text: str) -> str:
    """What a template writes of a text; the HTML template's autoescape follows."""
    if isinstance(text, Markup):
        return Markup(clean(text))
    return escape_markdown(text) if context.name == MARKDOWN else clean(text)


def clean(text: str) -> str:
    """Text that can be written as UTF-8 whatever bytes a file name has."""
    return text.encode("utf-8", "backslashreplace").decode()


def escape_markdown(text: str) -> str:
    """One line of plain text in Markdown, which otherwise would read HTML, emphasis, links and table columns in it."""
    return re.sub(r"([\\`*\[\]|#~]|\b_|_\b)", r"\\\1", escape(clean(" ".join(text.split())), quote=False))
