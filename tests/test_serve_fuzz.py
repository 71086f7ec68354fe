"""Bodies and paths that nobody meant: SQL, rules, vectors, and a fuzz of every endpoint. Never a 500."""

import json
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_util import shared_out
from tars import uid

from index.service.app import create_app
from index.service.settings import Settings

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    app = create_app([str(shared_out(tmp_path_factory))], Settings(models=False, body=1 << 20))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_sql_cannot_hide_a_function_or_read_a_file(client):
    for sql in (
        "/* ' */ length(lpad(text, 1000000000, 'x')) > 5 /* ' */ or text = ''",
        "text = '' -- '\n or length(lpad(text, 1000000000, 'x')) > 5 -- '",
        "text = $$ ' $$ or lpad(text, 1000000000, 'x') = $$ ' $$",
        "\"'\" = lpad(text, 1000000000, 'x') or \"'\" = ''",
        "'\\' < lpad(text, 1000000000, 'x') or '\\' < text",
        "uid in (select column_1 from read_csv('/etc/passwd'))",
        "length(" + "text||" * 500 + "text) > 1",
        "length(" + "text+" * 500 + "text) > 1",
        "language_score > avg(language_score)",
        "1 = 1; drop table self",
        "language_score > " + "1+" * 1900 + "1",
        "\ud800",
        "`'` = 1",
    ):
        for path, body in (
            ("/api/search", {"k": 1, "among": {"where": sql}}),
            ("/api/preview", {"select": {"where": {"sql": sql}}}),
            ("/api/export", {"select": {"not": {"where": {"sql": sql}}}}),
        ):
            answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
            assert answer.status_code in (400, 422), (sql[:60], answer.status_code, answer.text[:200])
    good = "text like '%it''s%' or (language_score >= 0.5 and length(text) + 1 > 3) or \"language\" in ('en', 'de')"
    assert client.post("/api/search", json={"k": 1, "among": {"where": good}}).status_code == 200


@pytest.mark.parametrize(
    "tree",
    [
        {"in_subset": {"path": "/etc/passwd"}}, {"in_subset": {"path": "../../x"}}, {"in_subset": {"path": "http://x/"}},
        {"os.system": {}}, {"mmfilter.rules.where:Where": {}}, {"pkg:Evil": {}}, None, [], 3, "where", {"all": 3},
        {"not": {"not": None}}, {"all": [{"everything": {}}] * 200}, {"threshold": {"score": "nope", "min": 0}},
        {"threshold": {"score": "text", "min": 0}}, {"where": {"sql": 5}}, {"where": 5}, {"random": {"keep": 1e400}},
    ],
    ids=str,
)  # fmt: skip
def test_rules_from_strangers_are_checked(client, tree):
    answer = client.post("/api/preview", content=json.dumps({"select": tree}), headers=JSON)
    assert 400 <= answer.status_code < 500 and answer.json()["error"]


def test_rules_nested_without_end(client):
    deep = '{"not":' * 50_000 + "{}" + "}" * 50_000
    for path in ("/api/preview", "/api/export"):
        assert 400 <= client.post(path, content='{"select":' + deep + "}", headers=JSON).status_code < 500
    assert 400 <= client.post("/knn-service", content="[" * 200_000).status_code < 500


ENDPOINTS = ("/api/search", "/api/preview", "/api/export", "/knn-service", "/metadata", "/api/session")
FIELDS = """pool index text image uid vector like unlike minus k floor among seed verdict select uids modality
num_images num_result_ids indice_name image_url embedding_input deduplicate ids subset kept where clusters
without_clusters all any not then threshold score min max fraction keep sql path caption in_subset""".split()  # noqa: SIM905
WORDS = (
    uid(7),
    "demo",
    "demo-image",
    "image",
    "text",
    "language_score",
    "language_score > 0.5",
    "../x",
    "\ud800",
    "\x00",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5).map(json.dumps).map(str.encode)


@given(st.sampled_from(ENDPOINTS), BODIES | VALUES.map(json.dumps).map(str.encode) | st.binary(max_size=40))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_body_is_a_500(client, path, body):
    answer = client.post(path, content=body, headers=JSON)
    assert answer.status_code < 500, (path, body, answer.text)
    assert answer.headers["x-content-type-options"] == "nosniff"


PLACES = st.text(max_size=30) | st.sampled_from([*WORDS[:8], "%00", "..%2f..%2fetc%2fpasswd", "NaN", "1e999", "-1", ""])


@given(st.sampled_from(["sample", "image", "histogram", "edge", "concepts", "duplicates"]), PLACES, PLACES, PLACES)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_path_is_a_500(client, route, place, value, other):
    safe = quote(place, safe="%", errors="replace")
    names = {"side": value, "at": value, "bins": other, "n": other, "offset": value, "limit": other, "pool": other}
    params = {name: given.encode("utf-8", "replace").decode() for name, given in names.items()}
    for asked in (params, {"at": "0.5"}):
        answer = client.get(f"/api/{route}/{safe}", params=asked)
        assert answer.status_code < 500, (route, place, asked, answer.text)


def test_a_vector_of_odd_numbers(client):
    dim = next(iter(client.app.state.service.first.snapshot.indices.values())).index.dim
    for value in ("NaN", "Infinity", "1e39", "1e400", "0", '"1"', "null"):
        body = f'{{"vector": [{", ".join([value] * dim)}], "k": 3}}'
        answer = client.post("/api/search", content=body, headers=JSON)
        assert answer.status_code in ((200,) if value in ("1e39", '"1"') else (400, 422)), (value, answer.text)
