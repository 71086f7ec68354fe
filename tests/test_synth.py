"""A generated pool: bytes by seed, img2dataset's layout, labels that agree with what is in it."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mmfilter.errors import ConflictError, UsageError
from mmfilter.synth import KINDS, SynthOptions, generate
from mmfilter.synth.captions import english, short
from mmfilter.synth.draw import render
from mmfilter.synth.noise import make_plan, scene_of
from mmfilter.synth.scenes import SIDE, Group, Scene, make_scene
from mmfilter.synth.shapes import SHAPES, mask
from mmfilter.synth.words import COLOURS, LANGUAGES, NOUNS

N, SEED, SIZE = 400, 5, 96


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    out = str(tmp_path_factory.mktemp("pool"))
    report = generate(out, SynthOptions(samples=N, per_shard=150, seed=SEED, size=SIZE))
    return out, report


@pytest.fixture(scope="module")
def samples(pool):
    """key -> {extension: bytes} of every shard, by plain tarfile."""
    found: dict[str, dict[str, bytes]] = {}
    for name in sorted(os.listdir(pool[0])):
        if name.endswith(".tar"):
            with tarfile.open(os.path.join(pool[0], name)) as tar:
                for member in tar:
                    key, extension = member.name.split(".")
                    found.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return found


@pytest.fixture(scope="module")
def labels(pool):
    return pl.read_parquet(pool[1].labels)


def files(folder):
    return {
        os.path.relpath(os.path.join(base, name), folder): Path(base, name).read_bytes()
        for base, _, names in os.walk(folder)
        for name in names
    }


def picture(sample):
    return Image.open(io.BytesIO(sample["jpg"]))


def test_the_folder_is_what_img2dataset_writes(pool, samples):
    out, report = pool
    assert (report.samples, report.shards) == (N, 3) and sum(report.kinds.values()) == N
    assert sorted(os.listdir(out)) == sorted(
        [f"{s:08d}{end}" for s in range(3) for end in (".tar", ".parquet", "_stats.json")] + ["labels"]
    )
    assert len(samples) == N and all(set(sample) == {"jpg", "txt", "json"} for sample in samples.values())
    for number, count in enumerate([150, 150, 100]):
        stats = json.loads(Path(out, f"{number:08d}_stats.json").read_bytes())
        rows = pl.read_parquet(f"{out}/{number:08d}.parquet").to_dicts()
        assert stats["count"] == stats["successes"] == len(rows) == count
        for row in rows:
            sample = samples[row["key"]]
            assert json.loads(sample["json"]) == row
            assert row["sha256"] == hashlib.sha256(sample["jpg"]).hexdigest()
            assert (row["width"], row["height"]) == picture(sample).size
            assert row["caption"] == sample["txt"].decode() and row["key"].startswith(f"{number:08d}")
            assert len(row["uid"]) == 32 and int(row["uid"], 16) >= 0


def test_a_member_starts_where_a_tar_reader_says(pool):
    """Fixed headers: mtime, owner and mode do not depend on the machine or the clock."""
    with tarfile.open(f"{pool[0]}/00000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.mode, member.uid, member.gid, member.uname) == (0, 0o644, 0, 0, "")


def test_the_labels_are_one_row_a_sample_in_the_shares_asked_for(pool, samples, labels):
    assert labels["key"].to_list() == list(samples) and labels["uid"].n_unique() == N
    assert labels["uid"].to_list() == [json.loads(sample["json"])["uid"] for sample in samples.values()]
    counts = dict(labels["kind"].value_counts().iter_rows())
    assert counts == pool[1].kinds and set(counts) == set(KINDS)
    assert all(abs(counts[kind] - share * N) < 1 for kind, share in KINDS.items())


def test_the_labels_agree_with_the_pool(samples, labels):
    by_uid = {row["uid"]: samples[row["key"]] for row in labels.iter_rows(named=True)}
    for row in labels.iter_rows(named=True):
        sample, kind = by_uid[row["uid"]], row["kind"]
        width, height = picture(sample).size
        text = sample["txt"].decode()
        assert row["match"] == (kind not in ("wrong_caption", "boilerplate", "text_image"))
        assert (row["lang"] in LANGUAGES) == (kind == "other_language")
        if kind not in ("boilerplate", "other_language", "text_image"):
            assert (len(text.split()) == 2) == (kind == "short_caption")
        assert (min(width, height) <= 40) == (kind == "tiny")
        assert (max(width, height) / min(width, height) > 3) == (kind == "narrow")
        assert bool(row["duplicate_of"]) == kind.startswith("duplicate_")
        if kind == "clean":
            assert min(width, height) == SIZE and len(text.split()) > 2 and len(text) > 5


def test_duplicates_look_like_what_they_repeat(samples, labels):
    by_uid = {row["uid"]: samples[row["key"]] for row in labels.iter_rows(named=True)}

    def small(sample):
        return np.asarray(picture(sample).convert("RGB").resize((8, 8), Image.Resampling.BOX), float)

    for row in labels.filter(pl.col("duplicate_of") != "").iter_rows(named=True):
        copy, source = by_uid[row["uid"]], by_uid[row["duplicate_of"]]
        assert (copy["jpg"] == source["jpg"]) == (row["kind"] == "duplicate_exact")
        if row["kind"] != "duplicate_cropped":
            assert abs(small(copy) - small(source)).mean() < 8
        size, whole = picture(copy).size, picture(source).size
        if row["kind"] in ("duplicate_resized", "duplicate_cropped"):
            assert size != whole
        else:
            assert size == whole


def test_a_wrong_caption_is_of_other_shapes_and_colours(samples, labels):
    options = SynthOptions(samples=N, per_shard=150, seed=SEED, size=SIZE)
    plan = make_plan(options)
    for index, row in enumerate(labels.iter_rows(named=True)):
        assert row["kind"] == list(KINDS)[plan.kinds[index]]
        if row["kind"] == "wrong_caption":
            scene, text = scene_of(options, index), samples[row["key"]]["txt"].decode().lower()
            for group in scene.groups:
                nouns = {group.shape, *NOUNS[group.shape][:2]} - {""}
                phrases = [f"{colour} {noun}" for colour in COLOURS[group.colour][1] for noun in nouns]
                assert not any(f"{phrase} " in f"{text} " for phrase in phrases), (text, scene)


def test_the_same_bytes_whatever_the_number_of_workers(pool, tmp_path):
    generate(str(tmp_path), SynthOptions(samples=N, per_shard=150, seed=SEED, size=SIZE, workers=2))
    assert files(tmp_path) == files(pool[0])


def test_another_seed_is_another_pool_and_a_larger_pool_has_the_same_scenes(tmp_path):
    one = generate(str(tmp_path / "a"), SynthOptions(samples=4, seed=1, noise=False, captions=3))
    two = generate(str(tmp_path / "b"), SynthOptions(samples=4, seed=2, noise=False, captions=3))
    three = generate(str(tmp_path / "c"), SynthOptions(samples=6, seed=1, noise=False, captions=3))
    rows = [pl.read_parquet(f"{report.out}/00000000.parquet") for report in (one, two, three)]
    assert not set(rows[0]["sha256"]) & set(rows[1]["sha256"])
    assert rows[2].head(4).equals(rows[0]) and one.kinds == {"clean": 4}
    with tarfile.open(f"{one.out}/00000000.tar") as tar:
        meta = json.load(tar.extractfile("000000000000.json"))
    assert len(meta["captions"]) == 3 and meta["captions"][0] == meta["caption"]


def test_shares_can_be_chosen_and_mistakes_are_named(tmp_path):
    report = generate(str(tmp_path / "a"), SynthOptions(samples=50, noise={"tiny": 0.5}))
    assert report.kinds == {"clean": 25, "tiny": 25}
    for options, words in (
        (SynthOptions(noise={"tinny": 0.5}), "did you mean 'tiny'"),
        (SynthOptions(noise={"tiny": 1.5}), "at most 1"),
        (SynthOptions(samples=0), "samples is 0"),
        (SynthOptions(noise={"wrong_caption": 1.0}), "two clean samples"),
    ):
        with pytest.raises(UsageError, match=words):
            generate(str(tmp_path / "b"), options)
    with pytest.raises(ConflictError, match="00000007"):
        os.rename(tmp_path / "a" / "00000000.tar", tmp_path / "a" / "00000007.tar")
        generate(str(tmp_path / "a"), SynthOptions(samples=50))


def test_every_shape_has_ink_and_differs_from_the_others():
    masks = {name: np.asarray(mask(name, 32), float) / 255 for name in SHAPES}
    assert all(0.08 < ink.mean() < 0.99 for ink in masks.values())
    names = sorted(masks)
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            assert abs(masks[one] - masks[two]).mean() > 0.02, (one, two)


def test_hundreds_of_concepts_and_shapes_that_do_not_overlap():
    from random import Random

    seen = set()
    for seed in range(1500):
        scene = make_scene(Random(seed), 112, 128)
        seen |= {(group.colour, group.shape) for group in scene.groups}
        boxes = [(x, y, x + side, y + side) for _, x, y, side in scene.items]
        assert len(boxes) == sum(group.count for group in scene.groups)
        for i, a in enumerate(boxes):
            assert a[0] >= 0 and a[1] >= 0 and a[2] <= 112 and a[3] <= 128
            assert all(a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for b in boxes[i + 1 :])
    assert len(seen) > 400


def test_a_caption_says_what_is_drawn():
    from random import Random

    scene = Scene(100, 100, "", "blue", (Group(1, "large", "plain", "red", "square"),), "", ((0, 20, 20, 60),))
    pixels = np.asarray(render(scene, Random(0)), int)
    assert abs(pixels[50, 50] - COLOURS["red"][0]).max() <= 12 and abs(pixels[3, 3] - COLOURS["blue"][0]).max() <= 12
    texts = {english(scene, Random(seed)).lower() for seed in range(200)}
    assert len(texts) > 30 and all("square" in text and ("red" in text or "crimson" in text) for text in texts)
    assert short(scene, Random(0)).lower() == "red square" and set(SIDE) == {"small", "medium", "large"}
