"""Tables and select through their doors: what comes out, what is on disk, and that nothing is lost."""

import json
import os
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rules_util import kept, make_uids, record, run, split, write_pool

from mmfilter.errors import DataError, MMFilterError, UsageError
from mmfilter.table import open_table

RECIPE = {
    "all": [
        {"caption": {"min_words": 2}},
        {"any": [{"image": {"min_side": 200}}, {"not": {"threshold": {"score": "s", "max": 0.8}}}]},
        {"fraction": {"score": "s", "keep": 0.5}},
    ]
}
STEPS = ["all[0].caption", "all[1].any", "all[2].fraction"]
LEAVES = ["all[0].caption", "all[1].any[0].image", "all[1].any[1].not.threshold", "all[2].fraction"]


def columns(n: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "uid": make_uids(n, seed),
        "text": rng.choice(["a", "a b", "a b c"], n).tolist(),
        "original_width": rng.integers(1, 500, n).tolist(),
        "original_height": rng.integers(1, 500, n).tolist(),
        "s": rng.integers(0, 20, n) / 20,
    }


def by_hand(pool: dict[str, Any]) -> list[tuple[str, str]]:
    """(uid, path of the step that drops it first or "") for RECIPE, a row at a time."""
    rows = list(zip(*pool.values(), strict=True))
    top = {uid for _, uid in sorted((-s, uid) for uid, *_, s in rows)[: round(0.5 * len(rows))]}
    verdicts = []
    for uid, text, width, height, s in rows:
        steps = (len(text.split()) >= 2, min(width, height) >= 200 or s > 0.8, uid in top)
        verdicts.append((uid, next((path for path, keep in zip(STEPS, steps, strict=True) if not keep), "")))
    return verdicts


def write_failures(out: Any, *statuses: str) -> None:
    os.makedirs(f"{out}/failures", exist_ok=True)
    rows = {"key": list(statuses), "uid": [""] * len(statuses), "status": list(statuses), "error": list(statuses)}
    pq.write_table(pa.table(rows), f"{out}/failures/00000000.parquet")


def decisions(out: Any, name: str = "s") -> pl.DataFrame:
    return pl.concat([pl.read_parquet(p) for p in sorted((out / "subsets" / name).glob("*.parquet"))])


def test_a_waterfall_adds_up(tmp_path: Any) -> None:
    pool = columns(600)
    write_pool(tmp_path / "metadata", split(pool, 4))
    write_failures(tmp_path, "undecodable", "undecodable", "lost")
    selection, expected = run(tmp_path, RECIPE), by_hand(pool)
    assert kept(selection) == sorted(uid for uid, path in expected if not path)
    dropped = [sum(path == step for _, path in expected) for step in STEPS]
    assert selection.counts == {"in": 603, "kept": 600 - sum(dropped), "dropped": sum(dropped), "failed": 3}
    assert selection.failed == {"lost": 1, "undecodable": 2}
    assert [step["path"] for step in selection.steps] == STEPS
    assert [step["dropped"] for step in selection.steps] == dropped
    assert [step["in"] for step in selection.steps] == [600, 600 - dropped[0], 600 - sum(dropped[:2])]
    assert selection.steps[2]["alone"] == 300 and selection.steps[2]["columns"] == ["s"]
    assert selection.steps[1]["thresholds"] == {"s": [0.8]}
    table = decisions(tmp_path)
    assert table.columns == ["uid", "keep", "dropped_by", *LEAVES]
    assert list(zip(table["uid"], table["dropped_by"], strict=True)) == expected
    assert table["keep"].to_list() == [not path for _, path in expected]
    assert table["all[2].fraction"].sum() == 300
    said = record(selection)
    assert (said["counts"], said["steps"], said["rule"]) == (selection.counts, selection.steps, RECIPE)


def test_the_subset_file_is_datacomps(tmp_path: Any) -> None:
    pool = columns(100)
    array = np.load(run(write_pool(tmp_path, [pool]), {"everything": {}}).path, allow_pickle=False)
    assert array.dtype == np.dtype("u8,u8") and array.ndim == 1
    assert array.tolist() == sorted((int(uid[:16], 16), int(uid[16:], 16)) for uid in pool["uid"])


@pytest.mark.parametrize("node", ["everything", RECIPE, {"then": RECIPE["all"]}, {"not": {"random": {"keep": 0.3}}}])
def test_the_same_subset_however_the_pool_is_cut(tmp_path: Any, node: Any) -> None:
    pool = columns(500)
    whole = run(write_pool(tmp_path / "one", [pool]), node)
    order = np.random.default_rng(5).permutation(500)
    mixed = {name: [values[i] for i in order] for name, values in pool.items()}
    parts = run(write_pool(tmp_path / "many", split(mixed, 7)), node)
    assert kept(whole) == kept(parts) and whole.counts == parts.counts and whole.steps == parts.steps


def test_the_same_bytes_twice(tmp_path: Any) -> None:
    write_pool(tmp_path / "metadata", split(columns(300), 3))
    seen = []
    for _ in range(2):
        run(tmp_path, RECIPE)
        files = [p for p in sorted(tmp_path.glob("subsets/**/*.*")) if p.suffix != ".json"]
        seen.append({str(p): p.read_bytes() for p in files})
    assert seen[0] == seen[1] and len(seen[0]) == 4


def test_a_repeated_uid_counts_once(tmp_path: Any) -> None:
    """FAULTS 15: the first in the pool's order stays, later ones are failures; fractions are of what stays."""
    pool = columns(200)
    again = {name: [*values[:10], *values[:5]] for name, values in pool.items()}
    write_pool(tmp_path / "metadata", [pool, again])
    write_failures(tmp_path, "uid_repeated", "lost")
    selection = run(tmp_path, {"fraction": {"score": "s", "keep": 0.25}})
    assert selection.counts == {"in": 217, "kept": 50, "dropped": 150, "failed": 17}
    assert selection.failed == {"lost": 1, "uid_repeated": 16}
    assert selection.steps[0]["in"] == 200
    assert len(set(kept(selection))) == 50
    table = decisions(tmp_path)
    assert table["dropped_by"][200:].to_list() == ["uid_repeated"] * 15 and not table["keep"][200:].any()
    alone = run(write_pool(tmp_path / "other", [pool]), {"fraction": {"score": "s", "keep": 0.25}})
    assert kept(selection) == kept(alone)


def test_an_empty_pool_gives_an_empty_subset(tmp_path: Any) -> None:
    write_pool(tmp_path / "typed", [{name: pa.array(values)[:0] for name, values in columns(1).items()}])
    write_pool(tmp_path / "untyped", [{name: pa.nulls(0) for name in columns(1)}])
    for folder in ("typed", "untyped"):
        theirs = {"fraction": {"score": "s", "keep": 1.0, "compat": "datacomp"}}
        for node in (RECIPE, theirs, {"where": {"sql": "s > 1"}}):
            selection = run(tmp_path / folder, node)
            assert kept(selection) == [] and set(selection.counts.values()) == {0}


def test_added_columns_are_joined_on_uid(tmp_path: Any) -> None:
    pool = columns(90)
    score = {uid: i / 90 for i, uid in enumerate(pool["uid"])}
    write_pool(tmp_path / "metadata", split(pool, 3))
    for i, shard in enumerate(split(pool, 3)):
        uids = shard["uid"][::-1][1:] if i == 2 else shard["uid"]  # in another order, and one sample short
        os.makedirs(tmp_path / "columns" / "new", exist_ok=True)
        added = pa.table({"uid": uids, "new": [score[u] for u in uids]})
        pq.write_table(added, tmp_path / f"columns/new/{i:08d}.parquet")
    selection = run(tmp_path, {"threshold": {"score": "new", "min": 0.5}})
    short = split(pool, 3)[2]["uid"][-1]
    assert kept(selection) == sorted(uid for uid in pool["uid"] if score[uid] >= 0.5 and uid != short)


def test_only_committed_shards_count(tmp_path: Any) -> None:
    pool = columns(60)
    write_pool(tmp_path / "metadata", split(pool, 2))
    commit = {"parts": {}, "counts": {"read": 30, "ok": 30, "failed": {}}}
    (tmp_path / "metadata" / "00000000.json").write_text(json.dumps(commit))
    with pytest.raises(DataError, match="1 of the run's 2 shards are not complete .00000001 lacks its commit"):
        run(tmp_path, "everything")
    table = open_table(str(tmp_path), allow_missing=True)
    assert table.stems == ("00000000",) and table.missing == ("00000001",)


def test_decisions_of_a_run_before_do_not_stay(tmp_path: Any) -> None:
    out = tmp_path / "out"
    run(out, "everything", write_pool(tmp_path / "three", split(columns(60), 3)))
    run(out, "everything", write_pool(tmp_path / "one", [columns(60)]))
    assert sorted(p.name for p in (out / "subsets" / "s").iterdir()) == ["00000000.parquet"]


def test_dotted_names_and_folders_like_partitions(tmp_path: Any) -> None:
    folder, halves = tmp_path / "run=1", split(columns(50), 2)
    os.makedirs(folder)
    for name, shard in zip(("part.a", "part.b"), halves, strict=True):
        pq.write_table(pa.table(shard), folder / f"{name}.parquet")
    assert run(folder, RECIPE).counts["in"] == 50


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"s": None}, "no column 's'"),
        ({"s": None, "S": [0.5] * 20}, "no column 's'"),
        ({"uid": None}, "no column 'uid'"),
        ({"uid": [None] * 20}, "column 'uid': uid None in row 0"),
        ({"uid": ["x" * 32] * 20}, "column 'uid': uid 'xxx"),
        ({"uid": ["é" * 16] * 20}, "column 'uid': uid 'ééé"),
        ({"uid": [7] * 20}, "column 'uid': uid '7'"),
        ({"s": ["high"] * 20}, "column 's' holds String, but Float64 in shard 00000000"),
        ({"s": np.full(20, 0.5, np.float32)}, "column 's' holds Float32, but Float64 in shard 00000000"),
    ],
)
def test_damaged_metadata_is_named(tmp_path: Any, change: dict[str, Any], says: str) -> None:
    """FAULTS 28."""
    good, bad = columns(20), {**columns(20, 1), **change}
    write_pool(tmp_path, [good, {name: values for name, values in bad.items() if values is not None}])
    with pytest.raises(DataError) as error:
        run(tmp_path, RECIPE)
    assert "00000001.parquet" in str(error.value) and says in str(error.value) and "\n" not in str(error.value)


def test_scores_that_are_not_there(tmp_path: Any) -> None:
    """FAULTS 28: NaN, null, a shard without any value, and whole numbers that pandas made floats."""
    shards = split(columns(40), 4)
    shards[1]["s"] = [float("nan")] * len(shards[1]["uid"])
    shards[2]["s"] = [None] * len(shards[2]["uid"])
    shards[2]["original_width"] = [None] * len(shards[2]["uid"])
    shards[3]["original_width"] = [float(w) for w in shards[3]["original_width"]]
    write_pool(tmp_path, shards)
    selection = run(tmp_path, {"fraction": {"score": "s", "keep": 1.0}})
    assert kept(selection) == sorted(shards[0]["uid"] + shards[3]["uid"])
    assert selection.counts["dropped"] == len(shards[1]["uid"]) + len(shards[2]["uid"])
    assert run(tmp_path, {"all": [{"image": {"min_side": 1}}]}).counts["dropped"] == len(shards[2]["uid"])


def test_what_is_no_pool(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="no metadata"):
        open_table(str(tmp_path))
    (tmp_path / "00000000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"00000000.parquet: cannot be read as parquet"):
        open_table(str(tmp_path))
    write_pool(tmp_path, [columns(3)])
    with pytest.raises(UsageError, match=r"recipe t.yaml: select.threshold.score: no column 'S'; did you mean 's'\?"):
        run(tmp_path, {"threshold": {"score": "S", "min": 1}})
    with pytest.raises(UsageError, match=r"recipe t.yaml: select: shard 00000000: column 'text' holds String"):
        run(tmp_path, {"threshold": {"score": "text", "min": 1}})


def test_a_disk_that_cannot_be_written(tmp_path: Any) -> None:
    metadata = write_pool(tmp_path / "m", [columns(3)])
    (tmp_path / "out").write_text("a file where the folder would be")
    with pytest.raises(MMFilterError):
        run(tmp_path / "out", "everything", metadata)


def test_a_remote_pool(tmp_path: Any) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    metadata = write_pool(tmp_path, split(columns(40), 2))
    for path in tmp_path.glob("*.parquet"):
        memory.pipe(f"/pool/{path.name}", path.read_bytes())
    near, far = run(tmp_path / "out", RECIPE, metadata), run(tmp_path / "far", RECIPE, "memory://pool")
    assert kept(near) == kept(far) and near.counts == far.counts
    assert json.dumps(near.steps) == json.dumps(far.steps)
