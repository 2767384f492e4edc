"""The OpenAPI document against the service, by a program that knows neither."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.web.conftest import serving

RUN = "from schemathesis.cli import schemathesis; schemathesis()"
UNTRUE = "positive_data_acceptance"  # any bytes fit the document as an image, and few are one


@pytest.mark.slow
@pytest.mark.skipif(find_spec("schemathesis") is None, reason='needs the extra contract: pip install ".[contract]"')
def test_schemathesis_finds_nothing(tmp_path):
    with serving(tmp_path / "service", token="s3cret") as server:
        options = ["--header", "Authorization: Bearer s3cret", "--exclude-checks", UNTRUE]
        options += ["--max-examples", "30", "--seed", "0", "--no-shrink"]
        command = [sys.executable, "-c", RUN, "run", f"{server.url}/openapi.json", *options]
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), "")
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | proxies, capture_output=True, text=True, timeout=500, check=False
        )
    assert done.returncode == 0, done.stdout[-8000:]
