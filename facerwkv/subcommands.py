"""The commands below `facerwkv data` and `facerwkv models`, `facerwkv reproduce`, and what several share: parse and
call, nothing else."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from facerwkv.experiments import EXPERIMENTS

AGAIN = "Rerun the same command to resume."
LONG = 600.0  # seconds of a plan about which a person at a terminal is asked
data_app, models_app, cache_app = (typer.Typer(no_args_is_help=True, rich_markup_mode=None) for _ in range(3))
data_app.add_typer(cache_app, name="cache", help="List and remove the decoded images that are kept.")
FolderOption = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Default: FACERWKV_HOME, ~/.cache/facerwkv.")]
DataOption = Annotated[str | None, typer.Option("--data", metavar="NAME:ROOT", help="caer_s:/d/CAER-S, toy, ...")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ModelOption = Annotated[  # a text: a Path would make facerwkv_fer of ./facerwkv_fer
    str, typer.Option("--model", metavar="NAME|FOLDER", help="A shipped model, or a run's or checkpoint's folder.")
]
PredictorOption = Annotated[
    str | None, typer.Option("--model", metavar="NAME|FOLDER", help="As for evaluate; facerwkv_fer if left out.")
]
EngineOption = Annotated[
    Literal["torch", "torch-bfloat16", "onnx", "openvino"] | None,
    typer.Option(help="What runs the model; onnx and openvino take --model FILE.onnx, see export."),
]
DetectorOption = Annotated[Path | None, typer.Option(metavar="FILE", help="YuNet's ONNX file.")]


@contextmanager
def stoppable(advice: str, run: Path | None = None) -> Iterator[None]:
    """Ctrl-C becomes a sentence with the next step, and exit code 1. run: a folder in which training may have begun."""
    try:
        yield
    except KeyboardInterrupt:
        if run:
            from facerwkv.training.run import has_begun

            place = shlex.quote(str(run))
            advice = f"Resume it: facerwkv train --resume {place}\nScore what it has: facerwkv evaluate --model {place}"
            advice = advice if has_begun(run) else "Nothing is trained yet: rerun the same command to start anew."
        print(f"\nStopped. {advice}", file=sys.stderr)
        raise typer.Exit(1) from None


def show(result: Any, as_json: bool) -> None:
    print(json.dumps(result.to_dict())) if as_json else result.print()


@data_app.command("list")
def list_data(as_json: JsonOption = False) -> None:
    """List the data sets that can be read, with layout and terms of use."""
    from facerwkv.data.check import describe_all, print_all

    print(json.dumps(describe_all())) if as_json else print_all()


@data_app.command("check")
def check_data(
    source: Annotated[str, typer.Argument(metavar="NAME:ROOT")],
    leaks: Annotated[bool, typer.Option("--leaks", help="Also look for copies and near copies across splits.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the numbers of files and classes with the published ones; list unreadable images."""
    from facerwkv.data.check import check

    report = check(source, leaks=leaks)
    show(report, as_json)
    raise typer.Exit(0 if report.ok else 1)


@cache_app.command("list")
def list_cache(folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """List the decoded images that are kept, with their size and age."""
    from facerwkv.core.files import cache_folder
    from facerwkv.data.cache import list_caches

    caches = list_caches(folder or cache_folder())
    if as_json:
        print(json.dumps([asdict(each) for each in caches]))
        return
    for each in caches:
        print(f"{each.key[:12]}  {each.bytes / 1e6:>9,.1f} MB  {each.days:>6.1f} days  {each.about}")
    print(f"{sum(each.bytes for each in caches) / 1e6:,.1f} MB in {folder or cache_folder()}")


@cache_app.command("remove")
def remove_cache(
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="As listed.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    folder: FolderOption = None,
) -> None:
    """Remove kept images; they are decoded again when they are wanted."""
    from facerwkv.core.files import cache_folder
    from facerwkv.data.cache import remove_caches

    gone = remove_caches(folder or cache_folder(), keys or [], everything)
    print(f"Removed {len(gone)}: {sum(each.bytes for each in gone) / 1e6:,.1f} MB")


@models_app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List every model with parameters, multiply-accumulates, input size and licence."""
    from facerwkv.models.describe import describe_all, print_all

    print(json.dumps(describe_all())) if as_json else print_all()


@models_app.command("info")
def info(name: Annotated[str, typer.Argument(metavar="NAME|RUN")], as_json: JsonOption = False) -> None:
    """Describe a model, what was published and what is wrong with it, or a checkpoint: data, licence, scores."""
    from facerwkv.models import describe
    from facerwkv.models.zoo import HUB, MODELS

    listed = name in MODELS or not (name.startswith(HUB) or Path(os.path.expanduser(name)).exists())
    facts = describe.describe if listed else describe.describe_checkpoint
    write = describe.print_one if listed else describe.print_checkpoint
    print(json.dumps(facts(name))) if as_json else write(name)


@models_app.command("pack")
def pack(
    model: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run or a checkpoint.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER")],
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16: half the size.")] = False,
    name: Annotated[str | None, typer.Option(help="The name on its card. Default: the folder's.")] = None,
) -> None:
    """Pack a trained model for others: weights, configuration and a card with data, scores and intended use."""
    from facerwkv.evaluation.evaluate import pack

    packed = pack(model, out, half, name)
    print(f"Wrote {out}: {packed.name}, licence {packed.card['licence']}")


def reproduce(
    name: Annotated[str, typer.Argument(help=f"all, or one of: {', '.join(EXPERIMENTS)}.")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    data: DataOption = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs and the page.")] = Path("runs"),
    seeds: Annotated[list[str] | None, typer.Option(metavar="0 1 2", help="Default: 0 1 2.")] = None,
    as_coded: Annotated[bool, typer.Option("--as-coded", help="As the authors' code ran, not the paper.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="A small trial on drawn faces, to see that it runs.")] = False,
    show_plan: Annotated[bool, typer.Option("--plan", help="Say what it costs, and train nothing.")] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="ROW", help="Rows by name, * for any; repeat it.")] = None,
    budget: Annotated[float | None, typer.Option(metavar="HOURS", min=0, help="Run what fits, seed by seed.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before work of hours.")] = False,
) -> None:
    """Run an experiment of the paper and write a page with the paper's numbers beside ours."""
    from dataclasses import replace

    from facerwkv.experiments.plan import Pace, plan
    from facerwkv.experiments.reproduce import reproduce
    from facerwkv.experiments.study import Setting
    from facerwkv.training.recipe import seed_numbers

    numbers, changes = seed_numbers(seeds, changes or [])
    chosen = numbers or ([0] if smoke else [0, 1, 2])
    setting, allowed = Setting(data or "toy", out, chosen, as_coded, smoke, changes, only or ()), None
    with stoppable(AGAIN):
        if show_plan or not smoke:
            costs = plan(name, setting)
            if show_plan:
                costs.print()
            costs.require_disk()
            if show_plan:
                return
            for line in costs.lines() if costs.steps else ():
                print(line, file=sys.stderr)
            if costs.seconds > LONG and not yes and sys.stdin.isatty() and sys.stderr.isatty():
                typer.confirm("Begin?", abort=True, err=True)
            allowed = None if budget is None else costs.seeds_within(budget)
            setting = replace(setting, callbacks=[Pace(costs)])
        page, problems = reproduce(name, setting, allowed)
    for problem in problems:
        print(f"facerwkv: {problem}", file=sys.stderr)
    print(f"The page: {page}")
    raise typer.Exit(1 if problems else 0)
