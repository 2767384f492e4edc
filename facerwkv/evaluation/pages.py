"""The blocks of a page, each of which can say itself in Markdown and in HTML. Every text given to them is escaped."""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """\
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5a6474; --page: #fff; --card: #f3f5f8; --line: #d5dae2 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #a3adbb; --page: #14171c; --card: #1e232b; --line: #363e4a }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 56rem; margin: 0 auto; padding: 1.25rem 1rem 3rem }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem }
p { max-width: 44rem; color: var(--soft) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
thead th { color: var(--soft); font-weight: 600 }
tbody th { font-weight: 500 }
.numbers :is(th, td):not(:first-child) { text-align: right; white-space: nowrap }
.words td { overflow-wrap: anywhere }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1rem 0 }
.tiles div { background: var(--card); border-radius: .6rem; padding: .7rem .9rem }
dt, small { color: var(--soft); font-size: .85rem }
dd { margin: 0 }
dd b { display: block; font-size: 1.6rem; line-height: 1.25 }
figure { margin: 1rem 0 }
figure svg { display: block; width: 100%; height: auto }
figure svg text { font-family: inherit !important }
.gallery { list-style: none; margin: 0; padding: 0; display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)) }
.gallery img { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--card); border-radius: .4rem }
.gallery :is(span, small) { display: block; line-height: 1.35; overflow-wrap: anywhere }
.gallery span { font-size: .9rem }
details { margin: .5rem 0 }
summary { cursor: pointer }
pre { overflow-x: auto; background: var(--card); padding: .8rem; border-radius: .6rem;
  font-size: .8rem; line-height: 1.4 }
"""


@dataclass(frozen=True)
class Paragraph:
    text: str

    def markdown(self) -> str:
        return escape_markdown(self.text)

    def html(self) -> str:
        return f"<p>{escape(clean(self.text))}</p>"


@dataclass(frozen=True)
class Table:
    """Rows of texts; all columns but the first are numbers, set flush right, unless `numbers` is false."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True

    def markdown(self) -> str:
        rule = ["---", *(["---:" if self.numbers else "---"] * (len(self.headers) - 1))]
        lines = [self.headers, rule, *self.rows]
        cells = ([cell if line is rule else escape_markdown(cell) for cell in line] for line in lines)
        return "\n".join(f"| {' | '.join(line)} |" for line in cells)

    def html(self) -> str:
        head = "".join(f'<th scope="col">{escape(clean(text))}</th>' for text in self.headers)
        body = "".join(
            f'<tr><th scope="row">{escape(clean(first))}</th>'
            + "".join(f"<td>{escape(clean(text))}</td>" for text in rest)
            + "</tr>"
            for first, *rest in self.rows
        )
        kind = "numbers" if self.numbers else "words"
        return (
            f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )


@dataclass(frozen=True)
class Tiles:
    """The numbers to see first: (name, value, small print)."""

    items: Sequence[tuple[str, str, str]]

    def markdown(self) -> str:
        return Table(("score", "value", "95 % interval"), self.items).markdown()

    def html(self) -> str:
        tiles = (
            f"<div><dt>{escape(name)}</dt><dd><b>{escape(value)}</b><small>{escape(small)}</small></dd></div>"
            for name, value, small in self.items
        )
        return f'<dl class="tiles">{"".join(tiles)}</dl>'


@dataclass(frozen=True)
class Drawing:
    """A drawing: the file beside the Markdown page, and the <svg> element inside the HTML page."""

    file: str
    svg: str
    alt: str

    def markdown(self) -> str:
        return f"![{escape_markdown(self.alt)}]({self.file})"

    def html(self) -> str:
        label = f'<svg role="img" aria-label="{escape(clean(self.alt))}"'
        return f"<figure>{self.svg.replace('<svg', label, 1)}</figure>"


@dataclass(frozen=True)
class Gallery:
    """Small images (JPEG bytes, or None) with two lines each; in Markdown only the lines."""

    headers: tuple[str, str]
    items: Sequence[tuple[bytes | None, str, str]]

    def markdown(self) -> str:
        return Table(self.headers, [lines for _, *lines in self.items], numbers=False).markdown()

    def html(self) -> str:
        return f'<ul class="gallery">{"".join(self._item(*item) for item in self.items)}</ul>'

    @staticmethod
    def _item(image: bytes | None, name: str, line: str) -> str:
        source = base64.b64encode(image).decode() if image else ""
        tag = f'<img alt="" src="data:image/jpeg;base64,{source}">' if image else ""
        return f"<li>{tag}<span>{escape(clean(line))}</span><small>{escape(clean(name))}</small></li>"


@dataclass(frozen=True)
class Listing:
    """A text to be shown as it is, folded away in HTML."""

    title: str
    text: str

    def markdown(self) -> str:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", self.text)), default=0))
        return f"{fence}\n{clean(self.text).rstrip()}\n{fence}"

    def html(self) -> str:
        return (
            f"<details><summary>{escape(self.title)}</summary><pre>{escape(clean(self.text).rstrip())}</pre></details>"
        )


Block = Paragraph | Table | Tiles | Drawing | Gallery | Listing
Section = tuple[str, Sequence[Block]]


def to_markdown(title: str, sections: Iterable[Section]) -> str:
    parts = [f"# {escape_markdown(title)}"]
    for heading, blocks in sections:
        parts += [*([f"## {heading}"] if heading else []), *(block.markdown() for block in blocks)]
    return "\n\n".join(parts) + "\n"


def to_html(title: str, sections: Iterable[Section]) -> str:
    """One self-contained page: style and images inside, no script, nothing fetched."""
    body = "\n".join(_section(heading, blocks) for heading, blocks in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(clean(title))}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(clean(title))}</h1>
{body}
</main>
</body>
</html>
"""


def _section(heading: str, blocks: Sequence[Block]) -> str:
    title = f"<h2>{escape(heading)}</h2>" if heading else ""
    return f"<section>{title}{''.join(block.html() for block in blocks)}</section>"


def clean(text: str) -> str:
    """Text that can be written as UTF-8 whatever bytes a file name holds."""
    return text.encode("utf-8", "backslashreplace").decode()


def escape_markdown(text: str) -> str:
    """One line of plain text in Markdown, which otherwise would read HTML, emphasis, links and table columns in it."""
    return re.sub(r"([\\`*\[\]|#~]|\b_|_\b)", r"\\\1", escape(clean(" ".join(text.split())), quote=False))
