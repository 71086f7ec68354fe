"""clip-retrieval's API, asked as its own client asks: JSON without a content type, fields that mean nothing here."""

import importlib.util
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serve_util import ExactIndex, serving, shared_out

from index.service.app import create_app
from mmfilter.table import open_table

pytestmark = pytest.mark.slow  # together, not each

THEIRS = {
    "text": None, "image": None, "image_url": None, "embedding_input": None, "deduplicate": False,
    "use_safety_model": True, "use_violence_detector": True, "indice_name": "demo-image", "use_mclip": False,
    "aesthetic_score": 9, "aesthetic_weight": 0.5, "modality": "image", "num_images": 5, "num_result_ids": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return shared_out(tmp_path_factory)


@pytest.fixture(scope="module")
def client(out):
    with TestClient(create_app([str(out)])) as client:
        yield client


@pytest.fixture(scope="module")
def index(out):
    return ExactIndex(str(out), "demo-image")


def knn(client, **fields):
    answer = client.post("/knn-service", content=json.dumps({**THEIRS, **fields}))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_indices_are_listed(client):
    assert client.get("/indices-list").json() == ["demo-image", "demo-text"]


def test_results_carry_metadata_up_to_num_images(client, index, out):
    found = knn(client, embedding_input=index.rows[11].tolist(), num_images=3, num_result_ids=8)
    similarity = index.rows @ index.rows[11]
    assert [hit["id"] for hit in found] == np.argsort(-similarity, kind="stable")[:8].tolist()
    np.testing.assert_allclose([hit["similarity"] for hit in found], np.sort(similarity)[::-1][:8], atol=1e-5)
    table = open_table(str(out)).read(["uid", "text", "url", "key"])
    for hit in found[:3]:
        row = table.row(hit["id"], named=True)
        assert (hit["uid"], hit["caption"], hit["url"], hit["image_path"]) == tuple(
            row[name] for name in ("uid", "text", "url", "key")
        )
        assert "clip_demo_similarity_score" in hit
    assert all(set(hit) == {"id", "similarity"} for hit in found[3:])


def test_metadata_by_id(client, index):
    answer = client.post("/metadata", content=json.dumps({"indice_name": "demo-image", "ids": [5, 0, 5]})).json()
    hits = knn(client, embedding_input=index.rows[5].tolist(), num_images=1)
    assert [entry["id"] for entry in answer] == [5, 0, 5] and answer[0] == answer[2]
    assert answer[0]["metadata"] == {k: v for k, v in hits[0].items() if k not in ("id", "similarity")}
    assert client.post("/metadata", json={"ids": [10**9]}).status_code == 404


def test_modality_chooses_the_index_of_the_same_model(client, out):
    rows = ExactIndex(str(out), "demo-text").rows
    found = knn(client, embedding_input=rows[4].tolist(), modality="text")
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert client.post("/knn-service", json={**THEIRS, "text": "a", "modality": "sound"}).status_code == 400
    assert client.post("/knn-service", json={**THEIRS, "text": "a", "indice_name": "laion5B"}).status_code == 404
    assert client.post("/knn-service", json=THEIRS).status_code == 400


def test_duplicates_fall_to_the_first_of_each_component(client, index):
    plain = knn(client, embedding_input=index.rows[11].tolist(), num_images=60, num_result_ids=60)
    once = knn(client, embedding_input=index.rows[11].tolist(), num_images=60, num_result_ids=60, deduplicate=True)
    ids = [hit["id"] for hit in plain]
    near = index.rows[ids] @ index.rows[ids].T >= 0.94
    group = np.arange(len(ids))
    for _ in ids:  # the least number of what is connected, spread until it stands still
        group = np.where(near, group[None], len(ids)).min(axis=1)
    assert [hit["id"] for hit in once] == [ids[i] for i in range(len(ids)) if group[i] == i]
    assert len(once) < len(plain)


def test_its_own_client(out):
    """Unchanged, where it is installed."""
    spec = importlib.util.find_spec("clip_retrieval")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("clip-retrieval is not installed")
    place = f"{spec.submodule_search_locations[0]}/clip_client.py"
    loaded = importlib.util.spec_from_file_location("clip_client", place)
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    with serving(create_app([str(out)])) as url:
        theirs = module.ClipClient(url=f"{url}/knn-service", indice_name="demo-image", num_images=7)
        assert len(theirs.query(text="a red circle")) <= 7
        rows = ExactIndex(str(out), "demo-image").rows
        assert theirs.query(embedding_input=rows[2].tolist())[0]["similarity"] == pytest.approx(1, abs=1e-4)
