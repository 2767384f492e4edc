"""The service that anyone writes around a predictor in five minutes, to compare with: `python naive.py MODEL`."""

import socket
import sys

import uvicorn
from fastapi import FastAPI, UploadFile

import facerwkv

app, predictor = FastAPI(), facerwkv.load(sys.argv[1], "cpu")


@app.get("/healthz")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/predict")
def predict(files: list[UploadFile]) -> dict[str, list]:
    return {"results": [predictor.predict(file.file.read()).to_dict() for file in files]}


with socket.socket(proto=socket.IPPROTO_TCP) as listening:
    listening.bind(("127.0.0.1", 0))
    listening.listen(500)
    print(f"Open http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run([listening])
