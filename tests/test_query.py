"""Questions to an index by the command line, against plain products with every row."""

import json

import numpy as np
import polars as pl
import pytest

from index.ask import Question, vector
from index.knn import open_index
from index.pool import Pool
from mmfilter.subset import Subset
from mmfilter.uids import format_uids, parse_uids

pytestmark = pytest.mark.slow  # together, not each

pytest_plugins = ("page_fixtures",)


@pytest.fixture(scope="module")
def knn(page_out):
    return open_index(str(page_out))


@pytest.fixture(scope="module")
def rows(knn):
    """Every row of the pool, float32 (n, d)."""
    return knn.vectors.take(np.arange(len(knn)))


def ranked(knn, rows, target, chosen=None):
    """(uid, similarity) of every row or of the `chosen`, nearest first."""
    near = rows @ target
    order = [p for p in np.argsort(-near, kind="stable").tolist() if chosen is None or chosen[p]]
    return [(uid, near[p]) for uid, p in zip(format_uids(knn.uids[order]), order, strict=True)]


def asked(mmfilter, *words):
    code, said, error = mmfilter("query", *words, "--json")
    assert code == 0, error
    return json.loads(said)


def test_words_by_the_pools_own_model(page_out, knn, rows, mmfilter):
    found = asked(mmfilter, "a red circle", "--out", page_out, "-k", 7)
    target = vector(knn, Pool(str(page_out)), Question(texts=("a red circle",)))
    truth = ranked(knn, rows, target)[:7]
    assert [row["similarity"] for row in found] == pytest.approx([near for _, near in truth], abs=1e-4)
    texts = dict(Pool(str(page_out)).read("uid", "text").select("uid", "text").iter_rows())
    assert all(row["text"] == texts[row["uid"]] for row in found)
    assert sum("red" in row["text"] for row in found) >= 3


def test_a_sample_is_left_out_of_its_own_neighbours(page_out, knn, rows, mmfilter):
    uid = format_uids(knn.uids[[5]])[0]
    found = asked(mmfilter, "--uid", uid, "--out", page_out, "-k", 5)
    truth = [pair for pair in ranked(knn, rows, rows[5]) if pair[0] != uid][:5]
    assert uid not in [row["uid"] for row in found]
    assert [row["similarity"] for row in found] == pytest.approx([near for _, near in truth], abs=1e-4)


def test_a_rule_and_a_subset_choose_before_the_search(page_out, knn, rows, mmfilter, tmp_path):
    frame = Pool(str(page_out)).read("uid", "caption_words")
    kept = Subset.read(str(page_out / "subsets/demo.npy"))
    allowed = kept.contains(knn.uids) & (frame["caption_words"].to_numpy() >= 5)
    among = page_out / "subsets/demo.npy"
    words = ("--out", page_out, "--among", among, "--where", "caption_words >= 5", "-k", 1000)
    found = asked(mmfilter, "--uid", format_uids(knn.uids[[0]])[0], *words)
    allowed[0] = False
    assert [row["uid"] for row in found] == [uid for uid, _ in ranked(knn, rows, rows[0], allowed)]
    assert len(found) == allowed.sum(), "all that may be found are found"


def test_against_is_half_of_what_is_asked_for(page_out, knn, rows):
    one, other = format_uids(knn.uids[[3, 9]])
    target = vector(knn, Pool(str(page_out)), Question(uids=(one,), minus_uids=(other,)))
    plain = rows[3] - 0.5 * rows[9]
    assert np.allclose(target, plain / np.linalg.norm(plain), atol=1e-6)


def test_a_topic_becomes_a_subset_and_new_shards(page_out, knn, rows, mmfilter, tmp_path):
    uid = format_uids(knn.uids[[7]])[0]
    code, said, error = mmfilter(
        "query", "--uid", uid, "--out", page_out, "--floor", 0.5, "--write", tmp_path / "t.npy"
    )
    assert code == 0 and str(tmp_path / "t.npy") in said, error
    topic = Subset.read(str(tmp_path / "t.npy"))
    assert topic == Subset.from_uids(u for u, near in ranked(knn, rows, rows[7]) if near >= 0.5 and u != uid)
    code, _, error = mmfilter(
        "reshard", tmp_path / "t.npy", "--pool", page_out.parent / "pool", "--out", tmp_path / "s"
    )
    assert code in (0, 3), error
    like = asked(mmfilter, "--like", tmp_path / "t.npy", "--out", page_out, "-k", 3)
    mean = rows[topic.contains(knn.uids)].mean(axis=0)
    assert [r["uid"] for r in like] == [u for u, _ in ranked(knn, rows, mean / np.linalg.norm(mean))[:3]]


def test_a_picture_finds_itself(page_out, knn, mmfilter, tmp_path):
    row = pl.read_parquet(page_out / "metadata/00000000.parquet").row(3, named=True)
    with open(page_out.parent / "pool/00000000.tar", "rb") as tar:
        tar.seek(row["offset"])
        (tmp_path / "examples").mkdir()
        (tmp_path / "examples/one.jpg").write_bytes(tar.read(row["size"]))
    found = asked(mmfilter, "--image", tmp_path / "examples", "--out", page_out, "-k", 1)
    assert found[0]["similarity"] > 0.999
    assert knn.positions(parse_uids([found[0]["uid"]]))[0] >= 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "nothing is asked"),
        (("--uid", "f" * 32), "is not in index demo-image"),
        (("--uid", "red"), "is not 32 hexadecimal digits"),
        (("a", "--where", "caption_word > 3"), "no column 'caption_word'; did you mean 'caption_words'?"),
        (("a", "--among", "nowhere.npy"), "no such subset"),
        (("--image", "nowhere.jpg"), "no such file or folder"),
        (("a", "--index", "demo-imgae"), "no index 'demo-imgae'; did you mean 'demo-image'?"),
    ],
)
def test_what_is_wrong_is_said(page_out, mmfilter, words, says):
    code, _, error = mmfilter("query", *words, "--out", page_out)
    assert code in (1, 2) and says in error and "Traceback" not in error
