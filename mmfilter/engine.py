"""What open_clip's training code is asked to do: the words for it, the shards it reads, the command that starts it."""

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from . import pairs, storage
from .errors import ConflictError, UsageError
from .fields import ReadOptions
from .form import look_at_form
from .json_file import read_object
from .reshard import reshard
from .reshard_plan import ReshardOptions
from .schedule import load_schedule
from .shard_index import index_shard
from .subset import Subset
from .train_identity import others
from .train_options import TrainOptions

FOLDER = "open_clip"
"""Where in OUT the job, the copied shards, the log and the checkpoints are."""
NAME = "mmfilter_model"  # what open_clip calls the configuration; "siglip" in it would change the tokenizer
LATEST = "epoch_latest.pt"
ESCAPED = "{}\\"
SHARD = 10_000  # samples of a copied shard at most, as DataComp's

Copy = Callable[[str, list[str], str, ReshardOptions, ReadOptions], Any]
"""Copies the samples of a subset file from shards into a folder."""

OPEN_CLIP_READS = frozenset({"jpg", "png", "jpeg", "webp"})  # the names of image members


@dataclass(frozen=True, slots=True)
class Engine:
    """How wide, and for how long at a time.

    `processes` is one a GPU; `workers` load for each of them; `epochs` is into how many parts, with a
    checkpoint after each, the training is cut (with a schedule: its epochs). `more` are further words
    for open_clip_train, which win over ours.
    """

    processes: int = 1
    workers: int = 2
    epochs: int = 1
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One training: `config` is the path of open_clip's model configuration, `epochs` each epoch's shards or [],
    `made_from` what it hangs on by content (`mmfilter.train_identity`).
    """

    config: str
    device: str
    arguments: list[str]
    epochs: list[str]
    made_from: dict[str, str] = field(default_factory=dict)


def check(options: TrainOptions, engine: Engine) -> None:
    """Raise UsageError for what open_clip's code cannot do."""
    if options.batch % engine.processes:
        raise UsageError(f"batch is {options.batch}; it must divide evenly among {engine.processes} processes")
    if options.augment.flip:
        raise UsageError("flip: open_clip's training transform mirrors nothing; leave it out, or use engine 'own'")
    if "::" in os.path.abspath(options.out):
        raise UsageError(f"--out: {options.out} has '::' in it, which open_clip takes for several paths; give another")
    if options.samples < options.batch * engine.epochs:
        raise UsageError(f"samples is {options.samples}; see at least one batch in each of {engine.epochs} epochs")


def steps(options: TrainOptions, engine: Engine) -> int:
    """Updates of an epoch: every loader worker brings as many batches, as open_clip_train.data rounds them."""
    workers = max(1, engine.workers)
    return math.ceil(math.ceil(options.samples // engine.epochs / options.batch) / workers) * workers


def arguments(
    options: TrainOptions, engine: Engine, preprocess: dict[str, Any], weights: str, data: list[str]
) -> list[str]:
    """The words for open_clip_train.main: the same optimiser, schedule and crop as our own loop.

    Shards are drawn with replacement, as DataComp trains (arXiv 2304.14108): a worker whose shards hold
    less than a batch would otherwise wait for ever.
    """
    per_epoch, crop = steps(options, engine), options.augment.crop
    words: dict[str, Any] = {
        "train-data": joined(data),
        "dataset-type": "webdataset",
        "train-num-samples": options.samples // engine.epochs,
        "model": NAME,
        "pretrained": weights,
        "batch-size": options.batch // engine.processes,
        "epochs": engine.epochs,
        "lr": options.lr,
        "wd": options.weight_decay,
        "beta1": 0.9,
        "beta2": 0.98,
        "eps": 1e-6,
        "warmup": max(1, int(per_epoch * engine.epochs * options.warmup)),
        "grad-clip-norm": 1.0,
        "precision": "amp_bf16" if options.bf16 else "fp32",
        "workers": engine.workers,
        "seed": options.seed,
        "device": options.device,
        "logs": os.path.join(options.out, FOLDER),
        "name": "run",
        "save-frequency": 0,
        "log-every-n-steps": max(1, per_epoch * engine.epochs // 100),
        "image-interpolation": preprocess["interpolation"],
        "image-resize-mode": preprocess["resize_mode"],
    }
    found = [word for name, value in words.items() if value != "" for word in (f"--{name}", str(value))]
    for name in ("mean", "std"):
        found += [f"--image-{name}", *map(str, preprocess[name])]
    found += ["--aug-cfg", f"scale=({crop**2:g},1.0)"]  # theirs is a part of the area, ours of a side
    if options.augment.jitter:
        found += [f"color_jitter=({options.augment.jitter},{options.augment.jitter},0,0)", "color_jitter_prob=1.0"]
    found += ["--dataset-resampled", "--save-most-recent"]
    if engine.processes > 1:
        found += ["--local-loss", "--gather-with-grad"]
    return [*found, *engine.more]


def command(job: str, processes: int) -> list[str]:
    """What starts a job: torchrun where there are several processes."""
    several = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    return [sys.executable, "-m", *(several if processes > 1 else []), "mmfilter.open_clip_run", job]


def copy_here(subset: str, paths: list[str], folder: str, options: ReshardOptions, read: ReadOptions) -> Any:
    """Reshard in this process."""
    return reshard(paths, Subset.read(subset), folder, options, read)


def shards(options: TrainOptions, engine: Engine, source: pairs.Source, copy: Copy) -> tuple[list[str], list[str]]:
    """(the shards to train on, with a schedule those of each epoch joined by '::').

    The pool's own, where they are all of it and on a local disk; else copies in OUT.
    Raises UsageError, DataError.
    """
    base = os.path.join(options.out, FOLDER, "shards")
    if options.schedule:
        epochs = [pairs.chosen(path) for path in load_schedule(options.schedule)]
        found = [
            _copied(source.only(chosen), os.path.join(base, f"epoch-{number:04d}"), engine, copy)
            for number, chosen in enumerate(epochs)
        ]
        return found[0], [joined(paths) for paths in found]
    own = own_shards(options, source)
    if own is None:
        return _copied(source, base, engine, copy), []
    if next(source.captions(), None) is None:
        raise UsageError("no pair to train on: the shards leave none")
    return own, []


def joined(paths: list[str]) -> str:
    """Paths as open_clip takes them: joined by `::`, with a backslash before what webdataset reads as a pattern."""
    return "::".join("".join(f"\\{c}" if c in ESCAPED else c for c in path) for path in paths)


def own_shards(options: TrainOptions, source: pairs.Source) -> list[str] | None:
    """The pool's shards, where open_clip can train on them as they are; else None."""
    if options.subset or options.schedule or options.holdout or any(map(_odd, source.paths)):
        return None
    form = look_at_form(source.paths, source.options)
    if set(form.captions) - {"txt"} or form.endings - OPEN_CLIP_READS:
        return None  # copies have the caption as txt, and images under these names
    return [os.path.abspath(path) for path in source.paths]


def _odd(path: str) -> bool:
    """Would webdataset take the path for a pattern or a command, or is it not on a disk here?"""
    return storage.is_remote(path) or any(mark in path for mark in ("::", *ESCAPED))


def _copied(source: pairs.Source, folder: str, engine: Engine, copy: Copy) -> list[str]:
    """The pairs of a source, each as often as it is seen in an epoch, in shards of even size."""
    read = source.options
    pool = Subset(np.concatenate([index_shard(path, read).uids for path in source.paths]))
    uids = pool.unique()
    times = np.array([int(source.keep(uid)) for uid in uids.strings()], np.int64)
    if read.copies:
        times *= pool.counts(uids.uids)
    subset = Subset(np.repeat(uids.uids, times))
    if not len(subset):
        raise UsageError(pairs.NO_PAIR)
    os.makedirs(folder, exist_ok=True)
    subset.write(f"{folder}.npy")
    count = max(math.ceil(len(subset) / SHARD), min(len(subset), 4 * max(1, engine.workers) * engine.processes))
    size = math.ceil(len(subset) / count)
    copy(f"{folder}.npy", source.paths, folder, ReshardOptions(max_samples=size), replace(read, copies=False))
    return storage.list_files(folder, ".tar")


def write_job(path: str, job: Job, resume: bool) -> None:
    """Write JOB.json; a training without a checkpoint yet is forgotten.

    Raises ConflictError when one with a checkpoint stands there, and `resume` is not asked for or it is another.
    """
    run = os.path.join(os.path.dirname(path), "run")
    if os.path.exists(os.path.join(run, "checkpoints", LATEST)):
        before = read_object(path, "give another --out")
        now = asdict(job)
        other = [name for name, value in now.items() if name != "made_from" and before.get(name) != value]
        other += others(before.get("made_from") or {}, now["made_from"])
        if not resume:
            raise ConflictError(f"{path}: a training was begun here; go on with --resume, or give another --out")
        if other:
            raise ConflictError(f"{path}: what was begun here has other {', '.join(other)}; give another --out")
    elif os.path.exists(os.path.join(run, "out.log")):
        os.unlink(os.path.join(run, "out.log"))  # open_clip refuses a folder with a log
    storage.write_atomic(path, (json.dumps(asdict(job), indent=1) + "\n").encode())
