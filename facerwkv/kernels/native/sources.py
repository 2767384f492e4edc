"""What the library was built from. setup.py runs this file alone, before the package is installed."""

import hashlib
from pathlib import Path


def digest(folder: Path) -> str:
    """A hash of the C sources and headers in a folder; "" where there are none, as in a wheel."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".c", ".h"))
    content = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files))
    return content.hexdigest()[:16] if files else ""
