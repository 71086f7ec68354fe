"""Sets beside the pool: read from whatever they are, near to it or shared with it."""

import io
import json
import shutil
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from embed_util import picture

from index.overlap import Overlap
from index.pool import Pool
from index.reference import Asked, read_reference
from index.target import Target
from mmfilter.errors import ConflictError, DataError, MMFilterError, UsageError
from mmfilter.json_file import encode
from mmfilter.synth import SynthOptions, generate

pytestmark = pytest.mark.slow  # together, not each: its fixtures take seconds


def here(function, tasks):
    return [function(task) for task in tasks]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A generated pool that the demo model has embedded: (folder of the tars, OUT)."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("target")
    generate(str(folder / "pool"), SynthOptions(samples=120, per_shard=60, noise=False))
    recipe = {"name": "t", "embed": {"demo": {"model": "demo"}}, "scores": ["phash"]}
    (folder / "t.yaml").write_text(json.dumps(recipe))
    words = ["embed", folder / "t.yaml", "--pool", folder / "pool", "--out", folder / "out", "--local"]
    subprocess.run([sys.executable, "-m", "jobs", *map(str, words)], check=True, capture_output=True)
    return folder


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def image_files(run):
    """The images of the pool's first shard, by key."""
    with tarfile.open(run / "pool" / "00000000.tar") as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")}


def test_images_in_folders_tars_and_wds_sets_are_the_same(run, tmp_path):
    files = image_files(run)
    (tmp_path / "flat" / "deep").mkdir(parents=True)
    (tmp_path / "wds" / "test").mkdir(parents=True)
    with tarfile.open(tmp_path / "wds" / "test" / "0.tar", "w") as tar:
        for name, data in files.items():
            (tmp_path / "flat" / "deep" / name).write_bytes(data)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "wds" / "test" / "nshards.txt").write_text("1")
    asked = Asked(Pool(str(run / "out")), "demo", hash=True)
    flat, wds = (read_reference(str(tmp_path / name), asked) for name in ("flat", "wds"))
    assert flat.names == [f"deep/{name}" for name in sorted(files)] and set(wds.names) == {
        f"test/0.tar/{name}" for name in files
    }
    assert sorted(flat.sha256) == sorted(wds.sha256) and flat.hashed.all()
    out = read_reference(str(run / "out"), asked)
    assert len(out) == 120 and set(flat.sha256) <= set(out.sha256)
    found = dict(zip(out.sha256, out.block(0, 120), strict=True))
    mine = flat.block(0, len(flat))
    cosines = [mine[i] @ found[sha] for i, sha in enumerate(flat.sha256)]
    assert min(cosines) > 0.999


def test_decontamination_lists_what_it_found(run, tmp_path, mmfilter):
    files = list(image_files(run).values())
    (tmp_path / "bench").mkdir()
    from PIL import Image

    (tmp_path / "bench" / "same.jpg").write_bytes(files[0])
    (tmp_path / "bench" / "again.jpg").write_bytes(jpeg(Image.open(io.BytesIO(files[1])), quality=30))
    (tmp_path / "bench" / "other.png").write_bytes(jpeg(picture(90, 70, seed=3)))
    (tmp_path / "bench" / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    shutil.copytree(run / "out", out)
    words = ("dedup", out, "--against", tmp_path / "bench", "--model", "demo", "--eps", 0.02, "--hamming", 2, "--json")
    code, said, error = mmfilter(*words, "--local")
    assert code == 0, error
    rows = {row["overlap_of"]: row for row in pq.read_table(json.loads(said)["list"]).to_pylist()}
    assert rows["bench/same.jpg"]["overlap_kind"] == "exact" and rows["bench/same.jpg"]["overlap_similarity"] == 1
    assert rows["bench/again.jpg"]["overlap_kind"] in ("perceptual", "semantic")
    assert "bench/broken.jpg" not in rows
    recipe = {"name": "clean", "scores": [], "select": {"not_duplicate": {"column": "overlap_of"}}}
    (tmp_path / "clean.yaml").write_text(json.dumps(recipe))
    code, said, error = mmfilter("select", tmp_path / "clean.yaml", "--out", out, "--json")
    assert code == 0 and json.loads(said)["counts"]["dropped"] == len(pq.read_table(out / "overlap" / "found.parquet"))


def test_overlap_is_the_plainest_comparison(run, tmp_path):
    pool = Pool(str(run / "out"))
    score = Overlap(against=[str(run / "out")], model="demo", eps=0.05, exact=False)
    found = score(pool, here)
    rows = pool.vectors("demo").take(np.arange(120)).astype(np.float64)
    cosines = rows @ rows.T
    for i, item in enumerate(found["overlap_of"].to_pylist()):
        assert item.startswith("out/") and found["overlap_similarity"][i] == pytest.approx(cosines[i].max(), abs=1e-6)


def test_target_is_the_greatest_cosine_and_datacomps_membership(run, tmp_path):
    pool = Pool(str(run / "out"))
    rows = pool.vectors("demo").take(np.arange(120)).astype(np.float64)
    (tmp_path / "texts.txt").write_text("a red circle\n\n  two blue stars  \n")
    by_text = Target(name="t", path=str(tmp_path / "texts.txt"), model="demo")(pool, here)
    texts = read_reference(str(tmp_path / "texts.txt"), Asked(pool, "demo"))
    assert texts.names == ["a red circle", "two blue stars"]
    expected = (rows @ texts.block(0, 2).astype(np.float64).T).max(axis=1)
    np.testing.assert_allclose(by_text["target_t_similarity"], expected, atol=1e-6)
    (tmp_path / "set").mkdir()
    for i, data in enumerate(list(image_files(run).values())[:9]):
        (tmp_path / "set" / f"{i}.jpg").write_bytes(data)
    centroids = np.random.default_rng(0).normal(size=(30, rows.shape[1])).astype(np.float32) * 3
    np.save(tmp_path / "centroids.npy", centroids)
    score = Target(name="s", path=str(tmp_path / "set"), model="demo", centroids=str(tmp_path / "centroids.npy"))
    member = score(pool, here)["target_s_cluster"]
    items = read_reference(str(tmp_path / "set"), Asked(pool, "demo")).block(0, 9)
    hit = set((items @ centroids.T).argmax(axis=1).tolist())
    assert member.tolist() == [c in hit for c in (rows @ centroids.T.astype(np.float64)).argmax(axis=1)]
    assert 9 <= member.sum() < 120


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((2, 5), np.float32), np.full((2, 128), np.nan), None])
def test_centroids_that_are_none(run, tmp_path, bad):
    path = tmp_path / "c.npy"
    path.write_bytes(b"pickle") if bad is None else np.save(path, bad)
    with pytest.raises(DataError, match=r"c\.npy.*\(k, "):
        Target(name="s", path=str(run / "out"), model="demo", centroids=str(path))(Pool(str(run / "out")), here)


def test_what_cannot_be_a_set_says_so(run, tmp_path):
    asked = Asked(Pool(str(run / "out")), "demo")
    with pytest.raises(UsageError, match="no image and no tar"):
        read_reference(str(tmp_path), asked)
    (tmp_path / "x.jpg").write_bytes(b"text")
    with pytest.raises(MMFilterError, match="none of its 1 images can be decoded"):
        read_reference(str(tmp_path), asked)
    data = (run / "pool" / "00000000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 2 + 100])
    with pytest.raises(DataError, match=r"cut\.tar.*fetch it again"):
        read_reference(str(tmp_path / "cut.tar"), asked)
    (tmp_path / "t.txt").write_text("a cat")
    with pytest.raises(UsageError, match="needs a model"):
        read_reference(str(tmp_path / "t.txt"), Asked(asked.pool))
    with pytest.raises(UsageError, match="nothing here says what model 'b32' is"):
        read_reference(str(tmp_path / "t.txt"), Asked(asked.pool, "b32"))


def test_other_weights_are_refused(run, tmp_path):
    shutil.copytree(run / "out", tmp_path / "other")
    for path in (tmp_path / "other" / "metadata").glob("*.json"):
        commit = json.loads(path.read_text())
        commit["parts"]["embed:demo"]["weights"] = "0" * 64
        path.write_bytes(encode(commit))
    with pytest.raises(ConflictError, match="other weights"):
        read_reference(str(tmp_path / "other"), Asked(Pool(str(run / "out")), "demo"))
    (tmp_path / "t.txt").write_text("a cat")
    with pytest.raises(ConflictError, match="its weights hash to"):
        read_reference(str(tmp_path / "t.txt"), Asked(Pool(str(tmp_path / "other")), "demo"))
