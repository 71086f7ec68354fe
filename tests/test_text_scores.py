"""Scores of captions over the whole pool, each against the plainest statement of it."""

import json
import math
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from dedup_util import here
from rules_util import make_uids, write_pool
from text_util import write_lists, write_wordnet

from index.metaclip import Matcher, choose_t
from index.pool import Pool
from index.token_frequency import read_counts
from mmfilter.errors import DataError, MissingDependency, UsageError
from mmfilter.scores import build_score
from mmfilter.subset import Subset, sample_share

WORDS = ["a", "red", "fox", "Fox", "red,", "fox.", "no", "such", "Haus", "mice", "  ", "\t", "St.", "a;b", "犬"]
TYPES = {"uid": pa.string(), "text": pa.string(), "url": pa.string(), "sha256": pa.string(), "language": pa.string()}


def rows_of(kind, seed=0):
    """Rows as a pool's: captions that repeat, images that repeat, holes."""
    rng = random.Random(seed)
    n = {"empty": 0, "one": 1}.get(kind, 160)
    texts = ["same"] if kind == "equal" else [" ".join(rng.choices(WORDS, k=rng.randrange(6))) for _ in range(40)]
    rows = []
    for uid in make_uids(n, seed):
        row = {
            "uid": uid,
            "text": rng.choice(texts),
            "url": rng.choice("uvw"),
            "language": rng.choice(["en", "en", "de"]),
        }
        row["sha256"] = f"{rng.randrange(1 if kind == 'equal' else 30):064x}"
        for name, odd in (
            ("text", None),
            ("url", None),
            ("url", ""),
            ("sha256", None),
            ("sha256", ""),
            ("language", None),
        ):
            row[name] = odd if kind == "holes" and rng.random() < 0.1 else row[name]
        rows.append(row)
    if kind == "nothing":
        rows = [{**dict.fromkeys(row), "uid": row["uid"]} for row in rows]
    return rows


KINDS = ["mixed", "holes", "equal", "one", "empty", "nothing"]


def score(folder, rows, node, parts=3):
    """uid -> the score's columns, over a pool of so many uneven shards."""
    cuts = [len(rows) * i * i // parts**2 for i in range(parts + 1)]
    shards = [rows[a:b] for a, b in pairwise(cuts)]
    write_pool(folder, [{n: pa.array([row[n] for row in rows], t) for n, t in TYPES.items()} for rows in shards])
    pool, plug = Pool(str(folder)), build_score(node, "x")
    found = plug(pool, here)
    assert tuple(found) == plug.columns and all(len(values) == len(rows) for values in found.values())
    values = [v.to_pylist() if isinstance(v, pa.Array) else v.tolist() for v in found.values()]
    return dict(zip([row["uid"] for row in rows], zip(*values, strict=True), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_repeats(kind, tmp_path):
    rows = rows_of(kind)
    whole = [row for row in rows if row["text"] is not None and row["sha256"]]
    wanted = {row["uid"]: (None, None) for row in rows}
    for row in whole:
        images = {other["sha256"] for other in whole if other["text"] == row["text"]}
        texts = {other["text"] for other in whole if other["sha256"] == row["sha256"]}
        wanted[row["uid"]] = (len(images), len(texts))
    assert score(tmp_path / "a", rows, "repeats") == wanted
    assert score(tmp_path / "b", rows[::-1], "repeats", 1) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_repeated_pairs(kind, tmp_path):
    rows = rows_of(kind)
    wanted = {}
    for row in rows:
        same = [o["uid"] for o in rows if (o["url"], o["text"]) == (row["url"], row["text"])]
        wanted[row["uid"]] = (min(same) if row["url"] and row["text"] is not None and min(same) < row["uid"] else "",)
    assert score(tmp_path / "a", rows, "repeated_pairs") == wanted
    assert score(tmp_path / "b", rows[::-1], "repeated_pairs", 1) == wanted


def test_a_uid_that_stands_twice_does_not_repeat_itself(tmp_path):
    rows = rows_of("equal")[:3]
    rows = [{**row, "url": "u"} for row in [*rows, rows[0], rows[1]]]
    first = min(row["uid"] for row in rows)
    assert score(tmp_path, rows, "repeated_pairs") == {r["uid"]: ("" if r["uid"] == first else first,) for r in rows}


def grams(text, bigrams):
    words = (text or "").split()
    return words + [" ".join(words[i : i + 2]) for i in range(len(words) - 1)] * bigrams


def rarest(rows, counts, bigrams):
    """uid -> (rank, count) of the rarest token, the rank being one more than how many stand more often."""
    wanted = {}
    for row in rows:
        count = min((counts[token] for token in grams(row["text"], bigrams)), default=0)
        wanted[row["uid"]] = (1 + sum(other > count for other in counts.values()), count)
    return wanted


@pytest.mark.parametrize("bigrams", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_token_frequency(kind, bigrams, tmp_path):
    rows = rows_of(kind)
    wanted = rarest(rows, Counter(token for row in rows for token in grams(row["text"], bigrams)), bigrams)
    node = {"token_frequency": {"bigrams": bigrams}}
    assert score(tmp_path / "a", rows, node) == wanted
    assert score(tmp_path / "b", rows[::-1], node, 1) == wanted


def test_token_frequency_by_a_file_of_counts(tmp_path):
    rows, path = rows_of("mixed"), tmp_path / "counts.txt"
    path.write_text("a\t9\nred 5\r\n\nfox\t 5\nred fox\t2\nfox 1\n犬 7\n")
    counts = Counter({"a": 9, "red": 5, "fox": 6, "red fox": 2, "犬": 7})
    node = {"token_frequency": {"counts": str(path), "bigrams": True}}
    assert score(tmp_path / "pool", rows, node) == rarest(rows, counts, True)
    assert build_score(node, "x").inputs == (str(path),)
    for wrong in ("a\n", "a b\n", "a -1\n"):
        path.write_text("b 1\n" + wrong)
        with pytest.raises(DataError, match=r"counts\.txt: line 2"):
            read_counts(str(path))


def spaced(text):
    """A caption between blanks, as MetaCLIP's code has it."""
    text = f" {text} "
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for mark in "\t\n\r":
        text = text.replace(mark, " ")
    return text


def test_a_match_is_a_substring_between_blanks():
    rng = random.Random(3)
    parts = ["a", "b", "ab", "B", " ", " ", "  ", ",", ".", "\t", "\n", "é", "`", "'"]
    strings = ["".join(rng.choices(parts, k=rng.randrange(9))) for _ in range(1500)]
    entries = [entry for entry in dict.fromkeys(strings[:400]) if entry.strip()]
    match = Matcher(entries)
    for text in strings[400:]:
        assert match(text) == [i for i, entry in enumerate(entries) if f" {entry} " in spaced(text)]
    assert match(None) == match("") == []


@pytest.mark.parametrize("how", [{"t": 7}, {"tail": 0.3}, {}, {"t": 3, "language": "en"}])
@pytest.mark.parametrize("kind", KINDS)
def test_metaclip(kind, how, tmp_path):
    rows, entries = rows_of(kind), ["red", "fox", "red fox", "a", "such", "St", "犬"]
    (tmp_path / "entries.txt").write_text("\n".join(["red", *entries, ""]))
    speaks = how.get("language")
    texts = [row["text"] if row["text"] and speaks in (None, row["language"]) else "" for row in rows]
    held = [[entry for entry in entries if f" {entry} " in spaced(text)] for text in texts]
    counts = Counter(entry for found in held for entry in found)
    t = how.get("t", 20_000)
    if "tail" in how:
        fits = [c for c in counts.values() if sum(o for o in counts.values() if o < c) <= 0.3 * sum(counts.values())]
        t = max(fits, default=1)
    wanted = {}
    for row, found in zip(rows, held, strict=True):
        chance = 1 - math.prod(1 - min(1, t / counts[entry]) for entry in found)
        wanted[row["uid"]] = (float(np.float32(chance)), len(found))
    node = {"metaclip": {"entries": str(tmp_path / "entries.txt"), **how}}
    assert score(tmp_path / "a", rows, node) == wanted
    assert score(tmp_path / "b", rows[::-1], node, 1) == wanted
    listed = pl.read_parquet(tmp_path / "b" / "metaclip" / "entries.parquet")
    assert listed["entry"].to_list() == entries and listed["count"].to_list() == [counts[entry] for entry in entries]


def test_the_tail_is_a_share_of_all_matches():
    counts = np.array([0, 1, 1, 2, 6, 90])
    assert [choose_t(counts, tail) for tail in (0, 0.0199, 0.02, 0.04, 0.1, 1)] == [1, 1, 2, 6, 90, 90]
    assert choose_t(np.zeros(3, int), 0.06) == choose_t(np.zeros(0, int), 0.06) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_synset(kind, tmp_path):
    lists, rows = write_lists(tmp_path), rows_of(kind)
    named = {"fox", "mice", "Fox"}  # mice by the exception list; fox as a verb comes second
    wanted = {row["uid"]: (bool(named & set((row["text"] or "").split())),) for row in rows}
    node = {"synset": {"wordnet": lists["wordnet"], "wnids": lists["wnids"]}}
    assert score(tmp_path / "a", rows, node) == wanted
    assert score(tmp_path / "b", rows[::-1], node, 1) == wanted


def test_synset_takes_the_first_synset_and_compares_numbers_alone(tmp_path):
    offsets = write_wordnet(tmp_path / "wordnet")
    assert offsets["noun", "dog"] == offsets["verb", "run"]
    (tmp_path / "wnids.txt").write_text(f"n{offsets['noun', 'dog']:08d} a dog\nn{offsets['verb', 'fox']:08d}\n")
    texts = ["Dogs bark", "ran", "frank", "fox", "dog, cat", "domestic_dog"]
    rows = [{**row, "text": text} for row, text in zip(rows_of("mixed"), texts, strict=False)]
    found = score(tmp_path / "pool", rows, {"synset": {n: str(tmp_path / f) for n, f in FILES.items()}})
    assert [value for (value,) in found.values()] == [True, True, False, False, False, True]


FILES = {"wordnet": "wordnet", "wnids": "wnids.txt"}


def test_what_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    lists = write_lists(tmp_path)
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "none")])
    with pytest.raises(UsageError, match=r"WordNet is in none of nltk's folders.*python -m nltk.downloader wordnet"):
        build_score("synset", "x").check()
    with pytest.raises(UsageError, match=r"wordnet: has no data.adj"):
        build_score({"synset": {"wordnet": str(tmp_path / "none" / "wordnet")}}, "x").check()
    (tmp_path / "wrong.txt").write_text("n02084071\ndog\n")
    with pytest.raises(DataError, match=r"wrong.txt: 'dog' is no WordNet id"):
        build_score({"synset": {"wordnet": lists["wordnet"], "wnids": str(tmp_path / "wrong.txt")}}, "x").check()
    write_wordnet(tmp_path / "newer", "3.1")
    with pytest.raises(UsageError, match=r"is WordNet 3.1; the ids' numbers are those of 3.0"):
        build_score({"synset": {"wordnet": str(tmp_path / "newer")}}, "x").check()
    monkeypatch.setitem(__import__("sys").modules, "nltk", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mmfilter\[wordnet\]'"):
        build_score("synset", "x").check()
    with pytest.raises(UsageError, match=r"none.json: is not there.*metadata.json"):
        build_score({"metaclip": {"entries": str(tmp_path / "none.json")}}, "x").check()
    for text in ("[1]", "{", '["\\ud800"]', "[]", '{"a": 1}'):
        (tmp_path / "e.json").write_text(text)
        with pytest.raises(UsageError, match=r"e.json: (not|no)"):
            score(tmp_path / "pool", [], {"metaclip": {"entries": str(tmp_path / "e.json")}})
    with pytest.raises(UsageError, match="give 't' or 'tail', not both"):
        build_score({"metaclip": {"entries": "e", "t": 1, "tail": 0.5}}, "x")


def test_recipes_keep_by_them(tmp_path, mmfilter):
    lists, rows = write_lists(tmp_path), rows_of("holes")
    scores = [
        "repeats",
        "repeated_pairs",
        {"token_frequency": {}},
        {"metaclip": {"entries": lists["entries"], "t": 20}},
        {"synset": {"wordnet": lists["wordnet"], "wnids": lists["wnids"]}},
    ]
    select = {
        "all": [
            {"threshold": {"score": "images_of_text", "max": 4}},
            {"threshold": {"score": "texts_of_image", "max": 6}},
            {"not_duplicate": {"column": "repeat_of"}},
            {"any": [{"where": {"sql": "text_based"}}, {"threshold": {"score": "rarest_token_count", "min": 40}}]},
            {"probability": {"score": "metaclip_probability", "seed": 5}},
        ]
    }
    columns = [score(tmp_path / str(i), rows, node) for i, node in enumerate(scores)]
    uids = np.array([(int(row["uid"][:16], 16), int(row["uid"][16:], 16)) for row in rows], "u8,u8")
    wanted = []
    for row, share in zip(rows, sample_share(uids, 5), strict=True):
        (images, texts), (of,), (_, count), (chance, _), (named,) = (column[row["uid"]] for column in columns)
        if images and images <= 4 and texts <= 6 and not of and (named or count >= 40) and share < chance:
            wanted.append(row["uid"])
    (tmp_path / "t.yaml").write_text(json.dumps({"name": "t", "scores": scores, "select": select}))
    code, said, error = mmfilter("score", tmp_path / "t.yaml", "--out", tmp_path / "0", "--local", "--json")
    assert code == 0 and "text_based" in json.loads(said)["columns"], error
    code, said, error = mmfilter("select", tmp_path / "t.yaml", "--out", tmp_path / "0", "--json")
    assert code == 0, error
    assert Subset.read(json.loads(said)["path"]).strings() == sorted(wanted) and 3 < len(wanted) < 100


@pytest.mark.parametrize(("recipe", "file"), [("metaclip", "metadata.json"), ("image_based", "targets/imagenet1k")])
def test_a_packaged_recipe_that_lacks_a_file_stops_before_work(recipe, file, tmp_path, mmfilter):
    (tmp_path / "00000000.tar").write_bytes(bytes(10240))
    code, _, error = mmfilter("run", recipe, "--pool", tmp_path, "--out", tmp_path / "out", "--local", cwd=tmp_path)
    assert code == 2 and file in error and not (tmp_path / "out").exists()
