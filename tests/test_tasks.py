"""Tasks on small sets with a random model, against plain open_clip; broken samples are counted, none silently gone."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sets_util import (
    CLASSES,
    TEMPLATES,
    captioned,
    labelled,
    labels,
    members,
    npy,
    plain_classifier,
    plain_rows,
    png,
    task,
    write_set,
)
from tars import std_tar

from mmfilter.auc import auc
from mmfilter.embed import load
from mmfilter.errors import DataError
from mmfilter.records import Failure
from mmfilter.tasks import TABLE, TASKS
from mmfilter.tasks.sets import BadLabel, Item, MissingSet, numbers, open_set, read_set
from mmfilter.weights import DEMO, ModelSpec


@pytest.fixture(scope="module")
def embedder(tiny_model):
    found = load("m", ModelSpec(model=tiny_model))
    found.full = True
    return found


def test_classification_is_what_plain_open_clip_gets(tmp_path, embedder, tiny_model):
    samples = labelled(60)
    found = task("classification", write_set(tmp_path, samples)).run(embedder)
    scores = plain_rows(tiny_model, samples, [])[0] @ plain_classifier(tiny_model).T
    hits = scores.argmax(axis=1) == labels(samples)
    assert found.metrics["acc1"] == found.main == hits.mean() and (found.outcomes == hits).all()
    fifth = [t in np.argsort(-s)[:5] for s, t in zip(scores, labels(samples), strict=True)]
    assert found.metrics["acc5"] == np.mean(fifth)
    recall = np.mean([hits[labels(samples) == c].mean() for c in set(labels(samples))])
    assert found.metrics["mean_per_class_recall"] == pytest.approx(recall)
    assert (found.samples, found.failed) == (60, {})
    other = task("classification", str(tmp_path), main_metric="mean_per_class_recall").run(embedder)
    assert other.main == pytest.approx(recall) == pytest.approx(other.outcomes.mean())


def test_a_trained_checkpoint_scores_in_plain_open_clip_what_it_scores_here(tmp_path, monkeypatch):
    """The packaged model, made by `mmfilter train`: every answer is the same, with words of its own vocabulary."""
    samples = labelled(50)
    demo = load("demo", ModelSpec(model="demo"))
    demo.full = True
    found = task("classification", write_set(tmp_path, samples)).run(demo)
    monkeypatch.chdir(DEMO)  # where open_clip looks for a vocabulary
    scores = plain_rows(DEMO, samples, [])[0] @ plain_classifier(DEMO).T
    assert (found.outcomes == (scores.argmax(axis=1) == labels(samples))).all()


def test_multilabel_is_what_plain_open_clip_gets(tmp_path, embedder, tiny_model):
    held = np.random.default_rng(1).random((40, len(CLASSES))) < 0.3
    samples = [{"png": png(i), "npy": npy(row.astype(np.uint8))} for i, row in enumerate(held)]
    found = task("multilabel", write_set(tmp_path, samples, kind="multilabel")).run(embedder)
    scores = plain_rows(tiny_model, samples, [])[0] @ plain_classifier(tiny_model).T
    each = [np.mean([t[s >= s[i]].mean() for i in np.flatnonzero(t)]) for s, t in zip(scores.T, held.T, strict=True)]
    assert found.main == pytest.approx(np.mean(each), abs=1e-9)


def test_retrieval_is_what_plain_open_clip_gets(tmp_path, embedder, tiny_model):
    samples = captioned(30)
    found = task("retrieval", write_set(tmp_path / "a", samples, classes=(), kind="retrieval")).run(embedder)
    texts = [s["txt"].decode().split("\n") for s in samples]
    owner = np.repeat(np.arange(30), [len(t) for t in texts])
    images, words = plain_rows(tiny_model, samples, [text for told in texts for text in told])
    scores = words @ images.T
    for k in (1, 5, 10):
        by_text = [owner[j] in np.argsort(-row, kind="stable")[:k] for j, row in enumerate(scores)]
        by_image = [i in owner[np.argsort(-row, kind="stable")[:k]] for i, row in enumerate(scores.T)]
        assert found.metrics[f"image_retrieval_recall@{k}"] == pytest.approx(np.mean(by_text))
        assert found.metrics[f"text_retrieval_recall@{k}"] == pytest.approx(np.mean(by_image))
    assert found.outcomes.mean() == pytest.approx(found.main) and len(found.outcomes) == 30
    rows = {"image": [{"bytes": s["png"], "path": None} for s in samples], "caption": texts}
    (tmp_path / "b").mkdir()
    pl.DataFrame(rows).write_parquet(tmp_path / "b" / "test.parquet")
    assert task("retrieval", str(tmp_path / "b")).run(embedder) == found


def test_pairs_are_told_apart_by_similarity(tmp_path, embedder, tiny_model):
    samples = captioned(12)
    root = write_set(tmp_path, samples, classes=(), kind="retrieval")
    rng = np.random.default_rng(2)
    table = pl.DataFrame({"image": rng.integers(0, 12, 40), "text": rng.choice(CLASSES, 40), "match": [0, 1] * 20})
    table.write_parquet(tmp_path / "match_pairs.parquet")
    asked = task("pairs", root, pairs=str(tmp_path / "match_pairs.parquet"))
    found = asked.run(embedder)
    images, words = plain_rows(tiny_model, samples, table["text"].to_list())
    scores = (images[table["image"].to_numpy()] * words).sum(axis=1)
    assert found.main == pytest.approx(auc(scores, table["match"].to_numpy() == 1))
    samples[3]["png"] = b"no image"
    write_set(tmp_path, samples, classes=(), kind="retrieval")
    again, gone = asked.run(embedder), int((table["image"] == 3).sum())
    assert (again.samples, again.failed) == (40 - gone, {"lost": gone})


@pytest.mark.parametrize("shards", [3, 7])
def test_sharding_changes_nothing(tmp_path, embedder, shards):
    samples = labelled(41)
    one = task("classification", write_set(tmp_path / "a", samples)).run(embedder)
    many = task("classification", write_set(tmp_path / "b", samples, shards)).run(embedder)
    assert one == many and (one.outcomes == many.outcomes).all()


def test_a_set_behind_a_url_is_the_set(tmp_path, embedder):
    import fsspec

    root = write_set(tmp_path, labelled(9), 2)
    fsspec.filesystem("memory").put(root, "/sets/small", recursive=True)
    assert task("classification", "memory://sets/small").run(embedder) == task("classification", root).run(embedder)


BROKEN = {
    "missing_cls": {"png": png(1)},
    "missing_image": {"cls": b"1"},
    "image_empty": {"png": b"", "cls": b"1"},
    "not_an_image": {"png": b"<html>", "cls": b"1"},
    "truncated_image": {"png": png(1)[:-200], "cls": b"1"},
    "label_malformed": {"png": png(1), "cls": b"cat"},
    "label_out_of_range": {"png": png(1), "cls": b"6"},
}


@pytest.mark.parametrize("status", BROKEN)
def test_a_broken_sample_is_counted_and_the_others_go_on(tmp_path, embedder, status):
    samples = labelled(8)
    root = write_set(tmp_path / "a", [*samples[:3], BROKEN[status], *samples[3:]])
    found = task("classification", root).run(embedder)
    assert (found.samples, found.failed) == (8, {status: 1})
    assert found.failures[0].key == "s0000003" and found.failures[0].error
    assert (found.outcomes == task("classification", write_set(tmp_path / "b", samples)).run(embedder).outcomes).all()


def test_a_damaged_tar_costs_what_was_damaged(tmp_path, embedder):
    root = write_set(tmp_path, labelled(12))
    tar = tmp_path / "test" / "0.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    found = task("classification", root, expected=12).run(embedder)
    assert 0 < found.samples < 12 and found.samples + sum(found.failed.values()) >= 12 and "truncated" in found.failed
    tar.write_bytes(whole[:512] + b"\xff" * 512 + whole[1024:])
    assert task("classification", root).run(embedder).samples >= 11


def test_members_may_stand_in_any_order_and_the_first_of_a_kind_counts(tmp_path, embedder):
    samples = labelled(6)
    root = write_set(tmp_path, samples)
    wanted = task("classification", root).run(embedder)
    rows = members(samples)
    images, classes = rows[::2], rows[1::2]
    extra = [("s0000002.cls", b"77"), ("dir/", b""), ("README", b"x"), ("s0000001.json", b"{}")]
    (tmp_path / "test" / "0.tar").write_bytes(std_tar([*images, *classes, *extra]))
    found = task("classification", root).run(embedder)
    assert found.samples == 6 and (found.outcomes == wanted.outcomes).all()
    webp = [(name.replace(".png", ".webp"), data) for name, data in images]  # preferred, whatever it is named
    (tmp_path / "test" / "0.tar").write_bytes(std_tar([*webp, *[(n, b"bad") for n, _ in images], *classes]))
    assert (task("classification", root).run(embedder).outcomes == wanted.outcomes).all()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_bytes_are_numbers_or_a_bad_label(seed):
    rng = np.random.default_rng(seed)
    data = bytearray(npy([[1, 2, 3], [1.0, 0.0], np.array([True, False])][seed % 3]))
    for at in rng.integers(0, len(data), int(rng.integers(0, 6))):
        data[at] = rng.integers(0, 256)
    try:
        found = numbers(bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.2 else data))
        assert found.dtype == np.int64 and found.ndim == 1
    except BadLabel as error:
        assert error.status == "label_malformed"


def test_numbers_are_whole_numbers():
    for values in ([1, 2], [1.0, 2.0], np.array([1, 2], np.uint8)):
        assert numbers(npy(values), 2).tolist() == [1, 2]
    assert numbers(npy([True, False])).tolist() == [1, 0]
    for values in ([0.5, 1], [np.nan, 1], [[1, 2]], ["a", "b"], [1], np.array([2**63], np.uint64), [1e300, 0]):
        with pytest.raises(BadLabel):
            numbers(npy(values), 2)


def test_what_is_never_complete_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("mmfilter.tasks.sets.HELD", 5000)
    rows = members(labelled(20))
    write_set(tmp_path, [])
    (tmp_path / "test" / "0.tar").write_bytes(std_tar([*rows[::2], *rows[1::2]]))  # all images, then all classes
    found = list(read_set(open_set(str(tmp_path)), ("cls",)))
    statuses = Counter(item.status for item in found if isinstance(item, Failure))
    well = sum(isinstance(item, Item) for item in found)
    assert well + statuses["missing_cls"] == 20 and well > 0 and set(statuses) == {"missing_cls"}


def test_a_sample_that_comes_twice_counts_once(tmp_path):
    rows = members(labelled(5))
    write_set(tmp_path, [])
    (tmp_path / "test" / "0.tar").write_bytes(std_tar([*rows, *rows[2:6]]))
    found = list(read_set(open_set(str(tmp_path)), ("cls",)))
    assert [item.key for item in found if isinstance(item, Item)] == [f"s{i:07d}" for i in range(5)]
    assert [(f.key, f.status) for f in found if isinstance(f, Failure)] == [
        ("s0000001", "key_repeated"),
        ("s0000002", "key_repeated"),
    ]


def test_what_a_set_lacks_is_named(tmp_path, embedder):
    with pytest.raises(MissingSet, match="nshards.txt"):
        open_set(str(tmp_path))
    root = write_set(tmp_path, labelled(4), 2)
    (tmp_path / "test" / "1.tar").unlink()
    with pytest.raises(MissingSet, match=r"1\.tar.*fetch it again"):
        task("classification", root).run(embedder)
    with pytest.raises(MissingSet, match="classnames"):
        task("classification", write_set(tmp_path / "b", labelled(2), classes=())).run(embedder)
    with pytest.raises(DataError, match="no sample of it can be measured"):
        task("classification", write_set(tmp_path / "c", [])).run(embedder)
    for text in ("x", "0", "-1", "9" * 20):
        (tmp_path / "test" / "nshards.txt").write_text(text)
        with pytest.raises(DataError, match="number of tars"):
            open_set(root)


def test_one_sample_is_a_set(tmp_path, embedder):
    found = task("classification", write_set(tmp_path, labelled(1))).run(embedder)
    assert found.samples == 1 and found.main in (0, 1)


def test_a_model_of_nan_is_an_error_not_a_figure(tmp_path, tiny_model):
    import torch

    broken = load("m", ModelSpec(model=tiny_model))
    broken.full = True
    with torch.no_grad():
        broken.model.visual.proj.fill_(float("nan"))
    with pytest.raises(DataError, match="finite"):
        task("classification", write_set(tmp_path, labelled(5))).run(broken)


def test_every_task_is_a_plug():
    for name in TABLE:
        kind = TASKS.get(name)
        assert {"key", "dataset", "main_metric"} <= set(kind.model_fields), name
    assert TEMPLATES[0].replace("{c}", "x") == "a photo of a x."
