"""Images → results on a Ray cluster, or on all cores of this machine: in order, resumable, each file once."""

import hashlib
import importlib
import json
import logging
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from facerwkv.core.devices import set_threads
from facerwkv.core.errors import InputError
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Engine, Predictor, load
from facerwkv.inference.results import Result, raising
from facerwkv.media.faces import PACKAGED
from facerwkv.media.sources import is_video
from facerwkv.models.folder import EXPORTED, GRAPH, WEIGHTS


def predict_on_ray(
    sources: Iterable[str],
    model: str | Path | None = None,
    device: str = "auto",
    detector_model: str | Path | None = None,
    engine: Engine | None = None,
    journal: str | Path | None = None,
    options: Options | None = None,
    **changes: Any,
) -> Iterator[Result]:
    """Results in the order of the sources, a name that comes twice only once.

    `model`, `device`, `detector_model` and `engine` are those of `load`, which every worker calls; `options`, or single
    ones as keywords, those of `predict_iter`. Paths must mean the same on every host. `journal` is a file that keeps
    what is done, so that after a kill the same call resumes; remove it when the results are safe elsewhere. Ray is
    started unless RAY_ADDRESS names a cluster. InputError for videos, without Ray, and for a journal of another model,
    detector, engine or options.
    """
    names, options = list(dict.fromkeys(sources)), Options.of(options, changes, "image")
    if videos := [name for name in names if is_video(name)]:
        raise InputError(f"Ray's workers take images, and {videos[0]} is a video: predict it without the runner ray.")
    loaded = (model, device, detector_model, engine)
    predictor = load(*loaded)  # it also checks what was given
    identity = identity_of(predictor, model, detector_model, engine, options)
    unit = "GPU" if predictor.model.runs_on.startswith("cuda") else "CPU"
    ray, lenient = _started(), options.model_copy(update={"errors": None})

    def results() -> Iterator[Result]:
        with closing(Journal(journal or ":memory:", identity)) as done:
            fresh = _classified(ray, [name for name in names if done.get(name) is None], loaded, unit, lenient)
            for name in names:
                values = done.get(name)
                if values is None:
                    done[name] = values = next(fresh)
                yield Result.from_dict(values, options.threshold)

    return raising(results()) if options.errors == "raise" else results()


def identity_of(
    predictor: Predictor,
    model: str | Path | None,
    detector_model: str | Path | None,
    engine: Engine | None,
    options: Options,
) -> dict[str, Any]:
    """All that changes an answer, as plain values; of weights and files the start of their SHA-256."""
    checkpoint, content = predictor.checkpoint, hashlib.sha256()
    exported, folder = str(model).lower().endswith(EXPORTED), getattr(predictor.model, "folder", None)
    meaning = [checkpoint.name, checkpoint.labels, checkpoint.temperature, checkpoint.transform.model_dump_json()]
    if exported or folder:
        for file in [folder / name for name in (WEIGHTS, GRAPH)] if folder else [Path(os.path.expanduser(str(model)))]:
            content.update(file.read_bytes())
    else:
        from facerwkv.models.checkpoint import weights_hash

        meaning.append(weights_hash(checkpoint.model.state_dict()))
    content.update(json.dumps(meaning).encode())
    detector = Path(detector_model) if detector_model else PACKAGED
    return {
        "model": content.hexdigest()[:16],
        "detector": hashlib.sha256(detector.read_bytes()).hexdigest()[:16],
        "engine": engine or ("onnx" if exported or folder else "torch"),
        **options.model_dump(mode="json", exclude={"errors"}),
    }


def _classified(
    ray: Any, names: Sequence[str], loaded: tuple[Any, ...], unit: str, options: Options
) -> Iterator[dict[str, Any]]:
    """The plain values of each image's result, in order."""
    if not names:
        return
    count = max(1, int(ray.cluster_resources().get(unit, 1)))
    batch_size = min(options.batch_size, math.ceil(len(names) / count))
    blocks = math.ceil(len(names) / batch_size)
    results = ray.data.from_items(
        [{"name": os.fsencode(name)} for name in names], override_num_blocks=blocks
    ).map_batches(
        Worker,
        fn_constructor_args=(loaded, options, os.getcwd()),
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count),
        **{f"num_{unit.lower()}s": 1},
    )
    yield from (json.loads(row["result"]) for row in results.iter_rows())


def _started() -> Any:
    """Ray, running and quiet."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine unasked
    try:
        ray: Any = importlib.import_module("ray")
        data: Any = importlib.import_module("ray.data")
    except ImportError as error:
        raise InputError('The runner ray needs Ray: pip install "facerwkv[ray]"') from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    return ray


class Worker:
    """The predictor of one process. Names are those that the driver's working folder gives a meaning."""

    def __init__(self, loaded: tuple[Any, ...], options: Options, folder: str):
        os.chdir(folder)
        set_threads(1)
        self.predictor, self.options = load(*loaded), options

    def __call__(self, batch: Mapping[str, Sequence[bytes]]) -> dict[str, list[str]]:
        results = self.predictor.predict_iter([os.fsdecode(name) for name in batch["name"]], self.options)
        return {"result": [result.to_json() for result in results]}


class Journal:
    """What is done of a prediction, by name: a SQLite file, so that a kill at any moment leaves it whole.

    InputError for a file that is no journal, and for one of another identity: it names what differs.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]):
        try:
            self.database = sqlite3.connect(path, isolation_level=None)
            self.database.execute("PRAGMA synchronous=OFF")  # a kill loses nothing, a power cut may
            self.database.execute("CREATE TABLE IF NOT EXISTS done (name BLOB PRIMARY KEY, result TEXT)")
            self.database.execute("CREATE TABLE IF NOT EXISTS asked (number INTEGER PRIMARY KEY, settings TEXT)")
            self.database.execute("INSERT OR IGNORE INTO asked VALUES (1, ?)", [json.dumps(dict(identity))])
            kept = json.loads(self.database.execute("SELECT settings FROM asked").fetchone()[0])
        except sqlite3.Error as error:
            raise InputError(
                f"Cannot keep a journal in {path}: {error}. Remove it, or choose another --out."
            ) from error
        asked = json.loads(json.dumps(dict(identity)))
        if other := [name for name in {**kept, **asked} if kept.get(name) != asked.get(name)]:
            differences = ", ".join(f"{name} was {kept.get(name)} and is {asked.get(name)}" for name in other)
            raise InputError(
                f"{path} keeps results of other settings: {differences}. Remove it, or choose another --out."
            )

    def get(self, name: str) -> dict[str, Any] | None:
        """The plain values of a result; None where it is not there yet."""
        row = self.database.execute("SELECT result FROM done WHERE name = ?", [os.fsencode(name)]).fetchone()
        return json.loads(row[0]) if row else None

    def __setitem__(self, name: str, result: dict[str, Any]) -> None:
        self.database.execute("INSERT INTO done VALUES (?, ?)", [os.fsencode(name), json.dumps(result)])

    def close(self) -> None:
        self.database.close()
