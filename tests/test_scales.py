"""Scales: DataComp's settings as open_clip's own parser reads them, and what a dry run prints."""

import pytest

from mmfilter import engine
from mmfilter.checkpoint import build_model
from mmfilter.errors import UsageError
from mmfilter.scales import SCALES, engine_of, find_scale, training
from mmfilter.start import configuration
from mmfilter.subset import Subset
from mmfilter.synth import SynthOptions, generate
from mmfilter.trials import pool_uids

# name: samples, model, batch, peak learning rate, warm-up steps, beta2 (0.98 is open_clip's default for a ViT)
DATACOMP = {
    "small": (12_800_000, "ViT-B-32", 4096, 5e-4, 500, 0.98),
    "medium": (128_000_000, "ViT-B-32", 4096, 5e-4, 500, 0.98),
    "large": (1_280_000_000, "ViT-B-16", 8192, 5e-4, 500, 0.98),
    "xlarge": (12_800_000_000, "ViT-L-14", 90_112, 1e-3, 10_000, 0.95),
}


def parsed(name, processes=8):
    """(a scale, its words as open_clip_train reads them)."""
    from open_clip_train.params import parse_args

    scale = find_scale(name)
    options, wide = training(scale, ["a.tar"], "/out", "", 3), engine_of(scale, processes)
    config, weights = configuration(scale.model)
    return scale, parse_args(engine.arguments(options, wide, config["preprocess_cfg"], weights, ["a.tar"]))


@pytest.mark.parametrize("name", DATACOMP)
def test_open_clip_is_told_datacomps_settings(name):
    samples, model, batch, lr, warmup, beta2 = DATACOMP[name]
    scale, args = parsed(name)
    assert scale.model == model and scale.samples == samples
    assert args.train_num_samples * args.epochs == samples and args.epochs == 5
    assert (args.batch_size * 8, args.lr, args.warmup, args.beta2) == (batch, lr, warmup, beta2)
    assert args.dataset_resampled and args.grad_checkpointing and args.local_loss and args.gather_with_grad
    assert args.precision == "amp" and args.ddp_static_graph and args.save_most_recent and args.save_frequency == 0
    # left to open_clip by DataComp, so its defaults: weight decay, crop, and no clipping of gradients
    assert args.wd == 0.2 and args.aug_cfg == {"scale": (0.9, 1.0)} and args.grad_clip_norm == float("inf")
    assert args.seed == 3 and args.dataset_type == "webdataset"


def test_another_budget_and_a_proxys_learning_rate():
    scale = find_scale("small", 4_096_000, 0.1)
    assert scale.samples == 4_096_000 and scale.lr == pytest.approx(5e-5) and scale.batch == 4096
    with pytest.raises(UsageError, match="did you mean 'small'"):
        find_scale("smal")
    with pytest.raises(UsageError, match="above 0"):
        find_scale("tiny", 0, 0.0)


@pytest.mark.parametrize(("name", "most"), [("micro", 100_000), ("tiny", 2_000_000)])
def test_our_scales_have_models_that_ship(name, most):
    scale = SCALES[name]
    config, _ = configuration(scale.model)
    model = build_model(config["model_cfg"])
    assert sum(weight.numel() for weight in model.parameters()) < most
    options = training(scale, ["a.tar"], "/out", "", 0)
    assert int(scale.steps * options.warmup) == scale.warmup and options.device == "cpu"


def test_a_dry_run_prints_the_command_and_writes_nothing(mmfilter, tmp_path):
    generate(str(tmp_path / "pool"), SynthOptions(samples=60, per_shard=30, size=64))
    uids = pool_uids([str(tmp_path / f"pool/0000000{i}.tar") for i in range(2)])
    Subset(uids[:40]).write(str(tmp_path / "mine.npy"))
    words = ("rank", tmp_path / "mine.npy", "--pool", tmp_path / "pool", "--scale", "small", "--processes", "8")
    code, said, error = mmfilter(*words, "--out", tmp_path / "out", "--dry-run")
    assert code == 0, error
    assert "9 trainings of 12,800,000 pairs (small): 3 arms, 3 seeds" in said
    assert "torch.distributed.run --standalone --nproc_per_node 8 -m mmfilter.open_clip_run" in said
    for text in ("--train-num-samples 2560000", "--batch-size 512", "--epochs 5", "--lr 0.0005", "--warmup 500"):
        assert text in said
    assert "mine: 40 samples, beside it random-40" in said and not (tmp_path / "out").exists()
