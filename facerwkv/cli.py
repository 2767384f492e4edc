"""The command line: parse and call, nothing else. Exit codes: 0 all well, 1 some inputs failed, 2 wrong use."""

import json
import logging
import os
import sys
import warnings
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from facerwkv.bench import EVERYTHING, GROUPS
from facerwkv.core.errors import InputError
from facerwkv.core.packages import lacking
from facerwkv.inference.command import PredictionCommand, print_schema
from facerwkv.subcommands import (
    AGAIN,
    DataOption,
    DetectorOption,
    EngineOption,
    JsonOption,
    ModelOption,
    PredictorOption,
    data_app,
    models_app,
    reproduce,
    show,
    stoppable,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich takes as long as all the rest of --help
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.add_typer(data_app, name="data", help="List the data sets; check that yours is complete.")
app.add_typer(models_app, name="models", help="List the models, describe one, pack one for others.")

BenchGroup = Enum("BenchGroup", {name: name for name in (*GROUPS, EVERYTHING)}, type=str)  # type: ignore[misc]
RECIPES = sorted(path.stem for path in (Path(__file__).parent / "training/recipes").glob("*.yaml"))
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


def main() -> None:
    """Run the command line; a person's mistake, or what the system refuses, becomes one sentence and exit code 2."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # on odd metadata; what fails is said
    for stream in (sys.stdout, sys.stderr):  # a redirected one on Windows has no arrow, and none has half a character
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (InputError, OSError, ImportError) as error:
        what = lacking(error)
        if isinstance(error, ImportError) and not what:
            raise
        print(f"facerwkv: {f'This command needs {what}' if what else error}", file=sys.stderr)
        sys.exit(2)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"facerwkv {version('facerwkv')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Recognise apparent facial expressions with RWKV vision models."""


@app.command()
def train(
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="train.epochs=5 ...")] = None,
    recipe: Annotated[str, typer.Option(metavar="NAME|FILE", help=f"A YAML file, or {', '.join(RECIPES)}.")] = "modern",
    data: DataOption = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="A name from `facerwkv models list`.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. Default: runs/RECIPE-MODEL.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Resume a run; train.epochs=N for more.")] = None,
    seeds: Annotated[list[str] | None, typer.Option(metavar="0 1 2", help="Train once for each seed.")] = None,
    folds: Annotated[str | None, typer.Option(metavar="N|all", help="Once for each fold; all: each group.")] = None,
    by: Annotated[str | None, typer.Option(metavar="group|...", help="With --folds: what must stay together.")] = None,
    find_lr: Annotated[bool, typer.Option("--find-lr", help="Only look for a learning rate.")] = False,
    init_from: Annotated[str | None, typer.Option(metavar="CHECKPOINT", help="Fine-tune this checkpoint.")] = None,
    labels: Annotated[str | None, typer.Option(metavar="A,B,...|auto|FILE", help="Your classes, in order.")] = None,
    rename: Annotated[str | None, typer.Option(metavar="1=A,2=B,...|FILE", help="Other names for classes.")] = None,
    drop_leaks: Annotated[bool, typer.Option("--drop-leaks", help="Leave out copies of val and test images.")] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
) -> None:
    """Train a model and score it on the validation images."""
    from facerwkv.training.recipe import Recipe, named_labels, named_pairs, seed_numbers

    values = _given({"data.source": data, "model.name": model, "init_from": init_from, "train.device": device})
    values |= _given({"data.labels": labels and named_labels(labels), "data.rename": rename and named_pairs(rename)})
    values |= _given({"data.drop_leaks": drop_leaks or None})
    numbers, changes = seed_numbers(seeds, changes or [])
    values |= _given({"data.folds": folds, "data.by": by})
    if resume and (values or numbers or find_lr):
        given = next((f"{key}={value}" for key, value in values.items()), "--find-lr" if find_lr else "--seeds")
        raise InputError(f"A resumed run keeps its recipe; {given!r} cannot change it. Start a new run instead.")
    plan: Any = None if resume else Recipe.read(recipe, changes, values)  # before torch is loaded

    from facerwkv.evaluation.evaluate import finish
    from facerwkv.training.module import train as run
    from facerwkv.training.run import leads, read_run

    plan = read_run(resume, changes) if resume else plan
    folder = resume or out or Path("runs") / f"{Path(recipe).stem}-{plan.model.name}"
    if find_lr:
        from facerwkv.training.tune import find_lr as find

        print(f"optim.lr={find(plan)[0]:.2g}")
    elif numbers or folds:
        from facerwkv.evaluation.several import train_several

        with stoppable(AGAIN):
            train_several(plan, folder, numbers).print()
        print(f"The table: {folder / 'several.md'}")
    else:
        with stoppable(AGAIN, folder):
            run(plan, folder, resume=resume is not None, changes=changes)
            if leads():
                print(f"The report: {finish(folder)}")


@app.command()
def evaluate(
    model: ModelOption,
    changes: Annotated[list[str] | None, typer.Argument(metavar="[data.KEY=VALUE]...")] = None,
    data: DataOption = None,
    split: Annotated[Literal["train", "val", "test", "all"] | None, typer.Option(help="Default: test.")] = None,
    without_copies: Annotated[bool, typer.Option(help="Also score the images that have no copy in training.")] = False,
    subgroups: Annotated[str | None, typer.Option(metavar="gender,race|all", help="Also each group of people.")] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Also score it with parts of its blocks off.")] = False,
    tta: Annotated[
        Literal["none", "flip", "ten"],
        typer.Option(help="Average over views of each image: flip, 2 x the cost; ten, 10 x."),
    ] = "none",
    out: Annotated[Path | None, typer.Option(help="Folder of the report. Default: MODEL/SPLIT[_DATA].")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score a checkpoint on a data set, with 95 % intervals, and write a report."""
    from facerwkv.evaluation.evaluate import evaluate_folder

    given = (model, data, split, out, device, without_copies, subgroups, changes or [], ablate, tta)
    show(evaluate_folder(*given), as_json)


@app.command()
def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME... [[PATTERN:]KEY=VALUE]...", help="Models, timm:NAME, or run folders.")
    ],
    data: DataOption = None,
    recipe: Annotated[str, typer.Option(help="One for all, or own: each model's own, where it has one.")] = "modern",
    out: Annotated[Path, typer.Option(help="Folder of the runs and the table.")] = Path("runs/compare"),
    split: Annotated[Literal["val", "test", "all"], typer.Option()] = "test",
    seeds: Annotated[list[str] | None, typer.Option(metavar="0 1 2", help="Train each once for each seed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train or load several models under one recipe, score and time them alike, in one table."""
    from facerwkv.evaluation import compare as module
    from facerwkv.training.recipe import seed_numbers

    values = _given({"data.source": data, "train.device": device})
    numbers, names = seed_numbers(seeds, names)
    changes = [name for name in names if module.is_change(name)]
    models = [name for name in names if name not in changes]
    with stoppable(AGAIN):
        result = module.compare(models, recipe, changes, out, split, values=values, seeds=numbers)
    show(result, as_json)
    print(f"The table: {out / 'comparison.md'}", file=sys.stderr)
    raise typer.Exit(0 if result.ok else 1)


@app.command(cls=PredictionCommand)
def predict(
    ctx: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Images, folders, patterns, videos, 0 (camera), rtsp://..., - (list)."
        ),
    ],
    model: PredictorOption = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A table or list: results{formats}.")] = None,
    save_media: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Draw the results there.")] = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    detector_model: DetectorOption = None,
    runner: Annotated[Literal["local", "ray"], typer.Option(help="ray: on all cores or a cluster; resumes.")] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per image or frame, as into a pipe.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and failures only.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", callback=print_schema, is_eager=True, help="Print the JSON's schema and exit.")
    ] = False,
) -> None:
    """Name the apparent expression in images and videos."""
    from facerwkv.inference.predictor import load
    from facerwkv.inference.ray_runner import predict_on_ray
    from facerwkv.inference.sinks import deliver, table_columns
    from facerwkv.inference.stream import predict_sources
    from facerwkv.media.sources import expand_sources, is_video

    if quiet:
        logging.getLogger("facerwkv").setLevel(logging.ERROR)
    predictor, options = load(model, device, detector_model, engine), ctx.obj
    named = list(expand_sources(sources, sys.stdin)) if out else expand_sources(sources, sys.stdin)
    columns = table_columns(any(map(is_video, named)), options.threshold, save_media is not None) if out else ()
    bar = sys.stderr.isatty() and not quiet and not (as_json and sys.stdout.isatty())
    journal = Path(f"{out}.journal") if out and runner == "ray" else None
    if runner == "ray":
        results = predict_on_ray(named, model, device, detector_model, engine, journal, options)
    else:
        results = predict_sources(predictor, named, options, bar)
    with stoppable(AGAIN if journal else "What came before is written."):
        piped, roots = not sys.stdout.isatty(), [source for source in sources if os.path.isdir(source)]
        failed = deliver(results, predictor, out, save_media, as_json or piped, columns, options, quiet, roots)
    if journal:
        journal.unlink(missing_ok=True)
    raise typer.Exit(1 if failed else 0)


@app.command(cls=PredictionCommand.of("mode", "on_no_face", "min_face", "max_pixels"))
def explain(
    ctx: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Images, folders, patterns, - (list).")],
    model: PredictorOption = None,
    method: Annotated[
        str | None,
        typer.Option(help="gradient, occlusion or tokens. Default: gradient; of an exported model occlusion."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Whose logit; each face's likeliest if left out.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The drawing: .png, .jpg, .webp.")] = Path("explained.png"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show which patches of each face speak for a label, and which against it."""
    from facerwkv.inference.explain import deliver, explain
    from facerwkv.inference.predictor import load
    from facerwkv.media.sources import expand_sources

    predictor = load(model, device)
    named = dict.fromkeys(expand_sources(sources, sys.stdin))
    found = {source: explain(predictor, source, method, label, ctx.obj) for source in named}
    deliver(found, out, as_json)
    raise typer.Exit(0 if all(found.values()) else 1)


@app.command()
def export(
    model: ModelOption,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx|FOLDER")],
    kind: Annotated[Literal["onnx", "web"], typer.Option("--format", help="web: a page for browsers.")] = "onnx",
    runtime: Annotated[Path | None, typer.Option(metavar="FOLDER", help="For web: npm's onnxruntime-web.")] = None,
    int8: Annotated[
        str | None,
        typer.Option(metavar="NAME:ROOT", help="8-bit products, calibrated on this data set's training images."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained model as an ONNX file, or as a page that runs in the browser, and check its answers."""
    from facerwkv.export import export_onnx
    from facerwkv.export.browser import export_web

    if int8 and kind == "web":
        raise InputError("int8 is for --format onnx; leave one of them out.")
    exported = export_web(model, out, runtime) if kind == "web" else export_onnx(model, out, int8)
    print(json.dumps(exported.to_dict()) if as_json else exported)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets other machines in, and needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8000,
    model: PredictorOption = None,
    token: Annotated[str | None, typer.Option(help="The secret of clients. Default: a new one, if needed.")] = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    detector_model: DetectorOption = None,
    limits: Annotated[
        list[str] | None, typer.Option("--limit", metavar="KEY=VALUE", help="upload_bytes=8000000, jobs=2, ...")
    ] = None,
    hosts: Annotated[list[str] | None, typer.Option("--allowed-host", help="A name that a proxy has.")] = None,
    root_path: Annotated[str, typer.Option(metavar="/PREFIX", help="Where a proxy has it: /faces.")] = "",
    access_log: Annotated[bool, typer.Option("--access-log", help="Print a line per request.")] = False,
) -> None:
    """Start an HTTP service with a web page: images, videos, the camera."""
    from facerwkv.web.serve import serve as run

    limit = dict(each.partition("=")[::2] for each in limits or [])
    run(host, port, token, model, device, detector_model, engine, limit, hosts or (), root_path, access_log)
    os._exit(0)  # the interpreter's own end takes seconds, and waits for threads


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run's folder; an earlier one there is replaced.")] = Path("runs/demo"),
    image: Annotated[Path | None, typer.Option(metavar="PHOTO", help="Also name the faces in this photograph.")] = None,
) -> None:
    """Train on drawn faces, evaluate, and predict an image: takes a few minutes."""
    from facerwkv.experiments.demo import run

    run(out, image)


app.command()(reproduce)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check the installation: what is there, what is missing, and what to type."""
    from facerwkv.doctor import Check, diagnose

    diagnosis = diagnose(None if as_json else Check.print)
    if as_json:
        print(json.dumps(diagnosis.to_dict()))
    raise typer.Exit(0 if diagnosis.ok else 1)


@app.command()
def bench(
    group: Annotated[BenchGroup, typer.Argument(help=f"{EVERYTHING} takes an hour.")],
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this row; repeat it for more.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    repeats: Annotated[int | None, typer.Option(min=1, help="Samples per side. Default: as many as needed.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="For speed.json, .md and .png.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure speed and memory, side by side with peers."""
    from facerwkv.bench.run import bench
    from facerwkv.bench.timing import BenchSetting

    result = bench(group.value, only, BenchSetting(threads, repeats), out)
    show(result, as_json)
    for problem in result.problems:
        print(f"facerwkv: {problem}", file=sys.stderr)
    raise typer.Exit(0 if result.ok else 1)


app.registered_commands.sort(key=lambda command: command.callback is not predict)  # what most people look for


if __name__ == "__main__":
    main()
