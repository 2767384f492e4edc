"""A browser's visit to the page, and what a person does and sees there."""

import base64
from fractions import Fraction
from mimetypes import guess_type
from pathlib import Path
from urllib.parse import urlsplit

import av
from playwright.sync_api import expect

WAIT = 60_000  # milliseconds: the machine may be busy
LONG = 300_000
RATE = 12  # frames per second

expect.set_options(timeout=WAIT)


class Visit:
    """A page that is open, and everything that went wrong on it. `before(page)` is called before it is loaded."""

    def __init__(self, browser, url, before=lambda page: None, wait=True, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.faults: list[str] = []
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.faults.append(said.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", lambda request: self._check(request.url))
        self.page.on("websocket", lambda socket: self._check(socket.url))
        self.host = urlsplit(url).netloc
        before(self.page)
        self.page.goto(url)
        if wait:
            expect(self.page.locator("body.ready")).to_be_attached()

    def _check(self, address):
        if urlsplit(address).netloc != self.host and not address.startswith(("data:", "blob:")):
            self.faults.append(f"{address} was asked")

    def _failed(self, request):
        played = request.url.startswith("blob:") or "/drawn.mp4" in request.url  # a player seeks, or is put away
        if not (played and request.failure == "net::ERR_ABORTED"):
            self.faults.append(f"{request.url} failed: {request.failure}")

    def expect_faults(self, *parts: str):
        """Everything that went wrong so far contains one of `parts`; it is forgotten."""
        assert self.faults
        assert [fault for fault in self.faults if not any(part in fault for part in parts)] == []
        self.faults.clear()

    def close(self):
        self.context.close()
        assert not self.faults, self.faults


def as_mjpeg(video: Path, path: Path, frames: int) -> Path:
    """The first frames of a video of 640 x 360 pixels as motion JPEG, in the container that the path's ending says."""
    with av.open(str(video)) as given, av.open(str(path), "w") as out:
        track = out.add_stream("mjpeg", rate=RATE, width=640, height=360, pix_fmt="yuvj420p")
        for number, frame in zip(range(frames), given.decode(video=0), strict=False):
            frame = frame.reformat(format="yuvj420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return path


def hand_over(page, event: str, *paths: Path) -> None:
    """Drop files on the page, or paste them."""
    page.evaluate(
        """([event, files]) => {
            const data = new DataTransfer();
            for (const [name, kind, text] of files) {
                const bytes = Uint8Array.from(atob(text), (letter) => letter.codePointAt(0));
                data.items.add(new File([bytes], name, {type: kind}));
            }
            document.body.dispatchEvent(event === "drop"
                ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
                : new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        }""",
        [event, [[path.name, guess_type(path)[0], base64.b64encode(path.read_bytes()).decode()] for path in paths]],
    )


def choose(page, *paths: Path) -> None:
    """Choose images, and wait for their results."""
    page.locator("#image-files").set_input_files(paths)
    expect(page.locator(".image")).to_have_count(len(paths))
    settled(page)


def settled(page) -> None:
    expect(page.locator(".image[aria-busy]")).to_have_count(0)
    expect(page.locator("#images-json")).to_be_visible()


def predicted(server, *paths: Path) -> list[dict]:
    with server.client() as client:
        answer = client.post("/predict", files=[("files", (path.name, path.read_bytes())) for path in paths])
        return answer.json()["results"]


def bars(root) -> dict[str, str]:
    """What stands beside the bars, by label."""
    return dict(text.split() for text in root.locator("li").all_inner_texts())


def percents(probs) -> dict[str, str]:
    return {label: f"{int(100 * share + 0.5)}%" for label, share in probs.items()}


def downloaded(page, name) -> str:
    with page.expect_download() as caught:
        page.get_by_role("button", name=name).click()
    return Path(caught.value.path()).read_text(encoding="utf-8")


def analyse(page, path, **fields) -> str:
    """Upload a video; the number of its job."""
    page.get_by_role("tab", name="Video").click()
    page.locator("#video-file").set_input_files(path)
    for name, text in fields.items():
        page.locator(f"#video-{name}").fill(text)
    with page.expect_response(lambda answer: answer.request.method == "POST" and "/jobs" in answer.url) as caught:
        page.locator("#video-submit").click()
    return caught.value.json()["id"]
