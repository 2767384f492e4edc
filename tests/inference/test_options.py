"""The options of prediction: checked once, and taken by everything that predicts."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from facerwkv.core.errors import InputError
from facerwkv.inference.command import PredictionCommand
from facerwkv.inference.options import Options, facts, seconds
from tests.commands import facerwkv

SCHEMA = Options.model_json_schema()["properties"]


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90.5", 90.5), ("1:30", 90), ("01:30.5", 90.5), ("1:00:01", 3601)]
)
def test_times_are_seconds_or_minutes_and_seconds(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "-1", "1:2:3:4", "1e3", "nan", "1:"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InputError, match="is no time: write seconds"):
        seconds(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "faces"}, "mode is 'faces'; choose one of auto, scene, face."),
        ({"tta": "rotate"}, "tta is 'rotate'; choose one of none, flip, ten."),
        ({"batch_size": 0}, "batch_size is 0; it should be greater than 0."),
        ({"threshold": 1.5}, "threshold is 1.5; it should be less than or equal to 1."),
        ({"threshold": -0.1}, "threshold is -0.1; it should be greater than or equal to 0."),
        ({"threshold": float("nan")}, "threshold is nan; it should be a finite number."),
        ({"min_face": -1}, "min_face is -1; it should be greater than or equal to 0."),
        ({"fps": 0}, "fps is 0.0; it must be above 0."),
        ({"start": 5, "end": "0:02"}, "start is 5 s and end 2.0 s; choose 0 <= start < end."),
        ({"smooth": "much"}, "'much' is no smoothing: write ema:WEIGHT, above 0 to 1, or median:FRAMES, 1 or more."),
        ({"temporal": True, "tta": "flip"}, "temporal carries the state of the frames as they are. Leave tta out."),
        ({"speed": 3}, f"There is no option 'speed'. Options: {', '.join(SCHEMA)}."),
    ],
)
def test_what_does_not_fit_is_a_sentence(changes, message):
    with pytest.raises(InputError) as refused:
        Options.of(None, changes)
    assert str(refused.value) == message


def test_changes_are_made_to_options_and_an_empty_text_is_none():
    options = Options.of(Options(stride=2, start="1:30"), {"stride": 3, "smooth": "", "end": ""})
    assert options == Options(stride=3, start=90)
    assert Options.of(options) is options


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("image", {"stride": 2}, "stride is an option for videos; images take mode, "),
        ("image", {"smooth": "ema:1"}, "smooth is an option for videos and streams; images take mode, "),
        ("stream", {"end": 3}, "end is an option for videos; streams take mode, "),
        ("video", {"channels": "bgr"}, "channels is an option for Python and the command line; videos take mode, "),
    ],
)
def test_an_option_of_another_kind_of_source_is_refused(kind, changes, message):
    with pytest.raises(InputError) as refused:
        Options.of(None, changes).of_kind(kind, service=True)
    assert str(refused.value).startswith(message)
    assert Options(mode="face", min_face=3).of_kind(kind, service=True) == Options(mode="face", min_face=3)


def test_every_option_has_a_text_and_is_taken_by_the_command_line():
    shown = " ".join(facerwkv("predict", "--help").stdout.split())
    for name, schema in SCHEMA.items():
        assert schema["description"].endswith(".")
        flag = f"--{name.replace('_', '-')} "
        assert (flag in shown) is facts()[name].command
        if facts()[name].command:
            assert schema["description"] in shown
            assert "|".join(schema.get("enum", ())) in shown


def test_the_command_line_hands_options_over_whole(monkeypatch):
    asked = []
    monkeypatch.setattr("facerwkv.inference.predictor.load", lambda *_: None)
    monkeypatch.setattr("facerwkv.inference.stream.predict_sources", lambda _, __, options, ___: asked.append(options))
    monkeypatch.setattr("facerwkv.inference.sinks.deliver", lambda *_: [])
    given = {"mode": "face", "on_no_face": "scene", "batch_size": 3, "threshold": 0.5, "min_face": 20, "tta": "flip"}
    given |= {"stride": 2, "fps": 5.0, "start": "0:01", "end": "9", "smooth": "ema:0.5"}
    switches = [name for name, schema in SCHEMA.items() if schema.get("type") == "boolean"]
    added = [name for name, fact in facts().items() if fact.command and name not in (*given, *switches)]
    given |= {name: SCHEMA[name].get("enum", [2])[-1] for name in added}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert facerwkv("predict", "a.jpg", *words).returncode == 0
    assert facerwkv("predict", "a.jpg", "--temporal").returncode == 0
    assert facerwkv("predict", "a.jpg", "--no-audio").returncode == 0
    assert facerwkv("predict", "a.jpg").returncode == 0
    assert asked == [Options(**given), Options(temporal=True), Options(audio=False), Options()]


def test_a_command_may_take_some_of_them():
    command = PredictionCommand.of("mode", "min_face")("some", callback=lambda: None, params=[])
    context = SimpleNamespace(help_option_names=(), _help_option=None)
    command.get_help_option = lambda _: None
    assert [parameter.name for parameter in command.get_params(context)] == ["mode", "min_face"]


def test_importing_them_loads_no_torch():
    code = "import facerwkv.inference.options, sys; print([m for m in ('torch', 'cv2', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
