"""What a training is asked for, and what it came to."""

from dataclasses import dataclass, field

from .fields import ReadOptions

Row = tuple[int, int, float]
"""A point of the loss curve: step, pairs seen, mean contrastive loss since the last row."""


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
    """`model` is a configuration's name ("demo" is ours) or JSON file; or, to go on from, a model folder or an
    ``hf-hub:owner/name``. `pretrained` is the tag or the file of weights to begin with, for a name or a JSON file.

    `subset` is a .npy of uids to train on, each as often as it stands there; `schedule` a file of such
    subsets, one an epoch (see `mmfilter.schedule`); `holdout` the part of the pool (by uid) kept for measuring
    an AUC at the end. With `one_caption` a sample's text is its only caption, whatever its json has.
    `samples` is how many pairs are seen, repeats included; 0 is one pass through the `schedule`.
    `vocabulary` is how many merges to learn from the captions; 0 keeps the model's own. `memory` bounds the
    decoded pool, in bytes.
    """

    pool: str | list[str]
    out: str
    model: str
    pretrained: str = ""
    subset: str = ""
    schedule: str = ""
    one_caption: bool = False
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
    read: ReadOptions = ReadOptions()


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
