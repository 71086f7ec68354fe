"""Train an open_clip model on a pool: from scratch, or on from a checkpoint. A small data filtering network."""

import json
import math
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from . import bpe, checkpoint, pairs
from .auc import auc
from .errors import UsageError, nearest
from .storage import read_bytes, write_atomic
from .versions import versions

Row = tuple[int, int, float]
"""A point of the loss curve: step, pairs seen, mean contrastive loss since the last row."""


DEMO = os.path.join(os.path.dirname(__file__), "models", "demo.json")
"""The demo model's configuration: 64 px, 3.6 million parameters, quick on a CPU."""


@dataclass(frozen=True, slots=True)
class Augment:
    """Light changes to the pictures. `crop` is the smallest part of a side that is kept, `jitter` the
    largest change of brightness and contrast, `flip` mirrors half of them (not where captions say left or right).
    """

    crop: float = 0.9
    jitter: float = 0.0
    flip: bool = False


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """`model` is a configuration's name ("demo" is ours) or JSON file, or a model folder to go on from.

    `subset` is a .npy of uids to train on; `holdout` the part of the pool (by uid) kept for measuring
    an AUC at the end. `samples` is how many pairs are seen, repeats included. `vocabulary` is how many merges
    to learn from the captions; 0 keeps the model's own. `memory` bounds the decoded pool, in bytes.
    """

    pool: str | list[str]
    out: str
    model: str
    subset: str = ""
    holdout: float = 0.0
    samples: int = 100_000
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: float = 0.05
    vocabulary: int = 0
    augment: Augment = field(default_factory=Augment)
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    bf16: bool = False
    memory: int = 4 << 30


@dataclass(frozen=True, slots=True)
class TrainReport:
    """`loss` is the curve, `auc` that of true against swapped captions on the hold-out, None without one.

    `failed` counts the samples that could not be used, by status.
    """

    out: str
    steps: int
    parameters: int
    seconds: float
    loss: list[Row]
    auc: float | None
    failed: dict[str, int]


def train(options: TrainOptions, say: Callable[[dict[str, Any]], None] = lambda row: None) -> TrainReport:
    """Train and write a model folder (see `mmfilter.checkpoint`) with a `train.json` that tells how.

    On a CPU the same options on the same machine give the same weights. `say` gets a row of progress
    now and then. The loss is CLIP's (2103.00020), the optimiser AdamW with a warm-up and a cosine.
    Raises UsageError, DataError.
    """
    import torch

    begun = time.perf_counter()
    _check(options)
    with _threads(options.threads):
        torch.manual_seed(options.seed)
        config, weights = _configuration(options.model)
        source, held = _sources(options, config["preprocess_cfg"])
        os.makedirs(options.out, exist_ok=True)
        tokenizer = _tokenizer(options, config["model_cfg"], source)
        model = checkpoint.build_model(config["model_cfg"])
        if weights:
            checkpoint.load_weights(model, weights)
        curve = Trainer(model, tokenizer, config["preprocess_cfg"], options).fit(source, say)
        checkpoint.save(options.out, model.cpu(), config)
        measured = held_out_auc(options.out, held) if held else None
    count = sum(weight.numel() for weight in model.parameters())
    seconds = round(time.perf_counter() - begun, 1)
    report = TrainReport(
        options.out, curve[-1][0], count, seconds, curve, measured, dict(Counter(source.failed.values()))
    )
    _record(report, options, source)
    return report


def _check(options: TrainOptions) -> None:
    if options.samples < options.batch or options.batch < 2:
        raise UsageError(f"samples is {options.samples}, batch {options.batch}; see at least one batch of two pairs")
    for name, value, low, high in (
        ("holdout", options.holdout, 0, 0.9),
        ("warmup", options.warmup, 0, 1),
        ("augment.crop", options.augment.crop, 0.1, 1),
        ("augment.jitter", options.augment.jitter, 0, 1),
    ):
        if not low <= value <= high:
            raise UsageError(f"{name} is {value}; it must be from {low} to {high}")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Fix torch's threads: sums in another order are other sums."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _configuration(model: str) -> tuple[dict[str, Any], str]:
    """(an open_clip_config as a new dict, weights' path or ""). Raises UsageError, DataError."""
    import open_clip

    if os.path.isdir(model):
        found = checkpoint.checkpoint_config(model)
        return {"model_cfg": found.model_cfg, "preprocess_cfg": found.preprocess_cfg}, found.weights_path
    if model == "demo":
        model = DEMO
    if model.endswith(".json"):
        if not os.path.isfile(model):
            raise UsageError(f"model: there is no file {model}")
        with open(model, encoding="utf-8") as stream:
            config = json.load(stream)
        config = config if "model_cfg" in config else {"model_cfg": config}
    else:
        cfg = open_clip.get_model_config(model)
        if cfg is None:
            raise UsageError(f"model: no configuration is called '{model}'{nearest(model, open_clip.list_models())}")
        config = {"model_cfg": cfg}
    size = config["model_cfg"]["vision_cfg"].get("image_size", 224)
    defaults = asdict(open_clip.transform.PreprocessCfg(size=size))
    return {"model_cfg": config["model_cfg"], "preprocess_cfg": {**defaults, **config.get("preprocess_cfg", {})}}, ""


def _sources(options: TrainOptions, preprocess: dict[str, Any]) -> tuple[pairs.Source, pairs.Source | None]:
    """(what is trained on, what is held out or None)."""
    size = preprocess["size"] if isinstance(preprocess["size"], int) else preprocess["size"][0]
    chosen = pairs.chosen(options.subset) if options.subset else lambda uid: True
    side = size if options.augment.crop == 1 else math.ceil(size * 1.125)  # room to crop from
    squash = preprocess.get("resize_mode") == "squash"
    whole = pairs.source(options.pool, side, squash, chosen)
    if not options.holdout:
        return whole, None
    aside = pairs.part(options.holdout, options.seed)
    rest = pairs.source(options.pool, side, squash, lambda uid: chosen(uid) and not aside(uid))
    return rest, pairs.source(options.pool, size, squash, lambda uid: chosen(uid) and aside(uid))


def _tokenizer(options: TrainOptions, model_cfg: dict[str, Any], source: pairs.Source) -> Any:
    """The model's tokenizer; a vocabulary is learned or taken along, and the configuration made to fit it."""
    text_cfg = model_cfg["text_cfg"]
    kwargs = text_cfg.get("tokenizer_kwargs") or {}
    data = b""
    if options.vocabulary:
        merges = bpe.learn((text for texts in source.captions() for text in texts), options.vocabulary)
        data = bpe.dump(merges)
        text_cfg["vocab_size"] = bpe.vocabulary_size(merges)
    elif "bpe_path" in kwargs:
        data = read_bytes(kwargs["bpe_path"])
    if data:
        write_atomic(os.path.join(options.out, checkpoint.VOCABULARY), data)
        text_cfg["tokenizer_kwargs"] = {**kwargs, "bpe_path": checkpoint.VOCABULARY}
    resolved = dict(text_cfg)
    checkpoint.resolve_vocabulary(resolved, options.out)
    return checkpoint.tokenizer_of(resolved)


def held_out_auc(folder: str, held: pairs.Source) -> float:
    """AUC of each held-out picture's own caption (its first) against the next picture's.

    Raises UsageError when fewer than two pairs are held out.
    """
    from .steps import similarities

    kept = list(held)
    if len(kept) < 2:
        raise UsageError(f"holdout: only {len(kept)} pairs are held out; hold out a larger part")
    images = np.stack([pair.pixels for pair in kept])
    own = [pair.captions[0] for pair in kept]
    true = similarities(folder, images, own)
    false = similarities(folder, images, own[1:] + own[:1])
    return auc(np.concatenate([true, false]), np.repeat([True, False], len(kept)))


def _record(report: TrainReport, options: TrainOptions, source: pairs.Source) -> None:
    """train.json: what was asked for, from what, with what, and how it went."""
    row = {
        "command": shlex.join(sys.argv),
        "options": asdict(options),
        "data": pairs.describe(source),
        "failed": report.failed,
        "versions": versions(),
        "machine": {"processor": platform.machine(), "device": options.device},
        "steps": report.steps,
        "parameters": report.parameters,
        "seconds": report.seconds,
        "auc": report.auc,
        "loss": report.loss,
    }
    write_atomic(os.path.join(options.out, "train.json"), (json.dumps(row, indent=1) + "\n").encode())


class Trainer:
    """The loop over batches."""

    def __init__(self, model: Any, tokenizer: Any, preprocess: dict[str, Any], options: TrainOptions) -> None:
        import torch

        from .steps import Pixels, optimizer

        self.model = model.to(options.device, memory_format=torch.channels_last)
        self.tokenizer, self.options = tokenizer, options
        self.rng = np.random.default_rng(options.seed)
        self.pixels = Pixels(preprocess, options.augment, self.rng)
        self.adam = optimizer(self.model, options)

    def fit(self, source: pairs.Source, say: Callable[[dict[str, Any]], None]) -> list[Row]:
        """Train on `options.samples` pairs of `source`; returns the loss curve, about a hundred rows."""
        from .steps import rate

        options = self.options
        feed = pairs.batches(pairs.shuffled(source, self.rng, options.memory), options.batch, self.rng)
        steps = options.samples // options.batch
        every = max(1, steps // 100)
        curve: list[Row] = []
        losses: list[float] = []
        begun = time.perf_counter()
        self.model.train()
        for step in range(1, steps + 1):
            images, captions = next(feed)
            losses.append(self.step(images, captions, options.lr * rate(step, steps, options.warmup)))
            if step % every == 0 or step == steps:
                curve.append((step, step * options.batch, round(sum(losses) / len(losses), 4)))
                losses = []
                speed = round(step * options.batch / (time.perf_counter() - begun), 1)
                say({"step": step, "steps": steps, "loss": curve[-1][2], "pairs_per_second": speed})
        return curve

    def step(self, images: np.ndarray, captions: list[str], lr: float) -> float:
        """One update from (n, side, side, 3) uint8 and n captions; returns the loss."""
        import open_clip
        import torch

        from .steps import encode_text

        device = self.options.device
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=self.options.bf16):
            image = self.model.encode_image(self.pixels(images, device), normalize=True)
            text = encode_text(self.model, self.tokenizer(captions).to(device))
        loss = open_clip.ClipLoss()(image.float(), text.float(), self.model.logit_scale.exp())
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adam.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return float(loss.item())
