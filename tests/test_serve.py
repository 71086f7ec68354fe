"""The query service over real HTTP: both APIs against plain numpy, and what changes on disk."""

import base64
import io
import json
import shutil
import time

import httpx
import numpy as np
import polars as pl
import pytest
from PIL import Image
from serve_util import HOSTILE, ExactIndex, build, serving, shared_out
from tars import uid

from index.service.app import create_app
from index.service.settings import Settings
from mmfilter.subset import Subset
from mmfilter.uids import format_uids

pytestmark = pytest.mark.slow  # together, not each: its fixtures take seconds

SCORE = "clip_demo_similarity_score"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return shared_out(tmp_path_factory)


@pytest.fixture(scope="module")
def client(out):
    app = create_app([str(out)], Settings(refresh=0.05))
    with serving(app) as url, httpx.Client(base_url=url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def exact(out):
    return ExactIndex(str(out), "demo-image")


@pytest.fixture(scope="module")
def table(out):
    return pl.read_parquet(sorted((out / "metadata").glob("*.parquet")))


def search(client, **body):
    answer = client.post("/api/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


def uids(hits):
    return [hit["uid"] for hit in hits]


@pytest.mark.slow
def test_info_says_what_there_is(client, table):
    info = client.get("/api/info").json()
    assert info["samples"] == table.height and info["subsets"] == ["demo"]
    assert [index["name"] for index in info["indices"]] == ["demo-image", "demo-text"]
    (column,) = [c for c in info["columns"] if c["name"] == SCORE]
    assert column["type"] == "number" and column["max"] == pytest.approx(table[SCORE].max())
    assert info["limits"]["k"] == 10_000


@pytest.mark.slow
def test_search_by_vector_and_uid_is_the_exact_one(client, exact):
    for position in (0, 17, 200):
        expected = exact.search(exact.rows[position : position + 1], 10)
        want = format_uids(exact.uids[expected[0][0]])
        by_uid = search(client, uid=format_uids(exact.uids[position : position + 1])[0], k=10)
        by_vector = search(client, vector=(3 * exact.rows[position]).tolist(), k=10)
        assert uids(by_uid) == uids(by_vector) == want
        assert [hit["similarity"] for hit in by_uid] == pytest.approx(expected[1][0].tolist(), abs=1e-5)


def test_search_by_text_and_by_image(client, table):
    hits = search(client, text="a red car", k=5)
    assert len(hits) == 5 and hits[0]["similarity"] >= hits[-1]["similarity"] and "red" in hits[0]["text"].lower()
    row = table.row(3, named=True)
    data = client.get(f"/api/image/{row['uid']}?side=0").content
    assert search(client, image=base64.b64encode(data).decode(), k=1)[0]["uid"] == row["uid"]


def test_search_more_like_and_less_like(client, exact):
    three = format_uids(exact.uids[[1, 2, 3]])
    wanted = exact.rows[[1, 2]].mean(axis=0)
    vector = wanted / np.linalg.norm(wanted) - 0.5 * exact.rows[3]
    want = exact.search(vector[None] / np.linalg.norm(vector), 6)[0][0]
    assert uids(search(client, like=three[:2], unlike=three[2:], k=6)) == format_uids(exact.uids[want])


def test_search_is_restricted_before_not_after(client, exact, table):
    query = {"vector": exact.rows[0].tolist(), "k": 30}
    kept = search(client, **query, among={"kept": True})
    dropped = search(client, **query, among={"subset": "demo", "kept": False})
    where = search(client, **query, among={"where": f"{SCORE} < 0.5"})
    assert len(kept) == len(dropped) == 30 and {hit["kept"] for hit in kept} == {True}
    assert {hit["kept"] for hit in dropped} == {False}
    assert len(where) == min(30, table.filter(pl.col(SCORE) < 0.5).height)
    assert all(hit["scores"][SCORE] < 0.5 for hit in where)


def test_search_by_a_floor(client, exact):
    hits = search(client, vector=exact.rows[5].tolist(), floor=0.6, k=1000)
    assert len(hits) == int((exact.rows @ exact.rows[5] >= 0.6).sum())


def test_no_query_is_a_seeded_sample(client):
    one, same, other = (uids(search(client, k=20, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other and len(set(one)) == 20


def test_sample_and_image_come_from_the_tar(client, table):
    row = table.row(4, named=True)
    told = client.get(f"/api/sample/{row['uid'].upper()}").json()
    assert told["uid"] == row["uid"] and told["key"] == row["key"] and told["shard"] and told["text"] == row["text"]
    assert len(told["verdicts"]) == 4 and told["columns"]["sha256"] == row["sha256"]
    answer = client.get(f"/api/image/{row['uid']}?side=48")
    assert answer.headers["content-type"] == "image/jpeg" and max(Image.open(io.BytesIO(answer.content)).size) == 48
    assert client.get(f"/api/image/{uid(99)}").status_code == 404
    assert client.get("/api/sample/nothing").status_code == 422


def test_histogram_and_edge(client, table):
    values = table[SCORE].to_numpy()
    told = client.get(f"/api/histogram/{SCORE}?bins=20").json()
    assert told["counts"] == np.histogram(values.astype(np.float64), told["edges"])[0].tolist()
    assert sum(told["counts"]) == table.height and len(told["thresholds"]) == 1
    edge = client.get(f"/api/edge/{SCORE}?at=0.7&n=3").json()
    assert edge["keeps"] == int((values >= 0.7).sum()) and edge["of"] == len(values)
    above = [hit["scores"][SCORE] for hit in edge["above"]]
    below = [hit["scores"][SCORE] for hit in edge["below"]]
    assert above == pytest.approx(np.sort(values[values >= 0.7])[:3])
    assert below == pytest.approx(-np.sort(-values[values < 0.7])[:3])
    answer = client.get("/api/histogram/clip_demo_similarity")
    assert answer.status_code == 400 and SCORE in answer.json()["error"]


def test_preview_counts_as_select_does(client, out, mmfilter, tmp_path):
    tree = {"all": [{"caption": {"min_words": 4}}, {"fraction": {"score": SCORE, "keep": 0.4}}]}
    told = client.post("/api/preview", json={"select": tree}).json()
    assert told["in"] == told["kept"] + told["dropped"] + told["failed"]
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"name: mine\nselect:\n  all:\n  - caption: {{min_words: 4}}\n  - fraction: {{score: {SCORE}, keep: 0.4}}\n"
    )
    copy = tmp_path / "out"
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns("shards"))
    code, _, said = mmfilter("select", recipe, "--out", copy)
    assert code in (0, 3), said
    subset = Subset.read(str(copy / "subsets" / "mine.npy"))
    assert len(subset) == told["kept"]
    data = client.post("/api/export", json={"select": tree}).content
    assert data == (copy / "subsets" / "mine.npy").read_bytes()


def test_export_of_uids(client, table, tmp_path):
    some = table["uid"].to_list()[:7]
    (tmp_path / "s.npy").write_bytes(client.post("/api/export", json={"uids": some}).content)
    assert Subset.read(str(tmp_path / "s.npy")).strings() == sorted(some)
    assert client.post("/api/export", json={"uids": [uid(99)]}).status_code == 404
    assert client.post("/api/export", json={}).status_code == 400


def test_absent_concepts_and_duplicates(client):
    assert client.get("/api/duplicates").json() == {"groups": [], "total": 0}
    assert client.get("/api/concepts/demo").status_code == 404
    assert client.get("/api/concepts/..%2Fsubsets").status_code == 404


def test_clip_retrievals_api(client, exact, table):
    assert client.get("/indices-list").json() == ["demo-image", "demo-text"]
    body = {
        "text": None, "image": None, "image_url": None, "embedding_input": exact.rows[9].tolist(), "use_mclip": False,
        "deduplicate": False, "use_safety_model": True, "use_violence_detector": True, "indice_name": "demo-image",
        "aesthetic_score": 9, "aesthetic_weight": 0.5, "modality": "image", "num_images": 4, "num_result_ids": 9,
    }  # fmt: skip
    found = client.post("/knn-service", content=json.dumps(body)).json()
    want, similarity = exact.search(exact.rows[9:10], 9)
    assert [hit["id"] for hit in found] == want[0].tolist()
    assert [hit["similarity"] for hit in found] == pytest.approx(similarity[0].tolist(), abs=1e-5)
    assert all({"caption", "url", "image_path", "uid"} <= set(hit) for hit in found[:4])
    assert all(set(hit) == {"id", "similarity"} for hit in found[4:])
    told = client.post("/metadata", json={"indice_name": "demo-image", "ids": [9, 0]}).json()
    assert [hit["id"] for hit in told] == [9, 0] and told[0]["metadata"]["caption"] == table["text"][9]
    assert client.post("/metadata", json={"ids": [10**6]}).status_code == 404


def test_clip_retrievals_deduplicate_keeps_the_first_of_each_component(client, exact):
    near = exact.rows @ exact.rows.T >= 0.94
    label = np.arange(len(near))
    for _ in range(len(near)):  # connected components, the plainest way
        label = np.where(near, label[None], len(near)).min(axis=1)
    order = exact.search(exact.rows[:1], len(near))[0][0]
    first = [p for n, p in enumerate(order) if label[p] not in {label[q] for q in order[:n]}]
    assert len(first) < len(near), "the pool holds duplicates"
    body = {"embedding_input": exact.rows[0].tolist(), "deduplicate": True, "num_images": 5, "num_result_ids": 1000}
    assert [hit["id"] for hit in client.post("/knn-service", json=body).json()] == first


def test_metrics_and_docs(client):
    client.get(f"/api/sample/{uid(7)}")
    text = client.get("/metrics").text
    assert 'route="/api/sample/{uid}",status="200"' in text and "mmfilter_search_batch_count" in text
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/search", "/api/export", "/knn-service", "/metadata", "/indices-list", "/metrics"} <= set(paths)
    assert "/api/preview" in client.get("/docs").text


def test_a_new_subset_column_and_index_are_taken_up(out, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns("shards", "index"))
    app = create_app([str(copy)], Settings(refresh=0.05, models=False))
    with serving(app) as url, httpx.Client(base_url=url, timeout=120) as client:
        assert client.get("/api/info").json()["indices"] == []
        refused = client.post("/api/search", json={"uid": uid(7)})
        assert refused.status_code == 400 and f"`mmfilter index {copy} --model demo`" in refused.json()["error"]
        build(copy, "demo-image")
        Subset.from_uids([uid(7)]).write(str(copy / "subsets" / "one.npy"))
        for path in sorted((copy / "metadata").glob("*.parquet")):
            where = copy / "columns" / "fresh" / path.name
            where.parent.mkdir(parents=True, exist_ok=True)
            pl.read_parquet(path, columns=["uid"]).with_columns(fresh=pl.lit(0.5)).write_parquet(where)
        told = settled(client, lambda i: i["indices"] and "one" in i["subsets"] and "fresh" in names(i))
        assert told["indices"][0]["name"] == "demo-image"
        assert uids(search(client, k=5, among={"subset": "one"})) == [uid(7)]
        (copy / "subsets" / "one.npy").write_bytes(b"damaged")
        (copy / "subsets" / "two.npy").write_bytes(b"damaged")
        assert settled(client, lambda i: i["trouble"])["subsets"] == ["demo", "one"]  # what there was is served on
        Subset.from_uids([uid(8)]).write(str(copy / "subsets" / "one.npy"))
        (copy / "subsets" / "two.npy").unlink()
        settled(client, lambda i: not i["trouble"])
        assert uids(search(client, k=5, among={"subset": "one"})) == [uid(8)]


def names(info):
    return {column["name"] for column in info["columns"]}


def settled(client, there):
    until = time.monotonic() + 15
    while not there(info := client.get("/api/info").json()) and time.monotonic() < until:
        time.sleep(0.05)
    assert there(info), str(info)
    return info


def test_two_pools(out):
    with serving(create_app([str(out), str(out)], Settings(models=False))) as url, httpx.Client(base_url=url) as client:
        assert client.get("/api/info").json()["pools"] == ["out", "out-2"]
        assert "out-2/demo-text" in client.get("/indices-list").json()
        assert search(client, k=1, pool="out-2")
        assert client.post("/api/search", json={"pool": "none"}).status_code == 404


def test_fault_55_script_in_captions(client):
    hit = search(client, uid=uid(7), k=1)[0]
    assert hit["text"] == HOSTILE  # as text, whole
    for answer in (client.post("/api/search", json={"uid": uid(7), "k": 1}), client.get(f"/api/sample/{uid(7)}")):
        assert b"<" not in answer.content and b">" not in answer.content  # nowhere markup, whoever renders it
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy and "img-src 'self' data: blob:" in policy
    hostile = client.get("/api/histogram/%3Cscript%3Ealert(1)")
    assert hostile.status_code == 400 and b"<script" not in hostile.content
