"""Every pool score by one contract; and how they are run, committed, done again and refused."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from dedup_util import POOLS, embedded, here
from jobs_util import leftovers, results
from text_util import write_lists

from index.pool import Pool
from jobs.cluster import Width
from jobs.pool_scores import add_pool_scores
from mmfilter.errors import ConflictError
from mmfilter.plugs import PoolScore
from mmfilter.scores import SCORES, build_score
from mmfilter.uids import format_uids

pytestmark = pytest.mark.slow  # together, not each

NAMES = [name for name in SCORES.table() if issubclass(SCORES.get(name), PoolScore)]
# as their docs say
MAY_BE_NAN = {
    "duplicate_similarity",
    "overlap_similarity",
    "centroid_similarity",
    "density",
    "caption_agreement_b32",
    "negclip_b32_score",
    "norm_sim_t_2",
    "round_robin_t_rank",
    "target_t_hits",
    "target_t_likeness",
    "cluster_separation",
}
N = 150


def fields(name, other):
    """What a pool score cannot do without; `other` is a folder of embeddings."""
    return {
        "caption_agreement": {"model": "b32", "k": 4, "clusters": 5, "probes": 2},
        "clusters": {"model": "b32", "k": 7, "levels": [3, 2]},
        "duplicates": {"model": "b32", "hamming": 3, "k": 3},
        "metaclip": {"entries": f"{other}/../entries.json", "t": 20},
        "negclip": {"model": "b32", "batch": 40, "rounds": 2},
        "norm_sim": {"name": "t", "path": other, "model": "b32", "p": 2},
        "overlap": {"model": "b32", "against": other, "hamming": 2},
        "quantization": {"model": "b32", "k": 3, "bins": 4},
        "repeated_pairs": {},
        "repeats": {},
        "round_robin": {"name": "t", "path": other, "model": "b32", "take": 0.7},
        "synset": {"wordnet": f"{other}/../wordnet", "wnids": f"{other}/../wnids.txt"},
        "target": {"name": "t", "path": other, "model": "b32", "k": 5},
        "target_clusters": {"name": "t", "path": other, "model": "b32", "k": 5, "measure": "fid"},
        "token_frequency": {"bigrams": True},
    }[name]


def pool(folder, order=None, ends=(N,), n=N):
    """A pool of N samples with everything a pool score may read."""
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2**63, n, dtype=np.uint64) >> np.uint64(58)
    captions = ["a red fox", "ein Haus", "两只猫在草地上", "", "a red fox runs"]
    columns = {
        "sha256": [f"{i % 140:064x}" for i in range(n)],
        "phash": hashes,
        "text": (captions * n)[:n],
        "url": [f"u{i % 60}" for i in range(n)],
        "original_width": list(range(1, n + 1)),
        "original_height": [1] * n,
    }
    rows = POOLS["blobs"](max(n, 1), 12)[:n]
    return embedded(folder, rows, ends, order, rows[::-1], **columns)[0]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    write_lists(folder)
    return pool(folder / "pool", n=40)


def by_uid(folder, name, other):
    seen, score = Pool(folder), build_score({name: fields(name, other)}, "x")
    found = score(seen, here)
    assert tuple(found) == score.columns
    values = zip(*(np.asarray(found[column]).tolist() for column in score.columns), strict=True)
    return dict(zip(format_uids(seen.uids), values, strict=True))


@pytest.mark.parametrize("name", NAMES)
class TestEveryPoolScore:
    def test_gives_one_value_a_sample(self, name, other, tmp_path):
        score = build_score({name: fields(name, other)}, "recipe t.yaml: scores[0]")
        assert isinstance(score.columns, tuple) and isinstance(score.needs, frozenset)
        for column, values in score(Pool(pool(tmp_path)), here).items():
            values = np.asarray(values)
            assert values.shape == (N,) and values.dtype.kind in "fiubUO"
            assert column in MAY_BE_NAN or values.dtype.kind != "f" or np.isfinite(values).all()

    def test_does_not_care_for_shards_and_order(self, name, other, tmp_path):
        order = np.random.default_rng(1).permutation(N)
        first = by_uid(pool(tmp_path / "a"), name, other)
        second = by_uid(pool(tmp_path / "b", order, (20, 20, 90, N)), name, other)
        assert first.keys() == second.keys()
        for uid, values in first.items():
            np.testing.assert_equal(second[uid], values)

    def test_takes_an_empty_pool(self, name, other, tmp_path):
        assert by_uid(pool(tmp_path, n=0, ends=(0,)), name, other) == {}

    def test_the_same_bytes_again_and_nothing_is_done_twice(self, name, other, tmp_path):
        folder = pool(tmp_path, ends=(40, 100, N))
        score = build_score({name: fields(name, other)}, "x")
        assert add_pool_scores([score], folder, Width(local=True)) == {score.columns[0]: 3}
        before = results(tmp_path / "columns")
        assert add_pool_scores([score], folder, Width(local=True)) == {score.columns[0]: 0}
        os.unlink(tmp_path / "columns" / score.columns[0] / "00000001.parquet")  # as a kill leaves it
        assert add_pool_scores([score], folder, Width(local=True)) == {score.columns[0]: 1}
        assert results(tmp_path / "columns") == before
        for file in score.files:
            os.unlink(tmp_path / file)
            assert add_pool_scores([score], folder, Width(local=True)) == {score.columns[0]: 3}
            assert (tmp_path / file).exists()
        assert results(tmp_path / "columns") == before

    def test_ray_gives_the_same_bytes(self, name, other, tmp_path, ray_here):
        score = build_score({name: fields(name, other)}, "x")
        found = []
        for width in (Width(local=True), Width(workers=2)):
            folder = tmp_path / str(width.local)
            add_pool_scores([score], pool(folder, ends=(40, 100, N)), width)
            found.append(results(folder / "columns"))
        # the part records the folder's files, whose times differ, so values are compared
        assert found[0].keys() == found[1].keys()
        for path in found[0]:
            one, two = (pq.read_table(tmp_path / str(local) / "columns" / path) for local in (True, False))
            for column in one.column_names:
                np.testing.assert_equal(one[column].to_numpy(), two[column].to_numpy())


def test_a_changed_pool_is_computed_again_and_a_changed_score_refused(tmp_path):
    folder = pool(tmp_path, ends=(100, N))
    score = build_score({"duplicates": {"model": "b32"}}, "x")
    add_pool_scores([score], folder, Width(local=True))
    with pytest.raises(ConflictError, match=r"duplicate_of.*eps 0.05, now 0.1.*--redo-changed"):
        add_pool_scores([build_score({"duplicates": {"model": "b32", "eps": 0.1}}, "x")], folder, Width(local=True))
    with np.load(tmp_path / "00000001.npz") as npz:
        rows = npz["b32_img"]
    np.savez(tmp_path / "00000001.npz", b32_img=np.roll(rows, 1, axis=1), more=np.ones(3))
    assert add_pool_scores([score], folder, Width(local=True)) == {"duplicate_of": 2}
    again = build_score({"duplicates": {"model": "b32", "eps": 0.1}}, "x")
    assert add_pool_scores([again], folder, Width(local=True), redo=True) == {"duplicate_of": 2}


RECIPE = {
    "name": "t",
    "embed": {"demo": {"model": "demo"}},
    "scores": [
        {"clip_similarity": {"model": "demo"}},
        {"clusters": {"model": "demo", "k": 9}},
        {"duplicates": {"model": "demo", "eps": 0.02, "keep": "score", "score": "clip_demo_similarity_score"}},
    ],
    "select": {"then": ["not_duplicate", {"cluster_quota": {"at_most": 15, "score": "clip_demo_similarity_score"}}]},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A generated pool, run whole by the recipe above."""
    from mmfilter.synth import SynthOptions, generate

    folder = tmp_path_factory.mktemp("run")
    generate(str(folder / "pool"), SynthOptions(samples=240, per_shard=80))
    (folder / "t.yaml").write_text(json.dumps(RECIPE))
    return folder


@pytest.mark.slow
def test_run_computes_them_and_a_second_run_does_nothing(run, mmfilter):
    words = (run / "t.yaml", "--pool", run / "pool", "--out", run / "out", "--local", "--no-reshard", "--json")
    code, said, error = mmfilter("run", *words, "--dry-run")
    assert code == 0 and "duplicate_of" in said, error
    code, said, error = mmfilter("run", *words)
    assert code == 0, error
    first = json.loads(said)
    assert first["pool_scores"] == {"cluster_id": 3, "duplicate_of": 3}
    assert first["counts"]["kept"] <= 9 * 15 and first["selection"]["steps"][0]["dropped"] > 5
    before = results(run / "out")
    code, said, error = mmfilter("run", *words)
    assert json.loads(said)["pool_scores"] == {"cluster_id": 0, "duplicate_of": 0} and results(run / "out") == before
    table = pq.read_table(run / "out" / "columns" / "duplicate_of").to_pylist()
    dropped = next(row["uid"] for row in table if row["duplicate_of"])
    code, said, error = mmfilter("explain", dropped, "--out", run / "out")
    assert code == 0 and "duplicate_of" in said, error
    assert (run / "out" / "concepts" / "demo" / "centroids.npy").exists()


@pytest.mark.slow
def test_score_adds_them_to_an_embedded_pool(run, mmfilter):
    if not (run / "out" / "metadata").exists():
        pytest.skip("the run above made the pool")
    shutil.rmtree(run / "out" / "columns")
    code, said, error = mmfilter("score", run / "t.yaml", "--out", run / "out", "--local")
    assert code == 0 and "cluster_id, centroid_similarity, density, cluster_separation, duplicate_of" in said, error
    code, said, error = mmfilter(
        "dedup", run / "out", "--model", "demo", "--against", run / "pool", "--local", "--json"
    )
    found = json.loads(said)
    assert code == 0 and found["found"] == 240 and found["kinds"] == {"exact": 240}, error
    assert pq.read_table(found["list"]).column_names[:3] == ["uid", "key", "text"]


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"duplicates": {"model": "b23"}}, "no model 'b23' in embed; did you mean 'b32'?"),
        ({"duplicates": {"exact": False}}, "nothing is compared"),
        ({"duplicates": {"keep": "furthest"}}, "'keep: furthest' is about a cluster's centroid"),
        ({"duplicates": {"keep": "score"}}, "'keep: score' and 'score: COLUMN' go together"),
        ({"duplicates": {"epsilon": 1}}, "unknown field; did you mean 'eps'?"),
        ({"clusters": {"model": "b32", "levels": [3, 9]}}, "levels fall"),
        ({"overlap": {"against": []}}, "name a set"),
        ({"target": {"name": "a b", "path": "x", "model": "b32"}}, "name"),
    ],
)
def test_a_wrong_recipe_is_told_where(node, says):
    from mmfilter.errors import UsageError

    with pytest.raises(UsageError) as error:
        build_score(node, "recipe x.yaml: scores[0]", ["b32"])
    assert says in str(error.value) and str(error.value).startswith("recipe x.yaml: scores[0]")


@pytest.mark.slow
def test_a_killed_dedup_goes_on_to_the_same_bytes(tmp_path):
    """SIGKILL while the columns are being written, shard by shard; then the same command again."""
    folder = pool(tmp_path / "a", ends=(*range(2, N, 2), N))
    words = [sys.executable, "-m", "jobs", "dedup", folder, "--model", "b32", "--local"]
    first = tmp_path / "a" / "columns" / "duplicate_of"
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(first.glob("*.parquet")):
        time.sleep(0.001)
    process.kill()
    process.wait()
    written = len(list(first.glob("*.parquet")))
    assert 0 < written < 75, "it was killed too late to tell"
    subprocess.run(words, check=True, capture_output=True)
    again = results(first)
    shutil.rmtree(first)
    subprocess.run(words, check=True, capture_output=True)
    assert len(again) == 75 and results(first) == again and not leftovers(tmp_path)
