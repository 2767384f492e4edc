"""The camera on the page."""

import re

import pytest
from playwright.sync_api import expect

from tests.web.page.states import GREY
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


def start(page):
    page.get_by_role("tab", name="Camera").click()
    page.get_by_role("button", name="Start camera").click()


def test_a_camera_without_a_face_says_so(page):
    page.evaluate(GREY)
    start(page)
    expect(page.get_by_text("No face is in view.")).to_be_visible()
    page.get_by_role("button", name="Stop camera").click()
    expect(page.get_by_text("No face is in view.")).to_be_hidden()


@pytest.mark.slow
def test_a_hidden_page_pauses_the_camera(page):
    sockets = []
    page.on("websocket", lambda socket: sockets.append(socket))
    start(page)
    expect(page.locator("#camera-rate")).to_have_text(re.compile("frames per second$"))
    show = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(show, True)
    expect(page.locator("#camera-rate")).to_have_text("Paused")
    page.evaluate(show, False)
    expect(page.locator("#camera-rate")).to_have_text(re.compile("frames per second$"))
    assert [socket.is_closed() for socket in sockets] == [True, False]


@pytest.mark.slow
def test_a_connection_that_is_lost_is_opened_again(visit):
    page = visit(before=lambda page: page.route_web_socket("**/stream?*", lambda socket: sockets.append(socket))).page
    sockets = []
    start(page)
    while not sockets:
        page.wait_for_timeout(50)
    sockets[0].close(code=1011)
    expect(page.locator("#camera-rate")).to_have_text("Reconnecting")
    while len(sockets) < 2:
        page.wait_for_timeout(50)
    expect(page.get_by_role("button", name="Stop camera")).to_be_visible()
    sockets[1].close(code=1013)
    expect(page.get_by_role("alert")).to_contain_text("The service's limit of cameras is reached")
    expect(page.get_by_role("button", name="Start camera")).to_be_visible()
