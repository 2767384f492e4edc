"""The answers of an experiment's many runs, kept for docs/results.md: docs/claims/NAME.npz, and .json on the runs.

The npz has the images' names and targets (N,), and the logits (rows, seeds, N, C) in float16.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, read_json, write_text
from facerwkv.evaluation.result import LOGITS, Evaluation
from facerwkv.experiments.claim_mixing import CLAIM, MIXERS, table
from facerwkv.training.run import ENVIRONMENT, read_run

CLAIMS = Path(__file__).resolve().parents[1] / "docs" / "claims"


def is_claim(folder: Path) -> bool:
    """Whether it is OUT/claim_mixing/SIZE."""
    return folder.resolve().parent.name == "claim_mixing"


def keep_claim(folder: Path, name: str) -> None:
    """Keep the answers of the mixers all of whose seeds are scored."""
    runs = {title: sorted((folder / mixer["mixer"]).glob("seed*")) for title, mixer in MIXERS.items()}
    most = max(map(len, runs.values()))
    whole = {
        title: seeds
        for title, seeds in runs.items()
        if len(seeds) == most and all((seed / "test" / LOGITS).is_file() for seed in seeds)
    }
    if not whole:
        raise InputError(f"{folder} has no mixer all of whose {most} seeds are scored; rerun the experiment.")
    scored = [[Evaluation.load(seed / "test") for seed in seeds] for seeds in whole.values()]
    first, recipe = scored[0][0], read_run(next(iter(whole.values()))[0])
    if any(each.names != first.names for row in scored for each in row):
        raise InputError(f"The runs in {folder} were scored on different images; rerun the experiment.")
    places = {where(read_json(seed / ENVIRONMENT)) for seeds in whole.values() for seed in seeds}
    facts = {
        "rows": list(whole),
        "seeds": most,
        "labels": list(first.labels),
        "data": first.source.partition(":")[0],
        "model": recipe.model.name,
        "images": recipe.data.limit,
        "epochs": recipe.train.epochs,
        "where": sorted(places),
    }
    with atomic(CLAIMS / f"{name}.npz") as partial, partial.open("wb") as file:
        logits = np.array([[each.logits for each in row] for row in scored]).astype(np.float16)
        np.savez_compressed(file, names=np.array(first.names), targets=first.targets, logits=logits)
    write_text(CLAIMS / f"{name}.json", json.dumps(facts, indent=1) + "\n")


def where(environment: dict[str, Any]) -> str:
    """The commit, hardware and version with which a run was made."""
    hardware, threads = environment["gpu"] or environment["processor"], environment["threads"]
    commit = f"commit {environment['commit'] or 'not recorded'}"
    return f"{commit}, {hardware}, {threads} threads, torch {environment['packages']['torch']}"


def claims_kept() -> Iterator[str]:
    """A section for every kept claim, computed from its answers."""
    for path in sorted(CLAIMS.glob("*.json")):
        facts = read_json(path)
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as kept:
            right = kept["logits"].argmax(-1) == kept["targets"]
        rows = table(dict(zip(facts["rows"], right, strict=True)))
        yield f"## {path.stem}\n\n{CLAIM}\n"
        yield (
            f"{facts['model']} on {facts['images'] or 'all'} training images of {facts['data']}, {facts['epochs']} "
            f"epochs, {facts['seeds']} seeds, scored on {right.shape[-1]:,} test images; {'; '.join(facts['where'])}.\n"
        )
        yield f"| {' | '.join(rows.headers)} |\n|---|{'---:|' * (len(rows.headers) - 1)}"
        yield from (f"| {' | '.join(row)} |" for row in rows.rows)
        if missing := [name for name in MIXERS if name not in facts["rows"]]:
            yield f"\nNot run yet, or not with all seeds: {'; '.join(missing)}."
        yield ""
