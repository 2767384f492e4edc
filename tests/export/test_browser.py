"""The exported page in a real browser: it sees, finds and answers what Python does, and sends nothing anywhere."""

import base64
import errno
import functools
import http.server
import json
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from facerwkv.cli import app
from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.core.metrics import score_titles
from facerwkv.data.toy.scenes import render
from facerwkv.data.transforms import EvalTransform, TransformConfig
from facerwkv.export import Exported
from facerwkv.export import browser as exporting
from facerwkv.export.browser import META, MODEL, PAGE, RUNTIME_FILES, SHARED, export_web
from facerwkv.inference.predictor import Predictor
from facerwkv.media.draw import COLOURS
from facerwkv.media.images import open_image
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.folder import Checkpoint
from facerwkv.models.zoo import create_model
from tests.axe import AXE, RUN_AXE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RUNTIME = Path(__file__).with_name("node_modules") / "onnxruntime-web"
PATIENCE = 120_000  # milliseconds, for a browser on a busy machine
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or not RUNTIME.is_dir(), reason="needs Chromium and onnxruntime-web: make browser"
)
LICENCE = "research only: a test"


def untrained(crop: str) -> Checkpoint:
    """A small model of colour images whose parts all matter: none is left at the zeros that it starts from."""
    torch.manual_seed(0)
    model = create_model("facerwkv4_small", image_size=(48, 64), patch_size=16, width=32, depth=2, heads=2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    transform = TransformConfig(image_size=(48, 64), crop=crop, mean=(0.5,), std=(0.25,))
    card = load_checkpoint("facerwkv_fer_tiny").card if crop == "face" else {"licence": LICENCE}
    return Checkpoint(model.eval(), "facerwkv4_small", EXPRESSIONS, transform, 1.5, card)


@dataclass
class Site:
    """A folder that is served: its address, and the paths that were asked for."""

    folder: Path
    address: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def served(folder, **headers):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            super().end_headers()

        def log_message(self, *_):
            site.asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    site = Site(folder, f"http://127.0.0.1:{server.server_port}/")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def scene_site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "scene"
    export_web(untrained("scene"), folder, RUNTIME)
    with served(folder) as site:
        yield site


@pytest.fixture(scope="module")
def face_site(scene_site, tmp_path_factory):
    """The same weights, so the same graph, which takes long to write; but they are shown faces."""
    folder = tmp_path_factory.mktemp("web") / "faces"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "export_onnx", lambda _, out: written(shutil.copyfile(scene_site.folder / MODEL, out)))
        export_web(untrained("face"), folder, RUNTIME)
    with served(folder) as site:
        yield site


@pytest.fixture(scope="module")
def trained_site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "trained"
    export_web("facerwkv_fer_tiny", folder, RUNTIME)
    with served(folder) as site:
        yield site


def written(path: Path) -> Exported:
    return Exported(str(path), "facerwkv4_small", LICENCE, path.stat().st_size, 0.0)


@pytest.fixture(scope="module")
def chromium():
    """Starts the browser with further options."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        start = playwright.chromium.launch
        yield lambda *options: start(executable_path=CHROMIUM, args=["--no-sandbox", *options])


@pytest.fixture(scope="module")
def started(chromium):
    return chromium()


@contextmanager
def opened(browser, site):
    """The page, ready. Whatever is done with it, it says nothing on the console and asks for nothing any more."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    said, addresses = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(site.address)
    page.locator("#files:enabled").wait_for(state="attached")
    page.wait_for_load_state("networkidle")
    loaded = len(site.asked), len(addresses)
    yield page
    assert said == []
    assert (len(site.asked), len([url for url in addresses if not url.startswith("blob:")])) == loaded
    assert [url for url in addresses if not url.startswith((site.address, "blob:" + site.address))] == []
    page.close()


@pytest.fixture(scope="module")
def modules(started, scene_site):
    """A page that does nothing, from which the modules can be called."""
    page = started.new_page()
    page.goto(scene_site.address + "licences.txt")
    yield page
    page.close()


def results_of(page, files):
    """What the page says of the files, by its own button."""
    page.locator("#files").set_input_files(files)
    page.locator("#results article:not([aria-busy])").nth(len(files) - 1).wait_for()
    with page.expect_download() as download:
        page.locator("#json").click()
    return json.loads(Path(download.value.path()).read_text(encoding="utf-8"))


def assert_same(found, expected, name):
    """Results as JSON: the page's and Python's."""
    assert (found["source"], found["status"]) == (name, expected["status"])
    assert len(found["faces"]) == len(expected["faces"])
    for ours, theirs in zip(found["faces"], expected["faces"], strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["label"] == theirs["label"]
        assert ours["probs"] == pytest.approx(theirs["probs"], abs=0.02)
        assert "box" not in ours or overlap(ours["box"], theirs["box"]) > 0.9


def overlap(a, b):
    """Intersection over union."""
    common = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return common / (sum(np.prod(np.subtract(box[2:], box[:2])) for box in (a, b)) - common)


@needs_browser
def test_whole_images_are_classified_as_python_does_it(started, scene_site, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        Image.fromarray(render(i, "test").image).save(file)
    predictor = Predictor(untrained("scene"), "cpu")
    with opened(started, scene_site) as page:
        for file, found in zip(files, results_of(page, files), strict=True):
            assert_same(found, predictor.predict(file).to_dict(), file.name)


@needs_browser
def test_faces_are_found_and_classified_as_python_does_it(started, face_site, shared):
    file = shared / "media" / "fer_justin.jpg"
    expected = Predictor(untrained("face"), "cpu").predict(file).to_dict()
    with opened(started, face_site) as page:
        (found,) = results_of(page, [file])
        assert_same(found, expected, file.name)
        shown = page.locator(".faces h3").all_inner_texts()
    assert shown == [f"Face 1: {expected['faces'][0]['label']}"]


@needs_browser
@pytest.mark.slow
def test_many_real_images_are_classified_as_python_does_it(started, trained_site, shared, tmp_path):
    mosaic = Image.open(shared / "data" / "fer2013" / "private_test.png")
    files = sorted((shared / "media").glob("*.jpg"))
    for i in range(20):
        files.append(tmp_path / f"face{i}.png")
        mosaic.crop((48 * i, 0, 48 * i + 48, 48)).resize((256, 256), Image.Resampling.BICUBIC).save(files[-1])
    predictor = Predictor(load_checkpoint("facerwkv_fer_tiny"), "cpu")
    with opened(started, trained_site) as page:
        found = results_of(page, files)
    for file, result in zip(files, found, strict=True):
        assert_same(result, predictor.predict(file).to_dict(), file.name)
    assert sum(len(result["faces"]) for result in found) > 20


TO_INPUT = """async ([width, height, data, box, transform]) => {
    const { toInput } = await import(new URL("transform.js", location));
    return Array.from(toInput({ width, height, data: new Uint8Array(data) }, box, transform));
}"""


@needs_browser
@pytest.mark.parametrize(
    ("crop", "in_chans", "box", "image_size"),
    [
        ("scene", 3, None, (48, 64)),
        ("scene", 1, None, (150, 201)),
        ("scene", 3, None, (37, 90)),
        ("face", 1, (20, 11, 61, 70), (48, 48)),
        ("face", 3, (0, 0, 9, 8), (48, 48)),
        ("face", 3, (70, 50, 97, 83), (20, 31)),
        ("both", 3, (30, 20, 61, 70), (48, 40)),
        ("both", 1, (0, 20, 30, 83), (24, 24)),
    ],
)
def test_the_models_input_is_pythons_to_the_last_pixel(modules, crop, in_chans, box, image_size):
    rgb = np.random.default_rng(0).integers(0, 256, (83, 97, 3), np.uint8)
    transform = TransformConfig(crop=crop, in_chans=in_chans, image_size=image_size)
    rgba = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], 2)
    found = modules.evaluate(TO_INPUT, [97, 83, rgba.ravel().tolist(), box, transform.model_dump(mode="json")])
    expected = EvalTransform(transform)(rgb, box)
    np.testing.assert_array_equal(np.reshape(found, expected.shape), expected)


READ = """async (text) => {
    const { openImage, pixelsOf } = await import(new URL("image.js", location));
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const bitmap = await openImage(new Blob([bytes]), 1e8);
    const { width, height, data } = pixelsOf(bitmap, bitmap.width, bitmap.height);
    return [width, height, Array.from(data)];
}"""


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def encoded(kind):
    rgb = Image.fromarray(render(0, "test").image).resize((120, 80))
    alpha = Image.linear_gradient("L").resize(rgb.size)
    images = {
        "turned.jpg": (rgb, {"exif": turned(6), "quality": 90}),
        "grey.jpg": (rgb.convert("L"), {}),
        "see-through.png": (Image.merge("RGBA", (*rgb.split(), alpha)), {}),
        "palette.png": (rgb.quantize(32), {}),
        "lossless.webp": (rgb, {"lossless": True}),
        **{f"turned-{i}.webp": (rgb, {"lossless": True, "exif": turned(i)}) for i in range(2, 9)},
        "one.gif": (rgb.quantize(64), {}),
        "plain.bmp": (rgb, {}),
    }
    buffer, (image, options) = BytesIO(), images[kind]
    image.save(buffer, Image.registered_extensions()[Path(kind).suffix], **options)
    return buffer.getvalue()


@needs_browser
@pytest.mark.parametrize(
    "kind",
    [
        *("turned.jpg", "grey.jpg", "see-through.png", "palette.png", "lossless.webp", "one.gif", "plain.bmp"),
        *(f"turned-{orientation}.webp" for orientation in range(2, 9)),
    ],
)
def test_images_are_read_as_python_reads_them(modules, kind):
    data = encoded(kind)
    width, height, rgba = modules.evaluate(READ, base64.b64encode(data).decode())
    found, expected = np.reshape(rgba, (height, width, 4))[..., :3], open_image(data).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


@needs_browser
def test_what_is_no_image_gets_a_sentence_and_the_next_is_classified(started, scene_site, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.png").write_text("no image")
    Image.fromarray(render(0, "test").image).save(tmp_path / "good.png")
    with opened(started, scene_site) as page:
        found = results_of(page, [tmp_path / name for name in ("empty.jpg", "notes.png", "good.png")])
        assert "damaged, or no image" in page.locator("#results .error").first.inner_text()
        page.locator("#clear").click()
        assert page.locator("article").count() == 0
    assert [result["status"] for result in found] == ["unreadable", "unreadable", "ok"]
    assert found[0]["message"] == "The file is empty."


@pytest.mark.slow
@needs_browser
def test_the_page_says_what_the_model_is_and_where_images_stay(started, face_site):
    with opened(started, face_site) as page:
        text = page.locator("body").inner_text()
        page.locator(".notice summary").click()
        text += page.locator(".notice").inner_text()
    for part in ("Images stay in this browser", "not what a person feels", "EU AI Act", "research only: Kaggle"):
        assert part in text
    for part in ("Trained on\nfer2013", "3,589 images of fer2013, test", "disgust\t", "onnxruntime-web 1.30.0"):
        assert part in text


@pytest.mark.slow
@needs_browser
def test_it_fits_a_telephone(started, face_site, shared):
    with opened(started, face_site) as page:
        page.set_viewport_size({"width": 360, "height": 700})
        results_of(page, [shared / "media" / "selfie-many-people.jpg"])
        assert page.evaluate("document.documentElement.scrollWidth") == 360


@needs_browser
@pytest.mark.slow
def test_the_camera_is_classified_until_it_is_stopped(chromium, trained_site, shared, tmp_path):
    camera = tmp_path / "camera.mjpeg"
    Image.open(shared / "media" / "fer_justin.jpg").resize((640, 640)).save(camera, "JPEG")
    fake = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    browser = chromium(*fake, f"--use-file-for-fake-video-capture={camera}")
    with opened(browser, trained_site) as page:
        page.locator("#camera").click()
        page.locator("#live h3").wait_for()
        assert page.locator("#live h3").inner_text().startswith("Face 1: happiness")
        page.locator("#camera").click()
        page.locator("#live article").wait_for(state="detached")


@needs_browser
@pytest.mark.parametrize("workers", [1, 0])
def test_the_model_runs_in_a_worker_where_the_server_allows_one(started, scene_site, workers, tmp_path):
    Image.fromarray(render(0, "test").image).save(tmp_path / "a.png")
    with served(scene_site.folder, Content_Security_Policy="" if workers else "worker-src 'none'") as site:
        page = started.new_page()
        page.goto(site.address)
        page.locator("#files:enabled").wait_for(state="attached", timeout=PATIENCE)
        (found,) = results_of(page, [tmp_path / "a.png"])
        assert (found["status"], len(page.workers)) == ("ok", workers)
        page.close()


LONGEST = """() => {
    let last = performance.now();
    window.longest = 0;
    setInterval(() => {
        const now = performance.now();
        window.longest = Math.max(window.longest, now - last);
        last = now;
    }, 10);
}"""


@needs_browser
@pytest.mark.slow
def test_the_page_stays_alive_while_a_large_image_is_looked_at(started, trained_site, shared, tmp_path):
    with Image.open(shared / "media" / "couple.jpg") as image:
        image.resize((7500, 5200)).save(tmp_path / "large.jpg")  # 39 megapixels
    with opened(started, trained_site) as page:
        page.evaluate(LONGEST)
        (found,) = results_of(page, [tmp_path / "large.jpg"])
        longest = page.evaluate("window.longest")
    assert len(found["faces"]) == 2
    assert longest < 1000  # milliseconds; 3,800 when the page itself computed


@pytest.mark.slow
@needs_browser
@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: make browser")
def test_axe_finds_nothing_on_the_page(started, face_site, shared, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    for look in {"color_scheme": "light"}, {"color_scheme": "dark"}, {"forced_colors": "active"}:
        page = started.new_page(bypass_csp=True, **look)
        page.goto(face_site.address)
        page.locator("#files:enabled").wait_for(state="attached", timeout=PATIENCE)
        page.add_script_tag(path=AXE)
        empty = page.evaluate(RUN_AXE)
        results_of(page, [shared / "media" / "fer_justin.jpg", tmp_path / "notes.png"])
        page.locator(".notice summary").click()
        assert (empty, page.evaluate(RUN_AXE)) == ([], [])
        page.close()


@pytest.mark.slow
@needs_browser
def test_the_example_is_looked_at_and_its_table_saved(started, face_site):
    page = started.new_page()
    page.goto(face_site.address)
    page.locator("#example:enabled").click(timeout=PATIENCE)
    page.locator("#results article:not([aria-busy])").wait_for()
    assert page.locator(".faces > li").count() == 4
    with page.expect_download() as download:
        page.locator("#csv").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["example.jpg", "ok"]] * 4
    page.close()


@needs_browser
def test_a_folder_without_its_model_says_so(started, scene_site, tmp_path):
    broken = shutil.copytree(scene_site.folder, tmp_path / "broken")
    (broken / MODEL).unlink()
    with served(broken) as site:
        page = started.new_page()
        page.goto(site.address)
        page.locator("#status.error").wait_for(timeout=PATIENCE)
        assert "model.onnx is missing here (404)" in page.locator("#status").inner_text()
        page.close()


@pytest.fixture
def runtime(tmp_path):
    """Something with the files of onnxruntime-web."""
    (tmp_path / "runtime" / "dist").mkdir(parents=True)
    for name in RUNTIME_FILES:
        (tmp_path / "runtime" / "dist" / name).write_text(name)
    (tmp_path / "runtime" / "package.json").write_text('{"version": "1.2.3"}')
    return tmp_path / "runtime"


@pytest.fixture
def quick(monkeypatch):
    """The ONNX file is one byte: what is around it matters here."""

    def write(checkpoint, out):
        out.write_bytes(b"x")
        return written(out)

    monkeypatch.setattr(exporting, "export_onnx", write)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_holds_what_its_docstring_says(quick, runtime, tmp_path):
    written = export_web("facerwkv_fer_tiny", tmp_path / "new" / "page", runtime)
    folder = Path(written.file)
    assert names(folder) == sorted([MODEL, META, "yunet.onnx", *RUNTIME_FILES, *names(PAGE), *names(SHARED)])
    assert names(folder.parent) == ["page"]
    assert (written.runtime, written.licence) == ("1.2.3", LICENCE)
    assert written.bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert "python -m http.server" in str(written)


def test_a_model_of_whole_images_has_no_detector(quick, runtime, tmp_path):
    export_web(untrained("scene"), tmp_path / "page", runtime)
    assert "yunet.onnx" not in names(tmp_path / "page")
    assert json.loads((tmp_path / "page" / META).read_text())["detector"] is None


def test_meta_json_says_what_the_checkpoint_does(quick, runtime, tmp_path):
    export_web("facerwkv_fer_tiny", tmp_path / "page", runtime)
    meta, original = json.loads((tmp_path / "page" / META).read_text()), load_checkpoint("facerwkv_fer_tiny")
    assert meta["labels"] == list(original.labels)
    assert meta["transform"] == original.transform.model_dump(mode="json")
    assert meta["temperature"] == original.temperature
    assert meta["licence"] == original.card["licence"]
    assert (meta["name"], meta["scores"]) == ("facerwkv_fer_tiny", score_titles())
    assert meta["colours"] == list(COLOURS)
    assert meta["runtime"] == "onnxruntime-web 1.2.3"
    assert meta["detector"]["score_threshold"] == 0.6


def test_an_earlier_export_is_replaced(quick, runtime, tmp_path):
    export_web("facerwkv_fer_tiny", tmp_path / "page", runtime)
    export_web(untrained("scene"), tmp_path / "page", runtime)
    assert json.loads((tmp_path / "page" / META).read_text())["model"] == "facerwkv4_small"
    assert "yunet.onnx" not in names(tmp_path / "page")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"thesis.tex": ""}, r"holds thesis\.tex, which no export wrote"),
        ({"index.html": ""}, "holds index"),
        ({"meta.json": "{}", "index.html": ""}, "holds index"),
        ({"meta.json": "not JSON"}, "holds meta"),
    ],
)
def test_a_folder_with_something_else_stays_as_it_is(quick, runtime, tmp_path, held, said):
    (tmp_path / "page").mkdir()
    for name, text in held.items():
        (tmp_path / "page" / name).write_text(text)
    with pytest.raises(InputError, match=said):
        export_web(untrained("scene"), tmp_path / "page", runtime)
    assert {path.name: path.read_text() for path in (tmp_path / "page").iterdir()} == held


def test_a_file_is_no_folder(quick, runtime, tmp_path):
    with pytest.raises(InputError, match=r"package\.json is no folder"):
        export_web(untrained("scene"), runtime / "package.json", runtime)


def test_a_full_disk_leaves_the_earlier_export(quick, runtime, tmp_path, monkeypatch):
    export_web(untrained("scene"), tmp_path / "page", runtime)
    before = names(tmp_path / "page")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match=r"page: No space left on device\. Nothing was left behind"):
        export_web("facerwkv_fer_tiny", tmp_path / "page", runtime)
    assert names(tmp_path / "page") == before
    assert names(tmp_path) == ["page", "runtime"]


@pytest.mark.parametrize("missing", ["package.json", *(f"dist/{name}" for name in RUNTIME_FILES)])
def test_a_runtime_without_a_file_is_named_with_what_to_type(runtime, tmp_path, missing):
    (runtime / missing).unlink()
    with pytest.raises(InputError, match=rf"runtime is not .* no {missing}\. Type `npm install onnxruntime-web`"):
        export_web(untrained("scene"), tmp_path / "page", runtime)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_runtime_must_say_its_version(runtime, tmp_path, text):
    (runtime / "package.json").write_text(text)
    with pytest.raises(InputError, match=r"package\.json does not say a version"):
        export_web(untrained("scene"), tmp_path / "page", runtime)


def test_the_command_line_without_a_runtime_says_what_to_type(tmp_path):
    options = ["export", "--model", "facerwkv_fer_tiny", "--format", "web", "--out", str(tmp_path / "page")]
    said = CliRunner().invoke(app, options).exception
    assert isinstance(said, InputError)
    assert "Type `npm install onnxruntime-web`, then give it: --runtime node_modules/onnxruntime-web" in str(said)
    assert names(tmp_path) == []


def test_the_command_line_writes_the_page(quick, runtime, tmp_path):
    options = ["--format", "web", "--out", str(tmp_path / "page"), "--runtime", str(runtime), "--json"]
    done = CliRunner().invoke(app, ["export", "--model", "facerwkv_fer_tiny", *options])
    assert json.loads(done.stdout)["file"] == str(tmp_path / "page")
