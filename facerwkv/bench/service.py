"""Answers per second of the service, asked by many clients at once."""

import http.client
import importlib.util
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from facerwkv.bench.answers import Disagreement, Skipped
from facerwkv.bench.timing import BenchSetting, Measured
from facerwkv.inference.predictor import load

EACH, ROUNDS = 25, 4
BOUNDARY = "a-boundary-that-no-image-holds"


def service(model: str, image: np.ndarray, clients: int, setting: BenchSetting) -> Measured:
    """Answers per second to clients that send an image, uint8 (H, W, 3), as a JPEG, each again once it is answered.

    Disagreement where an answer is another than the predictor's.
    """
    if not importlib.util.find_spec("uvicorn"):
        raise Skipped('the service is not installed: pip install "facerwkv[serve]"')
    Image.fromarray(image).save(file := BytesIO(), "JPEG", quality=90)
    expected = [face.label for face in load(model, "cpu").predict(file.getvalue()).faces]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="image.jpg"\r\n\r\n'
    body, wrong = head.encode() + file.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode(), []
    each = max(1, EACH // setting.shrink**2)

    def client(address: str) -> None:
        connection = http.client.HTTPConnection(address, timeout=300)
        for _ in range(each):
            kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
            connection.request("POST", "/predict", body, kind)
            answer = json.loads(connection.getresponse().read())
            labels = [face["label"] for face in answer.get("results", [{"faces": []}])[0]["faces"]]
            if labels != expected:
                wrong.append(labels)
        connection.close()

    rates = []
    with _serving(model) as address:
        for _ in range(1 + (setting.repeats or ROUNDS)):  # the first round warms up
            asking = [threading.Thread(target=client, args=(address,)) for _ in range(clients)]
            start = time.perf_counter()
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()
            rates.append(clients * each / (time.perf_counter() - start))
    if wrong:
        raise Disagreement(f"of {clients} clients some were told {wrong[0]}, not {expected}")
    return Measured(*(float(np.quantile(rates[1:], share)) for share in (0.5, 0.25, 0.75)))


@contextmanager
def _serving(model: str) -> Iterator[str]:
    """Host and port of a service in a process of its own."""
    command = [sys.executable, "-m", "facerwkv", "serve", "--port", "0", "--model", model, "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            said = (re.search(r"http://\S+", line) for line in process.stdout or ())
            found = next((each for each in said if each), None)
            if not found:
                raise RuntimeError("facerwkv serve does not start; run it to see why")
            yield urlsplit(found[0]).netloc
        finally:
            process.send_signal(signal.SIGTERM)
