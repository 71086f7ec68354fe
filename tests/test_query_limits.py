"""Pictures that are compared with a pool, or shown of it, are read within the limits that its run was given."""

import base64
import json

import pytest
from fastapi.testclient import TestClient
from odd_content import picture, sample, shard, sound
from tars import uid

from index.pool import Pool
from index.service.app import create_app
from mmfilter.images import ImageLimits

READ = {"avif": True, "max_pixels": 1 << 20}


def test_avif_that_the_run_allowed_is_a_query_too(tmp_path, mmfilter):
    data = picture("RGB", "AVIF", (64, 64))
    if data is None:
        pytest.skip("Pillow without AVIF")
    shard(tmp_path / "pool" / "00000000.tar", sound(20), sample(b"avif", {"uid": uid(99)}, image=data, ending=b"avif"))
    (tmp_path / "a.avif").write_bytes(data)
    (tmp_path / "r.json").write_text(json.dumps({"name": "t", "embed": {"demo": {"model": "demo"}}, "read": READ}))
    out = tmp_path / "out"
    assert mmfilter("embed", tmp_path / "r.json", "--pool", tmp_path / "pool", "--out", out, "--local")[0] == 0
    assert mmfilter("index", out, "--model", "demo")[0] == 0
    code, said, error = mmfilter("query", "--image", tmp_path / "a.avif", "--out", out, "-k", 1, "--json")
    assert code == 0 and json.loads(said)[0]["uid"] == uid(99), error
    with TestClient(create_app([str(out)])) as client:
        body = {"image": base64.b64encode(data).decode(), "k": 1}
        answer = client.post("/api/search", json=body)
        assert answer.status_code == 200, answer.text
        assert client.get(f"/api/image/{uid(99)}").status_code == 200
        large = base64.b64encode(picture("L", "PNG", (1100, 1000))).decode()
        assert "the limit is 1048576" in client.post("/api/search", json={"image": large}).json()["error"]
    assert Pool(str(out)).limits == ImageLimits(1 << 20, True)
