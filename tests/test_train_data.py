"""What a training sees, and from where it starts: repeats, schedules, one caption, weights by name or file."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from train_util import make_pool, uids_of, write_config

from mmfilter import start
from mmfilter.checkpoint import load_checkpoint
from mmfilter.errors import DataError, MMFilterError, UsageError
from mmfilter.hub import nothing_fetched
from mmfilter.pairs import chosen, scheduled, source
from mmfilter.recipe import load_recipe
from mmfilter.schedule import Schedule, write_schedule
from mmfilter.start import configuration
from mmfilter.subset import Subset
from mmfilter.train import Augment, TrainOptions, train, worked_out


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(str(tmp_path_factory.mktemp("pool")))


@pytest.fixture(scope="module")
def options(pool, tmp_path_factory):
    model = write_config(tmp_path_factory.mktemp("config"))
    return TrainOptions(pool, "", model, samples=64, batch=16, lr=3e-3, vocabulary=40, seed=4, augment=Augment(1.0))


def plan(folder, *epochs):
    path = str(folder / "plan.schedule.json")
    write_schedule(path, Schedule("rs2", 0, [Subset.from_uids(list(uids)) for uids in epochs]))
    return path


def test_a_uid_that_stands_twice_is_seen_twice_an_epoch(pool, tmp_path):
    uids = uids_of(pool)
    wanted = [*uids[:30], *uids[:10], uids[0], "f" * 32]  # the last one is not in the pool
    Subset.from_uids(wanted).write(str(tmp_path / "s.npy"))
    seen = Counter(pair.uid for pair in source(pool, 8, True, chosen(str(tmp_path / "s.npy"))))
    assert seen == Counter(wanted[:-1])


@pytest.mark.parametrize("memory", [1 << 30, 20 * 3 * 8 * 8, 1])
def test_each_epoch_is_its_subset_and_then_they_begin_again(pool, memory):
    uids = uids_of(pool)
    epochs = [Counter(uids[:70]), Counter([*uids[60:130], *uids[60:80]]), Counter(uids[200:203])]
    sources = [source(pool, 8, True, epoch.__getitem__) for epoch in epochs]
    feed = scheduled(sources, np.random.default_rng(0), memory)
    again = scheduled(sources, np.random.default_rng(0), memory)
    for epoch in [*epochs, *epochs]:
        got = [next(feed).uid for _ in range(epoch.total())]
        assert Counter(got) == epoch and got == [next(again).uid for _ in range(epoch.total())]


def test_a_schedule_without_a_pair_ends(pool):
    with pytest.raises(UsageError, match="none of its subsets has a pair"):
        next(scheduled([source(pool, 8, True, Counter().__getitem__)] * 2, np.random.default_rng(0), 1 << 20))


def test_a_schedule_is_trained_on_epoch_by_epoch(pool, options, tmp_path, monkeypatch):
    uids = uids_of(pool)
    path = plan(tmp_path, uids[:48], uids[48:80])
    seen: list[str] = []
    monkeypatch.setattr("mmfilter.pairs.batches", watched(seen))
    report = train(replace(options, out=str(tmp_path / "out"), schedule=path, samples=0, holdout=0.0))
    assert report.steps == 5 and set(seen[:48]) == set(uids[:48]) and set(seen[48:]) == set(uids[48:80])
    assert worked_out(replace(options, schedule=path, samples=0)).samples == 80
    with pytest.raises(UsageError, match="leave out 'subset'"):
        train(replace(options, out=str(tmp_path / "no"), schedule=path, subset="x.npy", samples=0))
    (tmp_path / "plan" / "epoch-0001.npy").unlink()
    with pytest.raises(DataError, match="is not there"):
        train(replace(options, out=str(tmp_path / "no"), schedule=path, samples=0))


def watched(seen):
    """pairs.batches that notes the uids."""
    from mmfilter.pairs import batches

    def noting(feed, size, rng):
        return batches((seen.append(pair.uid) or pair for pair in feed), size, rng)

    return noting


def test_the_schedule_by_the_command(pool, options, tmp_path, mmfilter):
    path = plan(tmp_path, uids_of(pool)[:32], uids_of(pool)[32:64])
    words = ("train", "--pool", pool, "--out", tmp_path / "out", "--model", options.model, "--schedule", path)
    words = (*words, "--vocabulary", "40")
    code, said, _ = mmfilter(*words, "--batch-size", "16", "--dry-run")
    assert code == 0 and "4 steps of 16 pairs" in said and not (tmp_path / "out").exists()
    code, said, _ = mmfilter(*words, "--batch-size", "16")
    assert code == 0 and "4 steps" in said
    told = json.loads((tmp_path / "out/train.json").read_bytes())
    assert told["options"]["schedule"] == path and told["options"]["samples"] == 64


def test_one_caption_is_the_samples_text(pool):
    many, one = source(pool, 8, True, None), source(pool, 8, True, None)
    one.one_caption = True
    first = [(len(pair.captions), pair.captions[0]) for pair in many][:20]
    assert all(count == 2 for count, _ in first)
    assert [pair.captions for pair in one][:20] == [(text,) for _, text in first]


def test_a_recipe_stands_beside_the_weights(options, tmp_path):
    out = tmp_path / "a model"
    train(replace(options, out=str(out), samples=32))
    recipe = load_recipe(str(out / "recipe.yaml"))
    assert recipe.embed["dfn"].folder == f"{out}/." and recipe.scores[0].columns == ("clip_dfn_similarity_score",)
    moved = shutil.move(out, tmp_path / "moved")
    assert load_recipe(f"{moved}/recipe.yaml").embed["dfn"].folder == f"{moved}/."
    assert "seed 4" in yaml.safe_load(Path(moved, "recipe.yaml").read_text())["about"]


def test_weights_to_begin_with_are_a_file(options, tmp_path):
    train(replace(options, out=str(tmp_path / "a"), samples=32))
    for name in ("open_clip_model.safetensors", "weights.pt"):
        path = tmp_path / "a" / name
        if name.endswith(".pt"):
            torch.save(load_checkpoint(str(tmp_path / "a"))[0].state_dict(), path)
        config = str(tmp_path / "a/open_clip_config.json")
        more = replace(options, model=config, vocabulary=0, pretrained=str(path), lr=0.0, samples=16)
        train(replace(more, out=str(tmp_path / "b")))
        one, two = (load_checkpoint(str(tmp_path / folder))[0].visual.state_dict() for folder in "ab")
        assert all(torch.equal(one[key], two[key]) for key in one if "batches" not in key and "running" not in key)
    with pytest.raises(DataError, match="not the weights"):
        train(replace(more, model=options.model, vocabulary=10, out=str(tmp_path / "c")))


def test_a_tag_brings_its_preprocessing_and_its_activation(monkeypatch):
    tag = {"quick_gelu": True, "mean": [0.5] * 3}
    monkeypatch.setattr(start, "find", lambda spec: ("ViT-B-32", "/w.safetensors", tag))
    config, weights = configuration("ViT-B-32", "openai")
    assert config["model_cfg"]["quick_gelu"] is True and weights == "/w.safetensors"
    assert config["preprocess_cfg"]["mean"] == [0.5] * 3 and "quick_gelu" not in config["preprocess_cfg"]
    assert "quick_gelu" not in configuration("ViT-B-32")[0]["model_cfg"]


@pytest.mark.parametrize(
    "model, pretrained, error, words",
    [
        ("ViT-B-32", "opnai", UsageError, "did you mean 'openai'"),
        ("ViT-B-32", "nowhere.pt", UsageError, "there is no file"),
        ("demo", "openai", UsageError, "has no weights called"),
        ("FOLDER", "openai", UsageError, "brings its own weights"),
        ("ViT-B-32", "openai", MMFilterError, "not on this machine"),
        ("hf-hub:nobody/nothing", "", MMFilterError, "not on this machine"),
    ],
)
def test_a_start_that_cannot_be_is_named(tmp_path, monkeypatch, model, pretrained, error, words):
    monkeypatch.setattr("mmfilter.hub._cached", lambda repo, file: None)
    with nothing_fetched(), pytest.raises(error, match=words):
        configuration(str(tmp_path) if model == "FOLDER" else model, pretrained)
