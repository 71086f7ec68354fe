"""open_clip's training code as the engine: its words, its shards, its log; and runs of it, on one process and two."""

import json
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from train_util import make_pool, uids_of, write_config

from mmfilter import engine
from mmfilter.checkpoint import load_checkpoint
from mmfilter.engine import Engine, Job
from mmfilter.engine_run import LINE, asked, planned, train_with_open_clip
from mmfilter.errors import ConflictError, MMFilterError, UsageError
from mmfilter.pairs import chosen
from mmfilter.samples import read_samples
from mmfilter.schedule import Schedule, write_schedule
from mmfilter.subset import Subset
from mmfilter.train import Augment, TrainOptions, sources

PREPROCESS = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(str(tmp_path_factory.mktemp("pool")))


@pytest.fixture(scope="module")
def options(pool, tmp_path_factory):
    model = write_config(tmp_path_factory.mktemp("config"))
    given = {"samples": 640, "batch": 32, "lr": 3e-3, "vocabulary": 60, "seed": 4, "augment": Augment(0.9)}
    return TrainOptions(pool, "", model, **given)


def words_of(options, wide, data=("a.tar", "b.tar"), weights=""):
    """The words as open_clip_train reads them."""
    from open_clip_train.params import parse_args

    return parse_args(engine.arguments(options, wide, PREPROCESS, weights, list(data)))


def test_open_clip_understands_the_words(options):
    wide = Engine(processes=4, workers=3, epochs=2, more=("--precision", "amp", "--grad-checkpointing"))
    args = words_of(replace(options, bf16=True, augment=Augment(0.5, 0.2)), wide, weights="/w.pt")
    assert (args.batch_size, args.epochs, args.train_num_samples) == (8, 2, 320) and args.workers == 3
    assert args.precision == "amp" and args.grad_checkpointing and args.pretrained == "/w.pt"
    assert args.train_data == "a.tar::b.tar" and args.dataset_resampled and args.local_loss and args.gather_with_grad
    assert args.aug_cfg == {"scale": (0.25, 1.0), "color_jitter": (0.2, 0.2, 0, 0), "color_jitter_prob": 1.0}
    assert (args.lr, args.wd, args.beta1, args.beta2, args.eps) == (3e-3, 0.1, 0.9, 0.98, 1e-6)
    assert args.image_mean == [0.5] * 3 and args.image_resize_mode == "squash" and args.seed == 4
    one = words_of(options, Engine())
    assert one.precision == "fp32" and not one.local_loss and not one.pretrained and one.report_to == ""


@pytest.mark.parametrize("samples, batch, epochs, workers", [(640, 32, 1, 2), (1000, 32, 3, 4), (33, 32, 1, 0)])
def test_steps_are_those_of_open_clips_loader(options, samples, batch, epochs, workers):
    from open_clip_train.data import get_wds_dataset

    wide, given = Engine(workers=workers, epochs=epochs), replace(options, samples=samples, batch=batch)
    args = words_of(given, wide)
    args.world_size = 1
    loader = get_wds_dataset(args, lambda image: image, is_train=True, tokenizer=lambda text: [text]).dataloader
    assert engine.steps(given, wide) == loader.num_batches
    assert args.warmup == max(1, math.floor(loader.num_batches * epochs * 0.05))


def test_the_command_is_torchruns_for_several_processes(options, tmp_path):
    assert "torch.distributed.run" not in engine.command("job.json", 1)
    assert " ".join(engine.command("job.json", 8)[1:]) == (
        "-m torch.distributed.run --standalone --nproc_per_node 8 -m mmfilter.open_clip_run job.json"
    )
    told = planned(replace(options, out=str(tmp_path / "out"), holdout=0.1), Engine(processes=2, workers=0, epochs=2))
    assert "20 steps of 32 pairs in 2 epochs; the pairs are copied" in told and "--nproc_per_node 2" in told
    assert not (tmp_path / "out").exists()


def keys(paths):
    return Counter(sample.uid for path in paths for sample in read_samples(path))


def test_the_pools_own_shards_serve_as_they_are_or_are_copied(pool, options, tmp_path):
    given = replace(options, out=str(tmp_path))
    own, epochs = engine.shards(given, Engine(), sources(given, PREPROCESS)[0], engine.copy_here)
    assert own == [f"{pool}/{s:08d}.tar" for s in range(3)] and epochs == []
    uids = uids_of(pool)
    Subset.from_uids([*uids[:50], *uids[:5]]).write(str(tmp_path / "s.npy"))
    given = replace(given, subset=str(tmp_path / "s.npy"), holdout=0.3)
    source, held = sources(given, PREPROCESS)
    copied, _ = engine.shards(given, Engine(workers=1), source, engine.copy_here)
    rest = keys(copied)
    assert rest == Counter(pair.uid for pair in source) and 40 > len(rest) > 25 and len(copied) == 4
    assert not set(rest) & {pair.uid for pair in held} and set(rest) | {pair.uid for pair in held} == set(uids[:50])
    odd = tmp_path / "a{b}"
    odd.mkdir()
    assert engine.own_shards(options, replace(source, paths=[f"{odd}/0.tar"])) is None
    nothing = replace(source, keep=Counter().__getitem__)
    with pytest.raises(UsageError, match="no pair to train on"):
        engine.shards(given, Engine(), nothing, engine.copy_here)


def test_each_epoch_of_a_schedule_has_shards_of_its_own(pool, options, tmp_path):
    uids = uids_of(pool)
    parts = [uids[:20], [*uids[20:30], *uids[20:30]]]
    path = str(tmp_path / "plan.schedule.json")
    write_schedule(path, Schedule("rs2", 0, [Subset.from_uids(part) for part in parts]))
    given, wide = asked(replace(options, out=str(tmp_path), schedule=path, samples=0, batch=8), Engine(workers=1))
    assert (given.samples, wide.epochs) == (40, 2)
    first, epochs = engine.shards(given, wide, sources(given, PREPROCESS)[0], engine.copy_here)
    assert "::".join(first) == epochs[0] and [keys(epoch.split("::")) for epoch in epochs] == list(map(Counter, parts))


def test_a_job_is_not_mixed_with_another(tmp_path):
    path, job = str(tmp_path / "job.json"), Job("c.json", "cpu", ["--lr", "1"], [])
    engine.write_job(path, job, resume=False)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/out.log").write_text("it failed at once")
    engine.write_job(path, replace(job, arguments=["--lr", "2"]), resume=False)
    assert (
        not (tmp_path / "run/out.log").exists() and "2" in json.loads((tmp_path / "job.json").read_text())["arguments"]
    )
    (tmp_path / "run/checkpoints" / engine.LATEST).write_bytes(b"")
    with pytest.raises(ConflictError, match="--resume"):
        engine.write_job(path, replace(job, arguments=["--lr", "2"]), resume=False)
    with pytest.raises(ConflictError, match="other arguments"):
        engine.write_job(path, job, resume=True)
    engine.write_job(path, replace(job, arguments=["--lr", "2"]), resume=True)


@pytest.mark.parametrize("loss", ["4.7094", "1.2e-05", "nan"])
def test_a_line_of_the_log_is_read(loss):
    found = LINE.search(
        "2026-01-01,00:00:00 | INFO | Train Epoch: 1 [ 64/640 (10%)] Data (t): 0.010 Batch (t): 0.080, 386.6/s, "
        f"386.6/s/gpu LR: 0.003000 Logit Scale: 14.3 Contrastive_loss: 9.9 (9.9) Loss: {loss} (4.7094)"
    )
    assert found and found.groups() == ("1", "64", "640", "386.6", loss)


@pytest.mark.parametrize(
    "changes, wide, words",
    [
        ({}, Engine(processes=3), "divide evenly among 3"),
        ({"augment": Augment(0.9, 0.0, True)}, Engine(), "mirrors nothing"),
        ({}, Engine(epochs=21), "each of 21 epochs"),
    ],
)
def test_what_open_clip_cannot_do_is_named(options, tmp_path, changes, wide, words):
    with pytest.raises(UsageError, match=words):
        asked(replace(options, out=str(tmp_path), **changes), wide)


def test_options_of_the_other_engine_are_named(pool, tmp_path, mmfilter):
    code, _, said = mmfilter("train", "--pool", pool, "--out", tmp_path / "o", "--processes", "2", "--prepare")
    assert code == 2 and "--processes, --prepare: only with --engine open_clip" in said


@pytest.mark.slow
def test_a_training_by_the_command_its_folder_and_going_on(pool, options, tmp_path, mmfilter_process):
    out = tmp_path / "out"
    train = ("train", "--pool", pool, "--out", out, "--model", options.model, "--engine", "open_clip", "--lr", "0.003")
    words = (*train, "--batch-size", "32", "--vocabulary", "60", "--workers", "0", "--samples", "640", "--epochs", "2")
    code, said, error = mmfilter_process(*words, "--holdout", "0.1")
    assert code == 0, error
    assert re.search(r"20 steps, .* AUC of true against swapped captions on the hold-out", said)
    told = json.loads((out / "train.json").read_bytes())
    assert told["loss"][-1][:2] == [20, 640] and told["loss"][-1][2] < 0.9 * told["loss"][0][2]
    assert told["engine"]["epochs"] == 2 and "--train-data" in told["engine"]["arguments"] and len(told["data"]) == 3
    code, _, error = mmfilter_process("run", out / "recipe.yaml", "--pool", pool, "--out", tmp_path / "run", "--local")
    assert code == 0 and len(Subset.read(str(tmp_path / "run/subsets/own_dfn.npy"))) == 36, error
    before = load_checkpoint(str(out))[0].state_dict()
    assert mmfilter_process(*words, "--holdout", "0.1")[0] != 0
    latest = out / "open_clip/run/checkpoints" / engine.LATEST
    torch.save({**torch.load(latest, weights_only=True), "epoch": 1}, latest)  # as if it had stopped there
    code, _, error = mmfilter_process(*words, "--holdout", "0.1", "--resume")
    assert code == 0 and "train step 11  " in error and "train step 1  " not in error, error
    after = load_checkpoint(str(out))[0].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert [row[0] for row in json.loads((out / "train.json").read_bytes())["loss"]] == list(range(1, 21))


@pytest.mark.slow
def test_two_processes_and_a_schedule_train_on_a_cpu(pool, options, tmp_path):
    uids = uids_of(pool)
    path = str(tmp_path / "plan.schedule.json")
    write_schedule(path, Schedule("rs2", 0, [Subset.from_uids(uids[:100]), Subset.from_uids(uids[100:])]))
    given = replace(options, out=str(tmp_path / "out"), schedule=path, samples=480)
    report = train_with_open_clip(given, Engine(processes=2, workers=0))
    assert report.steps == 16 and report.loss[-1][2] < report.loss[0][2]
    assert np.isfinite([row[2] for row in report.loss]).all()
    with pytest.raises(MMFilterError, match="ended with"):
        train_with_open_clip(replace(given, out=str(tmp_path / "b")), Engine(workers=0, more=("--no-such",)))
    assert chosen(str(tmp_path / "plan/epoch-0000.npy"))(uids[0]) == 1
