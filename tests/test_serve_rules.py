"""Rules, histograms and thresholds over HTTP: what `select` itself would do, and what is refused."""

import io
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serve_util import shared_out

from index.service.app import create_app
from index.service.settings import Settings
from mmfilter.subset import Subset
from mmfilter.table import open_table
from mmfilter.uids import format_uids

SCORE = "clip_demo_similarity_score"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return shared_out(tmp_path_factory)


@pytest.fixture(scope="module")
def client(out):
    with TestClient(create_app([str(out)], Settings(models=False)), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def table(out):
    return open_table(str(out)).read(["uid", "text", SCORE, "caption_words", "original_width"])


def ask(client, path, body=None, status=200):
    answer = client.get(path) if body is None else client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_histogram_counts_every_sample(client, out, table):
    told = ask(client, f"/api/histogram/{SCORE}?bins=20")
    counts, edges = np.histogram(table[SCORE].to_numpy().astype(float), 20)
    assert told["counts"] == counts.tolist() and told["missing"] == 0
    np.testing.assert_allclose(told["edges"], edges)
    steps = json.loads((out / "subsets" / "demo.json").read_text())["steps"]
    assert told["thresholds"] == [value for step in steps for value in step["thresholds"].get(SCORE, [])]
    whole = ask(client, "/api/histogram/caption_words")
    values, n = np.unique(table["caption_words"].to_numpy(), return_counts=True)
    assert dict(zip(whole["edges"], whole["counts"], strict=False))[values[3] - 0.5] == n[3]
    assert "no numbers" in ask(client, "/api/histogram/language", status=400)["error"]
    assert f"did you mean '{SCORE}'" in ask(client, "/api/histogram/clip_demo_similarity", status=400)["error"]


def test_edge_shows_both_sides(client, table):
    values = table[SCORE].to_numpy()
    at = float(np.sort(values)[100])
    told = ask(client, f"/api/edge/{SCORE}?at={at!r}&n=3")
    assert told["keeps"] == len(values) - 100 and told["of"] == len(values)
    order = np.argsort(values)
    assert [hit["uid"] for hit in told["above"]] == table["uid"].gather(order[100:103]).to_list()
    assert [hit["uid"] for hit in told["below"]] == table["uid"].gather(order[[99, 98, 97]]).to_list()


def test_preview_and_export_do_what_select_does(client, out):
    record = json.loads((out / "subsets" / "demo.json").read_text())
    told = ask(client, "/api/preview", {"select": record["rule"]})
    assert {name: told[name] for name in ("in", "kept", "dropped", "failed")} == record["counts"]
    assert [(s["path"], s["text"], s["dropped"]) for s in told["steps"]] == [
        (s["path"], s["text"], s["dropped"]) for s in record["steps"]
    ]
    answer = client.post("/api/export", json={"select": record["rule"]})
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == (out / "subsets" / "demo.npy").read_bytes()
    uids = Subset.read(str(out / "subsets" / "demo.npy")).strings()[3:6]
    basket = client.post("/api/export", json={"uids": uids[::-1]}).content
    assert format_uids(np.load(io.BytesIO(basket))) == uids
    assert "not in this pool" in ask(client, "/api/export", {"uids": ["0" * 32]}, 404)["error"]
    assert "either" in ask(client, "/api/export", {}, 400)["error"]


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"no_such_rule": {}}, "no rule 'no_such_rule'"),
        ({"threshold": {"score": "no_such_column", "min": 1}}, "no column 'no_such_column'"),
        ({"in_subset": {"path": "/etc/passwd"}}, "no subset is called"),
        ({"not": {"in_subset": {"path": "../../secret.npy"}}}, "no subset is called"),
        ({"votes": {"at_least": 1, "rules": [{"in_subset": {"path": "/etc/passwd"}}]}}, "no subset is called"),
        ({"votes": {"at_least": 1, "rules": [{"no_such_rule": {}}]}}, "no rule 'no_such_rule'"),
        ({"where": {"sql": "LPAD(text, 1000000000, 'x') = text"}}, "not known here"),
        ({"where": {"sql": "text > 3"}}, "does not work"),
        ({"not": None}, ""),
        ([], ""),
    ],
)
def test_rules_that_cannot_be(client, tree, says):
    assert says in ask(client, "/api/preview", {"select": tree}, 404 if "subset" in says else 400)["error"]
