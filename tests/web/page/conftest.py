"""A browser whose camera shows a face, and pages in it on which nothing may go wrong."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.web.page.visits import Visit, as_mjpeg


@pytest.fixture(scope="session")
def camera_file(shared, tmp_path_factory) -> Path:
    """What the browser's camera sees: a face, as MJPEG."""
    return as_mjpeg(shared / "media/one_face.mp4", tmp_path_factory.mktemp("camera") / "face.mjpeg", frames=48)


@pytest.fixture(scope="module")
def browser(camera_file):
    """It ends with its module: while it runs, no other event loop can."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("Chromium is not installed")
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags.append(f"--use-file-for-fake-video-capture={camera_file}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, server):
    """Opens the page; at the end nothing went wrong on it."""
    visits = []

    def open_page(url=server.url, **options):
        visits.append(Visit(browser, url, **options))
        return visits[-1]

    yield open_page
    for each in visits:
        each.close()


@pytest.fixture
def page(visit):
    return visit().page


@pytest.fixture
def media(shared) -> Path:
    return shared / "media"
