"""What the service takes up while it runs, several pools at once, and queries that share a search."""

import asyncio
import json
import threading
import time

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from serve_util import ExactIndex, build, copied_out, serving

from index.service.app import create_app
from index.service.settings import Settings
from mmfilter.json_file import encode
from mmfilter.subset import Subset
from mmfilter.table import open_table


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return copied_out(tmp_path_factory)


@pytest.fixture(scope="module")
def client(out):
    app = create_app([str(out)], Settings(refresh=0, models=False))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def ask(client, path, body=None):
    answer = client.get(path) if body is None else client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def wait_until(true, seconds=20):
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    assert true()


def test_what_is_written_later_is_taken_up_without_a_restart(client, out):
    ask(client, "/api/info")
    source = open_table(str(out))
    uids = source.read(["uid"])["uid"].to_list()
    at = 0
    for stem in source.stems:
        here = source.read(["uid"], stem)["uid"].to_list()
        same = [uids[3] if at + i in (8, 9) else uids[20] if at + i == 30 else "" for i in range(len(here))]
        folder = out / "columns" / "duplicate_of"
        folder.mkdir(parents=True, exist_ok=True)
        clusters = pa.array([(at + i) % 3 for i in range(len(here))], pa.int32())
        pq.write_table(
            pa.table({"uid": here, "duplicate_of": same, "cluster_id": clusters}), folder / f"{stem}.parquet"
        )
        at += len(here)
    (out / "concepts" / "demo").mkdir(parents=True)
    (out / "concepts" / "demo" / "concepts.json").write_text(json.dumps([{"id": 0, "size": 5, "label": ["red"]}]))
    Subset.from_uids(uids[:5]).write(str(out / "subsets" / "five.npy"))
    record = {"name": "five", "counts": {"in": 240, "kept": 5, "dropped": 235, "failed": 0}, "steps": []}
    (out / "subsets" / "five.json").write_bytes(encode(record))
    wait_until(lambda: "five" in ask(client, "/api/info")["subsets"])
    info = ask(client, "/api/info")
    assert info["subsets"] == ["demo", "five"] and info["concepts"] == ["demo"] and not info["trouble"]
    assert ask(client, "/api/concepts/demo")["concepts"] == [{"id": 0, "size": 5, "label": ["red"]}]
    groups = ask(client, "/api/duplicates?limit=1")
    assert groups["total"] == 2 and groups["groups"][0]["kept"]["uid"] == uids[3]
    assert [hit["uid"] for hit in groups["groups"][0]["duplicates"]] == [uids[8], uids[9]]
    second = ask(client, "/api/duplicates?offset=1")["groups"]
    assert [group["kept"]["uid"] for group in second] == [uids[20]]
    third = {hit["uid"] for hit in ask(client, "/api/search", {"k": 1000, "among": {"clusters": [1]}})["hits"]}
    assert third == set(uids[1::3])
    rest = ask(client, "/api/search", {"k": 1000, "among": {"without_clusters": [1]}})["hits"]
    assert {hit["uid"] for hit in rest} == set(uids) - third
    marked = ask(client, "/api/search", {"k": 1000, "verdict": "demo"})["hits"]
    assert sum(hit["kept"] for hit in marked) == len(Subset.read(str(out / "subsets" / "demo.npy")))


def test_a_damaged_index_costs_that_index_alone(client, out):
    current = out / "index" / "demo-text" / "current"
    told = current.read_text()
    index = out / "index" / "demo-text" / told.strip() / "index.json"
    whole = index.read_bytes()
    index.write_bytes(b"{")
    current.write_text(told)
    wait_until(lambda: ask(client, "/api/info")["trouble"])
    info = ask(client, "/api/info")
    assert "build the index again" in info["trouble"] and "demo-image" in [i["name"] for i in info["indices"]]
    index.write_bytes(whole)
    current.write_text(told)
    wait_until(lambda: not ask(client, "/api/info")["trouble"])
    assert len(ask(client, "/api/info")["indices"]) == 2


def test_fault_50_an_index_replaced_while_queries_run(client, out):
    rows = ExactIndex(str(out), "demo-image").rows
    stop, found = threading.Event(), []

    def query():
        while not stop.is_set():
            for row in rows[:20]:
                answer = client.post("/api/search", json={"vector": row.tolist(), "k": 1, "index": "demo-image"})
                found.append((answer.status_code, answer.json()["hits"][0]["similarity"]))

    threads = [threading.Thread(target=query) for _ in range(2)]
    for thread in threads:
        thread.start()
    before = client.app.state.service.first.snapshot.indices["demo-image"].index.folder
    build(out, "demo-image", fresh=True)
    wait_until(lambda: client.app.state.service.first.snapshot.indices["demo-image"].index.folder != before)
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in found} == {200} and min(similarity for _, similarity in found) > 0.999


def test_two_pools_at_once_over_http(out):
    with serving(create_app([str(out), str(out)])) as url, httpx.Client(base_url=url) as client:
        assert client.get("/api/info").json()["pools"] == ["out", "out-2"]
        assert client.get("/api/info", params={"pool": "out-2"}).json()["name"] == "out-2"
        assert client.get("/indices-list").json() == [
            f"{p}/demo-{m}" for p in ("out", "out-2") for m in ("image", "text")
        ]
        found = client.post("/api/search", json={"pool": "out-2", "k": 2}).json()["hits"]
        uid = found[0]["uid"]
        row = ExactIndex(str(out), "demo-image").rows[3].tolist()
        body = {"indice_name": "out-2/demo-image", "embedding_input": row}
        assert client.post("/knn-service", json=body).json()[0]["id"] == 3
        assert client.get(f"/api/sample/{uid}?pool=nope").status_code == 404


def test_queries_of_the_same_moment_share_a_search(out):
    app = create_app([str(out)], Settings(window=0.05))
    rows = ExactIndex(str(out), "demo-image").rows

    async def many(url):
        async with httpx.AsyncClient(base_url=url) as client:
            bodies = [{"vector": row.tolist(), "k": 1 + i % 3 + 70 * (i % 2)} for i, row in enumerate(rows[:20])]
            return await asyncio.gather(*(client.post("/api/search", json=body) for body in bodies))

    with serving(app) as url:
        answers = asyncio.run(many(url))
        metrics = httpx.get(f"{url}/metrics").text
    for i, answer in enumerate(answers):
        hits = answer.json()["hits"]
        assert len(hits) == 1 + i % 3 + 70 * (i % 2)
        assert hits[0]["similarity"] == pytest.approx(1, abs=1e-3)
    searches = float(metrics.split("mmfilter_search_batch_count ")[1].split()[0])
    assert searches < 20 and "mmfilter_search_batch_sum 20.0" in metrics
    assert 'mmfilter_requests_total{route="/api/search",status="200"} 20.0' in metrics


def test_pictures_come_from_where_the_pool_stands_now(client, out):
    """The newest run's pool, not the path that a commit of an earlier one holds."""
    path = sorted((out / "metadata").glob("*.json"))[0]
    commit = json.loads(path.read_text())
    uid = pq.read_table(path.with_suffix(".parquet"), columns=["uid"])["uid"][0].as_py()
    moved = "/nowhere/" + commit["path"].rpartition("/")[2]
    for given, made_from, status in [(moved, commit["path"], 404), (commit["path"], moved, 200)]:
        (out / "run.json").write_text(json.dumps({"pool": [given]}))
        path.unlink()
        path.write_bytes(encode({**commit, "path": made_from}))
        wait_until(lambda status=status: client.get(f"/api/image/{uid}?side=48").status_code == status)
