"""Images → results on a Ray cluster, or on all cores of this machine: in order, restartable, each file once."""

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

import torch

from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Engine, load
from facerwkv.inference.results import Result
from facerwkv.media.frames import is_video


def predict_on_ray(
    sources: Iterable[str],
    model: str | Path | None = None,
    device: str = "auto",
    detector_model: str | Path | None = None,
    engine: Engine | None = None,
    journal: str | Path | None = None,
    **options: Any,
) -> Iterator[Result]:
    """Results in the order of the sources, a name that comes twice only once.

    `model`, `device`, `detector_model` and `engine` are those of `load`, which every worker calls; the options are
    those of `predict_iter`. Paths must mean the same on every host. `journal` is a file that keeps what is done, so
    that the same call goes on after a kill; remove it when the results are safe elsewhere. Ray is started unless
    RAY_ADDRESS names a cluster. InputError for videos, without Ray, and for a journal of another model or of other
    options.
    """
    named = list(dict.fromkeys(sources))
    if videos := [name for name in named if is_video(name)]:
        raise InputError(f"Ray's workers take images, and {videos[0]} is a video: predict it without the runner ray.")
    loaded = (model, device, detector_model, engine)
    load(*loaded)  # what is wrong with it is said here, and not by every worker
    ray = _started()
    return _results(ray, named, journal or ":memory:", loaded, options)


def _results(
    ray: Any, names: Sequence[str], journal: str | Path, loaded: tuple, options: dict[str, Any]
) -> Iterator[Result]:
    with closing(Journal(journal, {"model": str(loaded[0]), "options": options})) as done:
        fresh = _classified(ray, [name for name in names if name not in done], loaded, options)
        for name in names:
            if name not in done:
                done[name] = next(fresh)
            yield Result.from_dict(done[name])


def _classified(ray: Any, names: Sequence[str], loaded: tuple, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The plain values of each image's result, in order."""
    if not names:
        return
    unit = "GPU" if choose_device(loaded[1]).type == "cuda" else "CPU"
    count = max(1, int(ray.cluster_resources().get(unit, 1)))
    batch_size = min(options.get("batch_size", 32), math.ceil(len(names) / count))
    blocks = math.ceil(len(names) / batch_size)
    found = ray.data.from_items(
        [{"name": os.fsencode(name)} for name in names], override_num_blocks=blocks
    ).map_batches(
        Worker,
        fn_constructor_args=(loaded, options, os.getcwd()),
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count),
        **{f"num_{unit.lower()}s": 1},
    )
    yield from (json.loads(row["result"]) for row in found.iter_rows())


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

    def __init__(self, loaded: tuple, options: dict[str, Any], folder: str):
        os.chdir(folder)
        torch.set_num_threads(1)
        self.predictor, self.options = load(*loaded), options

    def __call__(self, batch: Mapping[str, Sequence[bytes]]) -> dict[str, list[str]]:
        names = [os.fsdecode(name) for name in batch["name"]]
        results = self.predictor.predict_iter(names, **self.options)
        return {"result": [json.dumps({**result.to_dict(), "size": result.size}) for result in results]}


class Journal:
    """What is done of a prediction, by name: a SQLite file, so that a kill at any moment leaves it whole.

    InputError for a file that is no journal, or one of other settings.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]):
        asked = json.dumps(settings, sort_keys=True)
        try:
            self.database = sqlite3.connect(path, isolation_level=None)
            self.database.execute("PRAGMA synchronous=OFF")  # a kill loses nothing, a power cut may
            self.database.execute("CREATE TABLE IF NOT EXISTS done (name BLOB PRIMARY KEY, result TEXT)")
            self.database.execute("CREATE TABLE IF NOT EXISTS asked (number INTEGER PRIMARY KEY, settings TEXT)")
            self.database.execute("INSERT OR IGNORE INTO asked VALUES (1, ?)", [asked])
            (first,) = self.database.execute("SELECT settings FROM asked").fetchone()
        except sqlite3.Error as error:
            raise InputError(
                f"Cannot keep a journal in {path}: {error}. Remove it, or choose another --out."
            ) from error
        if first != asked:
            raise InputError(
                f"{path} keeps results of another model or of other options. Remove it, or choose another --out."
            )

    def __contains__(self, name: str) -> bool:
        return self._row(name) is not None

    def __getitem__(self, name: str) -> dict[str, Any]:
        row = self._row(name)
        if row is None:
            raise KeyError(name)
        return json.loads(row[0])

    def __setitem__(self, name: str, result: dict[str, Any]) -> None:
        self.database.execute("INSERT INTO done VALUES (?, ?)", [os.fsencode(name), json.dumps(result)])

    def _row(self, name: str) -> tuple | None:
        return self.database.execute("SELECT result FROM done WHERE name = ?", [os.fsencode(name)]).fetchone()

    def close(self) -> None:
        self.database.close()
