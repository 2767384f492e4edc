"""Nothing is lost: what failed for a passing reason is repeated, by the page or a person, and only Cancel deletes."""

import csv
import io
import re

import pytest
from playwright.sync_api import expect

from tests.web.page.visits import LONG, analyse, choose, downloaded


def failing(page, address, *answers):
    """The next requests for an address fail: with a status, or None for no answer. Later ones reach the service."""
    left = list(answers)

    def answer(route):
        if not left:
            return route.continue_()
        status = left.pop(0)
        later = {"Retry-After": "0"} if status in (429, 503) else {}
        return route.fulfill(status=status, headers=later, json={"detail": "Busy."}) if status else route.abort()

    page.route(address, answer)


@pytest.mark.slow
def test_a_poll_that_fails_is_repeated(visit, server, media):
    opened = visit()
    failing(opened.page, re.compile(r"/jobs/[^/]+$"), None, 503, 429, 502)
    asked = []
    opened.page.on("request", lambda request: asked.append(request.method))
    job = analyse(opened.page, media / "one_face.mp4", fps="1")
    expect(opened.page.locator("#video-title")).to_have_text("one_face.mp4", timeout=LONG)
    opened.expect_faults("ERR_FAILED", "503", "429", "502")
    assert "DELETE" not in asked
    with server.client() as client:
        assert client.get(f"/jobs/{job}").json()["state"] == "done"


@pytest.mark.slow
def test_images_that_failed_offline_are_retried_when_the_network_is_back(visit, media):
    opened = visit()
    page = opened.page
    opened.context.set_offline(True)
    page.locator("#image-files").set_input_files(media / "couple.jpg")
    expect(page.get_by_role("button", name="Retry couple.jpg")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    (row,) = csv.DictReader(io.StringIO(downloaded(page, "Download CSV")))
    assert (row["source"], row["status"]) == ("couple.jpg", "unreadable")
    opened.context.set_offline(False)
    expect(page.locator(".faces > li")).to_have_count(2)
    expect(page.get_by_role("button", name="Retry couple.jpg")).to_be_hidden()
    opened.expect_faults("ERR_INTERNET_DISCONNECTED")


def test_an_image_is_tried_again_on_request(visit, media):
    opened = visit()
    page = opened.page
    failing(page, "**/predict?*", 500, None, None, None)
    page.locator("#image-files").set_input_files([media / "couple.jpg", media / "fer_justin.jpg"])
    page.get_by_role("button", name="Retry fer_justin.jpg").click()
    expect(page.locator(".faces > li")).to_have_count(1)
    expect(page.get_by_role("button", name="Retry couple.jpg")).to_be_hidden()  # 500 would come again
    opened.expect_faults("500", "ERR_FAILED")


@pytest.mark.slow
def test_an_upload_that_broke_can_start_again_and_the_video_is_kept_in_a_list(visit, media):
    opened = visit()
    page = opened.page
    failing(page, re.compile(r"/jobs\?"), 503, None, None)
    page.get_by_role("tab", name="Video").click()
    page.locator("#video-file").set_input_files(media / "one_face.mp4")
    page.locator("#video-fps").fill("1")
    page.get_by_role("button", name="Analyse the video").click()
    expect(page.get_by_role("alert")).to_contain_text("The upload broke off at ")
    expect(page.locator("#video-name")).to_contain_text("one_face.mp4")
    page.get_by_role("button", name="Upload again").click()
    expect(page.locator("#video-result")).to_be_visible(timeout=LONG)
    opened.expect_faults("503", "ERR_FAILED")

    page.get_by_role("button", name="Another video").click()
    page.get_by_role("button", name="Show one_face.mp4").click()
    expect(page.locator("#video-result")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Another video").click()
    page.get_by_role("button", name="Remove one_face.mp4").click()
    expect(page.locator("#videos")).to_be_hidden()
    other = visit().page  # in another browser's context
    other.get_by_role("tab", name="Video").click()
    expect(other.locator("#videos")).to_be_hidden()


def test_a_file_that_has_gone_is_not_the_services_fault(page, media, tmp_path):
    path = tmp_path / "gone.jpg"
    path.write_bytes((media / "couple.jpg").read_bytes())
    choose(page, path)
    path.unlink()
    page.get_by_role("radio", name="Whole image").check()
    expect(page.get_by_role("alert")).to_contain_text("gone.jpg cannot be read: it is a folder, or it was moved")
    expect(page.locator(".faces > li")).to_have_count(2)  # the earlier result stays


def test_the_page_waits_for_a_service_that_starts(visit):
    opened = visit(wait=False, before=lambda page: failing(page, "**/meta", None, 503))
    expect(opened.page.locator("body.ready")).to_be_attached()
    expect(opened.page.get_by_role("alert")).to_have_text("")
    opened.expect_faults("ERR_FAILED", "503")


@pytest.mark.slow
def test_a_page_without_its_script_says_so(visit):
    opened = visit(wait=False, before=lambda page: page.route("**/page/page.js", lambda route: route.abort()))
    expect(opened.page.get_by_text("The page's script has not loaded")).to_be_visible()
    opened.expect_faults("ERR_FAILED")


def test_below_a_path_of_a_proxy_everything_works(visit, server, media):
    def passed_on(page):
        page.route("**/faces/**", lambda route: route.continue_(url=route.request.url.replace("/faces/", "/", 1)))
        page.route_web_socket("**/faces/**", lambda socket: sockets.append(socket.url))

    sockets: list[str] = []
    page = visit(f"{server.url}/faces/", before=passed_on).page
    choose(page, media / "couple.jpg")
    expect(page.locator(".faces > li")).to_have_count(2)
    page.get_by_role("tab", name="Camera").click()
    page.get_by_role("button", name="Start camera").click()
    expect(page.get_by_role("button", name="Stop camera")).to_be_visible()
    expect(page.locator("#camera-rate")).to_be_visible()
    page.wait_for_timeout(100)
    assert sockets == [server.url.replace("http", "ws") + "/faces/stream?mode=auto"]
