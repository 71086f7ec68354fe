"""What a cluster's captions say that others' do not: a label read off the words."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from .stop_words import STOP_WORDS

WORD = re.compile(r"[^\W\d_][\w'’-]*", re.UNICODE)
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
PRIOR = 100.0  # the weight of all captions' word frequencies, in words: small clusters need more to stand out
TERMS = 5
LONGEST = 2000  # characters of a caption that are read
LIFT = 3.0  # times as frequent as in all other captions: what a term of a label is at least, where one is


def words(text: str) -> set[str]:
    """A caption's terms, lower case: words of two letters or more, and pairs of them that follow each other.

    Scripts without spaces (Thai, Lao, Burmese, Khmer, Chinese, Japanese) give pairs of characters.
    """
    found: set[str] = set()
    text = text[:LONGEST].lower()
    for run in UNSPACED.findall(text):
        found.update(run[i : i + 2] for i in range(len(run) - 1))
    plain = [word for word in WORD.findall(UNSPACED.sub(" ", text)) if len(word) > 1]
    found.update(plain)
    found.update(f"{a} {b}" for a, b in pairwise(plain))
    return found


def count(texts: Iterable[str | None], cluster: np.ndarray) -> dict[int, Counter[str]]:
    """Cluster -> in how many of its captions each term stands; `cluster` (n,), -1 for none."""
    counts: dict[int, Counter[str]] = {}
    for text, number in zip(texts, cluster.tolist(), strict=True):
        if number >= 0 and text:
            counts.setdefault(number, Counter()).update(words(text))
    return counts


def labels(counts: dict[int, Counter[str]], k: int) -> list[list[str]]:
    """For each of k clusters up to 5 terms, those that set it apart the most first.

    By the z-score of the log-odds ratio with an informative prior (Monroe, Colaresi, Quinn 2008,
    equations 16 and 22): of a term's share in the cluster against all others, the prior being all captions.
    A term that stands once, and one that is part of a term before it, is left out. So are function words, pairs
    that hold one, and a term whose odds are less than LIFT times those in the other captions: in a large cluster the
    z-score of a word that is frequent everywhere is high as well, whatever its language. A cluster that has no other
    terms is labelled by these.
    """
    whole: Counter[str] = Counter()
    for counter in counts.values():
        whole.update(counter)
    total = sum(whole.values())
    return [_label(counts.get(number, Counter()), whole, total) for number in range(k)]


def _label(here: Counter[str], whole: Counter[str], total: int) -> list[str]:
    terms = sorted(term for term, n in here.items() if n > 1) or sorted(here)
    if not terms:
        return []
    mine, everywhere = np.array([here[t] for t in terms], float), np.array([whole[t] for t in terms], float)
    prior, n = PRIOR * everywhere / total, float(sum(here.values()))
    other = everywhere - mine
    with np.errstate(divide="ignore", invalid="ignore"):  # where all captions are one term
        odds = np.log((mine + prior) / (n + PRIOR - mine - prior))
        odds -= np.log((other + prior) / (total - n + PRIOR - other - prior))
        z = np.nan_to_num(odds / np.sqrt(1 / (mine + prior) + 1 / (other + prior)))
    z = z if other.any() else mine  # nothing to be set apart from: the most frequent
    order = np.lexsort((np.arange(len(terms)), -z))
    content = np.array([STOP_WORDS.isdisjoint(term.split()) for term in terms])
    apart = (odds >= np.log(LIFT)) | ~other.any()
    for mask in (content & apart, content, np.ones(len(terms), bool)):
        if (mask & (z > 0)).any():
            return _first([terms[at] for at in order if mask[at] and z[at] > 0])
    return []


def _first(terms: list[str]) -> list[str]:
    """The first TERMS of `terms` that share no word with one before."""
    chosen: list[str] = []
    for term in terms:
        parts = set(term.split())
        if not any(parts & set(other.split()) for other in chosen):
            chosen.append(term)
        if len(chosen) == TERMS:
            break
    return chosen
