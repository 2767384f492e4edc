"""Images on the page: what is shown is what POST /predict and POST /explain say."""

import csv
import io
import json

from playwright.sync_api import expect

from tests.web.page.visits import bars, choose, downloaded, hand_over, percents, predicted, settled


def test_a_dropped_image_shows_every_face_with_what_predict_says(page, server, media):
    hand_over(page, media / "couple.jpg", "image/jpeg", "drop")
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
    hand_over(page, media / "couple.jpg", "image/jpeg", "paste")
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
    for result in results:
        del result["size"]
    assert json.loads(downloaded(page, "Download JSON")) == results
    rows = list(csv.DictReader(io.StringIO(downloaded(page, "Download CSV"))))
    assert [row["label"] for row in rows] == [*(face["label"] for face in results[0]["faces"]), ""]
    assert [float(rows[0][side]) for side in ("x1", "y1", "x2", "y2")] == results[0]["faces"][0]["box"]
    assert float(rows[1]["surprise"]) == results[0]["faces"][1]["probs"]["surprise"]
