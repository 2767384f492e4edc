"""The camera on the page."""

import re

from playwright.sync_api import expect

from tests.web.page.visits import bars


def test_the_camera_shows_live_bars_and_stops(page):
    page.get_by_role("tab", name="Camera").click()
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#camera-chips .chip").first).to_have_text("Face 1")
    expect(page.locator("#camera-rate")).to_have_text(re.compile(r"^\d+\.\d frames per second$"))
    shares = [int(text[:-1]) for text in bars(page.locator("#camera-bars")).values()]
    assert 97 <= sum(shares) <= 103  # seven rounded numbers
    page.get_by_role("button", name="Stop camera").click()
    expect(page.locator("#camera-empty")).to_be_visible()
    expect(page.locator("#camera-chips .chip")).to_have_count(0)
    assert page.locator("#camera-video").evaluate("(video) => video.srcObject") is None


def test_leaving_the_camera_turns_it_off(page):
    page.get_by_role("tab", name="Camera").click()
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#camera-rate")).to_have_text(re.compile(r"\d"))
    page.get_by_role("tab", name="Images").click()
    assert page.locator("#camera-video").evaluate("(video) => video.srcObject") is None
