"""The page for everyone: on a phone, with a keyboard, in the dark; what the model is for; with a token."""

import pytest
from playwright.sync_api import expect

from tests.web.page.visits import choose, hand_over


@pytest.mark.slow
def test_nothing_scrolls_sideways_on_a_phone(visit, media):
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True).page
    choose(page, media / "couple.jpg", media / "selfie-many-people.jpg")
    page.get_by_label("Show the deciding patches").check()
    page.locator("#card summary").click()
    for tab in ("Images", "Camera", "Video"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360, tab


def test_everything_is_reached_with_the_keyboard_and_seen(page, media):
    choose(page, media / "couple.jpg")
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        here = page.evaluate(
            """() => {
                const at = document.activeElement;
                if (at === document.body) return null;
                const outlined = (each) => each && getComputedStyle(each).outlineStyle !== "none";
                return [at.id || at.className || at.tagName, outlined(at) || outlined(at.closest("label"))];
            }"""
        )
        if here is None:
            break
        reached.append(here[0])
        assert here[1], f"the focus on {here[0]} cannot be seen"
    wanted = ["skip", "tab-images", "no-face", "image-files", "patches", "images-json", "images-csv"]
    assert [name for name in reached if name in wanted] == wanted
    assert "SUMMARY" in reached


def test_tabs_and_the_file_chooser_work_with_keys(page):
    page.on("filechooser", lambda chooser: None)  # from here on the browser tells of it
    page.locator("#tab-images").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Camera")).to_be_focused()
    expect(page.locator("#camera")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#images")).to_be_visible()
    page.locator("#image-files").focus()
    with page.expect_file_chooser():
        page.keyboard.press("Enter")


def test_a_dropped_video_opens_its_tab(page, media):
    hand_over(page, "drop", media / "one_face.mp4")
    expect(page.get_by_role("tab", name="Video")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#video-name")).to_contain_text("one_face.mp4")
    expect(page.get_by_role("button", name="Analyse the video")).to_be_enabled()


def test_of_several_dropped_videos_the_first_is_taken_and_the_others_are_named(page, media):
    hand_over(page, "drop", media / "face_then_none.mov", media / "one_face.mp4")
    said = "One video at a time: face_then_none.mov is taken, one_face.mp4 left out."
    expect(page.get_by_role("alert")).to_have_text(said)
    expect(page.locator("#video-name")).to_contain_text("face_then_none.mov")


def test_a_choice_without_an_effect_is_not_shown(page):
    choice = page.get_by_label("Without a face, look at the whole image")
    expect(choice).to_be_visible()
    page.get_by_role("radio", name="Whole image").check()
    expect(choice).to_be_hidden()
    page.get_by_role("radio", name="Faces").check()
    expect(choice).to_be_visible()
    page.get_by_role("tab", name="Camera").click()
    expect(choice).to_be_hidden()


CARDS = [
    None,
    [],
    "card",
    {"metrics": None, "weaknesses": "none", "data": [1]},
    {"metrics": {"test": {}}, "data": {"source": "x"}},
    {"metrics": {"test": {"accuracy": {"value": 0.5}, "macro_f1": 3, "per_class": {"joy": None, "awe": {"f1": 1}}}}},
    {"metrics": {"val": {"n": "many", "per_class": []}}, "data": {"images": {"train": None}, "source": 7}},
]


def test_an_incomplete_card_is_shown_as_far_as_it_goes(page, server):
    with server.client() as client:
        meta = client.get("/meta").json()
    texts = page.evaluate(
        """async ([meta, cards]) => {
            const { card } = await import(new URL("page/card.js", document.baseURI));
            return cards.map((each) => card({ ...meta, card: each }).map((node) => node.innerText).join(" "));
        }""",
        [meta, CARDS],
    )
    assert ["It was never scored" in text for text in texts] == [True, True, True, True, True, False, False]
    assert "50.0% (– to –)" in texts[5]
    assert "undefined" not in " ".join(texts)


def test_every_control_has_a_name(page, media):
    choose(page, media / "couple.jpg")
    unnamed = page.locator("input, select, button, [role=slider], video").evaluate_all(
        """(all) => all.filter((each) => !(each.ariaLabel || each.textContent.trim()
            || [...(each.labels ?? [])].some((label) => label.textContent.trim()))).map((each) => each.id)"""
    )
    assert unnamed == []


CONTRAST = """() => {
    const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = (colour) => {
        pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data];
    };
    const ground = (at) => {
        for (; at; at = at.parentElement) {
            const colour = rgba(getComputedStyle(at).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255];
    };
    const light = (colour) => colour.slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
    const poor = [];
    for (const at of document.querySelectorAll("body *")) {
        const own = [...at.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !at.checkVisibility() || at.closest(":disabled, .unseen")) continue;
        const [a, b] = [light(rgba(getComputedStyle(at).color)), light(ground(at))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.push(`${at.textContent.trim()}: ${ratio.toFixed(2)}`);
    }
    return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(visit, media, scheme):
    page = visit(color_scheme=scheme).page
    choose(page, media / "couple.jpg")
    page.get_by_label("Show the deciding patches").check()
    page.locator("#card summary").click()
    assert page.evaluate(CONTRAST) == []
    for tab in ("Camera", "Video"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
def test_the_colours_follow_the_systems(visit):
    grounds = [
        visit(color_scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert grounds == ["rgb(247, 246, 243)", "rgb(18, 20, 23)"]


def test_the_page_says_what_the_model_is_and_is_for(page, server):
    with server.client() as client:
        meta = client.get("/meta").json()
    page.locator(".notice summary").click()
    page.get_by_role("link", name="Intended use").click()
    card = page.locator("#card-body")
    for text in (meta["name"], meta["notice"], meta["intended_use"], "28,006 train", "61.2% (59.7% to 62.7%)"):
        expect(card).to_contain_text(text)
    for score in meta["scores"].values():
        expect(card).to_contain_text(score["title"])
    expect(page.locator(".notice")).to_contain_text("apparent expression")
    expect(page.locator(".notice")).to_contain_text("Nothing is stored")


def test_with_a_token_images_and_the_camera_work(visit, guarded, media):
    page = visit(f"{guarded.url}/?token={guarded.token}").page
    choose(page, media / "couple.jpg")
    expect(page.locator(".faces > li")).to_have_count(2)
    page.get_by_role("tab", name="Camera").click()
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#camera-chips .chip").first).to_have_text("Face 1")
