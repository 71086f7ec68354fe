"""Concepts: k-means, density, labels and the map, each against the plainest reading; and the verb."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from dedup_util import POOLS, embedded, here

from index import density
from index.concepts import Clusters, _terms
from index.density import densities
from index.flat import flat_map
from index.kmeans import fit
from index.pool import Pool
from index.terms import count, labels, words
from index.vectors import open_vectors
from mmfilter.uids import format_uids


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Four groups of rows, each with captions of its own, in three shards."""
    rng = np.random.default_rng(0)
    sizes, kinds = (50, 40, 30, 20), ("a red fox in snow", "ein altes Haus am See", "两只猫在草地上", "قطة على السجادة")
    rows = np.concatenate([np.eye(4, 16)[i] + rng.normal(size=(n, 16)) * 0.05 for i, n in enumerate(sizes)])
    text = [f"{kinds[i]} the of {j}" for i, n in enumerate(sizes) for j in range(n)]
    order = rng.permutation(140)
    return embedded(tmp_path_factory.mktemp("c"), rows, (30, 60, 140), order, text=text)[0]


def concepts_of(folder, name="b32"):
    with open(f"{folder}/concepts/{name}/concepts.json", encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.slow
def test_the_verb_writes_columns_concepts_and_levels(pool, mmfilter_process):
    code, said, error = mmfilter_process("cluster", pool, "--model", "b32", "-k", 4, "--levels", "2", "--workers", 2)
    assert code == 0 and "140 samples in 4 clusters" in said and "fox" in said, error
    table = pq.read_table(f"{pool}/columns/cluster_id")
    types = {field.name: str(field.type) for field in table.schema}
    assert types["cluster_id"] == types["cluster_id_1"] == "int32" and set(types.values()) == {
        "string",
        "int32",
        "float",
    }
    concepts = concepts_of(pool)
    assert [c["size"] for c in concepts] == [50, 40, 30, 20] and [c["id"] for c in concepts] == [0, 1, 2, 3]
    centroids = np.load(f"{pool}/concepts/b32/centroids.npy")
    assert centroids.shape == (4, 16) and centroids.dtype == np.float32
    rows = open_vectors(pool, "b32").take(np.arange(140)).astype(np.float64)
    cosines = rows @ centroids.T.astype(np.float64)
    uids = np.array(format_uids(Pool(pool).uids))
    by_uid = {row.pop("uid"): tuple(row.values()) for row in table.to_pylist()}
    for i, uid in enumerate(uids.tolist()):
        cluster, similarity, _, separation, parent = by_uid[uid]
        others = np.delete(centroids.astype(np.float64) @ centroids[cluster], cluster)
        assert separation == pytest.approx(1 - others.mean(), abs=1e-6) and [parent] == concepts[cluster]["parents"]
        assert cluster == cosines[i].argmax() and similarity == np.float32(cosines[i].max())
    for concept in concepts:
        member = np.flatnonzero(cosines.argmax(axis=1) == concept["id"])
        near = member[np.argsort(-cosines[member, concept["id"]])]
        assert concept["exemplars"] == uids[near][:12].tolist()
        assert concept["tightness"] == pytest.approx(cosines[member, concept["id"]].mean(), abs=1e-5)
        assert 0 <= concept["x"] <= 1 and 0 <= concept["y"] <= 1 and len(concept["neighbours"]) == 3
        assert len(concept["parents"]) == 1
    assert "red" in " ".join(concepts[0]["label"]) and "haus" in " ".join(concepts[1]["label"])
    assert "只猫" in concepts[2]["label"] and any("السجادة" in term for term in concepts[3]["label"])
    with open(f"{pool}/concepts/b32/hierarchy.json", encoding="utf-8") as file:
        (level,) = json.load(file)
    assert sorted(c for group in level for c in group["children"]) == [0, 1, 2, 3]
    for group in level:
        inside = [c for c in concepts if c["parents"] == [group["id"]]]
        assert group["size"] == sum(c["size"] for c in inside)
        assert group["children"] == [c["id"] for c in inside]


def test_many_clusters_are_labelled_by_fewer_captions_each(pool, monkeypatch):
    cluster = np.repeat(np.arange(4, dtype=np.int32), 35)
    monkeypatch.setattr("index.concepts.LABELLED", 4 * 3 + 1)
    counts = _terms(Pool(pool), cluster, 0)
    assert [max(counter.values()) for counter in counts.values()] == [3] * 4  # "the" or "of" stands in each of them
    monkeypatch.setattr("index.concepts.LABELLED", 1)
    assert {max(counter.values()) for counter in _terms(Pool(pool), cluster, 0).values()} == {1}


def test_the_verb_says_what_is_wrong(pool, mmfilter):
    code, _, error = mmfilter("cluster", pool, "--model", "b23", "--local")
    assert code == 2 and "no embeddings 'b23_img'; did you mean 'b32_img'" in error
    code, _, error = mmfilter("cluster", pool, "--model", "b32", "--levels", "3,5", "--local")
    assert code == 2 and "levels fall" in error
    code, _, error = mmfilter("dedup", pool, "--keep", "best", "--local")
    assert code == 2 and "duplicates.keep" in error and "'furthest'" in error


@pytest.mark.parametrize("giant", [False, True])
def test_density_is_the_mean_of_the_ten_nearest(tmp_path, monkeypatch, giant):
    folder, _ = embedded(tmp_path, POOLS["blobs"](90, 8), (40, 90))
    vectors = open_vectors(folder, "b32")
    rows = vectors.take(np.arange(90)).astype(np.float64)
    clusters = [np.arange(0, 60), np.arange(60, 66), np.arange(66, 68)]
    if giant:
        monkeypatch.setattr(density, "ROWS", 25)
        monkeypatch.setattr(density, "BLOCK", 7)
    found = densities(vectors, clusters, here)
    for member in clusters:
        others = member[:: -(-len(member) // 25)] if giant and len(member) > 25 else member
        for i in member:
            cosines = np.sort([rows[i] @ rows[j] for j in others if j != i])[::-1][:10]
            assert found[i] == pytest.approx(cosines.mean(), abs=1e-6)
    assert np.isnan(found[68:]).all()


def test_k_means_finds_what_is_apart_and_takes_what_is_degenerate():
    rng = np.random.default_rng(1)
    rows = np.repeat(np.eye(3, 6), 40, axis=0) + rng.normal(size=(120, 6)) * 0.02
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    centroids = fit(rows, 3, 20, 0)
    assert sorted((centroids @ np.eye(3, 6).T).argmax(axis=1).tolist()) == [0, 1, 2]
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    assert np.array_equal(fit(rows, 3, 20, 0), centroids)
    assert np.isfinite(fit(np.repeat(rows[:1], 50, axis=0), 4, 5, 0)).all()
    assert len(fit(rows[:0], 4, 5, 0)) == 0 and len(fit(rows[:2], 4, 5, 0)) == 2


def test_terms_of_any_script():
    assert words("Two Cats, two cats!") == {"two", "cats", "two cats", "cats two"}
    assert {"日本", "本語"} <= words("日本語 text") and "text" in words("日本語 text")
    assert "собака" in words("Собака 12 a") and words("12 3 a") == set() and words("") == set()
    texts = ["a dog runs"] * 9 + ["a cat sleeps"] * 9 + [None, "a cat", ""]
    counts = count(texts, np.array([0] * 9 + [1] * 9 + [1, -1, 0]))
    found = labels(counts, 3)
    assert found[0][0] in ("dog runs", "dog", "runs") and "cat" in " ".join(found[1]) and found[2] == []


def test_a_label_holds_no_words_that_say_nothing():
    """Function words, also of languages that no list knows: what is frequent everywhere sets nothing apart."""
    rng = np.random.default_rng(0)
    things = ["cat", "kite", "lamp", "boat"]
    texts, cluster = [], []
    for number, thing in enumerate(things):
        for i in range(60):
            mine = "blorp" if rng.random() < (0.95 if number == 1 else 0.6) else "norp"  # an unknown function word
            inside = "in its" if number == 0 or i % 4 == 0 else "of the"
            texts.append(f"{mine} {thing} {inside} {['black', 'wooden', 'old'][(i + number) % 3]} box please")
            cluster.append(number)
    found = labels(count(texts, np.array(cluster)), 4)
    assert [label[0].split()[-1] for label in found] == things
    said = {word for label in found for term in label for word in term.split()}
    assert not said & {"in", "its", "of", "the", "please"}
    assert not any("blorp" in label for label in found) and labels(count(texts, np.array(cluster)), 4) == found


def test_a_cluster_of_function_words_still_has_a_label():
    counts = count(["in the", "in the", "of it", "of it"], np.array([0, 0, 1, 1]))
    assert labels(counts, 2) == [["in", "the"], ["it", "of"]]
    assert labels(count(["a cat in the sun"] * 3, np.zeros(3, int)), 1)[0] == ["cat", "sun"]


def test_the_map_keeps_groups_together():
    rng = np.random.default_rng(0)
    rows = np.concatenate([np.eye(3, 20)[i] + rng.normal(size=(15, 20)) * 0.05 for i in range(3)]).astype(np.float32)
    x, y = flat_map(rows)
    assert min(x.min(), y.min()) == 0 and max(x.max(), y.max()) == 1
    places = np.stack([x, y], axis=1)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (apart.argmin(axis=1) // 15 == np.arange(45) // 15).all()
    assert np.array_equal(flat_map(rows)[0], x)
    for k in range(4):
        assert all(len(side) == k and np.isfinite(side).all() for side in flat_map(rows[:k]))
    assert np.isfinite(flat_map(np.ones((5, 1), np.float32))).all()


@pytest.mark.parametrize("kind", ["one", "equal", "nothing", "odd", "empty"])
def test_pools_of_few_directions(tmp_path, kind):
    rows = POOLS[kind]()
    folder, _ = embedded(tmp_path, rows, (len(rows),), text=["a cat"] * len(rows))
    found = Clusters(model="b32", k=3, levels=(2,))(Pool(folder), here)
    without = ~np.isfinite(np.asarray(rows)).all(axis=1) | ~np.asarray(rows).any(axis=1)
    assert ((found["cluster_id"] == -1) == without).all()
    assert (np.isnan(found["density"]) == without).all()
    assert sum(c["size"] for c in concepts_of(folder)) == (~without).sum()
