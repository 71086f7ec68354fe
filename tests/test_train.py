"""Training through its door: the same bytes for a seed, a folder that open_clip reads, a loss that falls."""

import gzip
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from train_util import make_pool, write_config

from mmfilter import bpe
from mmfilter.auc import auc
from mmfilter.checkpoint import checkpoint_config, load_checkpoint
from mmfilter.errors import DataError, UsageError
from mmfilter.pairs import batches, chosen, part, read, shuffled, source
from mmfilter.steps import encode_text, rate, similarities
from mmfilter.train import Augment, TrainOptions, train


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(str(tmp_path_factory.mktemp("pool")))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def options(pool, config):
    def make(out, **changes):
        given = {"pool": pool, "model": config, "samples": 1280, "batch": 32, "vocabulary": 120, "lr": 3e-3, "seed": 4}
        return TrainOptions(**{**given, "out": str(out), "augment": Augment(0.9, 0.1, True), **changes})

    return make


@pytest.fixture(scope="module")
def trained(options, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    rows: list[dict] = []
    return str(out), train(options(out, holdout=0.2), rows.append), rows


def hashes(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != "train.json"}


def test_the_loss_falls_and_the_hold_out_is_told_apart(trained):
    _, report, rows = trained
    assert report.loss[-1][2] < 0.8 * report.loss[0][2] and report.steps == 40
    assert report.auc is not None and report.auc > 0.55
    assert rows[-1]["step"] == rows[-1]["steps"] == 40 and report.loss[-1][:2] == (40, 1280)


def test_the_folder_says_how_it_was_made(trained):
    folder, report, _ = trained
    assert sorted(os.listdir(folder)) == [
        "bpe.txt.gz", "open_clip_config.json", "open_clip_model.safetensors", "recipe.yaml", "train.json",
    ]  # fmt: skip
    told = json.loads(Path(folder, "train.json").read_bytes())
    assert told["options"]["seed"] == 4 and told["auc"] == report.auc and told["versions"]["torch"]
    assert [list(row) for row in report.loss] == told["loss"] and len(told["data"]) == 3
    cfg = json.loads(Path(folder, "open_clip_config.json").read_bytes())["model_cfg"]["text_cfg"]
    assert cfg["tokenizer_kwargs"] == {"bpe_path": "bpe.txt.gz"} and cfg["vocab_size"] <= 512 + 120 + 2


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(options, tmp_path):
    micro = {"samples": 128, "vocabulary": 40}
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 5})):
        train(options(tmp_path / name, **micro, **changes))
    one, two, three = (hashes(tmp_path / name) for name in "abc")
    assert one == two
    assert one["open_clip_model.safetensors"] != three["open_clip_model.safetensors"]


def test_plain_open_clip_reads_the_folder_and_gives_the_same_embeddings(trained, tmp_path):
    import open_clip

    moved = shutil.copytree(trained[0], tmp_path / "moved")
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{moved}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{moved}", bpe_path=str(moved / "bpe.txt.gz"))
    ours, own_transform, own_tokenizer = load_checkpoint(str(moved))
    texts = ["three red stars on a blue background", "ein roter Stern", ""]
    assert torch.equal(tokenizer(texts), own_tokenizer(texts))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8))
    eval_transform = open_clip.image_transform(32, is_train=False, resize_mode="squash")
    assert torch.equal(own_transform(image), eval_transform(image)) and transform is not None
    with torch.inference_mode():
        x = own_transform(image)[None]
        assert torch.equal(theirs.eval().encode_image(x), ours.encode_image(x))
        assert torch.equal(theirs.encode_text(tokenizer(texts)), ours.encode_text(own_tokenizer(texts)))


def test_text_without_its_padding_is_the_same_text(trained):
    model, _, tokenizer = load_checkpoint(trained[0])
    tokens = tokenizer(["a star", "two blue fish below a large green house on a wooden table"])
    with torch.inference_mode():
        full = model.encode_text(tokens, normalize=True)
        assert torch.allclose(encode_text(model, tokens), full, atol=1e-6)
        assert model.text.attn_mask.shape == (32, 32)


def test_training_goes_on_from_a_folder(trained, options, tmp_path):
    more = train(options(tmp_path, model=trained[0], vocabulary=0, samples=128, lr=1e-4))
    assert more.loss[-1][2] < trained[1].loss[0][2] * 0.85
    assert checkpoint_config(str(tmp_path)).tokenizer.vocab_size == checkpoint_config(trained[0]).tokenizer.vocab_size


def test_only_the_subset_is_trained_on(pool, options, tmp_path):
    uids = pl.concat([pl.read_parquet(f"{pool}/{s:08d}.parquet") for s in range(3)])["uid"].to_list()
    few = sorted(uids)[:40]
    subset = str(tmp_path / "few.npy")
    np.save(subset, np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in few], "u8,u8"))
    assert sorted(pair.uid for pair in source(pool, 8, True, chosen(subset))) == few
    np.save(subset, np.array([{"pickled": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a subset"):
        train(options(tmp_path / "out", subset=subset))


def test_a_pool_larger_than_the_memory_is_streamed_and_every_pair_comes(pool):
    everything = {pair.uid for pair in source(pool, 8, True, None)}
    for memory in (1 << 30, 50 * 3 * 8 * 8):
        feed = shuffled(source(pool, 8, True, None), np.random.default_rng(1), memory)
        first = [next(feed).uid for _ in range(240 * 3)]
        again = shuffled(source(pool, 8, True, None), np.random.default_rng(1), memory)
        assert set(first) == everything and first == [next(again).uid for _ in range(240 * 3)]
        assert first[:240] != sorted(first[:240])
    pixels, captions = next(batches(feed, 7, np.random.default_rng(2)))
    assert pixels.shape == (7, 8, 8, 3) and pixels.dtype == np.uint8 and len(captions) == 7


def test_every_caption_of_a_sample_is_used(pool):
    rows = list(read(f"{pool}/00000000.tar"))
    assert len(rows) == 80 and all(len(captions) == 2 for _, _, captions in rows)


def test_the_hold_out_depends_on_the_uid_alone():
    uids = [f"{k:032x}" for k in range(4000)]
    one, two = part(0.25, 0), part(0.25, 1)
    kept = [uid for uid in uids if one(uid)]
    assert abs(len(kept) - 1000) < 120 and kept == [uid for uid in uids if one(uid)]
    assert kept != [uid for uid in uids if two(uid)]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model": "ViT-B-23"}, "did you mean 'ViT-B-32'"),
        ({"model": "nowhere.json"}, "no file nowhere.json"),
        ({"samples": 3}, "at least one batch"),
        ({"pool": "nowhere/*.tar"}, "no shard matches"),
        ({"holdout": 2.0}, "holdout is 2.0"),
    ],
)
def test_mistakes_are_named(options, tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        train(options(tmp_path, **changes))


def test_an_unreadable_sample_is_counted_not_lost(pool, options, tmp_path):
    data = bytearray(Path(pool, "00000000.tar").read_bytes())
    data[512 + 200 : 512 + 1200] = bytes(1000)  # inside the first picture
    data[-3000:] = b""  # and the end is gone, with what the last sample had there
    Path(tmp_path, "00000000.tar").write_bytes(data)
    report = train(options(tmp_path / "out", pool=str(tmp_path / "00000000.tar"), samples=64, vocabulary=10))
    assert sum(report.failed.values()) >= 1 and set(report.failed) <= {
        "corrupt_image",
        "truncated_image",
        "truncated",
        "missing_json",
    }
    assert json.loads(Path(tmp_path, "out", "train.json").read_bytes())["failed"] == report.failed


def test_the_demo_configuration_has_a_name(options, tmp_path):
    report = train(options(tmp_path, model="demo", samples=8, batch=4, vocabulary=10))
    assert report.parameters < 4_000_000


def test_a_folder_that_lacks_a_part_is_named(trained, tmp_path):
    with pytest.raises(UsageError, match="not a model folder"):
        checkpoint_config(str(tmp_path))
    for missing, words in (("bpe.txt.gz", "vocabulary is missing"), ("open_clip_model.safetensors", "no weights")):
        folder = shutil.copytree(trained[0], tmp_path / missing)
        os.unlink(folder / missing)
        with pytest.raises(DataError, match=words):
            checkpoint_config(str(folder))


def test_the_rate_rises_then_falls():
    rates = [rate(step, 100, 0.1) for step in range(1, 101)]
    assert rates[9] == 1 == max(rates) and rates[0] == 0.1 and rates[-1] < 1e-9
    assert rates[10:] == sorted(rates[10:], reverse=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_the_auc_is_the_share_of_ordered_pairs(rows):
    true = [score for score, label in rows if label]
    false = [score for score, label in rows if not label]
    if not true or not false:
        with pytest.raises(ValueError, match="each class"):
            auc(*map(np.array, zip(*rows, strict=True)))
        return
    wins = sum((a > b) + 0.5 * (a == b) for a in true for b in false)
    assert auc(*map(np.array, zip(*rows, strict=True))) == pytest.approx(wins / len(true) / len(false))


def naive_merges(words, count):
    """Byte-pair encoding with every pair counted anew each time."""
    learned = []
    while len(learned) < count:
        pairs: dict[tuple[str, str], int] = {}
        for symbols, number in words:
            for pair in itertools.pairwise(symbols):
                pairs[pair] = pairs.get(pair, 0) + number
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        learned.append(best)
        merged = []
        for symbols, number in words:
            row, k = [], 0
            while k < len(symbols):
                hit = tuple(symbols[k : k + 2]) == best
                row.append("".join(best) if hit else symbols[k])
                k += 2 if hit else 1
            merged.append((row, number))
        words = merged
    return learned


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("aabc ", max_size=12), max_size=12), st.integers(0, 30))
def test_the_vocabulary_is_that_of_plain_byte_pair_encoding(texts, count):
    words: dict[str, int] = {}
    for text in texts:
        for word in text.split():
            words[word] = words.get(word, 0) + 1
    plain = [([*word[:-1], word[-1] + "</w>"], number) for word, number in sorted(words.items())]
    learned = bpe.learn(texts, count)
    assert learned == naive_merges(plain, count) == bpe.learn(reversed(texts), count)


def test_open_clip_reads_the_vocabulary_and_every_word_comes_back(tmp_path):
    from open_clip.tokenizer import SimpleTokenizer

    texts = ["red star", "red stars", "étoile rouge", "星星 and a red car"] * 3
    for count in (0, 25):
        merges = bpe.learn(texts, count)
        path = tmp_path / f"{count}.gz"
        path.write_bytes(bpe.dump(merges))
        tokenizer = SimpleTokenizer(str(path), context_length=40)
        assert tokenizer.vocab_size == bpe.vocabulary_size(merges)
        for text in texts:
            ids = [token for token in tokenizer(text)[0].tolist() if token][1:-1]
            assert tokenizer.decode(ids).strip() == text
    assert gzip.decompress(bpe.dump([])).decode() == bpe.HEADER and bpe.dump([]) == bpe.dump([])


def test_similarities_are_cosines(trained, pool):
    kept = list(source(pool, 32, True, None))[:10]
    pixels = np.stack([pair.pixels for pair in kept])
    texts = [pair.captions[0] for pair in kept]
    found = similarities(trained[0], pixels, texts)
    assert found.shape == (10,) and np.abs(found).max() <= 1 + 1e-6
    assert np.allclose(found, similarities(trained[0], pixels, texts, batch=3), atol=1e-5)
