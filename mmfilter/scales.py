"""Fixed trainings, so that nothing but the subset differs: DataComp's four scales, and two of ours for a CPU."""

import math
import os
from dataclasses import dataclass, replace

from .engine import Engine
from .errors import UsageError, nearest
from .train_options import Augment, TrainOptions

TINY = os.path.join(os.path.dirname(__file__), "models", "tiny.json")
MICRO = os.path.join(os.path.dirname(__file__), "models", "micro.json")


@dataclass(frozen=True, slots=True)
class Scale:
    """`samples` are pairs seen, repeats included; `batch` pairs a step, of all processes; `lr` the peak.

    `warmup` is in steps. `vocabulary` is how many merges are learned from the whole pool, once for all
    subsets; 0 is CLIP's own. `checkpoints` is how often open_clip's code saves. `beta2` is AdamW's, None its default.
    """

    name: str
    samples: int
    model: str
    batch: int
    lr: float
    warmup: int
    beta2: float | None = None
    checkpoints: int = 5
    vocabulary: int = 0
    engine: str = "open_clip"

    @property
    def steps(self) -> int:
        return self.samples // self.batch


SCALES = {
    scale.name: scale
    for scale in (
        Scale("micro", 512, MICRO, 32, 2e-3, 2, checkpoints=1, vocabulary=100, engine="own"),
        Scale("tiny", 24_576, TINY, 128, 2e-3, 9, checkpoints=1, vocabulary=1000, engine="own"),
        Scale("small", 12_800_000, "ViT-B-32", 4096, 5e-4, 500),
        Scale("medium", 128_000_000, "ViT-B-32", 4096, 5e-4, 500),
        Scale("large", 1_280_000_000, "ViT-B-16", 8192, 5e-4, 500),
        Scale("xlarge", 12_800_000_000, "ViT-L-14", 90_112, 1e-3, 10_000, 0.95),
    )
}
"""small to xlarge are DataComp's (2304.14108; its scale_configs.py). micro and tiny are ours: their settings come
from short runs on a pool that is not measured on."""


def packaged_name(model: str) -> str:
    """A packaged model by its name, wherever the package lies; another as it is."""
    return {TINY: "tiny", MICRO: "micro"}.get(model, model)


def find_scale(name: str, samples: int = 0, lr_scale: float = 1.0) -> Scale:
    """The scale called `name`, with another budget where one is given, at `lr_scale` times its learning rate.

    Raises UsageError.
    """
    if name not in SCALES:
        raise UsageError(f"--scale: '{name}' is none{nearest(name, SCALES)} Known: {', '.join(SCALES)}")
    if not lr_scale > 0:
        raise UsageError(f"--lr-scale is {lr_scale}; it must be above 0")
    scale = SCALES[name]
    return replace(scale, samples=samples or scale.samples, lr=scale.lr * lr_scale)


def training(scale: Scale, pool: list[str], out: str, subset: str, seed: int, device: str = "") -> TrainOptions:
    """What `mmfilter.train` is asked for one training at a scale."""
    own = scale.engine == "own"
    return TrainOptions(
        pool=pool,
        out=out,
        model=scale.model,
        subset=subset,
        samples=scale.samples,
        batch=scale.batch,
        lr=scale.lr,
        weight_decay=0.1 if own else 0.2,  # 0.2 is open_clip's default, which DataComp leaves
        warmup=min(1.0, scale.warmup / max(1, scale.steps)),
        augment=Augment(0.85, 0.1) if own else Augment(math.sqrt(0.9)),  # open_clip's crop: 0.9 of the area
        seed=seed,
        one_caption=True,
        device=device or ("cpu" if own else "cuda"),
    )


def engine_of(scale: Scale, processes: int = 1, workers: int = 4) -> Engine:
    """How open_clip_train runs a scale of DataComp's, in the words of its train.py: amp, gradient checkpointing,
    local loss, its warm-up in steps, and no clipping of gradients.
    """
    words = ["--warmup", str(scale.warmup), "--precision", "amp", "--grad-checkpointing", "--grad-clip-norm", "inf"]
    words += ["--ddp-static-graph", "--local-loss", "--gather-with-grad"]
    if scale.beta2 is not None:
        words += ["--beta2", str(scale.beta2)]
    return Engine(processes, workers, scale.checkpoints, tuple(words))


def scenes(scale: str) -> int:
    """How many samples each of our own tasks has at a scale."""
    return 24 if scale == "micro" else 360
