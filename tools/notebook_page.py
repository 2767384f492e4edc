"""docs/first-steps.ipynb → a page of the site, as a hook of MkDocs; run as a program, it executes the notebook anew."""

import tempfile
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "first-steps.ipynb"
PAGE = f"{NOTEBOOK.stem}.md"
KEPT = ("image/jpeg", "text/plain")
"""What is stored of an output, the first that there is: the notebook stays small."""


def execute(folder: Path) -> nbformat.NotebookNode:
    """Run the notebook in `folder`, and keep what it prints and the values of its cells. Raises what a cell raises."""
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        cell.get("outputs", [])[:] = [
            output
            for output in cell.get("outputs", ())
            if output.get("name") == "stdout" or "execution_count" in output
        ]
        for output in cell.get("outputs", ()):
            if "data" in output:
                kind = next(kind for kind in KEPT if kind in output.data)
                output.data = {kind: output.data[kind]}
    return notebook


def on_files(files: Files, config: Any) -> Files:
    """Add the page beside the notebook, which stays there to be downloaded."""
    files.append(File.generated(config, PAGE, content=as_markdown(nbformat.read(NOTEBOOK, as_version=4))))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to the notebook lead to its page, except on that page, which offers the download."""
    return markdown if page.file.src_uri == PAGE else markdown.replace(f"({NOTEBOOK.name})", f"({PAGE})")


def as_markdown(notebook: nbformat.NotebookNode) -> str:
    """The cells in their order; of stored outputs the text and the images, which are embedded."""
    blocks = []
    for cell in notebook.cells:
        blocks.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if image := data.get("image/jpeg"):
                blocks.append(f"![output](data:image/jpeg;base64,{image.replace(chr(10), '')})")
            else:
                blocks.append(f"```text\n{(output.get('text') or data['text/plain']).rstrip()}\n```")
    return "\n\n".join(blocks)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(execute(Path(folder)), NOTEBOOK)
