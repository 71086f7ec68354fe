"""Pools as people hold them: where captions, uids and images stand, through `run` and `reshard` to a trainer."""

import io
import json
import tarfile

import numpy as np
import polars as pl
import pytest
from jobs_util import recipe_text
from PIL import Image
from tars import jpeg, sample, tar, uid, write_pool

from mmfilter.json_file import encode
from mmfilter.records import Sample
from mmfilter.samples import read_samples
from mmfilter.subset import Subset

COUNT = 12


def image(form, n, **save):
    out = io.BytesIO()
    Image.new("RGB", (24, 20), (n * 19 % 256, 90, 200 - n)).save(out, form, **save)
    return out.getvalue()


def words(n):
    return f"a coloured card with the number {n}"


def as_json(n, **fields):
    return json.dumps({"number": n, **fields}).encode()


def rows_of(make):
    """Members of COUNT samples; `make(n)` maps extensions to bytes."""
    return [(f"{n:05d}.{extension}", data) for n in range(COUNT) for extension, data in make(n).items()]


POOLS = {
    "img2dataset's columns": (
        lambda n: {
            "jpg": image("JPEG", n),
            "txt": words(n).encode(),
            "json": as_json(n, caption=words(n), url="u", key=f"{n:05d}", status="success", sha256=None),
        }
    ),
    "image and text alone": lambda n: {"jpg": image("JPEG", n), "txt": words(n).encode()},
    "caption in the json": lambda n: {"png": image("PNG", n), "json": as_json(n, TEXT=words(n))},
    "alt text": lambda n: {"webp": image("WEBP", n), "json": as_json(n, alt_text=words(n), uid=uid(n))},
    "a caption member": lambda n: {"image.PNG": image("PNG", n), "caption": words(n).encode()},
    "an identifier": lambda n: {"jpeg": image("JPEG", n), "cap": words(n).encode(), "json": as_json(n, uid=f"id {n}")},
    "a number for a uid": lambda n: {"jpg": image("JPEG", n), "text": words(n).encode(), "json": as_json(n, uid=n)},
    "GIF": lambda n: {"gif": image("GIF", n), "txt": words(n).encode()},
    "TIFF and BMP": lambda n: {("tif", "bmp")[n % 2]: image(("TIFF", "BMP")[n % 2], n), "txt": words(n).encode()},
    "names that are wrong": lambda n: {"jpg": image(("PNG", "GIF", "WEBP")[n % 3], n), "txt": words(n).encode()},
    "strangers' members": (
        lambda n: {
            "mask.png": image("PNG", 5),
            "jpg": image("JPEG", n),
            "txt": words(n).encode(),
            "pkl": b"cos\nsystem\n",
            "npy": b"\x93NUMPY",
            "pyd.gz": b"x",
            "cls": b"3",
        }
    ),
}


@pytest.fixture
def recipe(tmp_path, tiny_model):
    path = tmp_path / "t.yaml"
    path.write_text(recipe_text(tiny_model))
    return path


def batches(folder):
    """(images, texts) that open_clip's training loader reads of the shards in `folder`."""
    from open_clip_train.data import get_wds_dataset
    from open_clip_train.params import parse_args

    shards = f"{folder}/00000000.tar"
    args = parse_args(["--train-data", shards, "--train-num-samples", "6", "--batch-size", "1", "--workers", "1"])
    args.rank, args.world_size, args.distributed = 0, 1, False
    loader = get_wds_dataset(args, np.asarray, is_train=True, tokenizer=lambda text: [text]).dataloader
    return [(images, texts[0]) for images, texts in loader]


@pytest.mark.slow
@pytest.mark.parametrize("form", POOLS)
def test_a_pool_runs_at_the_first_try_and_a_trainer_reads_what_comes_out(form, recipe, tmp_path, mmfilter):
    pool, out = tmp_path / "pool", tmp_path / "out"
    pool.mkdir()
    (pool / "00000000.tar").write_bytes(tar(rows_of(POOLS[form])))
    code, said, err = mmfilter("run", recipe, "--pool", pool, "--out", out)
    assert code == 0, err
    assert f"in {COUNT} = kept {COUNT // 2} (50.0%) + dropped {COUNT // 2} + failed 0" in said
    shards = out / "shards" / "t"
    read = [row for row in read_samples(str(shards / "00000000.tar")) if isinstance(row, Sample)]
    kept = Subset.read(str(out / "subsets/t.npy")).strings()
    table = pl.read_parquet(out / "metadata/00000000.parquet")
    texts = dict(zip(table["uid"], table["text"], strict=True))
    assert sorted(row.uid for row in read) == kept and all(row.uid_stated for row in read)
    assert {row.uid: row.text for row in read} == {one: texts[one] for one in kept}
    assert {row.caption for row in read} == {"txt"} and {row.image_member for row in read} <= {"jpg", "png", "webp"}
    if form != "alt text":  # whose json stated a uid already
        assert "derived from shard and key" in said or "hashed from" in said
    seen = batches(shards)
    assert sorted(text for _, text in seen) == sorted(texts[one] for one in kept)


@pytest.mark.parametrize("extra", [[], ["--members", "npy,mask.png"]])
def test_members_of_strangers_are_copied_only_where_they_are_named(recipe, tmp_path, mmfilter, extra):
    pool, out = tmp_path / "pool", tmp_path / "out"
    pool.mkdir()
    (pool / "0.tar").write_bytes(tar(rows_of(POOLS["strangers' members"])))
    assert mmfilter("run", recipe, "--pool", pool, "--out", out, "--no-reshard")[0] == 0
    assert mmfilter("reshard", out / "subsets/t.npy", "--pool", pool, "--out", tmp_path / "new", *extra)[0] == 0
    with tarfile.open(tmp_path / "new/00000000.tar") as file:
        endings = {name.split(".", 1)[1] for name in file.getnames()}
    assert endings == {"jpg", "txt", "json", "cls", *(["npy", "mask.png"] if extra else [])}
    code, _, err = mmfilter(
        "reshard", out / "subsets/t.npy", "--pool", pool, "--out", tmp_path / "n", "--members", "pkl.gz"
    )
    assert code == 2 and "un-pickle" in err and "Traceback" not in err


def test_a_named_caption_is_what_comes_out(recipe, tmp_path, mmfilter):
    pool, out = tmp_path / "pool", tmp_path / "out"
    pool.mkdir()
    rows = rows_of(lambda n: {"jpg": image("JPEG", n), "txt": b"of no use", "json": as_json(n, said=[words(n), "x"])})
    (pool / "0.tar").write_bytes(tar(rows))
    assert mmfilter("run", recipe, "--pool", pool, "--out", out, "--captions", "said")[0] == 0
    read = list(read_samples(str(out / "shards/t/00000000.tar")))
    assert {row.text for row in read} <= {words(n) for n in range(COUNT)} and len(read) == COUNT // 2
    again = mmfilter("run", recipe, "--pool", pool, "--out", out)
    assert again[0] == 1 and "'read'" in again[2], "captions are part of what a shard was made from"


def test_shards_in_folders_are_known_by_their_path(recipe, tmp_path, mmfilter):
    for name in ("a/0.tar", "b/0.tar", "b/c/x.v1.0000.tar"):
        path = tmp_path / "pool" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tar(rows_of(POOLS["image and text alone"])))
    code, said, err = mmfilter("run", recipe, "--pool", tmp_path / "pool", "--out", tmp_path / "o")
    assert code == 0, err
    assert sorted(p.stem for p in (tmp_path / "o/metadata").glob("*.npz")) == ["a__0", "b__0", "b__c__x.v1.0000"]
    assert f"in {3 * COUNT} = " in said and mmfilter("status", tmp_path / "o")[0] == 0
    again = mmfilter("run", recipe, "--pool", f"{tmp_path}/pool/a/*.tar::{tmp_path}/pool/b/{{0..0}}.tar", "--out", "x")
    assert again[0] == 2 and "0" in again[2], "two flat patterns have shards of one name"


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        (lambda n: {"jpg": image("JPEG", n), "json": as_json(n, title=words(n))}, [], "--captions"),
        (lambda n: {"txt": words(n).encode(), "json": as_json(n)}, [], "image member"),
        (lambda n: {"avif": image("AVIF", n), "txt": b"x y z"}, [], "avif: true"),
        (lambda n: {"jpg": image("JPEG", n), "txt": b"x y z", "json": as_json(n, uid="one")}, [], "--uids json.FIELD"),
        (lambda n: {"jpg": image("JPEG", n), "txt": "caf\xe9 noir".encode("latin-1")}, [], "UTF-8"),
    ],
)
def test_a_pool_of_another_form_stops_before_anything_is_spent(recipe, tmp_path, mmfilter, rows, options, says):
    pool, out = tmp_path / "pool", tmp_path / "out"
    pool.mkdir()
    (pool / "0.tar").write_bytes(tar(rows_of(rows)))
    for more in ([], ["--dry-run"]):
        code, _, err = mmfilter("run", recipe, "--pool", pool, "--out", out, *more)
        assert code == 2 and says in err and "--keep-going" in err and not out.exists()
    assert mmfilter("run", recipe, "--pool", pool, "--out", out, "--keep-going")[0] == 3
    code, said, _ = mmfilter("inspect", pool)
    assert code == 1 and says in said


def test_damage_never_stops_a_run(recipe, tmp_path, mmfilter):
    pool = tmp_path / "pool"
    pool.mkdir()
    rows = rows_of(lambda n: {"jpg": b"<html>", "txt": b"some words here"})
    (pool / "0.tar").write_bytes(tar(rows))
    code, said, _ = mmfilter("run", recipe, "--pool", pool, "--out", tmp_path / "o")
    assert code == 3 and f"failed {COUNT}" in said and "not_an_image" in said


def test_inspect_and_a_dry_run_say_what_is_found_where(recipe, tmp_path, mmfilter):
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "0.tar").write_bytes(tar(rows_of(POOLS["caption in the json"])))
    for words_ in (("inspect", pool), ("run", recipe, "--pool", pool, "--out", tmp_path / "o", "--dry-run")):
        code, said, _ = mmfilter(*words_)
        assert code == 0
        for line in ("captions  json.TEXT 12", "uids      derived from shard and key 12", "images    png 12"):
            assert line in said


def test_an_older_folders_samples_that_failed_for_their_form_are_named(recipe, tmp_path, mmfilter):
    """A commit of 0.1.0 took captions from txt alone: no conflict, a line that says so, and a cure."""
    pool, out = tmp_path / "pool", tmp_path / "out"
    write_pool(pool, 1, 6, stats=False)
    (pool / "00000000.tar").write_bytes(tar([*sample(0, text="a nice red square"), *sample(1, caption="words")[::2]]))
    assert mmfilter("run", recipe, "--pool", pool, "--out", out, "--no-reshard")[0] == 0
    path = out / "metadata/00000000.json"
    commit = json.loads(path.read_text())
    commit["parts"]["read"] = {"derive_uids": False, "limits": {"max_pixels": 1 << 26}}
    commit["counts"] = {"read": 2, "ok": 1, "failed": {"missing_text": 1}}
    path.write_bytes(encode(commit))
    code, said, _ = mmfilter("embed", recipe, "--pool", pool, "--out", out)
    assert code == 3 and "--redo-changed reads their shards again" in said
    code, said, _ = mmfilter("embed", recipe, "--pool", pool, "--out", out, "--redo-changed")
    assert code == 0 and "read 2 = ok 2" in said


def test_uids_that_two_runs_derived_alike_are_refused_where_they_meet(recipe, tmp_path, mmfilter):
    for name, start in (("a", 0), ("b", 50)):
        (tmp_path / name).mkdir()
        rows = [(f"{n}.jpg", jpeg((n, 2, start))) for n in range(6)] + [
            (f"{n}.txt", words(n + start).encode()) for n in range(6)
        ]
        (tmp_path / name / "0.tar").write_bytes(tar(rows) + bytes(start * 512))
        done = mmfilter("run", recipe, "--pool", tmp_path / name, "--out", tmp_path / f"out-{name}", "--no-reshard")
        assert done[0] == 0, done[2]
    one, other = (tmp_path / f"out-{name}/subsets/t.npy" for name in "ab")
    code, _, err = mmfilter("subset", one, "&", other)
    assert code == 1 and "--pool-id" in err
    code, _, err = mmfilter("dedup", tmp_path / "out-a", "--against", tmp_path / "out-b", "--local")
    assert code == 1 and "--pool-id" in err
    words_ = ("run", recipe, "--pool", tmp_path / "b", "--out", tmp_path / "out-c", "--no-reshard", "--pool-id", "b")
    assert mmfilter(*words_)[0] == 0
    assert mmfilter("subset", one, "&", tmp_path / "out-c/subsets/t.npy")[:2] == (0, "0 uids, 0 different\n")
    assert mmfilter("subset", one, "|", one)[0] == 0


def test_open_clips_own_code_trains_on_copies_of_a_pool_it_cannot_read(tmp_path):
    from mmfilter.engine import own_shards
    from mmfilter.pairs import source
    from mmfilter.train_options import TrainOptions

    for name, form in (("plain", "image and text alone"), ("fields", "caption in the json"), ("gif", "GIF")):
        (tmp_path / f"{name}.tar").write_bytes(tar(rows_of(POOLS[form])))
        path = str(tmp_path / f"{name}.tar")
        own = own_shards(TrainOptions(path, str(tmp_path), "x"), source(path, 8, True, None))
        assert (own is not None) == (name == "plain")
