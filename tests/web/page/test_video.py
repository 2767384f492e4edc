"""A video on the page: its job, its timeline beside the player, its files."""

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from facerwkv.media.frames import VideoWriter
from tests.web.page.visits import LONG, Visit, analyse, as_mjpeg, bars, percents

FPS = "4"
LENGTH = 19.685  # seconds of one_face.mp4


@pytest.fixture(scope="module")
def watched(browser, server, shared):
    """A page with a video that was read, and its job."""
    opened = Visit(browser, server.url)
    opened.job = analyse(opened.page, shared / "media/one_face.mp4", fps=FPS)
    expect(opened.page.locator("#video-result")).to_be_visible(timeout=LONG)
    yield opened
    opened.close()


def player_time(page) -> float:
    return page.locator("#video-player").evaluate("(player) => player.currentTime")


def at_time(results, time) -> dict:
    return [result for result in results if result["time"] <= time + 1e-3][-1]


def job_results(server, job) -> list[dict]:
    with server.client() as client:
        return client.get(f"/jobs/{job}/results.json").json()


def test_a_click_on_the_timeline_seeks_and_the_bars_follow(watched, server):
    page = watched.page
    line = page.locator("#timeline").bounding_box()
    page.mouse.click(line["x"] + 0.4 * line["width"], line["y"] + 40)
    time = player_time(page)
    assert time == pytest.approx(0.4 * LENGTH, abs=0.1)
    face = at_time(job_results(server, watched.job), time)["faces"][0]
    assert bars(page.locator("#video-bars")) == percents(face["probs"])
    value = page.get_by_role("slider", name="Time in the video")
    expect(value).to_have_attribute("aria-valuenow", f"{time:.1f}")
    expect(value).to_have_attribute("aria-valuetext", re.compile(f"Face 1: {face['label']}"))


def test_arrow_keys_on_the_timeline_seek(watched):
    page = watched.page
    page.locator("#timeline").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert player_time(page) == 2
    page.keyboard.press("ArrowLeft")
    assert player_time(page) == 1


def test_the_cursor_follows_the_player(watched):
    page = watched.page
    page.locator("#video-player").evaluate("(player) => { player.currentTime = 9.845 }")
    expect(page.locator("#timeline")).to_have_attribute("aria-valuenow", "9.8")
    cursor, line = (page.locator(place).bounding_box() for place in ("#timeline .cursor", "#timeline"))
    assert (cursor["x"] + 1 - line["x"]) / line["width"] == pytest.approx(0.5, abs=0.01)


def test_the_cursor_moves_while_the_video_plays(watched):
    page = watched.page
    page.locator("#timeline").press("Home")
    expect(page.locator("#timeline")).to_have_attribute("aria-valuenow", "0.0")
    page.locator("#video-player").evaluate("(player) => { player.muted = true; return player.play() }")
    expect(page.locator("#timeline")).not_to_have_attribute("aria-valuenow", re.compile(r"0\.[0-4]"))
    page.locator("#video-player").evaluate("(player) => player.pause()")
    expect(page.locator("#timeline")).to_have_attribute("aria-valuenow", f"{player_time(page):.1f}")


def test_the_timeline_is_stacked_in_the_labels_colours(watched, server):
    """In the middle of a column's largest band stands its label's colour."""
    page = watched.page
    with server.client() as client:
        meta = client.get("/meta").json()
    result = job_results(server, watched.job)[12]
    probs = [result["faces"][0]["probs"][label] for label in meta["labels"]]
    most = probs.index(max(probs))
    height = sum(probs[:most]) + probs[most] / 2
    pixel = page.locator("#timeline .row").evaluate(
        """(canvas, [across, down]) => [...canvas.getContext("2d").getImageData(
            across * canvas.width, down * canvas.height, 1, 1).data]""",
        [result["time"] / LENGTH, height],
    )
    assert pixel[:3] == list(bytes.fromhex(meta["colours"][most][1:]))


@pytest.mark.slow
def test_downloads_of_a_video_are_the_services_files(watched, server):
    page = watched.page
    for text, name in [("CSV", "results.csv"), ("JSON", "results.json"), ("drawn MP4", "drawn.mp4")]:
        with page.expect_download() as caught:
            page.get_by_role("link", name=f"Download {text}").click()
        with server.client() as client:
            assert Path(caught.value.path()).read_bytes() == client.get(f"/jobs/{watched.job}/{name}").content
        assert caught.value.suggested_filename == f"one_face_{name}"


@pytest.mark.slow
def test_a_video_that_is_removed_is_gone(visit, server, media):
    page = visit().page
    job = analyse(page, media / "one_face.mp4", fps="1")
    expect(page.locator("#video-result")).to_be_visible(timeout=LONG)
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.get_by_role("button", name="Remove this video").click()
    expect(page.locator("#video-form")).to_be_visible()
    with server.client() as client:
        assert client.get(f"/jobs/{job}").status_code == 404


def test_a_video_can_be_cancelled(visit, server, media):
    page = visit().page
    job = analyse(page, media / "one_face.mp4")
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#video-form")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_text("")
    with server.client() as client:
        assert client.get(f"/jobs/{job}").status_code == 404


@pytest.mark.slow
def test_a_video_outlives_a_reload_of_the_page(visit, server, media):
    opened = visit()
    page = opened.page
    job = analyse(page, media / "one_face.mp4", fps=FPS)
    page.reload()
    expect(page.locator("#video-result")).to_be_visible(timeout=LONG)
    page.reload()  # now that it is done
    expect(page.locator("#video-title")).to_have_text("one_face.mp4", timeout=LONG)
    expect(page.locator("#video-player")).to_have_attribute("src", re.compile(f"/jobs/{job}/drawn.mp4$"))
    expect(page.get_by_label("Frame the faces")).to_be_hidden()  # they are drawn
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.get_by_role("button", name="Remove this video").click()
    expect(page.locator("#video-form")).to_be_visible()
    page.reload()
    expect(page.get_by_role("tab", name="Images")).to_have_attribute("aria-selected", "true")
    assert [
        fault for fault in opened.faults if not re.search(r"/jobs(/\S+/drawn\.mp4)? failed: net::ERR_ABORTED$", fault)
    ] == []
    opened.faults.clear()  # the player was reading it, or the list being asked for, as the page was loaded again
    with server.client() as client:
        assert client.get(f"/jobs/{job}").status_code == 404


@pytest.mark.slow
def test_a_video_that_went_while_the_page_was_loaded_again_is_missed_once(visit, server, media):
    opened = visit()
    job = analyse(opened.page, media / "one_face.mp4", fps="1")
    expect(opened.page.locator("#video-result")).to_be_visible(timeout=LONG)
    with server.client() as client:
        client.delete(f"/jobs/{job}")
    opened.page.reload()
    expect(opened.page.get_by_role("alert")).to_have_text(
        "There is no such video: it was deleted, it expired, or it made room for others."
    )
    expect(opened.page.locator("#video-form")).to_be_visible()
    opened.page.reload()
    expect(opened.page.get_by_role("alert")).to_have_text("")
    (logged,) = [fault for fault in opened.faults if "ERR_ABORTED" not in fault]  # the list, as the page was reloaded
    assert "404" in logged
    opened.faults.clear()


@pytest.mark.slow
def test_a_chip_chooses_the_face(visit, server, media, tmp_path):
    path = tmp_path / "couple.mp4"
    with Image.open(media / "couple.jpg") as couple, closing(VideoWriter(path)) as video:
        for number in range(4):
            video.write(number / 2, np.asarray(couple.resize((640, 446))))
    page = visit().page
    job = analyse(page, path)
    expect(page.locator("#video-result")).to_be_visible(timeout=LONG)
    faces = job_results(server, job)[0]["faces"]
    chips = page.locator("#video-chips .chip")
    expect(chips).to_have_text(["Face 1, 1.5 s", "Face 2, 1.5 s"])
    for face, chip in zip(faces, chips.all(), strict=True):
        chip.click()
        expect(chip).to_have_attribute("aria-pressed", "true")
        assert bars(page.locator("#video-bars")) == percents(face["probs"])
    expect(page.locator("#timeline .row")).to_have_count(2)
    expect(page.locator("#timeline .row.chosen")).to_have_count(1)
    expect(page.locator("#video-chips canvas.thumb")).to_have_count(2)
    page.locator("#timeline .row").first.click()
    expect(chips.first).to_have_attribute("aria-pressed", "true")


@pytest.mark.slow
def test_the_form_says_from_where_to_where_and_how_smooth(visit, server, media):
    page = visit().page
    page.get_by_label("Unsure below").fill("101")  # is left out: no such probability
    page.get_by_label("Unsure below").fill("99")
    page.get_by_role("tab", name="Video").click()
    page.locator("#video-smooth").select_option("strong")
    job = analyse(page, media / "one_face.mp4", start="0:02", end="4.5", fps="2")
    expect(page.locator("#video-result")).to_be_visible(timeout=LONG)
    results = job_results(server, job)
    assert (results[0]["time"], results[-1]["time"]) == (pytest.approx(2, abs=0.1), pytest.approx(4.5, abs=0.6))
    expect(page.locator("#video-moment")).to_have_text(re.compile(r"0:02\.0\s+Face 1: \w+ \d+%, unsure"))
    page.reload()  # now the drawn one is played, which begins there
    expect(page.locator("#video-moment")).to_have_text(re.compile(r"0:02\.0\s+Face 1: \w+ \d+%, unsure"))


@pytest.mark.slow
def test_what_the_browser_cannot_play_is_played_as_it_was_drawn(visit, media, tmp_path):
    old = as_mjpeg(media / "one_face.mp4", tmp_path / "old.avi", frames=12)
    page = visit().page
    job = analyse(page, old)
    expect(page.locator("#video-result")).to_be_visible(timeout=LONG)
    expect(page.locator("#video-player")).to_have_attribute("src", re.compile(f"/jobs/{job}/drawn.mp4$"))
    expect(page.locator("#video-player")).to_have_js_property("readyState", 4)


def test_a_file_that_is_no_video_shows_why(visit, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is text")
    opened = visit()
    opened.page.get_by_role("tab", name="Video").click()
    opened.page.locator("#video-file").set_input_files(broken)
    opened.page.get_by_role("button", name="Analyse the video").click()
    expect(opened.page.get_by_role("alert")).to_contain_text("broken.mp4 is no video that can be read")
    expect(opened.page.locator("#video-form")).to_be_visible()
    (logged,) = opened.faults  # the browser's own line for the answer 415
    assert "415" in logged
    opened.faults.clear()
