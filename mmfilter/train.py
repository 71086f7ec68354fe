"""Train an open_clip model on a pool: from scratch, or on from a checkpoint. A small data filtering network."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from . import checkpoint, pairs, storage
from .auc import auc
from .errors import UsageError
from .model_folder import begun
from .schedule import load_schedule
from .start import DEMO, configuration, merges_for, vocabulary
from .subset import Subset
from .train_identity import made_from
from .train_options import Augment, Row, TrainOptions, TrainReport
from .train_record import record
from .trained import TRAINED

__all__ = ["DEMO", "Augment", "Row", "TrainOptions", "TrainReport", "Trainer", "train"]


def train(options: TrainOptions, say: Callable[[dict[str, Any]], None] = lambda row: None) -> TrainReport:
    """Train and write a model folder (see `mmfilter.checkpoint`) with a `train.json` that tells how.

    On a CPU the same options on the same machine give the same weights. `say` gets a row of progress
    now and then. The loss is CLIP's (2103.00020), the optimiser AdamW with a warm-up and a cosine.
    Raises UsageError, DataError.
    """
    import torch

    started = time.perf_counter()
    options = worked_out(options)
    check(options)
    with _threads(options.threads), begun(options.out):
        torch.manual_seed(options.seed)
        config, weights = configuration(options.model, options.pretrained)
        options = replace(options, vocabulary=merges_for(options.vocabulary, config["model_cfg"], weights))
        source, held = sources(options, config["preprocess_cfg"])
        made = made_from(options, source.paths)
        storage.remove(os.path.join(options.out, TRAINED))  # of an earlier training: it tells of other weights
        tokenizer = vocabulary(options.vocabulary, options.out, config["model_cfg"], source)
        model = checkpoint.build_model(config["model_cfg"])
        if weights:
            checkpoint.load_weights(model, weights)
        curve = Trainer(model, tokenizer, config["preprocess_cfg"], options).fit(source, say)
        checkpoint.save(options.out, model.cpu(), config)
        measured = held_out_auc(options.out, held) if held else None
        count = sum(weight.numel() for weight in model.parameters())
        seconds = round(time.perf_counter() - started, 1)
        report = TrainReport(options.out, curve[-1][0], count, seconds, curve, measured, pairs.counted(source))
        record(report, options, source, made_from=made)
    return report


def check(options: TrainOptions) -> None:
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


def sources(options: TrainOptions, preprocess: dict[str, Any]) -> tuple[pairs.Source, pairs.Source | None]:
    """(what is trained on, what is held out or None)."""
    size = preprocess["size"] if isinstance(preprocess["size"], int) else preprocess["size"][0]
    chosen = _chosen(options)
    side = size if options.augment.crop == 1 else math.ceil(size * 1.125)  # room to crop from
    squash = preprocess.get("resize_mode") == "squash"
    read = replace(options.read, copies=not (options.subset or options.schedule))
    whole = pairs.source(options.pool, side, squash, chosen, read)
    whole.one_caption = options.one_caption
    if not options.holdout:
        return whole, None
    aside = pairs.part(options.holdout, options.seed)
    whole.keep = lambda uid: 0 if aside(uid) else chosen(uid)
    return whole, pairs.source(options.pool, size, squash, lambda uid: bool(aside(uid) and chosen(uid)), options.read)


def _chosen(options: TrainOptions) -> pairs.Keep:
    """What is trained on in an epoch, or with a schedule in any of them."""
    if options.schedule:
        if options.subset:
            raise UsageError("schedule: it names its own subsets; leave out 'subset'")
        epochs = [pairs.chosen(path) for path in load_schedule(options.schedule)]
        return lambda uid: any(epoch(uid) for epoch in epochs)
    return pairs.chosen(options.subset) if options.subset else lambda uid: True


def feed(options: TrainOptions, source: pairs.Source, rng: np.random.Generator) -> Iterator[pairs.Pair]:
    """The pairs in the order of training, without end."""
    if not options.schedule:
        return pairs.shuffled(source, rng, options.memory)
    return pairs.scheduled(
        [source.only(pairs.chosen(path)) for path in load_schedule(options.schedule)], rng, options.memory
    )


def worked_out(options: TrainOptions) -> TrainOptions:
    """`samples` worked out: one pass through the schedule where none are asked for."""
    if options.samples or not options.schedule:
        return options
    return replace(options, samples=sum(len(Subset.read(path)) for path in load_schedule(options.schedule)))


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
        batches = pairs.batches(feed(options, source, self.rng), options.batch, self.rng)
        steps = options.samples // options.batch
        every = max(1, steps // 100)
        curve: list[Row] = []
        losses: list[float] = []
        begun = time.perf_counter()
        self.model.train()
        for step in range(1, steps + 1):
            images, captions = next(batches)
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
