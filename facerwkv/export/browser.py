"""Checkpoint → a folder that runs in the browser, from any static server: its visitors' images never leave them.

FOLDER/model.onnx           the model, as `facerwkv export --format onnx` writes it
FOLDER/meta.json            what the page must know of it, the detector and the runtime
FOLDER/yunet.onnx           the face detector, for a model that looks at faces
FOLDER/ort*                 onnxruntime-web, which computes
FOLDER/index.html, ...      the page, from this package's folder `page`
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from facerwkv.core.errors import InputError
from facerwkv.core.files import whole_folder
from facerwkv.core.metrics import score_titles
from facerwkv.export import Exported, export_onnx
from facerwkv.media.draw import COLOURS
from facerwkv.media.faces import COARSE_SIDE, NARROWEST, OVERLAP, SMALLEST_SIDE, FaceDetector
from facerwkv.media.images import MAX_PIXELS
from facerwkv.models.card import INTENDED
from facerwkv.models.checkpoint import Checkpoint, load_checkpoint, without_paths
from facerwkv.models.onnx import Description

PAGE, SHARED = (Path(__file__).with_name(name) for name in ("page", "shared"))  # the service's page has `shared` too
MODEL, META, DETECTOR = "model.onnx", "meta.json", "yunet.onnx"
RUNTIME = "onnxruntime-web"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
GET_RUNTIME = f"Type `npm install {RUNTIME}`, then give it: --runtime node_modules/{RUNTIME}"


@dataclass(frozen=True)
class ExportedPage(Exported):
    """A folder that was written: `file` is the folder, `bytes` the size of all of it, `runtime` onnxruntime's version.

    The rest is said of the model in it.
    """

    runtime: str

    def __str__(self) -> str:
        return f"{super().__str__()}\nOpen it: python -m http.server --bind 127.0.0.1 --directory {self.file}"


def export_web(source: Checkpoint | str | Path, out: str | Path, runtime: str | Path | None) -> ExportedPage:
    """Write a checkpoint, or what `load_checkpoint` finds under a name, as a page that classifies in the browser.

    The folder is written whole or not at all, and takes the place of an earlier export. `runtime` is the npm package
    onnxruntime-web, unpacked. InputError for all that `export_onnx` refuses, for a folder that holds something else,
    and where the runtime is missing.
    """
    target = Path(out).expanduser().resolve()
    version, computing = _runtime(runtime)
    _check_free(target)
    checkpoint = source if isinstance(source, Checkpoint) else load_checkpoint(source)
    detector = FaceDetector() if checkpoint.transform.sees_faces else None
    with whole_folder(target) as folder:
        exported = export_onnx(checkpoint, folder / MODEL)
        if detector:
            _write_detector(folder / DETECTOR, detector.model)
        for file in [*PAGE.iterdir(), *SHARED.iterdir(), *computing]:
            shutil.copyfile(file, folder / file.name)
        _write_meta(folder / META, checkpoint, detector, version)
        size = sum(file.stat().st_size for file in folder.iterdir())
    return ExportedPage(**asdict(exported) | {"file": str(out), "bytes": size, "runtime": version})


def _runtime(runtime: str | Path | None) -> tuple[str, list[Path]]:
    """Version and files of the npm package in a folder."""
    if runtime is None:
        raise InputError(f"A page for the browser needs {RUNTIME}, which computes in it. {GET_RUNTIME}")
    folder = Path(runtime)
    for name in ("package.json", *(f"dist/{name}" for name in RUNTIME_FILES)):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} is not {RUNTIME}, or not of a version that is known: it has no {name}. {GET_RUNTIME}"
            )
    try:
        package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        return str(package["version"]), [folder / "dist" / name for name in RUNTIME_FILES]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder / 'package.json'} does not say a version ({error}). {GET_RUNTIME}") from error


def _check_free(target: Path) -> None:
    """InputError unless there is nothing at the target, an empty folder, or an earlier export and nothing else."""
    try:
        names = {path.name for path in target.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{target} is no folder that can be read ({error.strerror}); choose another.") from error
    if strange := sorted(names - _files(target / META)):
        raise InputError(f"{target} holds {strange[0]}, which no export wrote; choose a new or an empty folder.")


def _files(meta: Path) -> set[str]:
    """The files of an earlier export, by its own list."""
    try:
        return set(json.loads(meta.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _write_meta(path: Path, checkpoint: Checkpoint, detector: FaceDetector | None, version: str) -> None:
    described = Description.of(checkpoint, without_paths(checkpoint.card)).model_dump(mode="json")
    added = {
        "notice": " ".join(INTENDED.replace("*", "").split()),
        "colours": COLOURS,
        "scores": score_titles(),
        "most_pixels": MAX_PIXELS,
        "runtime": f"{RUNTIME} {version}",
        "detector": detector and _settings(detector),
        "files": sorted([META, *(file.name for file in path.parent.iterdir())]),
    }
    path.write_text(json.dumps(described | added, indent=2) + "\n", encoding="utf-8")


def _settings(detector: FaceDetector) -> dict[str, float]:
    """What `FaceDetector` searches with, for its counterpart in page/faces.js."""
    return {
        "score_threshold": detector.score_threshold,
        "overlap": OVERLAP,
        "max_side": detector.max_side,
        "smallest_side": SMALLEST_SIDE,
        "coarse_side": COARSE_SIDE,
        "narrowest": NARROWEST,
    }


def _write_detector(path: Path, model: Path) -> None:
    """YuNet for images of any size: its file says 640 x 640, which OpenCV ignores and onnxruntime would not."""
    import onnx

    detector = onnx.load(model)
    _, _, height, width = detector.graph.input[0].type.tensor_type.shape.dim
    height.dim_param, width.dim_param = "height", "width"
    for output in detector.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"places_{output.name}"
    onnx.save(detector, path)
