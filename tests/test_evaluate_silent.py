"""`evaluate` on sets whose figures would be of other samples, other labels or nothing, without a word."""

import json

import numpy as np
import polars as pl
import pytest
from sets_util import CLASSES, captioned, labelled, npy, png, task, write_set
from tars import std_tar

from mmfilter.embed import load
from mmfilter.errors import DataError
from mmfilter.tasks.notes import check_differ, row_notes
from mmfilter.tasks.sets import BadLabel, captions, open_set
from mmfilter.weights import ModelSpec

pytestmark = pytest.mark.slow  # together, not each


@pytest.fixture
def evaluate(tmp_path, mmfilter):
    """The command on tmp_path/sets: (exit code, result)."""

    def call():
        words = ("evaluate", "demo", "--tasks", tmp_path / "sets", "--out", tmp_path / "out", "--json")
        code, out, err = mmfilter(*words)
        assert "Traceback" not in err
        return code, json.loads(out)

    return call


def test_pairs_are_of_positions_where_two_tars_use_a_key(tmp_path):
    embedder = load("m", ModelSpec(model="demo"))
    embedder.full = True
    table = pl.DataFrame({"image": [0, 1, 2, 3] * 2, "text": CLASSES[:4] * 2, "match": [1, 0, 1, 0, 0, 1, 0, 1]})
    found = []
    for name, keys in (("unique", ("a", "b", "c", "d")), ("again", ("a", "b", "a", "b"))):
        root = tmp_path / name
        write_set(root, [], classes=(), kind="retrieval", shards=2)
        parts = [[(f"{key}.png", png(i)), (f"{key}.txt", b"x")] for i, key in enumerate(keys)]
        parts[1][0] = (f"{keys[1]}.png", b"no image")  # it has its position too
        parts[1].append((f"{keys[1]}.json", b"{}"))
        for shard in range(2):
            tar = std_tar([member for part in parts[2 * shard : 2 * shard + 2] for member in part])
            (root / "test" / f"{shard}.tar").write_bytes(tar)
        table.write_parquet(root / "match_pairs.parquet")
        result = task("pairs", str(root), pairs=str(root / "match_pairs.parquet")).run(embedder)
        assert result.failed == {"lost": 2}
        found.append(result)
    assert found[0].metrics == found[1].metrics and (found[0].outcomes == found[1].outcomes).all()


def test_images_of_winogavil_that_share_a_name(tmp_path, tiny_model):
    embedder = load("m", ModelSpec(model=tiny_model))
    embedder.full = True

    def rows(names):
        cells = [[{"bytes": png(5 * i + j), "path": None} for j in range(5)] for i in range(2)]
        named = [[names(i, j) for j in range(5)] for i in range(2)]
        true = [[row[0], row[3]] for row in named]
        return {"cue": ["cat", "tree"], "candidates": named, "associations": true, "candidate_images": cells}

    found = []
    for name, names in (("own", lambda i, j: f"{i}-{j}"), ("shared", lambda i, j: f"{j}")):
        (tmp_path / name).mkdir()
        pl.DataFrame(rows(names)).write_parquet(tmp_path / name / "test.parquet")
        found.append(task("winogavil", str(tmp_path / name)).run(embedder).metrics)
    np.testing.assert_equal(found[0], found[1])


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0c", "\x1c", "\x0b"])
def test_a_line_ends_at_a_line_end_alone(tmp_path, mark):
    names = ("cat", f"a{mark}dog", "tree")
    root = write_set(tmp_path, labelled(3, names), classes=names)
    assert open_set(root).classnames == names
    assert captions(f"one{mark}more\r\ntwo\n\n".encode()) == (f"one{mark}more", "two")
    with pytest.raises(BadLabel):
        captions(b"\r\n\n")


def test_tars_that_nshards_does_not_count(tmp_path, evaluate):
    sets = tmp_path / "sets"
    for name, extra in (("gap", "2.tar"), ("named", "0-copy.tar"), ("sound", "._0.tar"), ("zeros", "0.txt")):
        write_set(sets / name, labelled(6))
        (sets / name / "test" / extra).write_bytes((sets / name / "test" / "0.tar").read_bytes())
    (sets / "zeros" / "test" / "nshards.txt").write_text("0" * 5000 + "1")
    write_set(sets / "ones", labelled(2))
    (sets / "ones" / "test" / "nshards.txt").write_text("1" * 5000)
    code, found = evaluate()
    assert code == 3 and [t["key"] for t in found["tasks"]] == ["sound", "zeros"]
    assert set(found["aside"]) == {"gap", "named", "ones"}
    assert "2.tar: nshards.txt counts 1 tars" in found["aside"]["gap"] and "0-copy.tar" in found["aside"]["named"]
    assert "the number of tars is wanted" in found["aside"]["ones"]


def test_embeddings_that_are_all_one(tmp_path, evaluate):
    sets, one = tmp_path / "sets", png(1)
    long = "a photo of many things " * 40
    texts = [{"png": png(i), "txt": f"{long}{i}".encode()} for i in range(12)]
    write_set(sets / "cut_captions", texts, classes=(), kind="retrieval")
    write_set(sets / "one_file", [{**s, "png": one} for s in captioned(15)], classes=(), kind="retrieval")
    pl.DataFrame({"image": [0, 1, 2], "text": ["a", "b", "c"], "match": [1, 0, 1]}).write_parquet(
        sets / "one_file" / "match_pairs.parquet"
    )
    write_set(sets / "one_picture", [{**s, "png": one} for s in labelled(30)])
    multi = [{"png": one, "npy": npy(np.arange(6) == i)} for i in range(3)]
    write_set(sets / "one_multi", multi, kind="multilabel")
    write_set(sets / "two_twins", [{**s, "png": png(min(i, 9))} for i, s in enumerate(labelled(12))])
    code, found = evaluate()
    assert code == 3 and [t["key"] for t in found["tasks"]] == ["two_twins"]
    assert set(found["aside"]) == {"cut_captions", "one_file", "one_file_pairs", "one_picture", "one_multi"}
    assert "all 12 captions have the same embedding" in found["aside"]["cut_captions"]
    assert all("images have the same embedding" in why for k, why in found["aside"].items() if k != "cut_captions")
    assert "at least 2 of 12 images have the embedding of an earlier one" in found["tasks"][0]["notes"]


def test_notes_of_rows():
    rows = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    assert row_notes(rows, "images") == row_notes(rows[:1], "images") == []
    rows[7], rows[300] = rows[9] * 2, rows[9]
    assert row_notes(rows, "images") == ["at least 2 of 500 images have the embedding of an earlier one"]
    assert row_notes(rows, "images", known=2) == []
    with pytest.raises(DataError, match="all 4 texts have the same embedding"):
        check_differ(rows[[7, 9, 300, 7]], "texts")
