"""Decoding away from the model: the same bytes, whoever decodes, also when a decoder dies in the middle."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from jobs_util import recipe_text, results
from tars import jpeg, sample, samples, tar, write_pool

from jobs import resting
from jobs.cluster import Width
from jobs.embed import embed_pool
from mmfilter.embed import load
from mmfilter.errors import StoreError
from mmfilter.feed import Clock, FeedPlan, feed
from mmfilter.fields import ReadOptions
from mmfilter.preprocess import Preparation
from mmfilter.recipe import parse_recipe
from mmfilter.shard import process_shard
from mmfilter.work import plan_work


@pytest.fixture(autouse=True)
def cores():
    """Decoders find cores: workers that rest hold them."""
    resting.dismiss()


class Pixels:
    """A preparation's step: 8 x 8 RGB. At its `at`-th image it ends its process, unless `marker` is there."""

    def __init__(self, marker="", at=0):
        self.marker, self.at, self.seen = str(marker), at, 0

    def __call__(self, image):
        self.seen += 1
        if self.seen == self.at and not os.path.exists(self.marker):
            Path(self.marker).touch()
            os._exit(9)
        return image.convert("RGB").resize((8, 8))


class Counting:
    """Adds a byte to a file for each image."""

    def __init__(self, path):
        self.path = str(path)

    def __call__(self, image):
        with open(self.path, "ab") as stream:
            stream.write(b".")
        return Pixels()(image)


class Refusing:
    def __call__(self, image):
        raise StoreError("the store does not answer")


def plan(step, batch=4):
    how = Preparation((step,), (0.5,) * 3, (0.5,) * 3, False)
    return FeedPlan(ReadOptions(), True, kept=frozenset({"image", "bytes"}), prepare={"p": how}, batch_size=batch)


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "00000000.tar"
    path.write_bytes(tar([*samples(18), *sample(20, image=jpeg()[:90]), *sample(21)[::2], *sample(22)]))
    return str(path)


def drained(batches: Iterator, failures):
    fed = list(batches)
    rows = {name: [v for one in fed for v in one.rows[name]] for name in fed[0].rows}
    rows["image"] = [(image.mode, image.tobytes()) for one in fed for image in one.pixels["image"]]
    rows["bytes"] = [data for one in fed for data in one.pixels["bytes"]]
    return rows, [one.arrays["p"] for one in fed], sorted((f.key, f.status) for f in failures)


def test_a_decoder_that_dies_in_a_shard_is_followed_by_another(shard, tmp_path, ray_here):
    from jobs.decoder import far_feed

    here, there = [], []
    want = drained(feed(shard, plan(Pixels()), here, Clock()), here)
    marker, clock = tmp_path / "died", Clock()
    got = drained(far_feed(1, shard, plan(Pixels(marker, 14)), there, clock), there)
    assert marker.exists(), "nothing died"
    assert got[0] == want[0] and got[2] == want[2] and len(want[2]) == 2
    assert [a.tobytes() for a in got[1]] == [a.tobytes() for a in want[1]]
    assert all(a.flags.writeable for a in got[1]) and clock.seconds["decode"] > 0


def test_what_goes_wrong_at_a_decoder_is_raised_as_if_it_were_here(shard, ray_here):
    from jobs.decoder import far_feed

    with pytest.raises(StoreError, match="does not answer"):
        list(far_feed(1, shard, plan(Refusing()), [], Clock()))


def test_a_stream_that_is_left_sets_its_decoder_free(tmp_path, ray_here):
    """As many decoders as this machine has cores, each left after a batch: the next one finds a core."""
    from jobs.decoder import far_feed

    (path,) = write_pool(tmp_path, 1, 60)
    for _ in range(int(ray_here.cluster_resources()["CPU"]) + 1):
        stream = far_feed(1, path, plan(Counting(tmp_path / "seen"), 2), [], Clock())
        assert len(next(stream).rows["uid"]) == 2
        time.sleep(0.3)
        assert (tmp_path / "seen").stat().st_size < 40, "it waits for its reader"
        (tmp_path / "seen").unlink()
        stream.close()
    assert sum(len(fed.rows["uid"]) for fed in far_feed(1, path, plan(Pixels(), 16), [], Clock())) == 60


def test_without_a_core_for_a_decoder_the_worker_decodes(shard, ray_here, monkeypatch):
    from jobs import decoder

    monkeypatch.setattr(decoder, "PATIENCE", 0.2)
    rows, _, failed = drained(decoder.far_feed(999, shard, plan(Pixels()), failures := [], Clock()), failures)
    assert len(rows["uid"]) == 19 and len(failed) == 2


def test_a_shard_fed_by_a_decoder_has_the_same_bytes(shard, tmp_path, tiny_model, ray_here):
    """With a score of the pixels, which is counted where they are decoded."""
    from jobs.decoder import far_feed

    recipe = parse_recipe(recipe_text(tiny_model), "t")
    embedders = {name: load(name, spec) for name, spec in recipe.embed.items()}
    for out, source in (("here", feed), ("there", partial(far_feed, 1))):
        work = replace(plan_work(recipe, str(tmp_path / out), {"b32": "sha"}), batch_size=4)
        report = process_shard(shard, work, embedders, source)
        assert (report.read, report.ok) == (21, 19)
    assert results(tmp_path / "here") == results(tmp_path / "there")
    commits = [json.loads((tmp_path / f"{o}/metadata/00000000.json").read_text()) for o in ("here", "there")]
    assert commits[0]["counts"] == commits[1]["counts"] and commits[0]["notes"] == commits[1]["notes"]
    assert commits[0]["seconds"].keys() == commits[1]["seconds"].keys()


@pytest.mark.slow
def test_a_worker_with_a_decoder_gives_the_bytes_of_one_process(tmp_path, tiny_model, ray_here):
    paths = write_pool(tmp_path / "pool", 5, 9)
    recipe = parse_recipe(recipe_text(tiny_model), "t")
    embed_pool(recipe, paths, str(tmp_path / "a"), Width(local=True))
    counts = embed_pool(recipe, paths, str(tmp_path / "b"), Width(workers=1, gpus=0, decoders=1))
    assert counts.ok == 45 and results(tmp_path / "a") == results(tmp_path / "b")


def test_decoders_want_ray(tmp_path, mmfilter):
    write_pool(tmp_path / "pool", 1, 1)
    words = ("embed", "no_filter", "--pool", tmp_path / "pool", "--out", tmp_path / "out")
    code, _, said = mmfilter(*words, "--local", "--decoders", 2)
    assert code == 2 and "--decoders" in said and "--local" in said and not (tmp_path / "out").exists()
