"""The decision against labels that are known."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ..decisions import read_parquet
from ..errors import DataError
from .collect import percent
from .pool import REPEATED, Pool


@dataclass(frozen=True)
class Kind:
    """Samples of one known kind; `blamed` counts those each step dropped first, by the step's path."""

    name: str
    match: int
    read: int
    kept: int
    failed: int
    blamed: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Kept, in percent."""
        return percent(self.kept, self.read)


@dataclass(frozen=True)
class Labels:
    """Known labels against the decision. positive = the caption describes the image (`match`)."""

    kinds: list[Kind]
    known: int
    positives: int
    kept: int
    kept_positives: int

    @property
    def precision(self) -> float:
        return percent(self.kept_positives, self.kept)

    @property
    def recall(self) -> float:
        return percent(self.kept_positives, self.positives)

    @property
    def before(self) -> float:
        """The precision of keeping everything."""
        return percent(self.positives, self.known)


def label(pool: Pool, failures: pl.DataFrame, path: str) -> Labels:
    """Compare with a parquet of known labels: uid (str), kind (str), match (bool)."""
    known = _known(path)
    decided = pl.DataFrame({"uid": pool.series("uid").cast(pl.String), "keep": pool.keep, "blame": pool.blame})
    decided = decided.filter(pl.col("blame") != REPEATED)  # those are among the failures
    lost = failures.select("uid", keep=pl.lit(False), blame=pl.lit(-2, pl.Int16))
    rows = pl.concat([decided, lost], how="vertical_relaxed").join(known, on="uid")
    kinds = [_kind(pool, str(name), part) for (name,), part in rows.sort("kind").group_by("kind", maintain_order=True)]
    kinds.sort(key=lambda kind: (-kind.match / max(kind.read, 1), -kind.read, kind.name))
    positive = rows.filter("match")
    return Labels(kinds, rows.height, positive.height, int(rows["keep"].sum()), int(positive["keep"].sum()))


def _known(path: str) -> pl.DataFrame:
    known = read_parquet(path)
    if lacking := [name for name in ("uid", "kind", "match") if name not in known.columns]:
        raise DataError(f"{path}: labels need the columns uid, kind and match; {', '.join(lacking)} is not there")
    try:
        known = known.select(pl.col("uid", "kind").cast(pl.String), pl.col("match").cast(pl.Boolean))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: labels are text (uid, kind) and true or false (match), not {known.schema}") from error
    return known.unique("uid", keep="first")


def matches(pool: Pool, path: str) -> np.ndarray:
    """(n,) int8 over the pool's samples: 1 where the caption is known to match, 0 where not, -1 unknown."""
    uids = pl.DataFrame({"uid": pool.series("uid").cast(pl.String)})
    found = uids.join(_known(path), on="uid", how="left", maintain_order="left")
    return found["match"].cast(pl.Int8).fill_null(-1).to_numpy()


def _kind(pool: Pool, name: str, rows: pl.DataFrame) -> Kind:
    blamed = dict(rows["blame"].value_counts().iter_rows())
    by_step = {step.path: int(blamed.get(i, 0)) for i, step in enumerate(pool.steps)}
    return Kind(name, int(rows["match"].sum()), rows.height, int(rows["keep"].sum()), int(blamed.get(-2, 0)), by_step)
