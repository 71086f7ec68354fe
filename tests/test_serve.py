"""The service's native API over a small embedded pool, beside the plainest numpy."""

import io
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from serve_util import ExactIndex, embedded, stand_in

from index.service.app import create_app
from index.service.settings import Settings
from mmfilter.subset import Subset
from mmfilter.table import open_table
from mmfilter.uids import format_uids

SCORE = "clip_demo_similarity_score"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A pool of 240 samples in two shards, embedded, selected, with two indices; tars beside it."""
    return embedded(tmp_path_factory)


@pytest.fixture(scope="module")
def client(out):
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        with TestClient(create_app([str(out)], Settings(refresh=0)), raise_server_exceptions=False) as client:
            yield client


@pytest.fixture(scope="module")
def table(out):
    return open_table(str(out)).read(["uid", "text", SCORE, "caption_words", "original_width"])


def ask(client, path, body=None, status=200):
    answer = client.get(path) if body is None else client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_info_says_what_there_is(client, table):
    info = ask(client, "/api/info")
    assert info["samples"] == table.height and info["name"] == "out" and info["subsets"] == ["demo"]
    assert {i["name"]: (i["model"], i["modality"], i["size"]) for i in info["indices"]} == {
        "demo-image": ("demo", "image", table.height),
        "demo-text": ("demo", "text", table.height),
    }
    columns = {column["name"]: column for column in info["columns"]}
    bounds = {"min": pytest.approx(table[SCORE].min()), "max": pytest.approx(table[SCORE].max())}
    assert columns[SCORE] == {"name": SCORE, "type": "number", **bounds}
    assert columns["language"]["type"] == "text" and info["limits"]["k"] == 1000


@pytest.mark.parametrize("kind", ["uid", "vector", "like", "like and unlike"])
def test_search_finds_what_brute_force_finds(client, out, kind):
    index = ExactIndex(str(out), "demo-image")
    uids = format_uids(index.uids)
    wanted = {
        "uid": index.rows[7],
        "vector": index.rows[7],
        "like": index.rows[[7, 9]].mean(axis=0),
        "like and unlike": index.rows[[7, 9]].mean(axis=0) - 0.5 * index.rows[3],
    }[kind]
    query = {
        "uid": {"uid": uids[7]},
        "vector": {"vector": (3 * index.rows[7]).tolist()},
        "like": {"like": [uids[7], uids[9]]},
        "like and unlike": {"like": [uids[7], uids[9]], "unlike": [uids[3]]},
    }[kind]
    wanted = wanted / np.linalg.norm(wanted)
    found = ask(client, "/api/search", {**query, "k": 12, "index": "demo-image"})["hits"]
    expected = np.sort(index.rows @ wanted)[::-1][:12]
    np.testing.assert_allclose([hit["similarity"] for hit in found], expected, atol=1e-5)
    by_uid = dict(zip(uids, index.rows @ wanted, strict=True))
    np.testing.assert_allclose([by_uid[hit["uid"]] for hit in found], expected, atol=1e-5)


def test_words_and_pictures_go_through_the_pools_model(client, table):
    found = ask(client, "/api/search", {"text": "a red circle", "k": 5})["hits"]
    assert len(found) == 5 and found[0]["similarity"] > found[4]["similarity"] > 0.2
    less = ask(client, "/api/search", {"text": "a red circle", "minus": found[0]["text"], "k": 5})["hits"]
    assert [hit["uid"] for hit in less] != [hit["uid"] for hit in found]
    uid = found[0]["uid"]
    picture = client.get(f"/api/image/{uid}?side=0").content
    import base64

    same = ask(client, "/api/search", {"image": base64.b64encode(picture).decode(), "k": 1})["hits"][0]
    assert same["uid"] == uid and same["similarity"] > 0.999
    row = table.row(table["uid"].index_of(uid), named=True)
    assert same["text"] == row["text"] and same["scores"][SCORE] == pytest.approx(row[SCORE])
    assert same["width"] == row["original_width"]


def test_a_search_is_restricted_before_it_is_cut(client, out, table):
    kept = set(Subset.read(str(out / "subsets" / "demo.npy")).strings())
    uid = table["uid"][0]
    wide = {row["uid"] for row in table.iter_rows(named=True) if row["original_width"] > 140}
    for among, expected in (
        ({"kept": True}, kept),
        ({"kept": False}, set(table["uid"]) - kept),
        ({"subset": "demo"}, kept),
        ({"where": "original_width > 140"}, wide),
        ({"where": "original_width > 140", "kept": True}, wide & kept),
    ):
        hits = ask(client, "/api/search", {"uid": uid, "k": 1000, "among": among})["hits"]
        assert {hit["uid"] for hit in hits} == expected
        assert all(hit["kept"] == (hit["uid"] in kept) for hit in hits)
        drawn = ask(client, "/api/search", {"k": 7, "among": among})["hits"]
        assert len(drawn) == min(7, len(expected)) and drawn[0]["similarity"] is None
        assert {hit["uid"] for hit in drawn} <= expected
    floor = ask(client, "/api/search", {"uid": uid, "k": 1000, "floor": 0.6})["hits"]
    assert floor and min(hit["similarity"] for hit in floor) >= 0.6
    assert not ask(client, "/api/search", {"uid": uid, "among": {"where": "original_width > 1000000"}})["hits"]


def test_a_random_sample_hangs_on_its_seed_alone(client):
    first, again, other = (
        [hit["uid"] for hit in ask(client, "/api/search", {"k": 9, "seed": seed})["hits"]] for seed in (1, 1, 2)
    )
    assert first == again != other and len(set(first)) == 9


def test_sample_tells_all(client, out, table):
    uid = table["uid"][5]
    told = ask(client, f"/api/sample/{uid.upper()}")
    assert told["uid"] == uid and told["shard"] == "00000000" and told["text"] == table["text"][5]
    assert told["columns"]["caption_words"] == table["caption_words"][5] and "text" not in told["columns"]
    assert [verdict["rule"] for verdict in told["verdicts"]] == [
        step["path"] for step in json.loads((out / "subsets" / "demo.json").read_text())["steps"]
    ]
    assert told["kept"] == all(verdict["keep"] for verdict in told["verdicts"])
    assert "not in this pool" in ask(client, f"/api/sample/{'0' * 32}", status=404)["error"]


def test_images_come_out_of_the_tar(client, table):
    uid = table["uid"][5]
    small = client.get(f"/api/image/{uid}?side=64")
    assert small.headers["content-type"] == "image/jpeg" and max(Image.open(io.BytesIO(small.content)).size) == 64
    whole = client.get(f"/api/image/{uid}?side=0")
    assert whole.headers["content-type"] == "image/jpeg" and whole.headers["x-content-type-options"] == "nosniff"


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
        ({"where": {"sql": "LPAD(text, 1000000000, 'x') = text"}}, "not known here"),
        ({"where": {"sql": "text > 3"}}, "does not work"),
        ({"not": None}, ""),
        ([], ""),
    ],
)
def test_rules_that_cannot_be(client, tree, says):
    assert says in ask(client, "/api/preview", {"select": tree}, 404 if "subset" in says else 400)["error"]


def test_what_is_not_there_is_an_empty_list(client):
    assert ask(client, "/api/duplicates") == {"groups": [], "total": 0}
    assert "no concepts" in ask(client, "/api/concepts/demo", status=404)["error"]
    assert "no column 'cluster_id'" in ask(client, "/api/search", {"among": {"clusters": [1]}}, 400)["error"]
