"""`train`: a small CLIP of one's own on clean pairs: a data filtering network."""

import shlex
import sys
from typing import Any

import typer

from . import options as o
from . import progress
from . import train_flags as t
from .terminal import print

SAMPLES = 100_000


def add(app: typer.Typer) -> None:
    @app.command()
    def train(
        out: t.Out,
        pool: o.Pool,
        model: t.Model = "demo",
        pretrained: t.Pretrained = "",
        uids: o.Uids = None,
        pool_id: o.PoolId = None,
        captions: o.Captions = None,
        subset: t.Subset = "",
        schedule: t.Schedule = "",
        one_caption: t.OneCaption = False,
        holdout: t.Holdout = 0.0,
        samples: t.Samples = None,
        batch_size: t.BatchSize = 128,
        lr: t.Lr = 1e-3,
        vocabulary: t.Vocabulary = 0,
        flip: t.Flip = False,
        crop: t.Crop = 0.9,
        jitter: t.Jitter = 0.0,
        seed: t.Seed = 0,
        threads: t.Threads = 1,
        bf16: t.Bf16 = False,
        device: t.Device = "cpu",
        engine: t.Engine = "own",
        processes: t.Processes = 1,
        workers: t.Workers = 2,
        epochs: t.Epochs = 1,
        resume: t.Resume = False,
        more: t.More = "",
        prepare: t.Prepare = False,
        dry_run: t.DryRun = False,
    ) -> None:
        """Train with CLIP's loss; the folder it writes is a model for a recipe's `embed`."""
        given = dict(locals())
        _check(given)
        if dry_run:
            print(_planned(given))
        elif engine == "open_clip":
            print(_by_open_clip(given))
        else:
            from mmfilter.train import train as train_model

            print(_told(train_model(_options(given), _say)))


def _check(given: dict[str, Any]) -> None:
    """Raise UsageError for an unknown engine, or options of the other one."""
    from mmfilter.errors import UsageError, nearest

    if given["engine"] not in ("own", "open_clip"):
        raise UsageError(f"--engine: '{given['engine']}' is none{nearest(given['engine'], ('own', 'open_clip'))}")
    defaults = {"processes": 1, "epochs": 1, "resume": False, "more": "", "prepare": False}
    other = [f"--{name}" for name, value in defaults.items() if given[name] != value]
    if given["engine"] == "own" and other:
        raise UsageError(f"{', '.join(other)}: only with --engine open_clip")


def _options(given: dict[str, Any]) -> Any:
    """The TrainOptions that the flags ask for."""
    from mmfilter.fields import read_options
    from mmfilter.subset_notes import notes_of
    from mmfilter.train import Augment, TrainOptions

    from .outdir import absolute, reading_beside, shard_paths

    for note in notes_of(absolute(given["subset"])) if given["subset"] else []:
        print(f"mmfilter: {note}", file=sys.stderr)
    same = ("model", "pretrained", "subset", "schedule", "one_caption", "holdout", "lr", "vocabulary", "seed")
    samples = 0 if given["schedule"] else SAMPLES
    return TrainOptions(
        pool=shard_paths(given["pool"]),
        out=absolute(given["out"]),
        samples=samples if given["samples"] is None else given["samples"],
        batch=given["batch_size"],
        augment=Augment(given["crop"], given["jitter"], given["flip"]),
        threads=given["threads"],
        bf16=given["bf16"],
        device=given["device"],
        read=read_options(reading_beside(given["subset"]), given["uids"], given["pool_id"], given["captions"]),
        **{name: given[name] for name in same},
    )


def _engine(given: dict[str, Any]) -> Any:
    from mmfilter.engine import Engine

    return Engine(given["processes"], given["workers"], given["epochs"], tuple(shlex.split(given["more"])))


def _by_open_clip(given: dict[str, Any]) -> str:
    """Prepare, and unless that is all that is asked for, train; what to tell."""
    from mmfilter.engine_run import Prepared, train_with_open_clip
    from mmfilter.model_folder import begun

    from .outdir import only_driver

    options, wide = _options(given), _engine(given)
    with only_driver(options.out):
        if given["prepare"]:
            with begun(options.out):
                return shlex.join(Prepared(options, wide, given["resume"], _copy).command())
        return _told(train_with_open_clip(options, wide, given["resume"], _say, _copy))


def _copy(subset: str, paths: list[str], folder: str, options: Any, read: Any) -> Any:
    """Reshard by workers where there is much to copy."""
    from .cluster import Width
    from .reshard import Request, reshard_subset

    return reshard_subset(subset, paths, folder, Width(gpus=0), Request(options, read))


def _planned(given: dict[str, Any]) -> str:
    """What a dry run says."""
    from mmfilter.train import worked_out

    if given["engine"] == "open_clip":
        from mmfilter.engine_run import planned

        return planned(_options(given), _engine(given))
    options = worked_out(_options(given))
    return f"{options.samples // options.batch:,} steps of {options.batch:,} pairs, in this process: {options.out}"


def _told(report: Any) -> str:
    held = "" if report.auc is None else f", AUC of true against swapped captions on the hold-out {report.auc:.4f}"
    return f"{report.parameters:,} parameters, {report.steps:,} steps, {report.seconds:.0f} s{held}: {report.out}"


def _say(row: dict[str, Any]) -> None:
    progress.step("train", row, row["step"] == row["steps"])
