"""Uploaded videos: their results, their ends good and bad, and what is left of them."""

import asyncio
import csv
import io
import json
import shutil
import threading
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from fastapi import HTTPException, Request
from PIL import Image

import facerwkv
from facerwkv.core.errors import InputError
from facerwkv.inference.stream import stream
from facerwkv.web.guard import Limits
from facerwkv.web.jobs import Jobs
from facerwkv.web.shares import Quota, Share
from facerwkv.web.uploads import save_video
from facerwkv.web.videos import FILES, Job, JobOptions, check_video, work_on
from tests.media.made import counted, ffmpeg, tone
from tests.web.clients import BOUNDARY, form
from tests.web.conftest import MODEL

STRIDE = 40
FULL = "/dev/full"  # every write to it fails as on a full disk


@pytest.fixture(scope="module")
def predictor():
    return facerwkv.load(MODEL, "cpu")


@pytest.fixture(scope="module")
def talk(shared):
    """20 s of one face."""
    return shared / "media" / "one_face.mp4"


def clip(path, count=50):
    """Grey frames, with what a player needs to know at the start of the file."""
    with av.open(path, "w", options={"movflags": "faststart"}) as file:
        track = file.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        track.width, track.height, track.pix_fmt = 320, 240, "yuv420p"
        noise = np.random.default_rng(0)
        for i in range(count):
            rgb = noise.integers(0, 255, (240, 320, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


def sound(path):
    with av.open(path, "w") as file:
        track = file.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


def upload(client, data: bytes, name="talk.mp4", headers=None, **options):
    return client.post("/jobs", files={"file": (name, data)}, params=options, headers=headers)


def ended(client, id: str) -> dict:
    """The job when it has ended; its progress never goes back."""
    last = 0.0
    until = time.monotonic() + 120
    while (job := client.get(f"/jobs/{id}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, job
        assert last <= (job["progress"] or 0) <= 1
        last = job["progress"] or 0
        time.sleep(0.05)
    return job


@pytest.fixture(scope="module")
def done(server, talk):
    """A job that is done, and the client that asks for it."""
    with server.client() as client:
        added = upload(client, talk.read_bytes(), "../talk.mp4", stride=STRIDE, smooth="ema:0.6", end="10")
        assert added.status_code == 202
        assert added.json().keys() == {"id", "state"}
        yield client, ended(client, added.json()["id"])
        assert client.delete(f"/jobs/{added.json()['id']}").status_code == 204


def test_a_job_says_what_it_did(done):
    _, job = done
    assert (job["source"], job["state"], job["progress"], job["message"]) == ("talk.mp4", "done", 1.0, "")
    assert (job["frames"], job["files"]) == (6, list(FILES))
    assert job["fps"] > 0
    assert job["seconds"] == pytest.approx(19.69)


def test_its_results_are_those_of_the_command_line(done, talk, predictor):
    client, job = done
    results = client.get(f"/jobs/{job['id']}/results.json").json()
    expected = [result.to_dict() for result in stream(predictor, talk, stride=STRIDE, smooth="ema:0.6", end="10")]
    assert [result["source"] for result in results] == ["talk.mp4"] * 6
    assert (
        [result["frame"] for result in results] == [result["frame"] for result in expected] == [*range(0, 240, STRIDE)]
    )
    for result, wanted in zip(results, expected, strict=True):
        (face,), (same,) = result["faces"], wanted["faces"]
        assert (face["track"], face["box"]) == (1, same["box"])
        assert face["probs"] == pytest.approx(same["probs"], abs=1e-4)


def test_its_table_has_a_row_a_face(done):
    client, job = done
    answer = client.get(f"/jobs/{job['id']}/results.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'inline; filename="talk_results.csv"'
    assert [row["frame"] for row in rows] == [str(number) for number in range(0, 240, STRIDE)]
    assert {row["source"] for row in rows} == {"talk.mp4"}


def test_its_drawn_video_plays_and_can_be_sought(done):
    client, job = done
    address = f"/jobs/{job['id']}/drawn.mp4"
    whole = client.get(address)
    assert whole.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(whole.content)) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in video.decode(video=0)) == 6
    part = client.get(address, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    assert client.get(address, headers={"Range": f"bytes={10**9}-"}).status_code == 416


def test_the_upload_itself_is_gone_when_the_job_is_done(done, server):
    assert list(server.temp.rglob("upload")) == []


def test_without_drawing_there_is_no_video(client, tmp_path):
    job = ended(client, upload(client, clip(tmp_path / "clip.mp4", 5).read_bytes(), draw=False).json()["id"])
    assert job["files"] == ["results.json", "results.csv"]
    answer = client.get(f"/jobs/{job['id']}/drawn.mp4")
    assert (answer.status_code, answer.json()) == (404, {"detail": "talk.mp4 has no drawn.mp4: it is done."})
    assert client.delete(f"/jobs/{job['id']}").status_code == 204


def test_a_threshold_marks_what_is_unsure_in_every_file(client, talk):
    job = ended(client, upload(client, talk.read_bytes(), end="1", draw=False, threshold=1).json()["id"])
    results = client.get(f"/jobs/{job['id']}/results.json").json()
    rows = list(csv.DictReader(io.StringIO(client.get(f"/jobs/{job['id']}/results.csv").text)))
    assert {face["unsure"] for result in results for face in result["faces"]} == {True}
    assert {row["unsure"] for row in rows} == {"True"}
    assert client.delete(f"/jobs/{job['id']}").status_code == 204


def test_what_was_deleted_is_gone(client, server, talk):
    kept = folders(server)
    ids = [upload(client, talk.read_bytes()).json()["id"] for _ in range(3)]
    wait_for(lambda: client.get(f"/jobs/{ids[0]}").json()["state"] == "running")
    assert client.get(f"/jobs/{ids[0]}/results.json").status_code == 409
    for id in ids:
        assert client.delete(f"/jobs/{id}").status_code == 204
        assert client.get(f"/jobs/{id}").status_code == 404
        assert client.delete(f"/jobs/{id}").status_code == 404
    wait_for(lambda: folders(server) == kept)


def folders(server) -> list:
    return sorted(server.temp.glob("facerwkv-serve-*/*"))


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not happen within 60 s"
        time.sleep(0.05)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:30\n#EXTINF:20,\nfile://{video}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "text",
    ["", "hello", "ffconcat version 1.0\nfile '{video}'\n", PLAYLIST, "<svg/>"],
    ids=["empty", "text", "concat", "playlist", "svg"],
)
def test_what_is_no_video_is_refused(client, server, talk, text):
    kept = folders(server)
    answer = upload(client, text.format(video=talk).encode(), "talk.mp4")
    sentence = "talk.mp4 is no video that can be read, or it is damaged or cut short."
    assert (answer.status_code, answer.json()) == (415, {"detail": sentence})
    assert folders(server) == kept


def test_sound_alone_is_refused(client, tmp_path):
    answer = upload(client, sound(tmp_path / "sound.mp4").read_bytes(), "sound.mp4")
    assert answer.status_code == 415
    assert answer.json()["detail"] == "sound.mp4 has no video track; give a video with images."


def test_a_video_without_frames_fails_with_a_sentence(client, tmp_path):
    data = clip(tmp_path / "clip.mp4").read_bytes()
    for sent, options, sentence in (
        (data, {"start": "1:00"}, "clip.mp4 has no frames from 60 s on; start earlier."),
        (data[: data.index(b"mdat") + 4], {}, "clip.mp4 stops at 0.0 s of 2.0 s: it is damaged or cut short."),
    ):
        job = ended(client, upload(client, sent, "clip.mp4", **options).json()["id"])
        assert (job["state"], job["files"], job["frames"]) == ("failed", [], 0)
        assert job["message"].startswith(sentence)
        assert client.delete(f"/jobs/{job['id']}").status_code == 204


def test_what_came_before_a_damaged_end_is_kept(client, tmp_path):
    data = clip(tmp_path / "clip.mp4", 100).read_bytes()
    job = ended(client, upload(client, data[: len(data) // 2], "clip.mp4").json()["id"])
    assert job["state"] == "done"
    assert 20 < job["frames"] < 80
    assert job["message"].startswith("clip.mp4 stops at ")
    assert job["message"].endswith("What came before is kept.")
    results = client.get(f"/jobs/{job['id']}/results.json").json()
    assert len(results) == job["frames"] + 1
    assert results[-1]["status"] == "unreadable"
    with av.open(io.BytesIO(client.get(f"/jobs/{job['id']}/drawn.mp4").content)) as video:
        assert sum(1 for _ in video.decode(video=0)) == job["frames"]
    assert client.delete(f"/jobs/{job['id']}").status_code == 204


def worked(tmp_path, predictor, video, options=None, **limits) -> Job:
    """A job after its work, done here."""
    job = Job("id", tmp_path / "job", "clip.mp4", options or JobOptions(stride=10))
    job.folder.mkdir()
    shutil.copy(video, job.upload)
    work_on(job, predictor, Limits(**limits))
    return job


def test_frames_above_the_limit_are_left_out(tmp_path, predictor):
    job = worked(tmp_path, predictor, clip(tmp_path / "clip.mp4"), frames=3)
    assert len(json.loads((job.folder / "results.json").read_text())) == job.frames == 3
    assert job.message == "It stops at 0.8 s: 3 frames are allowed. What came before is kept."


def test_work_ends_when_its_time_is_over(tmp_path, predictor, talk):
    job = worked(tmp_path, predictor, talk, JobOptions(), seconds=2)
    assert 0 < job.frames < 472
    assert job.message.endswith("2 seconds of work are allowed. What came before is kept.")


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """40,000 frames: to pass over them takes seconds."""
    folder = tmp_path_factory.mktemp("long")
    part = ffmpeg(folder / "part.mp4", *counted(40), "-c:v", "libx264", "-preset", "ultrafast", "-g", "250")
    return ffmpeg(folder / "long.mp4", "-stream_loop", "39", "-i", str(part), "-c", "copy")


def test_frames_that_are_passed_over_watch_the_time(tmp_path, predictor, long):
    started = time.monotonic()
    job = worked(tmp_path, predictor, long, JobOptions(stride=10**8), seconds=1)
    assert time.monotonic() - started < 3
    assert job.frames == 1
    assert job.message.endswith("1 seconds of work are allowed. What came before is kept.")


def test_frames_that_are_passed_over_watch_cancel(jobs, long):
    with jobs.receiving() as job:
        shutil.copy(long, job.upload)
        jobs.add(job, "long.mp4", JobOptions(stride=10**8))
    wait_for(lambda: job.state == "running")
    jobs.delete(job.id)
    started = time.monotonic()
    wait_for(lambda: not job.folder.exists())
    assert time.monotonic() - started < 1


def test_frames_with_too_many_pixels_are_refused(tmp_path):
    with pytest.raises(HTTPException, match=r"clip.mp4 has 320 x 240 pixels, more than the 1,000 that are allowed\."):
        check_video(clip(tmp_path / "clip.mp4", 2), "clip.mp4", 1000)


def test_a_disk_that_is_full_while_a_video_is_drawn(tmp_path, predictor):
    job = Job("id", tmp_path, "clip.mp4", JobOptions())
    clip(tmp_path / "clip.mp4").rename(job.upload)
    (tmp_path / "drawn.mp4").symlink_to(FULL)
    with pytest.raises(InputError, match=r"^The service's disk is full\. Delete a video there\."):
        work_on(job, predictor, Limits())
    assert not (tmp_path / "results.json").exists()


def test_a_disk_that_is_full_while_a_video_is_uploaded(tmp_path):
    (tmp_path / "upload").symlink_to(FULL)
    kind = f"multipart/form-data; boundary={BOUNDARY}".encode()
    pieces = [{"type": "http.request", "body": form(b"x" * 100_000, field="file"), "more_body": False}]

    async def receive():
        return pieces.pop()

    request = Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind)]}, receive)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(save_video(request, Limits(), Share(Quota(10**6)), tmp_path / "upload"))
    assert refused.value.status_code == 503
    assert refused.value.detail.startswith("The service's disk is full.")


@pytest.fixture
def jobs(predictor):
    """Two videos at most, kept for a second."""
    jobs = Jobs(predictor, Limits(jobs=2, kept_seconds=1))
    yield jobs
    close(jobs)


def close(jobs: Jobs) -> None:
    jobs.stop()
    jobs.worker.join(30)
    jobs.remove_folder()


def added(jobs: Jobs, owner: str = "", source: str = "clip.mp4") -> Job:
    with jobs.receiving() as job:
        job.upload.write_bytes(b"")
        jobs.add(job, source, JobOptions(), owner)
    return job


@pytest.fixture
def worked_on(monkeypatch):
    """The videos in the order of the work, which is none, once they are allowed."""
    order, allowed = [], threading.Semaphore(0)

    def work(job, *_):
        assert allowed.acquire(timeout=30)
        order.append(job.source)

    monkeypatch.setattr("facerwkv.web.jobs.work_on", work)
    order_and_allow = order, lambda count=1: allowed.release(count)
    yield order_and_allow
    allowed.release(100)


def test_more_videos_than_allowed_are_refused_and_uploads_do_not_count(jobs, worked_on):
    with jobs.receiving(), jobs.receiving(), jobs.receiving():
        first, _ = added(jobs), added(jobs)
        with pytest.raises(HTTPException) as refused:
            added(jobs)
        assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "60"})
        worked_on[1]()
        wait_for(lambda: first.state == "done")
        added(jobs)
    assert len(list(jobs.folder.glob("*/"))) == 3


def test_finished_videos_make_room_oldest_first(predictor, worked_on):
    jobs = Jobs(predictor, Limits(kept=2))
    worked_on[1](5)
    for number in range(5):
        job = added(jobs, "me", str(number))
        wait_for(lambda job=job: job.state == "done")
    assert [job.source for job in jobs.of("me")] == ["3", "4"]
    wait_for(lambda: len(list(jobs.folder.glob("*/"))) == 2)
    close(jobs)


def test_who_sent_several_videos_waits_for_the_first_of_others(predictor, worked_on):
    jobs, (order, allow) = Jobs(predictor, Limits()), worked_on
    first = added(jobs, "a", "a1")
    wait_for(lambda: first.state == "running")
    for owner, source in (("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")):
        last = added(jobs, owner, source)
    allow(6)
    wait_for(lambda: last.ended and all(job.ended for job in jobs.of("a")))
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]
    close(jobs)


def test_a_client_lists_its_own_videos(client, tmp_path):
    data, mine, other = clip(tmp_path / "clip.mp4", 2).read_bytes(), {"Client-Id": "a" * 32}, {"Client-Id": "b" * 32}
    ids = [upload(client, data, name, headers=mine).json()["id"] for name in ("1.mp4", "2.mp4")]
    strangers = [upload(client, data, "3.mp4", headers=other).json()["id"], upload(client, data, "4.mp4").json()["id"]]
    listed = client.get("/jobs", headers=mine).json()["jobs"]
    assert [(job["id"], job["source"]) for job in listed] == list(zip(ids, ("1.mp4", "2.mp4"), strict=True))
    assert [job["id"] for job in client.get("/jobs", headers=other).json()["jobs"]] == strangers[:1]
    assert listed[0].keys() == client.get(f"/jobs/{ids[0]}").json().keys()
    for headers in ({}, {"Client-Id": ""}, {"Client-Id": "short"}):
        assert client.get("/jobs", headers=headers).status_code == 400
    assert client.get("/jobs").json() == {"detail": "Client-Id is missing."}
    for id in ids + strangers:
        client.delete(f"/jobs/{id}")


def test_a_video_expires(jobs, tmp_path):
    with jobs.receiving() as job:
        clip(tmp_path / "clip.mp4", 3).rename(job.upload)
        jobs.add(job, "clip.mp4", JobOptions())
    wait_for(lambda: job.state == "done")
    assert sorted(path.name for path in job.folder.iterdir()) == sorted(FILES)
    time.sleep(1.1)
    with pytest.raises(HTTPException, match="expired"):
        jobs.get(job.id)
    assert not job.folder.exists()


def test_closing_removes_everything(predictor, talk):
    jobs = Jobs(predictor, Limits())
    with jobs.receiving() as job:
        shutil.copy(talk, job.upload)
        jobs.add(job, "talk.mp4", JobOptions())
    wait_for(lambda: job.frames)
    close(jobs)
    assert not job.folder.parent.exists()


def test_a_video_that_breaks_the_service_fails_alone(jobs, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("a secret of this machine")

    monkeypatch.setattr("facerwkv.web.jobs.work_on", broken)
    with jobs.receiving() as job:
        clip(tmp_path / "clip.mp4", 3).rename(job.upload)
        jobs.add(job, "clip.mp4", JobOptions())
    wait_for(lambda: job.state == "failed")
    assert job.message == "The service failed on this video. What went wrong is in its log."
    assert not job.folder.exists()


@pytest.mark.parametrize(("audio", "tracks"), [(True, ["video", "audio"]), (False, ["video"])])
def test_the_drawn_video_sounds_as_the_upload_does(tmp_path, predictor, audio, tracks):
    path = ffmpeg(tmp_path / "a.webm", *counted(0.4), *tone(0.4), "-c:v", "libvpx", "-c:a", "libvorbis")
    job = worked(tmp_path, predictor, path, JobOptions(stride=5, audio=audio))
    with av.open(job.folder / "drawn.mp4") as video:
        assert [track.type for track in video.streams] == tracks
        assert float(video.streams.video[0].duration * video.streams.video[0].time_base) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animated_image_is_a_video_and_a_still_one_is_none(tmp_path, predictor, kind):
    first, *others = (Image.new("RGB", (96, 64), (60 * i, 0, 0)) for i in range(4))
    first.save(tmp_path / "upload", kind, save_all=True, append_images=others, duration=100)
    check_video(tmp_path / "upload", "a.gif", 96 * 64)
    with pytest.raises(HTTPException, match="413"):
        check_video(tmp_path / "upload", "a.gif", 96 * 64 - 1)
    job = worked(tmp_path, predictor, tmp_path / "upload", JobOptions())
    assert (job.frames, job.files) == (4, [])
    assert (job.folder / "drawn.mp4").is_file()
    first.save(tmp_path / "still", kind)
    with pytest.raises(HTTPException, match="415"):
        check_video(tmp_path / "still", "a.gif", 96 * 64)


def test_a_cover_is_no_video(tmp_path):
    cover = ffmpeg(tmp_path / "cover.png", "-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1")
    maps = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"]
    path = ffmpeg(tmp_path / "song.m4a", "-i", str(cover), *tone(0.2), *maps)
    with pytest.raises(HTTPException, match="has no video track"):
        check_video(path, "song.m4a", 10**6)


def test_what_pixels_are_worth_counts_with_their_shape(tmp_path):
    path = ffmpeg(tmp_path / "wide.mp4", *counted(0.2), "-vf", "setsar=2/1", "-c:v", "libx264")
    check_video(path, "wide.mp4", 192 * 64)
    with pytest.raises(HTTPException, match="192 x 64 pixels, more than the 12,287 that are allowed"):
        check_video(path, "wide.mp4", 192 * 64 - 1)
