"""A picture, a video, one training epoch, an export and the service, with the Python that runs this file.

`python tests/smoke.py FOLDER [PHOTO]` ends with "works". It needs nothing but the package and its extra `all`, so that
the lowest and the newest versions, and every system, are tried alike. FOLDER gets what is written; PHOTO shows faces.
"""

import csv
import json
import subprocess
import sys
import urllib.request
from base64 import b64encode
from pathlib import Path

FACERWKV = [sys.executable, "-m", "facerwkv"]
TOY = "toy:train=14,val=7,test=7"
EPOCH = ["--recipe", "demo", "--data", TOY, "train.epochs=1", "train.device=cpu", "data.cache=false", "data.workers=1"]


def facerwkv(*arguments: object, cwd: Path) -> str:
    done = subprocess.run([*FACERWKV, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        sys.exit(f"facerwkv {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def main(folder: Path, photo: Path | None = None) -> None:
    facerwkv("--help", cwd=folder)
    photo = photo or drawn_photo(folder)
    film(photo, folder / "film.mp4")
    scene = ["--on-no-face", "scene"]
    drawn = ["--save-media", "drawn", *scene]
    facerwkv("predict", photo, "--out", "photo.json", *drawn, cwd=folder)
    (answer,) = json.loads((folder / "photo.json").read_text(encoding="utf-8"))
    facerwkv("predict", "film.mp4", "--out", "film.csv", "--smooth", "median:3", *drawn, cwd=folder)
    with (folder / "film.csv").open(encoding="utf-8", newline="") as file:
        assert len({row["time"] for row in csv.DictReader(file)}) == 5
    assert {path.suffix for path in (folder / "drawn").glob("[!.]*")} == {photo.suffix, ".mp4"}
    facerwkv("train", *EPOCH, "--out", "run", cwd=folder)
    facerwkv("evaluate", "--model", "run", cwd=folder)
    facerwkv("export", "--model", "run", "--out", "run.onnx", cwd=folder)
    for engine in (["--model", "run"], ["--model", "run.onnx"], ["--model", "run.onnx", "--engine", "openvino"]):
        facerwkv("predict", photo, "--out", "photo.parquet", *engine, *scene, cwd=folder)
    facerwkv("explain", photo, "--out", "explained.png", cwd=folder)
    labels = [[face["label"] for face in each["faces"]] for each in (served(photo, folder), answer)]
    assert labels[0] == labels[1]
    print("works")


def drawn_photo(folder: Path) -> Path:
    from PIL import Image

    from facerwkv.data.toy.scenes import render

    Image.fromarray(render(0, "test").image).save(folder / "photo.png")
    return folder / "photo.png"


def film(photo: Path, path: Path) -> None:
    """Five frames of the photo as a video."""
    import av
    from PIL import Image

    with av.open(str(path), "w") as container, Image.open(photo) as image:
        track = container.add_stream("libx264", rate=5)
        track.width, track.height = (side // 2 * 2 for side in image.size)
        frame = image.convert("RGB").crop((0, 0, track.width, track.height))
        for _ in range(5):
            container.mux(track.encode(av.VideoFrame.from_image(frame)))
        container.mux(track.encode())


def served(photo: Path, folder: Path) -> dict:
    """The service's answer for the photo."""
    service = subprocess.Popen([*FACERWKV, "serve", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert service.stdout
    try:
        address = next(line.split()[1] for line in service.stdout if line.startswith("Open "))
        body = json.dumps({"images": [b64encode(photo.read_bytes()).decode()]}).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}predict?on_no_face=scene", body, kind)
        with urllib.request.urlopen(request) as response:
            return json.load(response)["results"][0]
    finally:
        service.terminate()
        service.wait(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(Path, sys.argv[2:3]))
