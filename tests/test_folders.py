"""Folders of shards: names in capitals and with dots, links to other folders, and what stands beside samples."""

import json
import shutil

import pytest
from jobs_util import recipe_text
from tars import jpeg, samples, tar, write_pool

from mmfilter import storage
from mmfilter.folders import files_below


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
    return path


def run(mmfilter, recipe, pool, out):
    code, said, err = mmfilter("run", recipe, "--pool", pool, "--out", out, "--local", "--json")
    assert "Traceback" not in err
    return code, json.loads(said) if code in (0, 3) else err


def test_a_tar_may_be_named_in_capitals(recipe, tmp_path, mmfilter):
    pool = tmp_path / "pool"
    write_pool(pool, 2, 3)
    (pool / "00000001.tar").rename(pool / "00000001.TAR")
    code, said, _ = mmfilter("inspect", pool, "--json", "--local")
    found = json.loads(said)
    assert code == 0 and (found["shards"], found["samples"]) == (2, 6)
    assert {f["what"] for f in found["findings"]} == {"no_parquet"}, "its stats are found beside it"
    code, result = run(mmfilter, recipe, pool, tmp_path / "out")
    assert code == 0 and result["embed"]["read"] == 6
    assert sorted(p.stem for p in (tmp_path / "out/metadata").glob("*.npz")) == ["00000000", "00000001"]
    assert mmfilter("inspect", pool / "00000001.TAR", "--local")[0] == 0
    code, said, _ = mmfilter("reshard", tmp_path / "out/subsets/t.npy", "--pool", pool, "--out", tmp_path / "new")
    assert code == 0 and len(list((tmp_path / "new").glob("*.tar"))) == 1


def test_capitals_on_a_store():
    for name in ("a/0.TAR", "b/1.tar", "b/1.txt"):
        storage.write_atomic(f"memory://capitals/{name}", tar(samples(1)))
    assert storage.expand("memory://capitals") == ["memory://capitals/a/0.TAR", "memory://capitals/b/1.tar"]


def test_links_to_folders_are_followed_once(recipe, tmp_path, mmfilter):
    pool, elsewhere = tmp_path / "pool", tmp_path / "elsewhere"
    write_pool(pool / "real", 1, 3)
    write_pool(elsewhere / "deep", 1, 3)
    (pool / "a").symlink_to(pool / "real")  # a folder that is below the pool itself
    (pool / "linked").symlink_to("../elsewhere")
    (pool / "linked again").symlink_to(elsewhere)
    (pool / "real/loop").symlink_to(pool)
    (elsewhere / "back").symlink_to(tmp_path)  # above the pool
    (pool / "nowhere").symlink_to("absent")
    code, said, _ = mmfilter("inspect", pool, "--json", "--local")
    assert code == 0 and json.loads(said)["shards"] == 2
    run(mmfilter, recipe, pool, tmp_path / "out")
    stems = sorted(p.stem for p in (tmp_path / "out/metadata").glob("*.npz"))
    assert stems == ["linked__deep__00000000", "real__00000000"]
    shutil.rmtree(pool / "real")
    assert [path for path in files_below(str(pool)) if path.endswith(".tar")] == [
        str(pool / "linked/deep/00000000.tar")
    ]


def test_shards_whose_names_have_dots_stay_apart(recipe, tmp_path, mmfilter):
    pool = tmp_path / "pool"
    pool.mkdir()
    for n in range(2):
        (pool / f"cc3m-train.v1.000{n}.tar").write_bytes(tar(samples(3, start=3 * n)))
    code, result = run(mmfilter, recipe, pool, tmp_path / "out")
    assert code == 0 and result["embed"]["read"] == 6
    assert mmfilter("inspect", pool, "--local")[0] == 0


def test_files_that_are_no_samples_are_counted_and_said(recipe, tmp_path, mmfilter):
    pool = tmp_path / "pool"
    pool.mkdir()
    rows = [*samples(3), (".hidden.jpg", jpeg()), ("a/.b.txt", b"x"), ("README", b"x")]
    (pool / "0.tar").write_bytes(tar(rows))
    (pool / "1.tar").write_bytes(bytes(10240))
    out = tmp_path / "out"
    code, result = run(mmfilter, recipe, pool, out)
    assert code == 0 and result["embed"]["passed_over"] == {"member_without_key": 3, "no_samples": 1}
    code, said, _ = mmfilter("run", recipe, "--pool", pool, "--out", out, "--local")
    assert code == 0 and "in 3 = kept 3 (100.0%) + dropped 0 + failed 0" in said
    assert "passed over: 3 files whose name begins with a dot or has no extension" in said
    assert "passed over: 1 shards without a sample" in said
    code, said, _ = mmfilter("inspect", pool, "--local")
    assert "3 x member without key" in said and "begins with a dot" in said
