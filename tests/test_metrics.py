"""Each metric against the plainest statement of it, on random, tied and degenerate inputs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfilter import metrics
from mmfilter.auc import auc
from mmfilter.errors import DataError

SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


def drawn(seed, ties):
    """Scores (n, c) and labels; with ties only three values, so that most scores are equal."""
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(1, 30)), int(rng.integers(1, 9))
    scores = rng.integers(0, 3, (n, c)).astype(float) if ties else rng.normal(size=(n, c))
    return scores, rng.integers(0, c, n), rng


def ordered(row):
    """Columns, best first; of equals the lower one."""
    return sorted(range(len(row)), key=lambda c: (-row[c], c))


@few
@given(SEEDS, st.booleans())
def test_classification_is_counting(seed, ties):
    scores, target, _ = drawn(seed, ties)
    found = metrics.classification(scores, target)
    places = [ordered(row) for row in scores]
    hits = [places[i][0] == t for i, t in enumerate(target)]
    assert found["acc1"] == pytest.approx(np.mean(hits))
    if scores.shape[1] >= 5:
        assert found["acc5"] == pytest.approx(np.mean([t in places[i][:5] for i, t in enumerate(target)]))
    else:
        assert np.isnan(found["acc5"])
    recalls = [np.mean([hits[i] for i in range(len(target)) if target[i] == c]) for c in set(target)]
    assert found["mean_per_class_recall"] == pytest.approx(np.mean(recalls))
    assert metrics.per_class_recall(np.array(hits), target).mean() == pytest.approx(np.mean(recalls))


@few
@given(SEEDS, st.booleans())
def test_the_rank_is_the_place_in_a_stable_sort(seed, ties):
    scores, target, _ = drawn(seed, ties)
    assert metrics.ranks(scores, target).tolist() == [
        ordered(row).index(t) for row, t in zip(scores, target, strict=True)
    ]
    assert ((metrics.ranks(scores, target) == 0) == (scores.argmax(axis=1) == target)).all()


def test_nan_ranks_last():
    scores = np.array([[np.nan, 0.1, 0.2], [np.nan, np.nan, np.nan]])
    assert metrics.ranks(scores, np.array([0, 1])).tolist() == [2, 1]
    assert metrics.average_precision(np.array([np.nan, 0.5]), np.array([True, False])) == 0.5


@few
@given(SEEDS)
def test_f1_macro_is_over_the_classes_that_are_there(seed):
    rng = np.random.default_rng(seed)
    target, predicted = rng.integers(0, 4, 20), rng.integers(0, 6, 20)
    each = []
    for c in set(target):
        right = sum(1 for p, t in zip(predicted, target, strict=True) if p == t == c)
        precision = right / max(sum(predicted == c), 1)
        recall = right / sum(target == c)
        each.append(0 if not right else 2 * precision * recall / (precision + recall))
    assert metrics.f1_macro(predicted, target) == pytest.approx(np.mean(each))


@few
@given(SEEDS, st.booleans())
def test_average_precision_is_precision_at_each_true_sample(seed, ties):
    scores, _, rng = drawn(seed, ties)
    labels = rng.random(scores.shape) < 0.4
    for s, t in zip(scores.T, labels.T, strict=True):
        wanted = [np.mean(t[s >= s[i]]) for i in np.flatnonzero(t)]  # of equals all count
        assert metrics.average_precision(s, t) == pytest.approx(np.mean(wanted) if wanted else 0)
    shuffled = rng.permutation(len(scores))
    whole = metrics.mean_average_precision(scores, labels)
    assert metrics.mean_average_precision(scores[shuffled], labels[shuffled]) == pytest.approx(whole)


@few
@given(SEEDS, st.booleans(), st.integers(1, 7))
def test_retrieval_is_a_hit_among_the_first_k(seed, ties, rows):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    owner = np.repeat(np.arange(n), rng.integers(1, 4, n))
    images, texts = (rng.integers(-1, 2, (k, 2 if ties else 5)).astype(float) for k in (n, len(owner)))
    if not ties:
        images, texts = images + rng.normal(size=images.shape), texts + rng.normal(size=texts.shape)
    by_text, by_image = metrics.retrieval_ranks(images, texts, owner, rows)
    found = metrics.retrieval(by_text, by_image)
    scores = texts @ images.T
    for k in (1, 5, 10):
        image_hits = [owner[j] in ordered(scores[j])[:k] for j in range(len(texts))]
        text_hits = [any(owner[j] == i for j in ordered(scores[:, i])[:k]) for i in range(n)]
        assert found[f"image_retrieval_recall@{k}"] == pytest.approx(np.mean(image_hits))
        assert found[f"text_retrieval_recall@{k}"] == pytest.approx(np.mean(text_hits))
    mean = (found["image_retrieval_recall@1"] + found["text_retrieval_recall@1"]) / 2
    assert found["mean_recall@1"] == pytest.approx(mean)


@few
@given(SEEDS, st.booleans())
def test_jaccard_is_overlap_over_union(seed, ties):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 13))
    true = np.zeros(n, bool)
    true[rng.choice(n, int(rng.integers(1, n)), replace=False)] = True
    scores = rng.integers(0, 3, n).astype(float) if ties else rng.normal(size=n)
    chosen, wanted = set(ordered(scores)[: true.sum()]), set(np.flatnonzero(true).tolist())
    assert metrics.jaccard(scores, true) == pytest.approx(len(chosen & wanted) / len(chosen | wanted))


@few
@given(SEEDS)
def test_groups_are_means_by_combination(seed):
    rng = np.random.default_rng(seed)
    values = rng.random(25)
    fields = {"gender": rng.integers(0, 2, 25), "race": rng.integers(1, 4, 25)}
    found = metrics.by_group("acc", values, fields)
    means = []
    for g, r in itertools.product(range(fields["gender"].max() + 1), range(fields["race"].max() + 1)):
        here = values[(fields["gender"] == g) & (fields["race"] == r)]
        assert found[f"count_race:{r}_gender:{g}"] == len(here)
        assert (found[f"acc_race:{r}_gender:{g}"] == pytest.approx(here.mean())) if len(here) else True
        means += [here.mean()] if len(here) else []
    assert np.isnan(found["acc_race:0_gender:0"])  # no sample has race 0
    assert (found["acc_wg"], found["acc_avg"]) == (pytest.approx(min(means)), pytest.approx(values.mean()))


@pytest.mark.parametrize("numbers", [[0, -1], [0, 10**9]])
def test_absurd_groups_are_refused(numbers):
    with pytest.raises(DataError, match="groups by slide"):
        metrics.by_group("acc", np.ones(2), {"slide": np.array(numbers)})


@few
@given(SEEDS, st.booleans())
def test_the_parts_of_an_auc_have_its_mean_and_delongs_spread(seed, ties):
    rng = np.random.default_rng(seed)
    labels = np.r_[True, False, True, False, rng.random(20) < 0.3]
    scores = rng.integers(0, 4, len(labels)).astype(float) if ties else rng.normal(size=len(labels)) + labels
    parts = metrics.auc_parts(scores, labels)
    assert parts.mean() == pytest.approx(auc(scores, labels))
    own, other = scores[labels], scores[~labels]
    beats = (own[:, None] > other) + 0.5 * (own[:, None] == other)
    spread = beats.mean(axis=1).var() / len(own) + beats.mean(axis=0).var() / len(other)
    assert parts.var() / len(parts) == pytest.approx(spread)


def test_a_constant_score_is_worth_no_more_than_chance():
    scores, target = np.zeros((40, 10)), np.repeat(np.arange(10), 4)
    assert metrics.classification(scores, target) == {"acc1": 0.1, "acc5": 0.5, "mean_per_class_recall": 0.1}
    by_text, by_image = metrics.retrieval_ranks(np.ones((8, 2)), np.ones((16, 2)), np.repeat(np.arange(8), 2))
    assert metrics.retrieval(by_text, by_image)["mean_recall@1"] == 1 / 8
    assert metrics.auc_parts(np.zeros(6), np.arange(6) < 2).mean() == 0.5
