"""How often the trip of one image, from the loaded model to the printed line, leaves a file for another."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest

import facerwkv as package
from tests.commands import facerwkv

HOME = Path(package.__file__).parent
MOST = {"onnx": 37, "torch": 62}  # by engine; onnx is what prediction takes where there is no GPU


def traced(*words: object) -> list[tuple[str, str]]:
    """File and name of every call of a named function of the package after the model was loaded, in order."""
    calls: list[tuple[str, str]] = []

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(HOME)) and not code.co_name.startswith("<"):
            calls.append((str(Path(code.co_filename).relative_to(HOME)), code.co_name))

    sys.setprofile(note)
    try:
        assert facerwkv(*words).returncode == 0
    finally:
        sys.setprofile(None)
    return calls[next(i for i, (_, name) in enumerate(calls) if name == "predict_sources") :]


@pytest.mark.parametrize("engine", MOST)
def test_one_image_seldom_changes_files(engine, shared, tmp_path, monkeypatch):
    monkeypatch.setattr("facerwkv.models.fold.onednn_pays", lambda: False)  # or another product asks at each call
    monkeypatch.setattr("facerwkv.kernels.products.onednn_pays", lambda: False)
    image = tmp_path / "x.jpg"
    image.write_bytes((shared / "media" / "fer_justin.jpg").read_bytes())
    traced("predict", image, "--device", "cpu", "--engine", engine)  # what happens once per process
    calls = traced("predict", image, "--device", "cpu", "--engine", engine)
    switches = [f"{a} -> {b}" for (a, _), (b, _) in pairwise(calls) if a != b]
    assert {"predict_sources", "open", "classify", "to_json"} <= {name for _, name in calls}
    assert len(switches) <= MOST[engine], "\n".join(switches)
