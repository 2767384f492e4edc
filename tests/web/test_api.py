"""What the service says of itself: its OpenAPI document, figures, access log, and who may not come in."""

import logging
import re

import pytest
from fastapi.testclient import TestClient

import facerwkv
from facerwkv.inference.options import facts
from facerwkv.web import guard, routes
from facerwkv.web.app import create_app
from facerwkv.web.schemas import PROBLEMS
from tests.web.conftest import MODEL

TOKEN = {"Authorization": "Bearer s3cret"}


@pytest.fixture(scope="module")
def predictor():
    return facerwkv.load(MODEL, "cpu")


@pytest.fixture
def client(predictor):
    with TestClient(create_app(predictor, token="s3cret", access_log=True), "http://localhost") as client:
        yield client


@pytest.fixture
def document(client):
    return client.get("/openapi.json", headers=TOKEN).json()


def test_the_document_has_every_route(document):
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    made = {(route.path, method) for route in routes.router.routes for method in getattr(route, "methods", ("GET",))}
    assert described == made | {("/healthz", "GET")}


def test_every_operation_tells_its_responses_and_that_it_needs_the_token(document):
    assert document["components"]["securitySchemes"].keys() == {"bearer", "query"}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == (path != "/healthz")
            assert ("401" in operation["responses"]) == (path != "/healthz")
            for status, response in operation["responses"].items():
                if int(status) in PROBLEMS:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}, (path, status)
                elif status in ("200", "202"):
                    assert response["content"], path
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_without_a_token_there_is_no_security(predictor):
    with TestClient(create_app(predictor), "http://localhost") as client:
        document = client.get("/openapi.json").json()
    assert "securitySchemes" not in document["components"]
    assert not any("security" in operation for each in document["paths"].values() for operation in each.values())


@pytest.mark.parametrize(("path", "method", "kind"), [("/predict", "post", "image"), ("/jobs", "post", "video")])
def test_parameters_are_the_options_that_are_taken(document, path, method, kind):
    given = {each["name"] for each in document["paths"][path][method]["parameters"] if each["in"] == "query"}
    assert given - {"draw"} == {name for name, fact in facts().items() if kind in fact.kinds and fact.service}


def test_a_method_that_is_not_allowed_is_told_which_are(client):
    for path, allowed in (("/jobs", "GET, POST"), ("/jobs/x", "DELETE, GET"), ("/predict", "POST"), ("/", "GET")):
        answer = client.put(path, headers=TOKEN)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


def test_the_stream_is_described_and_wants_a_websocket(client, document):
    operation = document["paths"]["/stream"]["get"]
    assert "101" in operation["responses"]
    assert "one JPEG or PNG per binary message" in operation["description"].replace("\n", " ")
    answer = client.get("/stream", headers=TOKEN)
    assert (answer.status_code, answer.headers["Upgrade"]) == (426, "websocket")


def test_figures_for_prometheus(client):
    for _ in range(2):
        client.get("/healthz")
    client.get("/nothing")
    client.get("/jobs/abc", headers=TOKEN)
    answer = client.get("/metrics", headers=TOKEN)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert 'facerwkv_requests_total{method="GET",route="/healthz",status="200"} 2' in lines
    assert 'facerwkv_requests_total{method="GET",route="other",status="404"} 1' in lines
    assert 'facerwkv_requests_total{method="GET",route="/jobs/{id}",status="404"} 1' in lines
    assert 'facerwkv_request_seconds_bucket{route="/healthz",le="+Inf"} 2' in lines
    assert "facerwkv_images_waiting 0" in lines
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+')
    assert [line for line in lines if not (sample.fullmatch(line) or line.startswith("# "))] == []
    assert client.get("/metrics").status_code == 401


def test_the_access_log_names_requests_but_not_the_token(client, caplog):
    with caplog.at_level(logging.INFO, "facerwkv.access"):
        answer = client.get("/meta?token=s3cret", headers={"X-Request-Id": "from-the-proxy.1"})
        other = client.get("/healthz", headers={"X-Request-Id": "not\tone"})
    assert answer.headers["X-Request-Id"] == "from-the-proxy.1"
    assert re.fullmatch("[0-9a-f]{16}", other.headers["X-Request-Id"])
    first, second = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(r"testclient GET '/meta' 200 \d+\.\d ms from-the-proxy\.1", first)
    assert second.endswith(other.headers["X-Request-Id"])
    assert "s3cret" not in caplog.text


def test_who_has_no_token_is_told_how_it_travels(client):
    answer = client.get("/meta")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="facerwkv"')
    wrong = client.get("/meta?token=x")
    assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="facerwkv", error="invalid_token"'


def test_wrong_tokens_are_limited_by_address(client, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(guard, "monotonic", lambda: now[0])
    for _ in range(guard.WRONG):
        assert client.get("/meta?token=wrong").status_code == 401
        assert client.get("/meta").status_code == 401  # none is no guess
        now[0] += 1
    answer = client.get("/meta", headers=TOKEN)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "40")
    assert client.get("/healthz").status_code == 200
    now[0] += 41
    assert client.get("/meta", headers=TOKEN).status_code == 200
    tries = guard.Tries()
    for number in range(guard.ADDRESSES + 5):
        tries.add(str(number))
    assert len(tries._times) == guard.ADDRESSES
