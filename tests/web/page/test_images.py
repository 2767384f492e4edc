"""Images on the page: what is shown is what POST /predict and POST /explain say."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from facerwkv.inference.results import Face, Result
from facerwkv.inference.sinks import table_columns, writer
from tests.web.page.visits import bars, choose, downloaded, hand_over, percents, predicted, settled


def test_a_dropped_image_shows_every_face_with_what_predict_says(page, server, media):
    hand_over(page, "drop", media / "couple.jpg")
    settled(page)
    (result,) = predicted(server, media / "couple.jpg")
    faces = page.locator(".faces > li")
    titles = [f"Face {i}: {face['label']}" for i, face in enumerate(result["faces"], 1)]
    assert faces.locator("h3").all_inner_texts() == titles
    assert len(titles) == 2
    for item, face in zip(faces.all(), result["faces"], strict=True):
        assert bars(item.locator(".bars")) == percents(face["probs"])


def test_faces_are_framed_in_the_colour_of_their_label(page, server, media):
    choose(page, media / "couple.jpg")
    with server.client() as client:
        meta = client.get("/meta").json()
    (result,) = predicted(server, media / "couple.jpg")
    sides = [[face["box"][0], (face["box"][1] + face["box"][3]) / 2] for face in result["faces"]]
    pixels = page.locator(".image-stage canvas").evaluate(
        """(canvas, [places, width]) => {
            const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            const [x, y] = [0, 1].map((side) => places.map((at) => Math.floor(at[side] * canvas.width / width)));
            return x.map((across, i) => [...all.slice(4 * (y[i] * canvas.width + across)).slice(0, 3)]);
        }""",
        [sides, result["size"][0]],
    )
    colours = [meta["colours"][meta["labels"].index(face["label"])] for face in result["faces"]]
    assert pixels == [list(bytes.fromhex(colour[1:])) for colour in colours]


def test_a_pasted_image_is_looked_at(page, media):
    hand_over(page, "paste", media / "couple.jpg")
    settled(page)
    expect(page.locator(".image h2")).to_have_text("couple.jpg")
    expect(page.locator(".image header .hint")).to_have_text("2280 × 1588, 2 faces")


def test_a_file_that_is_no_image_shows_why(visit, server, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"this is text")
    opened = visit()
    opened.page.locator("#image-files").set_input_files(broken)
    with server.client() as client:
        sentence = client.post("/predict", files={"files": (broken.name, broken.read_bytes())}).json()["detail"]
    assert sentence.startswith("broken.jpg cannot be read")
    expect(opened.page.get_by_role("alert")).to_have_text(sentence)
    expect(opened.page.locator(".image .side")).to_have_text(sentence)
    opened.page.get_by_role("button", name="Dismiss").click()
    expect(opened.page.get_by_role("alert")).to_have_text("")
    (logged,) = opened.faults  # the browser's own line for the answer 400
    assert "400" in logged
    opened.faults.clear()


def test_the_whole_image_is_looked_at_on_request(page, media):
    choose(page, media / "fer_no-faces.jpg")
    expect(page.locator(".image .side")).to_contain_text("No face was found")
    page.get_by_role("radio", name="Whole image").check()
    expect(page.locator(".faces h3")).to_contain_text("Whole image: ")


def canvas_of(page, place=".image canvas") -> str:
    return page.locator(place).first.evaluate("(canvas) => canvas.toDataURL()")


def test_the_deciding_patches_lie_over_the_image(page, media):
    choose(page, media / "couple.jpg")
    plain = canvas_of(page)
    page.get_by_label("Show the deciding patches").check()
    expect(page.get_by_role("status")).to_contain_text("The patches that decided are shown")
    shown = canvas_of(page)
    assert shown != plain
    page.get_by_label("Opacity").fill("0")
    assert canvas_of(page) == plain
    page.get_by_label("Opacity").fill("65")
    assert canvas_of(page) == shown
    page.locator("#patch-label").select_option("fear")
    expect(page.get_by_role("status")).to_contain_text("fear")
    assert canvas_of(page) not in (plain, shown)


def test_downloads_of_images_are_what_predict_says(page, server, media):
    paths = media / "couple.jpg", media / "fer_no-faces.jpg"
    choose(page, *paths)
    results = predicted(server, *paths)
    assert json.loads(downloaded(page, "Download JSON")) == results
    rows = list(csv.DictReader(io.StringIO(downloaded(page, "Download CSV"))))
    assert [row["label"] for row in rows] == [*(face["label"] for face in results[0]["faces"]), ""]
    assert [float(rows[0][side]) for side in ("x1", "y1", "x2", "y2")] == results[0]["faces"][0]["box"]
    assert float(rows[1]["surprise"]) == results[0]["faces"][1]["probs"]["surprise"]


def test_all_faces_of_a_selfie_are_visible(page, media):
    choose(page, media / "selfie-many-people.jpg")
    faces = page.locator(".faces > li")
    expect(faces).to_have_count(6)
    clipped = "(list) => list.scrollHeight > list.clientHeight || getComputedStyle(list).overflowY !== 'visible'"
    assert not page.locator(".faces").evaluate(clipped)


def test_the_example_is_looked_at(page):
    page.get_by_role("button", name="Try an example").click()
    expect(page.locator(".faces h3 b")).to_have_text(["happiness", "surprise", "anger", "neutral"])


def test_an_image_is_shown_before_its_result(page, media):
    held = []
    page.route("**/predict?*", lambda route: held.append(route))
    page.locator("#image-files").set_input_files(media / "couple.jpg")
    expect(page.locator(".image canvas")).not_to_have_js_property("width", 300)  # an empty canvas's
    expect(page.locator(".image .side")).to_have_text("Looking …")
    while not held:  # the image is shown before it is asked for
        page.wait_for_timeout(20)
    held[0].continue_()
    settled(page)


def test_bars_are_in_order_of_probability_or_of_the_labels(page, server, media):
    choose(page, media / "fer_justin.jpg")
    ((face,),) = [result["faces"] for result in predicted(server, media / "fer_justin.jpg")]
    order = sorted(face["probs"], key=face["probs"].__getitem__, reverse=True)
    assert list(bars(page.locator(".bars").first)) == order
    page.get_by_label("Likeliest first").uncheck()
    assert list(bars(page.locator(".faces .bars"))) == list(face["probs"])


def test_below_the_threshold_a_label_is_unsure(page, media):
    choose(page, media / "couple.jpg")
    page.get_by_label("Unsure below").fill("60")
    page.get_by_label("Unsure below").blur()
    expect(page.locator(".faces h3")).to_have_text(["Face 1: happiness", "Face 2: neutral (unsure)"])
    rows = csv.DictReader(io.StringIO(downloaded(page, "Download CSV")))
    assert [row["unsure"] for row in rows] == ["False", "True"]


@pytest.mark.slow
def test_the_drawn_image_is_saved_at_its_size(page, media):
    choose(page, media / "selfie-many-people.jpg")
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save image: selfie-many-people.jpg").click()
    assert caught.value.suggested_filename == "selfie-many-people_faces.png"
    with Image.open(caught.value.path()) as saved, Image.open(media / "selfie-many-people.jpg") as given:
        assert saved.size == given.size
        assert np.abs(np.asarray(saved.convert("RGB")).astype(int) - np.asarray(given)).max() > 100  # the frames


def test_a_name_with_quotes_stays_and_one_like_a_formula_is_a_text(page, media, tmp_path):
    paths = [tmp_path / name for name in ('=cmd|"calc".jpg', "@a,b.jpg")]
    for path in paths:
        path.write_bytes((media / "fer_justin.jpg").read_bytes())
    choose(page, *paths)
    assert [result["source"] for result in json.loads(downloaded(page, "Download JSON"))] == [p.name for p in paths]
    rows = csv.DictReader(io.StringIO(downloaded(page, "Download CSV")))
    assert [row["source"] for row in rows] == [f"'{path.name}" for path in paths]


def test_tables_are_as_the_command_writes_them(page, tmp_path):
    probs = {"joy": 0.75, "=anger": 0.25}
    results = [
        Result(
            'a "b", c.jpg',
            "ok",
            [Face("joy", 0.75, probs, (1, 2, 3, 4), threshold=0.9), Face("joy", 0.95, probs, threshold=0.9)],
        ),
        Result("=1+1.jpg", "no_face"),
        Result("+gone.jpg", "unreadable", message="It cannot be read."),
    ]
    given = [result.to_dict() for result in results]
    for name, call in [("a.csv", "asCsv(results, labels)"), ("a.json", "asJson(results)")]:
        with writer(tmp_path / name, list(probs), table_columns(threshold=0.9)) as write:
            for result in results:
                write(result)
        found = page.evaluate(
            f"""async ([results, labels]) => {{
                const {{ asCsv, asJson }} = await import(new URL("page/results.js", document.baseURI));
                return {call};
            }}""",
            [given, list(probs)],
        )
        read = json.loads if name == "a.json" else str
        assert read(found) == read((tmp_path / name).read_text())


@pytest.mark.slow
def test_a_video_among_images_is_named(page, media):
    hand_over(page, "drop", media / "couple.jpg", media / "one_face.mp4")
    expect(page.get_by_role("alert")).to_contain_text("one_face.mp4 is left out here: drop a video alone")
    settled(page)
    expect(page.locator(".image h2")).to_have_text("couple.jpg")
