"""The commands below `facerwkv data` and `facerwkv models`: parse and call, nothing else."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

data_app, models_app = (typer.Typer(no_args_is_help=True, rich_markup_mode=None) for _ in range(2))
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


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

    listed = name in MODELS or not (name.startswith(HUB) or Path(name).expanduser().exists())
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
