"""1,000 and more random and hostile requests to each of the service's doors: never a 500, never another's file."""

import json
import os
import socket
import string

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_util import serving, shared_out

from index.service.app import create_app
from index.service.settings import Settings

pytestmark = pytest.mark.slow  # together, not each: its fixtures take seconds

POSTS = ("/api/search", "/api/preview", "/api/export", "/knn-service", "/metadata")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    app = create_app([str(shared_out(tmp_path_factory))], Settings(models=False))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


HOSTILE = [
    "",
    "\x00",
    "\ud800",
    "' OR 1=1 --",
    "../../etc/passwd",
    "{{7*7}}",
    "9" * 400,
    "text = text",
    "NaN",
    "😀" * 50,
]
TEXT = st.sampled_from(HOSTILE) | st.text(max_size=30)
SCALAR = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT
UIDS = st.sampled_from(["0" * 32, "F" * 32, "x" * 32])
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TOKENS = "text uid caption_words language ( ) , = > < AND OR NOT IN LIKE NULL 'a' 1 -1 1e999 + / % * || CASE"
SQL = st.lists(st.sampled_from(TOKENS.split(" ")), max_size=8).map(" ".join)
RULE = st.recursive(
    st.fixed_dictionaries({"where": st.fixed_dictionaries({"sql": SQL | TEXT})})
    | st.fixed_dictionaries({"threshold": st.fixed_dictionaries({"score": TEXT, "min": SCALAR})})
    | st.fixed_dictionaries({"fraction": st.fixed_dictionaries({"score": st.just("caption_words"), "keep": SCALAR})})
    | st.fixed_dictionaries({"in_subset": st.fixed_dictionaries({"path": TEXT})}),
    lambda inner: (
        st.fixed_dictionaries({"all": st.lists(inner, max_size=3)})
        | st.fixed_dictionaries({"not": inner})
        | st.fixed_dictionaries({"then": st.lists(inner, max_size=3)})
    ),
    max_leaves=5,
)
AMONG = st.fixed_dictionaries({}, optional={"where": SQL | TEXT, "kept": SCALAR, "clusters": JSON, "subset": TEXT})
VECTOR = st.lists(st.floats(), max_size=3) | st.just([0.0] * 128) | st.just([1e308] * 128) | JSON
VALUES = {
    "vector": VECTOR, "uid": UIDS | JSON, "like": st.lists(UIDS) | JSON, "unlike": JSON, "k": SCALAR, "floor": SCALAR,
    "among": AMONG | JSON, "seed": SCALAR, "text": TEXT, "image": TEXT, "index": TEXT | st.just("demo-image"),
    "pool": TEXT, "select": RULE | JSON, "uids": st.lists(UIDS) | JSON, "ids": st.lists(st.integers()) | JSON,
    "modality": TEXT, "num_images": SCALAR, "embedding_input": VECTOR, "image_url": TEXT, "deduplicate": SCALAR,
    "num_result_ids": SCALAR, "indice_name": TEXT | st.sampled_from(["demo-image", "/", "a/"]), "use_mclip": SCALAR,
    "use_safety_model": SCALAR, "aesthetic_score": SCALAR | TEXT, "aesthetic_weight": SCALAR | TEXT,
}  # fmt: skip
FIELDS = {
    "/api/search": ["vector", "uid", "like", "unlike", "k", "floor", "among", "seed", "text", "image", "index", "pool"],
    "/api/preview": ["select", "pool"],
    "/api/export": ["select", "uids"],
    "/knn-service": [
        "embedding_input",
        "modality",
        "num_images",
        "text",
        "image",
        "image_url",
        "deduplicate",
        "num_result_ids",
        "indice_name",
        "use_mclip",
        "use_safety_model",
        "aesthetic_score",
        "aesthetic_weight",
    ],
    "/metadata": ["ids", "index"],
}
EXAMPLES = int(os.environ.get("MMFILTER_FUZZ", "80"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", POSTS)
def test_no_body_is_a_500(client, path):
    bodies = st.fixed_dictionaries({}, optional={name: VALUES[name] for name in FIELDS[path]}) | JSON

    @FUZZ
    @given(bodies)
    def ask(body):
        answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
        assert answer.status_code < 500, (body, answer.text)
        if answer.status_code != 200:
            assert set(answer.json()) == {"error"}

    ask()


@pytest.mark.parametrize(
    "route",
    [
        "/api/sample/{}",
        "/api/image/{}",
        "/api/histogram/{}",
        "/api/edge/{}?at=1",
        "/api/concepts/{}",
        "/page/{}",
        "/{}",
        "/api/image/00000000000000000000000000000000?side={}",
        "/api/histogram/caption_words?bins={}",
        "/api/edge/caption_words?at={}",
        "/api/duplicates?offset={}",
        "/api/info?pool={}",
    ],
)
def test_no_path_is_a_500(client, route):
    from urllib.parse import quote

    @FUZZ
    @given(TEXT | st.sampled_from(["..%2f..%2fetc%2fpasswd", "%00", "-1", "nan", "inf", "1e400"]))
    def ask(word):
        answer = client.get(route.format(quote(word.encode("utf-8", "surrogatepass"))))
        assert answer.status_code < 500, (word, answer.text)
        assert b"root:" not in answer.content

    ask()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"k":' * 3_000, b"nul", b"1" * 5_000, b'"\\ud800"']
)
@pytest.mark.parametrize("path", POSTS)
def test_bytes_that_are_no_json(client, path, body):
    for kind in ({"content-type": "application/json"}, {}, {"content-type": "multipart/form-data"}):
        answer = client.post(path, content=body, headers=kind)
        assert 400 <= answer.status_code < 500 and "error" in answer.json()


def test_raw_noise_on_the_socket(client):
    rng = np.random.default_rng(0)
    import httpx

    letters = string.printable.encode()
    with serving(client.app) as url:
        port = int(url.rsplit(":", 1)[1])
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", port), 5) as raw:
                noise = bytes(rng.choice(list(letters), 200)) if rng.random() < 0.5 else rng.bytes(200)
                raw.sendall(noise + b"\r\n\r\n")
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(4096):
                    pass
        assert httpx.get(f"{url}/api/info", timeout=5).status_code == 200
