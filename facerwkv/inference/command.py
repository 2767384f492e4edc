"""The options of prediction as parameters of a command, made of the fields of `Options` when the command is called."""

import json
from collections.abc import Collection
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperOption

MODEL = ("model", "device", "engine", "detector_model", "runner", "method", "label")
"""Parameters of the command itself that say what predicts, not what is written."""


class PredictionCommand(TyperCommand):
    """A command that also takes prediction's options (`Options`), all or those in `names`; they arrive as `ctx.obj`.

    They are looked up when the command is, so that other commands start without them.
    """

    names: tuple[str, ...] = ()
    taken: tuple[Any, ...] = ()

    @classmethod
    def of(cls, *names: str) -> "type[PredictionCommand]":
        return type("SomeOptions", (cls,), {"names": names})

    def get_params(self, ctx: Any) -> list[Any]:
        if not self.taken:
            from facerwkv.inference.sinks import SINKS

            for parameter in self.params:
                if isinstance(parameter, TyperOption) and parameter.help:
                    parameter.help = parameter.help.replace("{formats}", ", ".join(SINKS))
            self.taken = tuple(_parameters(self.names))
            self.params += self.taken
        return super().get_params(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The options under headings: what they are about."""
        from facerwkv.inference.options import facts

        groups: dict[str, list[tuple[str, str]]] = {
            "Arguments": [],
            "Model": [],
            "Images": [],
            "Videos": [],
            "Output": [],
        }
        for parameter in self.get_params(ctx):
            known = facts().get(parameter.name or "")
            videos = known is not None and "image" not in known.kinds
            heading = "Videos" if videos else "Images" if known else "Model" if parameter.name in MODEL else "Output"
            heading = heading if isinstance(parameter, TyperOption) else "Arguments"
            if record := parameter.get_help_record(ctx):
                groups[heading].append((record[0], record[1].removeprefix("Videos: ")))
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def invoke(self, ctx: Any) -> Any:
        from facerwkv.inference.options import Options

        ctx.obj = Options.of(None, {each.name: ctx.params.pop(each.name) for each in self.taken})
        return super().invoke(ctx)


def _parameters(names: Collection[str]) -> list[Any]:
    """The options as a command's parameters: those that are named, or all that the command line takes."""
    from facerwkv.inference.options import Options, facts

    parameters, kinds = [], {"integer": int, "number": float, "boolean": bool, "string": str}
    for name, schema in Options.model_json_schema()["properties"].items():
        fact = facts()[name]
        if not fact.command or (names and name not in names):
            continue
        forms = {form["type"]: form for form in schema.get("anyOf", [schema])}
        form = forms.get("string") or next(iter(forms.values()))
        kind: Any = Literal[*form["enum"]] if "enum" in form else kinds[form["type"]]
        word = name.replace("_", "-")
        option = typer.Option(
            f"--{word}/--no-{word}" if schema["default"] is True else f"--{word}",
            help=("" if "image" in fact.kinds else "Videos: ") + schema["description"],
            metavar=fact.metavar,
            min=form["exclusiveMinimum"] + 1 if "exclusiveMinimum" in form else form.get("minimum"),  # of an integer
            max=form.get("maximum"),
        )
        default = None if schema["default"] is None else kind(schema["default"]) if kind is str else schema["default"]
        optional: Any = kind | None if default is None else kind
        annotation: Any = Annotated[optional, option]
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation))

    def predict(**_: Any) -> None: ...

    predict.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    predict.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command = typer.Typer(add_completion=False, rich_markup_mode=None)
    command.command()(predict)
    return typer.main.get_command(command).params


def print_schema(asked: bool) -> None:
    """The callback of --schema: print the JSON schema of results and end."""
    if asked:
        from facerwkv.inference.schema import SCHEMA

        print(json.dumps(SCHEMA, indent=2))
        raise typer.Exit
