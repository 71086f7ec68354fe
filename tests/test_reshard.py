"""Resharding through its public functions: layout, order, bytes, and everything that must be loud."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import sample, std_tar, tar, uid, write_pool

from mmfilter import patterns, remote, storage
from mmfilter.errors import ConflictError, DataError
from mmfilter.reshard import begin, finish, reshard, write_output
from mmfilter.reshard_plan import ReshardOptions, plan_output
from mmfilter.shard_index import index_shard
from mmfilter.subset import Subset
from mmfilter.tar import header
from mmfilter.tar_headers import headers

SMALL = ReshardOptions(max_samples=4)


def subset_of(*numbers):
    return Subset.from_uids([uid(n) for n in numbers])


def contents(paths):
    """(name, bytes) of every member of the tars, by the standard library, in order."""
    found = []
    for path in sorted(map(str, paths)):
        with tarfile.open(path) as file:
            found += [(member.name, file.extractfile(member).read()) for member in file]
    return found


def expected(numbers, **options):
    """What DataComp's layout holds for these samples, in this order."""
    copies = {}
    rows = []
    for n in numbers:
        j = copies[n] = copies.get(n, -1) + 1
        rows += [(f"{uid(n)}-{j}.{name.split('.', 1)[1]}", data) for name, data in sample(n, **options)]
    return rows


def files(folder, *but):
    """Every file's bytes, but of `but`, of the plan, which names the pool, and of the records of all files."""
    but = ("reshard.plan", "reshard.files", *but)
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in but}


@pytest.fixture
def pool(tmp_path):
    return write_pool(tmp_path / "pool", 4, 5)


def text_of(n):
    return f"a picture number {n}"


def test_samples_come_in_pool_order_with_datacomps_names(tmp_path, pool):
    out = tmp_path / "out"
    meta = reshard(pool, subset_of(13, 2, 7, 0, 19), str(out), SMALL)
    wanted = [0, 2, 7, 13, 19]
    assert contents(out.glob("*.tar")) == [row for n in wanted for row in expected([n], text=text_of(n))]
    assert json.loads((out / "00000000_stats.json").read_text()) == {"successes": 4}
    assert json.loads((out / "00000001_stats.json").read_text()) == {"successes": 1}
    assert json.loads((out / "sizes.json").read_text()) == {"00000000.tar": 4, "00000001.tar": 1}
    assert Subset.read(str(out / "sample_ids.npy")) == subset_of(*wanted)
    assert json.loads((out / "meta.json").read_text()) == meta
    told = {"processed_count": 20, "output_count": 5, "output_shard_count": 2, "worker_success": 1}
    assert meta == {**told, "output_shard_format": "{:08d}.tar", "missing_count": 0, "repeated_count": 0}


def test_open_clip_and_webdataset_read_what_is_written(tmp_path, pool):
    import webdataset as wds

    out = tmp_path / "out"
    reshard(pool, subset_of(3, 4, 4, 9), str(out))
    rows = list(wds.WebDataset([str(out / "00000000.tar")], shardshuffle=False))
    assert [row["__key__"] for row in rows] == [f"{uid(3)}-0", f"{uid(4)}-0", f"{uid(4)}-1", f"{uid(9)}-0"]
    assert [row["txt"].decode() for row in rows] == [text_of(n) for n in (3, 4, 4, 9)]


def test_repeats_are_adjacent_and_counted(tmp_path, pool):
    out = tmp_path / "out"
    reshard(pool, subset_of(1, 1, 1, 6, 2, 2), str(out), SMALL)
    rows = [row for n in (1, 2, 6) for row in expected([n] * {1: 3, 2: 2, 6: 1}[n], text=text_of(n))]
    assert contents(out.glob("*.tar")) == rows


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 11), max_size=20), st.integers(1, 7), st.integers(3000, 20000))
def test_any_subset_gives_its_multiset_within_the_limits(numbers, most, most_bytes):
    root = "memory://reshard"
    fs = remote.filesystem(root)
    if fs.exists(root):
        fs.rm(root, recursive=True)
    paths = [f"{root}/pool/{s:08d}.tar" for s in range(3)]
    for s, path in enumerate(paths):
        storage.write_atomic(path, tar([row for n in range(4 * s, 4 * s + 4) for row in sample(n)]))
    reshard(paths, subset_of(*numbers), f"{root}/out", ReshardOptions(max_samples=most, max_bytes=most_bytes))
    found = []
    for path in patterns.glob(f"{root}/out/*.tar"):
        data = storage.read_bytes(path)
        with tarfile.open(fileobj=io.BytesIO(data)) as file:
            names = [member.name for member in file]
            found += [(name, file.extractfile(name).read()) for name in names]
        assert len(names) <= 3 * most and (len(data) <= most_bytes or len(names) == 3)
    assert found == [row for n in sorted(set(numbers)) for row in expected([n] * numbers.count(n))]


def test_round_trip_gives_the_same_samples(tmp_path, pool):
    once, twice = tmp_path / "once", tmp_path / "twice"
    subset = subset_of(*range(0, 20, 2), 4, 4, 18)
    reshard(pool, subset, str(once), ReshardOptions(max_samples=3))
    reshard(sorted(map(str, once.glob("*.tar"))), Subset.read(str(once / "sample_ids.npy")), str(twice), SMALL)
    assert contents(twice.glob("*.tar")) == contents(once.glob("*.tar"))
    thrice = tmp_path / "thrice"
    reshard(sorted(map(str, twice.glob("*.tar"))), subset, str(thrice), ReshardOptions(max_samples=3))
    assert files(thrice, "meta.json") == files(once, "meta.json")


def test_bytes_do_not_depend_on_workers_or_order(tmp_path, pool):
    one, many = tmp_path / "one", tmp_path / "many"
    subset = subset_of(*range(17), 3, 3)
    reshard(pool, subset, str(one), SMALL)
    with ProcessPoolExecutor(2) as workers:
        plan = plan_output(list(workers.map(partial(index_shard, wanted=subset), pool)), subset, SMALL)
        begin(plan, str(many))
        list(workers.map(partial(write_output, folder=str(many)), reversed(plan.shards)))
    finish(plan, str(many))
    assert files(one) == files(many)


def test_odd_tars_are_copied_whole(tmp_path):
    """Interleaved members, PAX names, upper-case extensions, extra members, a member over a read's window."""
    first = [(name.replace("000000001", "ünï/" + "k" * 200), data) for name, data in sample(1)]
    big = sample(2, image=bytes(range(256)) * 20_000)
    third = [(name.replace(".jpg", ".JPG"), data) for name, data in sample(3)]
    third.append(("000000003.cls", b"7"))
    mixed = [row for rows in zip(first, big, third[:3], strict=True) for row in rows] + third[3:]
    path = tmp_path / "00000000.tar"
    path.write_bytes(std_tar(mixed, format=tarfile.PAX_FORMAT))
    out = tmp_path / "out"
    reshard([str(path)], subset_of(1, 2, 3, 2), str(out))
    got = dict(contents(out.glob("*.tar")))
    sources = {1: first, 2: big, 3: third}
    for n, j in ((1, 0), (2, 0), (2, 1), (3, 0)):
        for name, data in sources[n]:
            assert got.pop(f"{uid(n)}-{j}.{name.rsplit('.', 1)[1].lower()}") == data
    assert not got


def test_a_missing_uid_is_an_error_before_a_byte_is_written(tmp_path, pool):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=rf"2 of 3 wanted uids are not in the pool: {uid(98)}, {uid(99)}"):
        reshard(pool, subset_of(1, 98, 99), str(out))
    assert not out.exists()
    meta = reshard(pool, subset_of(1, 98, 99), str(out), ReshardOptions(allow_missing=True))
    assert (meta["output_count"], meta["missing_count"]) == (1, 2)


def test_fault_30_an_absent_shard_is_an_error(tmp_path, pool):
    """DataComp's resharder sees one shard of four here, ignores two, and exits with 0."""
    with pytest.raises(DataError, match="5 of 20 wanted uids are not in the pool"):
        reshard([path for path in pool if "00000001" not in path], subset_of(*range(20)), str(tmp_path / "out"))


def test_fault_30_an_absent_shard_is_named(tmp_path, pool):
    (tmp_path / "pool" / "00000001.tar").unlink()
    with pytest.raises(DataError, match=r"cannot be found: \S*00000001.tar"):
        reshard(pool, subset_of(*range(20)), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_fault_27_an_unsorted_subset_is_an_error(tmp_path):
    """DataComp's resharder bisects it and silently writes the wrong samples."""
    np.save(tmp_path / "s.npy", subset_of(5, 9, 1).uids[[2, 0, 1]])
    with pytest.raises(DataError, match="not sorted"):
        Subset.read(str(tmp_path / "s.npy"))


def test_a_wanted_sample_that_failed_says_why(tmp_path):
    path = tmp_path / "00000000.tar"
    path.write_bytes(tar([*sample(1), *sample(2, image=b""), *sample(3)]))
    with pytest.raises(DataError, match=rf"1 of them belong to samples that failed: {uid(2)} in .*image_empty"):
        reshard([str(path)], subset_of(1, 2), str(tmp_path / "out"))


def test_a_uid_twice_in_the_pool_is_taken_once_from_the_first(tmp_path):
    for s, texts in enumerate((["first", "same shard"], ["other shard"])):
        twins = [(f"{s}{i}", row) for i, text in enumerate(texts) for row in sample(1, text=text)]
        rows = [(name.replace("000000001", key), data) for key, (name, data) in twins]
        (tmp_path / f"{s:08d}.tar").write_bytes(tar(rows))
    out = tmp_path / "out"
    meta = reshard(sorted(map(str, tmp_path.glob("*.tar"))), subset_of(1), str(out))
    assert contents(out.glob("*.tar")) == expected([1], text="first")
    assert (meta["processed_count"], meta["repeated_count"]) == (3, 1)


def planned(pool, out, *numbers):
    subset = subset_of(*numbers)
    plan = plan_output([index_shard(path) for path in pool], subset, SMALL)
    begin(plan, str(out))
    return plan


def test_an_input_that_changed_is_an_error(tmp_path, pool):
    out = tmp_path / "out"
    plan = planned(pool, out, *range(20))
    write_pool(tmp_path / "pool", 4, 5, width=7)
    with pytest.raises(DataError, match=r"00000000\.tar: it changed since it was indexed"):
        write_output(plan.shards[0], str(out))
    assert not list(out.glob("*.tar")) and not list(out.glob("*.tmp"))
    with pytest.raises(ConflictError, match="The pool had 4 shards and has 4; changed or new: 00000000"):
        planned(pool, out, *range(20))


def test_a_header_that_changed_under_an_equal_date_is_an_error(tmp_path, pool):
    out = tmp_path / "out"
    plan = planned(pool, out, *range(20))
    path = tmp_path / "pool" / "00000000.tar"
    before = path.stat().st_mtime_ns
    path.write_bytes(tar([row for n in (1, 0, 2, 3, 4) for row in sample(n, text=text_of(n))]))
    os.utime(path, ns=(before, before))
    with pytest.raises(DataError, match="it changed since it was indexed"):
        write_output(plan.shards[0], str(out))


def test_an_input_that_vanished_is_an_error(tmp_path, pool):
    out = tmp_path / "out"
    plan = planned(pool, out, *range(20))
    (tmp_path / "pool" / "00000000.tar").unlink()
    with pytest.raises(DataError, match="is not now"):
        write_output(plan.shards[0], str(out))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=120), st.integers(0, 2**40))
    )
)
def test_headers_at_once_are_the_headers_one_by_one(rows):
    sizes = np.array([size for _, size in rows], np.int64)
    assert list(headers([name for name, _ in rows], sizes)) == [header(name, size) for name, size in rows]


def test_another_plan_in_the_folder_is_refused(tmp_path, pool):
    out = tmp_path / "out"
    reshard(pool, subset_of(1, 2), str(out), SMALL)
    with pytest.raises(ConflictError, match=r"The subset was .* and is"):
        reshard(pool, subset_of(1, 3), str(out), SMALL)
    with pytest.raises(ConflictError, match=r"The options was .* and is"):
        reshard(pool, subset_of(1, 2), str(out), ReshardOptions(max_samples=5))
    with pytest.raises(ConflictError, match="another origin"):
        reshard(pool, subset_of(1, 2), str(tmp_path / "pool"), SMALL)
    plan = plan_output([index_shard(path) for path in pool], subset_of(1, 3), SMALL)
    with pytest.raises(ConflictError, match="not begun"):
        write_output(plan.shards[0], str(out))


def test_finished_shards_are_skipped_and_unfinished_ones_told(tmp_path, pool):
    out = tmp_path / "out"
    plan = planned(pool, out, *range(10))
    assert [write_output(shard, str(out)).skipped for shard in plan.shards[:2]] == [False, False]
    with pytest.raises(DataError, match=r"1 shards are not finished \(00000002\)"):
        finish(plan, str(out))
    assert not (out / "meta.json").exists()
    (out / "00000001_stats.json").unlink()  # killed between the tar and its stats
    assert [write_output(shard, str(out)).skipped for shard in plan.shards] == [True, False, False]
    finish(plan, str(out))


RESHARD = """
import sys
from mmfilter.reshard import reshard
from mmfilter.reshard_plan import ReshardOptions
from mmfilter.storage import expand
from mmfilter.subset import Subset
reshard(expand(sys.argv[1]), Subset.read(sys.argv[2]), sys.argv[3], ReshardOptions(max_samples=2))
"""


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(tmp_path):
    """SIGKILL after a few shards, over and over, then to the end; the moments are drawn from a seed."""
    write_pool(tmp_path / "pool", 4, 60)
    subset_of(*range(0, 240, 2)).write(str(tmp_path / "s.npy"))
    whole, out, draw = tmp_path / "whole", tmp_path / "out", random.Random(1)
    command = [sys.executable, "-c", RESHARD, str(tmp_path / "pool"), str(tmp_path / "s.npy")]
    subprocess.run([*command, str(whole)], check=True)
    kills = 0
    for _ in range(5):
        goal = len(list(out.glob("*.tar"))) + draw.randrange(1, 8)
        process = subprocess.Popen([*command, str(out)])
        while process.poll() is None and len(list(out.glob("*.tar"))) < goal:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.01)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills
    subprocess.run([*command, str(out)], check=True)
    assert files(out) == files(whole)


def test_a_damaged_shard_that_may_hold_the_missing_is_named(tmp_path, pool):
    os.truncate(pool[1], 0)
    with pytest.raises(DataError, match=r"(?s)1 damaged shards.*00000001\.tar"):
        reshard(pool, subset_of(*range(20)), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_uid_twice_in_a_shard_is_noted(tmp_path):
    path = tmp_path / "00000000.tar"
    path.write_bytes(tar(sample(1) + sample(2) + sample(3, uid=uid(1))))
    meta = reshard([str(path)], subset_of(1, 2), str(tmp_path / "out"))
    assert (meta["output_count"], meta["repeated_count"]) == (2, 1)
    assert [name for name, _ in contents((tmp_path / "out").glob("*.tar"))] == [name for name, _ in expected([1, 2])]


def test_a_finished_shard_that_was_cut_is_written_again(tmp_path, pool):
    out = tmp_path / "out"
    reshard(pool, subset_of(*range(20)), str(out), SMALL)
    before = files(out)
    os.truncate(out / "00000001.tar", 1000)
    reshard(pool, subset_of(*range(20)), str(out), SMALL)
    assert files(out) == before


def test_an_empty_subset_gives_an_empty_folder_of_shards(tmp_path, pool):
    meta = reshard(pool, subset_of(), str(tmp_path / "out"))
    assert (meta["processed_count"], meta["output_shard_count"]) == (20, 0)


@pytest.mark.real
def test_the_real_pool_round_trips(tmp_path, data):
    paths = sorted(map(str, (data / "pool").glob("*.tar")))[:2]
    uids = np.concatenate([index_shard(path).uids for path in paths])
    once, twice = tmp_path / "once", tmp_path / "twice"
    options = ReshardOptions(max_samples=300)
    reshard(paths, Subset(uids), str(once), options)
    source = contents(paths)
    assert [data for _, data in contents(once.glob("*.tar"))] == [data for _, data in source]
    reshard(sorted(map(str, once.glob("*.tar"))), Subset(uids), str(twice), options)
    assert files(once, "meta.json") == files(twice, "meta.json")
