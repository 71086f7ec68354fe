"""The shapes of the plugs. To add one: one file, and one line in its folder's table."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from . import storage
from .errors import COPY, UsageError, nearest
from .results import TaskResult

M = TypeVar("M", bound=BaseModel)

SHOWN = 400  # characters of a wrong value that its message repeats

Batch = Mapping[str, Any]
"""n samples as columns, by the names a score lists in `needs`; see `Score`."""

Run = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
"""run(function, tasks) -> the function's results, in the tasks' order; wherever the workers are."""


class Plug(BaseModel):
    """Fields are the plug's parameters in a recipe; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), ignored_types=(tuple, frozenset))

    version: ClassVar[int] = 1
    """The version of its definition: one more wherever the same fields give other values than before. It is recorded
    with what the plug made, and a record of another version is a conflict."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Paths outside the pool that it reads; those of a score or a task are part of what its result is made from."""
        return ()

    def check(self) -> None:
        """Raise UsageError, saying how to get it, where something that it reads does not exist; called before all work.

        MissingDependency where it needs a package that is not installed.
        """
        for path in self.inputs:
            if not storage.exists(path):
                raise UsageError(f"nothing is at {path}; put it there, or name yours in the recipe ({COPY})")


class Score(Plug):
    """Costs a model or a look at the pixels; runs once per pool.

    `columns` are what it writes, `inputs` the files among its fields. `needs` are what it reads, each a key of the
    batch:

    ``uid key text url sha256``        list of str
    ``original_width original_height`` int64 (n,)
    ``bytes``                          list of the image files' bytes
    ``image``                          list of PIL images, decoded, in their own mode
    ``img_emb:NAME txt_emb:NAME``      float16 (n, d), rows of unit length, of the recipe's model NAME
    ``embedder:NAME``                  the model itself, an `Embedder`; only for `look`
    ``threads``                        int, how many a `look` may use
    any other column                   as stored
    """

    @property
    def columns(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[str]:
        raise NotImplementedError

    @property
    def packaged(self) -> tuple[tuple[str, str], ...]:
        """(package, path in it) of each model that it uses and that a Python package brings: part of what it is."""
        return ()

    def look(self, batch: Batch) -> dict[str, np.ndarray]:
        """For a score that needs pixels and embeddings both, which are there only when the pixels are gone.

        What it keeps of a batch of pixels: arrays (n, ...) by names of its own. When the shard has been read
        it is called as any score, with the embeddings and these arrays in its batch.
        """
        return {}

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """One array (n,) for each of `columns`, in the batch's order."""
        raise NotImplementedError


class PoolScore(Plug):
    """A score that looks at the whole pool: duplicates, clusters, likeness to a target.

    `columns` and `needs` are a `Score`'s, without the pixels. It runs after the embedding, and again
    when the pool it was computed from has changed.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[str]:
        raise NotImplementedError

    @property
    def files(self) -> tuple[str, ...]:
        """What it writes below OUT beside its columns: where one is not there, the score is computed again."""
        return ()

    @property
    def on_gpu(self) -> bool:
        """Whether its tasks are products of matrices, and so run on GPUs where there are any."""
        return any("_emb:" in need for need in self.needs)

    def __call__(self, pool: Any, run: Run) -> dict[str, Any]:
        """One array (n,), numpy or arrow, for each of `columns`, in the order of the pool's positions.

        `pool` is an `index.pool.Pool`. `run` maps a picklable function over tasks. The values hang on
        the samples alone: not on how they lie in shards, their order, or the number of workers.
        """
        raise NotImplementedError


class Rule(Plug):
    """Arithmetic over the table; re-run in seconds. Higher is better and True is keep.

    `needs` are column names; `uid_hi` and `uid_lo` (uint64, the uid's two halves) are always there
    to be asked for.
    """

    @property
    def needs(self) -> frozenset[str]:
        raise NotImplementedError

    @property
    def fit_needs(self) -> frozenset[str]:
        """The columns that `fit` looks at: none for a local rule, so the pool is not read for it."""
        return frozenset() if type(self).fit is Rule.fit else self.needs

    def fit(self, table: pl.DataFrame) -> Self:
        """Look at the whole pool (a quantile, a quota); returns a fitted copy. Local rules return self."""
        return self

    def fit_of(self, table: pl.DataFrame, pool: int) -> Self:
        """`fit` on `table`, what rules before it left of a pool of so many rows (`Fraction` may ask for these)."""
        return self.fit(table)

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        """(n,) bool, True = keep; for any slice of the pool, in the slice's order."""
        raise NotImplementedError

    def describe(self) -> str:
        """The rule in a line, with fitted values: ``clip_l14_similarity_score >= 0.2431``."""
        raise NotImplementedError

    @property
    def thresholds(self) -> dict[str, list[float]]:
        """Column -> the values it is cut at, for the report."""
        return {}

    @property
    def children(self) -> tuple["Rule", ...]:
        """The rules inside a rule of rules."""
        return ()


class Task(Plug):
    """What a model can do, measured on a set of samples that it was not trained on.

    `key` names it in files (``vtab/caltech101``), `dataset` for people, and `main_metric` is the one of its
    metrics that counts (None: none does).
    """

    key: str
    dataset: str
    main_metric: str | None = None

    def run(self, embedder: Any) -> TaskResult:
        """Measure an `mmfilter.embed.Embedder`. Raises DataError where its samples cannot be had."""
        raise NotImplementedError


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def build_plug(kind: type[M], value: Any, where: str) -> M:
    """`kind(**value)`; pydantic's errors become one sentence. Raises UsageError."""
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UsageError(f"{where}: a mapping of fields is wanted here, not {value!r}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo explains what is missing
        place = ".".join([where, *(str(part) for part in first["loc"])])
        fields = [f.alias or name for name, f in kind.model_fields.items()]
        if first["type"] == "extra_forbidden":
            field = str(first["loc"][-1])
            raise UsageError(
                f"{place}: unknown field{nearest(field, fields)} Fields: {', '.join(fields) or 'none'}"
            ) from None
        given = "" if first["type"] == "missing" else f" (it is {_shown(first['input'])})"
        raise UsageError(f"{place}: {first['msg'].removeprefix('Value error, ')}{given}") from None


def one_key(node: Any, where: str) -> tuple[str, Any]:
    """(name, value) of a one-key mapping, or of a bare word. Raises UsageError."""
    if isinstance(node, str):
        return node, {}
    if isinstance(node, dict) and len(node) == 1:
        return next(iter(node.items()))
    if isinstance(node, dict) and len(node) > 1:
        raise UsageError(
            f"{where}: one at a time, not {' and '.join(map(str, node))}; a list holds several ('all' for rules)"
        )
    raise UsageError(f"{where}: a one-key mapping is wanted, as in 'threshold: {{score: ..., min: ...}}', not {node!r}")
