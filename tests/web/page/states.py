"""Every state of the page, one after the other."""

import re
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import expect

from tests.web.page.visits import LONG, Visit, choose, settled

GREY = """() => {
    const canvas = document.createElement("canvas");
    const pen = canvas.getContext("2d");
    setInterval(() => (pen.fillStyle = "grey", pen.fillRect(0, 0, canvas.width, canvas.height)), 50);
    navigator.mediaDevices.getUserMedia = async () => canvas.captureStream();
}"""
"""From here on the camera shows nothing but grey."""


def image_states(opened: Visit, media: Path) -> Iterator[str]:
    """Names of states that the page is in when they are yielded; at the end, what went wrong was to be expected."""
    page, held = opened.page, []
    yield "empty"
    page.route("**/predict?*", lambda route: held.append(route))
    page.locator("#image-files").set_input_files(media / "couple.jpg")
    expect(page.get_by_text("Looking …")).to_be_visible()
    yield "image-busy"
    while not held:  # the image is shown before it is asked for
        page.wait_for_timeout(20)
    held[0].continue_()
    settled(page)
    page.unroute("**/predict?*")
    yield "image"
    page.get_by_label("Unsure below").fill("60")
    page.get_by_label("Show the deciding patches").check()
    expect(page.get_by_role("status")).to_contain_text("The patches that decided are shown")
    expect(page.get_by_text("(unsure)")).to_be_visible()
    yield "image-patches"
    page.get_by_label("Show the deciding patches").uncheck()
    page.get_by_role("button", name="Remove all").click()
    choose(page, media / "selfie-many-people.jpg", media / "fer_no-faces.jpg")
    yield "image-many-and-none"
    page.get_by_role("button", name="Remove all").click()
    page.route("**/predict?*", lambda route: route.fulfill(status=503, headers={"Retry-After": "0"}, json={}))
    page.locator("#image-files").set_input_files([media / "couple.jpg", media / "fer_justin.jpg"])
    expect(page.get_by_role("button", name="Retry failed images")).to_be_visible()
    yield "image-failed"
    opened.expect_faults("503")
    page.unroute("**/predict?*")
    page.get_by_role("button", name="Remove all").click()
    page.locator(".notice summary").click()
    page.locator("#card summary").click()
    yield "card"
    page.locator(".notice summary").click()
    page.locator("#card summary").click()


def camera_states(opened: Visit, media: Path) -> Iterator[str]:
    page = opened.page
    page.get_by_role("tab", name="Camera").click()
    yield "camera-off"
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#camera-chips .chip").first).to_have_text("Face 1")
    yield "camera-on"
    page.get_by_role("button", name="Stop camera").click()
    page.evaluate(GREY)
    page.get_by_role("button", name="Start camera").click()
    expect(page.get_by_text("No face is in view.")).to_be_visible()
    yield "camera-nobody"


def video_states(opened: Visit, media: Path) -> Iterator[str]:
    page, polls = opened.page, re.compile(r"/jobs/[^/]+$")
    page.get_by_role("tab", name="Video").click()
    yield "video-form"
    page.locator("#video-file").set_input_files(media / "one_face.mp4")
    page.locator("#video-fps").fill("1")
    page.route("**/jobs?*", lambda route: route.fulfill(status=413, json={"detail": "The video is too large."}))
    page.get_by_role("button", name="Analyse the video").click()
    expect(page.get_by_role("alert")).to_contain_text("too large")
    yield "video-refused"
    opened.expect_faults("413")
    page.unroute("**/jobs?*")
    page.route(polls, lambda route: route.fulfill(status=503, headers={"Retry-After": "600"}, json={"detail": "Busy."}))
    page.get_by_role("button", name="Analyse the video").click()
    expect(page.locator("#video-state")).to_contain_text("Trying again in")
    yield "video-progress"
    opened.expect_faults("503")
    page.unroute(polls)
    page.evaluate("window.dispatchEvent(new Event('online'))")
    expect(page.locator("#video-chips canvas").first).to_be_visible(timeout=LONG)
    yield "video"
    page.get_by_role("button", name="Another video").click()
    expect(page.locator("#video-list")).to_contain_text("one_face.mp4")
    yield "video-list"
    page.get_by_role("button", name="Remove one_face.mp4").click()
    expect(page.locator("#videos")).to_be_hidden()


WALKS = {"images": image_states, "camera": camera_states, "video": video_states}
