"""The lint: each fault of a pool is found, at its shard, with a count; a well pool has none."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tars import sample, tar, uid, write_pool

from mmfilter import storage
from mmfilter.inspect import combine, inspect_shard


def write_parquets(folder):
    """img2dataset's parquet beside each tar of `write_pool`."""
    for path in sorted(folder.glob("*.tar")):
        start = int(path.stem) * 5
        rows = range(start, start + 5)
        table = {"key": [f"{n:09d}" for n in rows], "status": ["success"] * 5, "uid": [uid(n) for n in rows]}
        pq.write_table(pa.table(table), path.with_suffix(".parquet"))


@pytest.fixture
def pool(tmp_path):
    paths = write_pool(tmp_path / "pool", 4, 5)
    write_parquets(tmp_path / "pool")
    return [Path(path) for path in paths]


def lint(paths):
    return combine([inspect_shard(str(path)) for path in paths])


def found(report):
    """(severity, what, shard) -> count."""
    return {(f.severity, f.what, f.shard): f.count for f in report.findings}


def rewrite(path, members):
    path.write_bytes(tar(members))


def shard_members(start, count=5):
    return [row for n in range(start, start + count) for row in sample(n)]


def test_a_well_pool_has_no_findings(pool):
    report = lint(pool)
    assert (report.shards, report.samples, report.failed, report.findings, report.errors) == (4, 20, {}, [], 0)
    assert report.lines()[-1] == "nothing to complain of"


def test_the_report_is_plain_json_and_every_finding_has_a_sentence(pool):
    pool[1].write_bytes(b"")
    report = lint(pool)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["findings"][0]["severity"] == "error" and plain["samples"] == 15
    assert all(finding.text for finding in report.findings)
    assert any("00000001" in line for line in report.lines())


def test_fault_30_gaps_in_shard_numbers_are_found(pool):
    assert found(lint([pool[0], pool[3]])) == {("error", "gap", ""): 2}
    assert "00000001, 00000002" in lint([pool[0], pool[3]]).findings[0].text
    assert found(lint(pool[1:])) == {("note", "starts_late", ""): 1}


def test_fault_30_a_last_shard_that_is_gone_is_found_by_its_sidecars(pool):
    pool[3].unlink()
    assert found(lint(pool[:3])) == {("error", "no_tar", "00000003"): 1}


def test_fault_30_a_named_shard_that_is_absent_is_an_error(pool):
    pool[1].unlink()
    report = lint(pool)
    assert report.failed == {"lost": 5}
    assert found(report)["error", "lost", "00000001"] == 5


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda data: b"", "lost"),
        (lambda data: data[: len(data) // 2], "lost"),
        (lambda data: b"\x1f\x8b" + bytes(5000), "lost"),
        (lambda data: data[:512] + b"\xff" * 4096 + data[4608:], "corrupt_header"),
    ],
)
def test_damage_is_an_error_and_samples_are_counted(pool, damage, what):
    pool[2].write_bytes(damage(pool[2].read_bytes()))
    report = lint(pool)
    assert report.samples + sum(report.failed.values()) == 20
    assert ("error", what, "00000002") in found(report)
    assert not any(f.what.endswith("_unlike_tar") for f in report.findings)  # told once


def test_damage_without_sidecars_is_told_by_its_kind(tmp_path):
    paths = [Path(path) for path in write_pool(tmp_path / "pool", 3, 5, stats=False)]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(b"<html>" * 500)
    kinds = {(f.what, f.shard) for f in lint(paths).findings if f.severity == "error"}
    assert kinds == {("empty", "00000000"), ("not_a_tar", "00000001")}


def test_sidecars_that_are_missing_or_wrong(pool):
    stats = [path.with_name(path.stem + "_stats.json") for path in pool]
    stats[0].unlink()
    stats[1].write_text(json.dumps({"successes": 4}))
    pool[2].with_suffix(".parquet").unlink()
    pool[3].with_suffix(".parquet").write_bytes(b"no parquet")
    assert found(lint(pool)) == {
        ("error", "stats_unlike_tar", "00000001"): 1,
        ("warning", "no_stats", "00000000"): 1,
        ("warning", "parquet_unreadable", "00000003"): 1,
        ("note", "no_parquet", "00000002"): 1,
    }


def test_uids_that_repeat_or_are_none(pool):
    rewrite(pool[0], [*shard_members(0, 3), *sample(3, uid=uid(1)), *sample(4, uid=["nonsense"])])
    rewrite(pool[1], [*shard_members(5, 3), *sample(8, uid=None), *sample(9, uid=uid(0))])
    assert found(lint(pool)) == {
        ("note", "uid_hashed", "00000000"): 1,
        ("note", "uid_derived", "00000001"): 1,
        ("warning", "uid_repeated", "00000000"): 1,
        ("warning", "uid_in_two_shards", ""): 1,
    }


def test_samples_that_open_clip_would_drop_and_members_that_are_never_read(pool):
    rows = shard_members(0)
    del rows[3], rows[0]  # the images of samples 1 and 0
    rewrite(pool[0], [*rows, ("000000004.pkl", b"x")])
    assert found(lint(pool)) == {
        ("warning", "missing_image", "00000000"): 2,
        ("warning", "member_pickled", "00000000"): 1,
    }


def test_stray_json_beside_the_shards(pool):
    (pool[0].parent / "notes.json").write_text("{}")
    assert found(lint(pool)) == {("warning", "stray_json", ""): 1}


def test_two_shards_of_one_name(pool, tmp_path):
    other = write_pool(tmp_path / "other", 1, 2)
    kinds = {f.what for f in lint([*pool, *other]).findings if f.severity != "note"}
    assert kinds == {"same_name", "uid_in_two_shards"}


def test_a_resharded_pool_with_repeats_is_only_noted(pool, tmp_path):
    from mmfilter.reshard import reshard
    from mmfilter.subset import Subset

    reshard([str(path) for path in pool], Subset.from_uids([uid(n) for n in (1, 1, 4)]), str(tmp_path / "out"))
    report = lint(sorted((tmp_path / "out").glob("*.tar")))
    assert {(f.severity, f.what) for f in report.findings} == {("note", "copies"), ("note", "no_parquet")}


def test_remote_pools_are_linted_alike():
    paths = [f"memory://lint/{s:08d}.tar" for s in (0, 2)]
    for s, path in zip((0, 2), paths, strict=True):
        storage.write_atomic(path, tar(shard_members(5 * s)))
        storage.write_atomic(path.replace(".tar", "_stats.json"), b'{"successes": 5}')
    storage.write_atomic("memory://lint/x.json", b"{}")
    kinds = {(f.severity, f.what) for f in lint(paths).findings}
    assert kinds == {("error", "gap"), ("warning", "stray_json"), ("note", "no_parquet")}


def test_images_that_a_run_sets_aside_are_told_by_their_first_bytes(pool, mmfilter):
    """Wherever they stand; those of formats that are decoded are well, however they go on."""
    avif = b"\0\0\0 ftypavif" + bytes(600)
    images = {21: avif, 22: b"<html>Sign in</html>", 23: b"%!PS-Adobe-3.0", 24: b"words", 25: b"II+\0" + bytes(600)}
    rewrite(pool[3], [row for n in range(20, 26) for row in sample(n, image=images.get(n))])
    code, said, _ = mmfilter("inspect", pool[3].parent, "--json", "--local")
    report = json.loads(said)
    assert (report["samples"], report["failed"]) == (17, {"format_not_allowed": 2, "not_an_image": 2})
    assert ("format_not_allowed", "00000003", 2) in {(f["what"], f["shard"], f["count"]) for f in report["findings"]}
    rewrite(pool[3], [row for n in range(15, 20) for row in sample(n, image=avif if n == 17 else None)])
    code, said, _ = mmfilter("inspect", pool[3].parent, "--local")
    assert code == 3 and "19 samples are well, 1 are not" in said and "nothing to complain of" not in said
    assert "warning format_not_allowed: 00000003: 1 sample: AVIF" in said


def test_images_that_only_a_whole_header_tells_of_are_told_of_the_first_samples(pool, mmfilter):
    rewrite(pool[0], [row for n in range(5) for row in sample(n, image=b"\xff\xd8\xff\xe0" if n == 2 else None)])
    code, said, _ = mmfilter("inspect", pool[0].parent, "--local")
    assert code == 3 and "nothing to complain of" not in said
    assert "warning truncated_image: 1 of the first 15 samples: 000000002: its JPEG header is cut short" in said


@pytest.mark.real
def test_the_real_pool_is_well(data):
    report = lint(sorted((data / "pool").glob("*.tar")))
    assert (report.samples, report.errors) == (5151, 0)
