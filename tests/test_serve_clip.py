"""clip-retrieval's API, asked as its own client asks: JSON without a content type, fields that mean nothing here."""

import base64
import importlib.util
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from serve_util import ExactIndex, build, copied_out, serving, shared_out

from index import knn as knn_index
from index.knn import open_index
from index.service import clip_api
from index.service.app import create_app
from index.service.settings import Settings
from mmfilter.table import open_table

pytestmark = pytest.mark.slow  # together, not each
FETCHED = Path(__file__).resolve().parent.parent / "build" / "clip-front" / "clip_retrieval"  # `make clip-front`

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


def test_the_first_of_each_component_in_blocks(monkeypatch):
    """Chains across blocks of the product are one component."""
    monkeypatch.setattr(clip_api, "ROWS", 7)
    angles = np.deg2rad(np.array([0, 90, 15, 180, 30, 90, 45, 60, *range(75, 180, 15)]))  # cos 15 deg is 0.966
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert clip_api.first_of_each(rows).tolist() == [0]  # a chain from 0 to 180
    assert clip_api.first_of_each(rows[[0, 1, 3, 5]]).tolist() == [0, 1, 2]
    assert clip_api.first_of_each(rows[:0]).tolist() == []


def test_wide_searches_are_done_a_few_at_a_time(out, index, monkeypatch):
    opened = open_index(str(out), "demo-image")
    together = opened.search(index.rows[:9], 50)
    search, sizes = type(opened)._search, []
    monkeypatch.setattr(type(opened), "_search", lambda self, q, *a: sizes.append(len(q)) or search(self, q, *a))
    monkeypatch.setattr(knn_index, "HELD", 2 * 50 * opened.info["rerank"])
    for few, all_of_them in zip(opened.search(index.rows[:9], 50), together, strict=True):
        np.testing.assert_array_equal(few, all_of_them)
    assert sizes == [2, 2, 2, 2, 1]


def test_pictures_come_with_the_first_results(client, index, out):
    found = knn(client, embedding_input=index.rows[11].tolist(), num_images=5, num_result_ids=8)
    for hit in found[:5]:
        data = base64.b64decode(hit["image"], validate=True)
        assert data == client.get(f"/api/image/{hit['uid']}?side=256").content
        assert Image.open(io.BytesIO(data)).format == "JPEG"
    body = {"indice_name": "demo-image", "ids": [found[0]["id"]]}
    assert client.post("/metadata", json=body).json()[0]["metadata"]["image"] == found[0]["image"]
    with TestClient(create_app([str(out)], Settings(models=False, thumbnails=2))) as two:
        found = knn(two, embedding_input=index.rows[11].tolist())
        assert ["image" in hit for hit in found] == [True, True, False, False, False]


def test_a_result_without_picture_or_url_is_a_result(out, index, tmp_path, monkeypatch):
    """Its tar is gone, or the picture is one that nobody can draw: the others stand."""
    calls = []
    monkeypatch.setattr(clip_api, "image", lambda *a: calls.append(a) or 1 / 0)
    with TestClient(create_app([str(out)], Settings(models=False))) as client:
        monkeypatch.setattr(
            clip_api, "hits", lambda now, rows, _=clip_api.hits: [h | {"url": ""} for h in _(now, rows)]
        )
        found = knn(client, embedding_input=index.rows[11].tolist())
        assert len(found) == len(calls) == 5 and not any({"image", "url"} & set(hit) for hit in found)
        monkeypatch.setattr(clip_api, "PICTURE_SECONDS", -1)  # a store that takes longer
        assert len(knn(client, embedding_input=index.rows[11].tolist())) == len(calls) == 5


def test_num_result_ids_is_how_many_come_back(client, index):
    found = knn(client, embedding_input=index.rows[11].tolist(), num_images=40, num_result_ids=3)
    assert len(found) == 3 and all("caption" in hit for hit in found)
    assert len(knn(client, embedding_input=index.rows[11].tolist(), num_images=40, num_result_ids=10_000)) == 242


def test_a_missing_index_is_an_error(tmp_path_factory, index):
    out = copied_out(tmp_path_factory)
    shutil.rmtree(out / "index" / "demo-text")
    vector = index.rows[0].tolist()
    with TestClient(create_app([str(out)], Settings(models=False))) as client:
        for name in ("demo-image", None):
            answer = client.post(
                "/knn-service", json={**THEIRS, "embedding_input": vector, "indice_name": name, "modality": "text"}
            )
            assert (
                answer.status_code == 404
                and f"mmfilter index {out} --model demo --modality text" in answer.json()["error"]
            )
            assert client.post("/knn-service", json={**THEIRS, "embedding_input": vector, "indice_name": name}).json()
    with TestClient(create_app([str(out), str(out)], Settings(models=False))) as client:
        for name in ("out/", "out/demo-text", "nowhere/demo-image", "out-2/demo", "demo-imag"):
            for path, body in (("/knn-service", {**THEIRS, "embedding_input": vector}), ("/metadata", {"ids": [0]})):
                answer = client.post(path, json={**body, "indice_name": name})
                assert answer.status_code == 404 and "error" in answer.json(), name


def test_ids_are_those_of_the_index_that_was_named(tmp_path_factory):
    """The two indices of a model may hold different samples; /metadata is asked by name and id alone."""
    out = copied_out(tmp_path_factory)
    hidden = [path for path in (out / "metadata").iterdir() if path.name.startswith("00000000.")]
    for path in hidden:
        path.rename(out / path.name)
    shutil.rmtree(out / "index" / "demo-text")
    build(out, "demo-text")
    for path in hidden:
        (out / path.name).rename(path)
    row = ExactIndex(str(out), "demo-text").rows[200].tolist()
    with TestClient(create_app([str(out)], Settings(models=False))) as client:
        for name in ("demo-image", "demo-text"):
            found = knn(client, embedding_input=row, indice_name=name, modality="text")
            asked = {"indice_name": name, "ids": [hit["id"] for hit in found]}
            told = client.post("/metadata", json=asked).json()
            assert [entry["metadata"]["uid"] for entry in told] == [hit["uid"] for hit in found]
            assert found[0]["similarity"] == pytest.approx(1, abs=1e-4)


def test_what_is_not_had_is_said(client, index):
    vector = index.rows[0].tolist()
    note = "x-mmfilter-note"
    answer = client.post("/knn-service", json={**THEIRS, "embedding_input": vector})
    assert all(
        name in answer.headers[note]
        for name in ("use_safety_model", "use_violence_detector", "aesthetic_score", "aesthetic_weight")
    )
    nothing = {
        "use_safety_model": False,
        "use_violence_detector": None,
        "aesthetic_score": "",
        "aesthetic_weight": "",
    }
    assert note not in client.post("/knn-service", json={**THEIRS, **nothing, "embedding_input": vector}).headers
    answer = client.post("/knn-service", json={**THEIRS, "text": "a", "use_mclip": True})
    assert answer.status_code == 400 and "use_mclip" in answer.json()["error"]


def test_a_field_that_is_not_known_is_named(client, index):
    asked = {**THEIRS, "aesthetic_score": "", "use_safety_model": False, "use_violence_detector": False}
    asked |= {"aesthetic_weight": None, "embedding_input": index.rows[0].tolist(), "num_imgaes": 3, "a\r\nb: \u00e9": 1}
    answer = client.post("/knn-service", json=asked)
    assert answer.status_code == 200
    assert answer.headers["x-mmfilter-note"] == "not known and not used: num_imgaes, a??b???"
    many = {f"x{n}": 1 for n in range(99)}
    assert client.post("/knn-service", json=asked | many).headers["x-mmfilter-note"].endswith(" and 96 more")


def test_a_query_of_two_things_is_refused(client, index):
    vector, picture = index.rows[0].tolist(), base64.b64encode(b"x").decode()
    for two in ({"text": "a", "image": picture}, {"text": "a", "embedding_input": vector},
                {"image": picture, "image_url": "http://a/b.jpg"}):  # fmt: skip
        answer = client.post("/knn-service", json={**THEIRS, **two})
        assert answer.status_code == 400 and " and ".join(two) in answer.json()["error"], answer.text
    assert client.post("/knn-service", json={**THEIRS, "text": "", "embedding_input": vector}).status_code == 200


def test_its_own_client(out, tmp_path):
    """Unchanged, where it is installed or was fetched by `make clip-front`."""
    spec = importlib.util.find_spec("clip_retrieval")
    places = [*(spec.submodule_search_locations or () if spec else ()), FETCHED]
    found = [place for place in (Path(place) / "clip_client.py" for place in places) if place.is_file()]
    if not found:
        pytest.skip("clip-retrieval is not fetched: `make clip-front`")
    loaded = importlib.util.spec_from_file_location("clip_client", found[0])
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    with serving(create_app([str(out)])) as url:
        theirs = module.ClipClient(url=f"{url}/knn-service", indice_name="demo-image", num_images=7)
        assert len(theirs.query(text="a red circle")) <= 7
        rows = ExactIndex(str(out), "demo-image").rows
        (first, *_) = theirs.query(embedding_input=rows[2].tolist())
        assert first["similarity"] == pytest.approx(1, abs=1e-4)
        picture = tmp_path / "q.jpg"
        picture.write_bytes(base64.b64decode(first["image"]))
        assert {"id", "similarity", "url", "caption", "image"} <= set(theirs.query(image=str(picture))[0])
        assert "not allowed" in theirs.query(image="http://127.0.0.1:1/a.jpg")["error"]
        texts = module.ClipClient(f"{url}/knn-service", "demo-image", modality=module.Modality.TEXT, num_images=3000)
        captions = ExactIndex(str(out), "demo-text").rows
        assert texts.query(embedding_input=captions[4].tolist())[0]["similarity"] == pytest.approx(1, abs=1e-4)
