"""`process_shard`, the unit of work: what it writes, what it repeats, and what it refuses."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from tars import jpeg, sample, samples, tar, uid, write_pool

from mmfilter.embed import load
from mmfilter.errors import ConflictError
from mmfilter.recipe import parse_recipe
from mmfilter.shard import process_shard
from mmfilter.sidecar import read_commit
from mmfilter.work import plan_work

pytestmark = pytest.mark.slow  # together, not each

COLUMNS = ["uid", "url", "text", "original_width", "original_height"]
REST = ["face_bboxes", "sha256", "key", "offset", "size"]


def recipe(tiny_model, *scores, models=("b32",)):
    embed = {name: {"model": tiny_model} for name in models}
    return parse_recipe(json.dumps({"name": "t", "embed": embed, "scores": list(scores)}), "recipe t")


def work_for(loaded, out, **fields):
    weights = dict.fromkeys(loaded.embed, "sha")
    return replace(plan_work(loaded, str(out), weights), **fields)


def run(path, loaded, out, **fields):
    work = work_for(loaded, out, **fields)
    embedders = {name: load(name, spec) for name, spec in loaded.embed.items()}
    return process_shard(str(path), work, embedders)


def files(out):
    """Relative path -> sha256 of everything but the commits, which hold times."""
    paths = sorted(p for p in Path(out).rglob("*") if p.is_file() and p.suffix in {".parquet", ".npz", ".npy", ".tar"})
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture
def shard(tmp_path):
    rows = samples(11)
    rows += sample(20, image=b"<html>") + sample(21)[::2] + sample(22, image=jpeg()[:90]) + sample(23, text="")
    path = tmp_path / "pool" / "00000007.tar"
    path.parent.mkdir()
    path.write_bytes(tar(rows))
    return path


def test_the_files_are_datacomps(shard, tmp_path, tiny_model):
    loaded = recipe(tiny_model, {"clip_similarity": {"model": "b32"}}, "language", "caption", "phash", "image_size")
    report = run(shard, loaded, tmp_path / "out")
    table = pq.read_table(tmp_path / "out/metadata/00000007.parquet")
    scores = sorted(column for score in loaded.scores for column in score.columns)
    assert table.column_names == [*COLUMNS, *scores, *REST]
    assert str(table.schema.field("clip_b32_similarity_score").type) == "float"
    assert str(table.schema.field("face_bboxes").type) == "list<element: list<element: double>>"
    npz = np.load(tmp_path / "out/metadata/00000007.npz", allow_pickle=False)
    assert sorted(npz.files) == ["b32_img", "b32_txt", "uid"]
    assert npz["b32_img"].dtype == np.float16 and npz["b32_img"].shape == (12, 24)
    assert npz["uid"].dtype == np.dtype("u8,u8")
    assert [f"{a:016x}{b:016x}" for a, b in npz["uid"].tolist()] == table["uid"].to_pylist()
    cosine = (npz["b32_img"].astype(float) * npz["b32_txt"].astype(float)).sum(1)
    assert np.allclose(table["clip_b32_similarity_score"], cosine, atol=2e-3)
    assert (report.read, report.ok) == (15, 12)


def test_every_sample_is_counted_with_its_reason(shard, tmp_path, tiny_model):
    report = run(shard, recipe(tiny_model), tmp_path / "out")
    assert report.failed == {"missing_text": 1, "not_an_image": 1, "truncated_image": 1}
    assert report.read == report.ok + sum(report.failed.values())
    failures = pl.read_parquet(tmp_path / "out/failures/00000007.parquet")
    assert failures.columns == ["key", "uid", "status", "error"]
    assert dict(failures.group_by("status").len().iter_rows()) == report.failed
    assert failures.filter(pl.col("status") == "not_an_image")["uid"].to_list() == [uid(20)]
    commit = json.loads((tmp_path / "out/metadata/00000007.json").read_text())
    assert commit["counts"] == {"read": 15, "ok": 12, "failed": report.failed}


def test_offset_and_size_find_the_image_in_the_tar(shard, tmp_path, tiny_model):
    run(shard, recipe(tiny_model), tmp_path / "out")
    data = shard.read_bytes()
    for row in pq.read_table(tmp_path / "out/metadata/00000007.parquet").to_pylist():
        image = data[row["offset"] : row["offset"] + row["size"]]
        assert hashlib.sha256(image).hexdigest() == row["sha256"]


@pytest.mark.parametrize("fields", [{"threads": 1}, {"threads": 4}])
def test_the_bytes_do_not_depend_on_threads(shard, tmp_path, tiny_model, fields):
    loaded = recipe(tiny_model, {"clip_similarity": {"model": "b32"}}, "phash")
    run(shard, loaded, tmp_path / "a", batch_size=4)
    run(shard, loaded, tmp_path / "b", batch_size=4, **fields)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_second_pass_does_nothing(shard, tmp_path, tiny_model):
    loaded = recipe(tiny_model, "caption")
    run(shard, loaded, tmp_path / "out")
    again = process_shard(str(shard), work_for(loaded, tmp_path / "out"), {})
    assert again.did == [] and (again.read, again.ok) == (15, 12)


def test_a_score_added_later_reads_no_tar(shard, tmp_path, tiny_model):
    run(shard, recipe(tiny_model), tmp_path / "out")
    later = recipe(tiny_model, {"clip_similarity": {"model": "b32"}}, "caption")
    at_once = recipe(tiny_model, {"clip_similarity": {"model": "b32"}}, "caption")
    run(shard, at_once, tmp_path / "once")
    identity = shard.stat()
    shard.rename(shard.with_suffix(".away"))
    Path(shard).write_bytes(bytes(identity.st_size))  # a tar with nothing in it: reading it would lose everything
    import os

    os.utime(shard, ns=(identity.st_atime_ns, identity.st_mtime_ns))
    report = process_shard(str(shard), work_for(later, tmp_path / "out"), {})
    assert report.did == ["score:clip_b32_similarity_score", "score:caption_words"]
    added = pl.read_parquet(tmp_path / "out/columns/clip_b32_similarity_score/00000007.parquet")
    want = pl.read_parquet(tmp_path / "once/metadata/00000007.parquet", columns=["uid", "clip_b32_similarity_score"])
    assert added.equals(want), "the same bits as computed in the pass"


def test_a_model_added_later_runs_alone_and_joins(shard, tmp_path, tiny_model):
    run(shard, recipe(tiny_model, {"clip_similarity": {"model": "b32"}}), tmp_path / "out")
    before = np.load(tmp_path / "out/metadata/00000007.npz")
    both = recipe(
        tiny_model, {"clip_similarity": {"model": "b32"}}, {"clip_similarity": {"model": "dfn"}}, models=("b32", "dfn")
    )
    work = work_for(both, tmp_path / "out")
    report = process_shard(str(shard), work, {"dfn": load("dfn", both.embed["dfn"])})
    assert report.did == ["embed:dfn", "score:clip_dfn_similarity_score"]
    run(shard, both, tmp_path / "once")
    assert files(tmp_path / "out") == files(tmp_path / "once")
    assert (np.load(tmp_path / "out/metadata/00000007.npz")["b32_img"] == before["b32_img"]).all()


def test_what_was_made_otherwise_is_refused(shard, tmp_path, tiny_model):
    run(shard, recipe(tiny_model), tmp_path / "out")
    other = recipe(tiny_model)
    work = replace(work_for(other, tmp_path / "out"))
    changed = {**work.parts, "embed:b32": {**work.parts["embed:b32"], "weights": "other"}}
    with pytest.raises(ConflictError, match=r"embed:b32.*other"):
        process_shard(str(shard), replace(work, parts=changed), {})
    shard.write_bytes(tar(samples(3)))
    with pytest.raises(ConflictError, match="Its tar"):
        process_shard(str(shard), work, {})
    report = run(shard, other, tmp_path / "out", redo=True)
    assert (report.read, report.ok) == (3, 3)
    assert not (tmp_path / "out/failures/00000007.parquet").exists()


def test_a_tar_that_was_only_touched_is_not_embedded_anew(shard, tmp_path, tiny_model):
    loaded, out = recipe(tiny_model), tmp_path / "out"
    run(shard, loaded, out)
    before, well = files(out), shard.read_bytes()
    os.utime(shard, ns=(1, 1))
    with pytest.raises(ConflictError, match="a tar whose samples are the same is read once"):
        process_shard(str(shard), work_for(loaded, out), {})
    assert process_shard(str(shard), work_for(loaded, out, redo=True), {}).did == [], "no model is at hand here"
    assert files(out) == before
    assert process_shard(str(shard), work_for(loaded, out), {}).did == [], "its new date is put down"
    more = recipe(tiny_model, "image_size")
    made = read_commit(str(out), "00000007")["input"]
    assert run(shard, more, out).did == ["score:image_width"]
    assert read_commit(str(out), "00000007")["input"] == made, "what was computed from it is still of it"
    (_, image), (_, text) = samples(11)[:2]
    damaged = image[-40:-2][::-1] + image[-2:]
    for old, new in [(image[-40:], damaged), (text, text[::-1]), (b"<html>", b"<HTML>")]:
        shard.write_bytes(well.replace(old, new, 1))  # each time what was changed before is well again
        assert shard.read_bytes() != well
        assert run(shard, loaded, out, redo=True).did == ["read", "embed:b32"]
    shard.write_bytes(well)
    assert run(shard, loaded, out, redo=True).did == [], "no image before, no image now"
    damages = [("parquet", None), ("parquet", b"PAR1 no more"), ("npz", None)]
    for at, (ending, left) in enumerate(damages, 2):
        path = out / f"metadata/00000007.{ending}"
        path.unlink() if left is None else path.write_bytes(left)
        os.utime(shard, ns=(at, at))
        assert run(shard, loaded, out, redo=True).did == ["read", "embed:b32"]
        assert files(out) == before


def test_a_score_of_the_file_alone_is_given_images_alone(shard, tmp_path, tiny_model):
    report = run(shard, recipe(tiny_model, "image_size", models=()), tmp_path / "out")
    assert report.ok == 12 and report.failed == {"missing_text": 1, "not_an_image": 1, "truncated_image": 1}


def test_an_absent_or_empty_shard_is_committed_with_its_losses(tmp_path, tiny_model):
    [path] = write_pool(tmp_path / "pool", 1, 5)
    Path(path).unlink()
    report = run(path, recipe(tiny_model, "caption", "phash"), tmp_path / "out")
    assert (report.read, report.ok, report.failed) == (5, 0, {"lost": 5})
    assert pl.read_parquet(tmp_path / "out/metadata/00000000.parquet").height == 0
    assert np.load(tmp_path / "out/metadata/00000000.npz")["b32_img"].shape == (0, 24)


def test_fault_29_embeddings_that_are_not_finite(shard, tmp_path, tiny_model):
    embedder = load("b32", recipe(tiny_model).embed["b32"])
    real = embedder.submit

    def broken(pixels):
        rows = real(pixels)()
        rows[2], rows[3], rows[4] = np.nan, np.inf, 0
        return lambda: rows

    embedder.submit = broken
    loaded = recipe(tiny_model, {"clip_similarity": {"model": "b32"}}, "phash")
    report = process_shard(str(shard), work_for(loaded, tmp_path / "out"), {"b32": embedder})
    assert report.failed["embedding_not_finite"] == 3
    assert report.read == report.ok + sum(report.failed.values()) == 15
    table = pl.read_parquet(tmp_path / "out/metadata/00000007.parquet")
    assert table["uid"].to_list()[:3] == [uid(0), uid(1), uid(5)]
    assert table["clip_b32_similarity_score"].is_finite().all()
