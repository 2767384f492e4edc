"""docs/speed.json → docs/speed.md and docs/speed.png."""

from pathlib import Path

from facerwkv.bench.page import write_page

DOCS = Path(__file__).resolve().parents[1] / "docs"

if __name__ == "__main__":
    write_page(DOCS)
