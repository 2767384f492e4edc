"""Checkpoint → a folder that runs in the browser, from any static server: its visitors' images never leave them.

FOLDER/model.onnx           the model, as `facerwkv export --format onnx` writes it
FOLDER/meta.json            what the page must know about it, the detector and the runtime
FOLDER/yunet.onnx           the face detector, for a model that looks at faces
FOLDER/ort*                 onnxruntime-web, which runs the models
FOLDER/index.html, ...      the page: this package's folder `page`, and `shared`, which the service's page uses too
"""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic_folder
from facerwkv.core.metrics import score_titles
from facerwkv.export import Exported, export_onnx, open_checkpoint
from facerwkv.media.draw import COLOURS
from facerwkv.media.faces import COARSE_SIDE, ONE_SEARCH, OVERLAP, SMALLEST_SIDE, FaceDetector
from facerwkv.media.images import MAX_PIXELS
from facerwkv.media.upright import MARGIN, SURE, TILTED
from facerwkv.models.card import INTENDED
from facerwkv.models.folder import Checkpoint, without_paths
from facerwkv.models.onnx import Description

PAGE, SHARED = (Path(__file__).with_name(name) for name in ("page", "shared"))
MODEL, META, DETECTOR = "model.onnx", "meta.json", "yunet.onnx"
RUNTIME = "onnxruntime-web"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
GET_RUNTIME = f"Type `npm install {RUNTIME}`, then give it: --runtime node_modules/{RUNTIME}"


@dataclass(frozen=True)
class ExportedPage(Exported):
    """A folder that was written: `file` is the folder, `bytes` its size, `runtime` the version of onnxruntime-web.

    The other fields describe the model in it.
    """

    runtime: str

    def __str__(self) -> str:
        return f"{super().__str__()}\nOpen it: python -m http.server --bind 127.0.0.1 --directory {self.file}"


def export_web(source: Checkpoint | str | Path, out: str | Path, runtime: str | Path | None) -> ExportedPage:
    """Write a checkpoint, or what `load_checkpoint` finds under a name, as a page that classifies in the browser.

    The folder is written whole or not at all, and replaces an earlier export. `runtime` is the npm package
    onnxruntime-web, unpacked. InputError for all that `export_onnx` refuses, for a folder with other files in it, and
    where the runtime is missing.
    """
    target = Path(os.path.expanduser(out)).resolve()
    version, runtime_files = _runtime(runtime)
    _check_free(target)
    checkpoint = open_checkpoint(source)
    if checkpoint.transform.interpolation != "bilinear":
        raise InputError(
            f"The page resizes images antialiased, and {checkpoint.title} was trained on images that are not "
            "(transform.interpolation). Train it bilinear, or serve it: facerwkv serve."
        )
    detector = FaceDetector() if checkpoint.transform.sees_faces else None
    with atomic_folder(target) as folder:
        exported = export_onnx(checkpoint, folder / MODEL)
        if detector:
            shutil.copyfile(detector.model, folder / DETECTOR)
        for file in [*PAGE.iterdir(), *SHARED.iterdir(), *runtime_files]:
            shutil.copyfile(file, folder / file.name)
        meta = page_meta(checkpoint, detector) | {"runtime": f"{RUNTIME} {version}"}
        meta["files"] = sorted([META, *(file.name for file in folder.iterdir())])
        (folder / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        size = sum(file.stat().st_size for file in folder.iterdir())
    return ExportedPage(**asdict(exported) | {"file": str(out), "bytes": size, "runtime": version})


def page_meta(checkpoint: Checkpoint, detector: FaceDetector | None) -> dict[str, Any]:
    """What the page must know: the model's description, what its card shows, and the detector's settings."""
    settings = detector and {
        "score_threshold": detector.threshold,
        "overlap": OVERLAP,
        "max_side": detector.max_side,
        "smallest_side": SMALLEST_SIDE,
        "coarse_side": COARSE_SIDE,
        "one_search": ONE_SEARCH,
        "upright": {"sure": SURE, "margin": MARGIN, "tilted": TILTED},
    }
    return Description.of(checkpoint, without_paths(checkpoint.card)).model_dump(mode="json") | {
        "name": checkpoint.title,
        "intended_use": " ".join(INTENDED.replace("*", "").split()),
        "scores": score_titles(),
        "colours": COLOURS,
        "most_pixels": MAX_PIXELS,
        "detector": settings,
    }


def _runtime(runtime: str | Path | None) -> tuple[str, list[Path]]:
    """Version and files of the npm package in a folder."""
    if runtime is None:
        raise InputError(f"A page for the browser needs {RUNTIME}, which runs the model in it. {GET_RUNTIME}")
    folder = Path(runtime)
    for name in ("package.json", *(f"dist/{name}" for name in RUNTIME_FILES)):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is not {RUNTIME}, or not a known version: it has no {name}. {GET_RUNTIME}")
    try:
        package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        return str(package["version"]), [folder / "dist" / name for name in RUNTIME_FILES]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder / 'package.json'} does not say a version ({error}). {GET_RUNTIME}") from error


def _check_free(target: Path) -> None:
    """InputError unless there is nothing at the target, an empty folder, or an earlier export and nothing else."""
    exported: set[str] = set()
    try:
        names = {path.name for path in target.iterdir()}
        with suppress(OSError, ValueError, LookupError, TypeError):
            exported = set(json.loads((target / META).read_text(encoding="utf-8"))["files"])
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{target} is no folder that can be read ({error.strerror}); choose another.") from error
    if strange := sorted(names - exported):
        raise InputError(f"{target} holds {strange[0]}, which no export wrote; choose a new or an empty folder.")
