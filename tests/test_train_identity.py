"""An old training is never shown for another: its subset, pool, start model and weights are known by content."""

import json
import os
from pathlib import Path

import pytest
from command import command
from train_util import make_pool, uids_of, write_config

from mmfilter.subset import Subset

SMALL = ("--samples", 32, "--scale", "micro", "--seeds", 1, "--local")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranked")
    make_pool(str(folder / "pool"))
    uids = uids_of(folder / "pool")
    Subset.from_uids(uids[:60]).write(str(folder / "a.npy"))
    Subset.from_uids(uids[60:120]).write(str(folder / "b.npy"))
    done = command("rank", folder / "a.npy", "--pool", folder / "pool", "--out", folder / "out", *SMALL)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def ranked(place, tmp_path):
    import shutil

    shutil.copytree(place, tmp_path / "copy", copy_function=shutil.copy2)
    return tmp_path / "copy"


def rank(folder, *words):
    done = command("rank", folder / "a.npy", "--pool", folder / "pool", "--out", folder / "out", *SMALL, *words)
    return done


def model(folder, arm="a"):
    return folder / "out/trials" / arm / "seed-0/model"


def test_another_subset_of_the_same_name_and_count_is_not_shown_the_old_training(ranked):
    assert rank(ranked).code == 0
    os.replace(ranked / "b.npy", ranked / "a.npy")
    done = rank(ranked)
    assert done.code == 1 and "'a' has other samples now" in done.err


def test_a_trained_model_says_what_it_is_and_what_it_was_trained_on(place):
    told = json.loads((model(place) / "train.json").read_text())
    weights = model(place) / "open_clip_model.safetensors"
    assert told["weights"]["bytes"] == weights.stat().st_size and len(told["weights"]["sha256"]) == 64
    assert told["made_from"]["subset"] == Subset.read(str(place / "a.npy")).digest
    assert set(told["made_from"]) == {
        *("pool", "subset", "schedule", "weights", "architecture", "preprocessing", "vocabulary"),
    }


def test_another_pool_is_a_conflict(ranked):
    path = ranked / "pool/00000000.tar"
    os.utime(path, ns=(1, 1))
    done = rank(ranked)
    assert done.code == 1 and "another pool (its shards are others, or were written since)" in done.err


def test_another_start_model_is_a_conflict(ranked):
    path = ranked / "out/start/model.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.1, 0.1]
    path.write_text(json.dumps(config))
    done = rank(ranked)
    assert done.code == 1 and "another start model (its preprocessing)" in done.err


@pytest.mark.parametrize("how", ["truncated", "flipped", "deleted"])
def test_weights_that_are_not_what_was_written_are_trained_again(ranked, how):
    weights = model(ranked) / "open_clip_model.safetensors"
    data = weights.read_bytes()
    flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    {"truncated": lambda: weights.write_bytes(data[:-9]), "flipped": lambda: weights.write_bytes(flipped)}.get(
        how, weights.unlink
    )()
    shown = command("leaderboard", ranked / "out")
    assert shown.code == (0 if how == "flipped" else 1)
    assert how == "flipped" or "open_clip_model.safetensors: it " in shown.err
    used = command("evaluate", model(ranked), "--tasks", "scenes", "--out", ranked / "eval")
    assert used.code != 0 and "open_clip_model.safetensors" in used.err + "no weights"
    assert rank(ranked).code == 0
    assert weights.read_bytes() == data


def test_results_of_other_weights_are_not_shown(ranked):
    path = ranked / "out/trials/a/seed-0/evaluate.json"
    told = json.loads(path.read_text())
    told["model"]["sha256"] = "0" * 64
    path.write_text(json.dumps(told))
    done = command("leaderboard", ranked / "out")
    assert done.code == 1 and "its results are of other weights" in done.err


def test_a_trial_of_another_subset_is_not_shown(ranked):
    path = model(ranked) / "train.json"
    told = json.loads(path.read_text())
    told["made_from"]["subset"] = "0" * 64
    path.write_text(json.dumps(told))
    done = command("leaderboard", ranked / "out")
    assert done.code == 1 and "was trained on another subset than the 'a' of" in done.err
    assert rank(ranked).code == 1


def test_a_random_draw_that_was_damaged_is_drawn_again(ranked):
    path = ranked / "out/subsets/random-60-seed-0.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-16])
    assert rank(ranked).code == 0
    assert path.read_bytes() == data


def test_trials_of_an_earlier_version_are_read(ranked):
    record = json.loads((ranked / "out/rank.json").read_text())
    del record["made_from"]
    for arm in record["arms"]:
        del arm["sha256"]
    (ranked / "out/rank.json").write_text(json.dumps(record))
    for path in (ranked / "out/trials").rglob("train.json"):
        told = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in told.items() if k not in ("weights", "made_from")}))
    assert command("leaderboard", ranked / "out").code == 0
    assert rank(ranked).code == 0


def test_a_training_that_is_killed_leaves_no_train_json_of_an_earlier_one(place, tmp_path, monkeypatch):
    words = ("train", "--pool", place / "pool", "--model", write_config(tmp_path), "--out", tmp_path / "m")
    words = (*words, "--samples", 32, "--batch-size", 16, "--vocabulary", 80)
    assert command(*words).code == 0

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmfilter.train.Trainer.fit", killed)
    with pytest.raises(KeyboardInterrupt):
        from mmfilter.train import train
        from mmfilter.train_options import TrainOptions

        train(TrainOptions(str(place / "pool"), str(tmp_path / "m"), str(tmp_path / "micro.json"), vocabulary=80))
    assert not Path(tmp_path / "m/train.json").exists()
