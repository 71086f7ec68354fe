"""Duplicates that were found against those that are known."""

from dataclasses import dataclass

import polars as pl

from ..decisions import read_parquet
from ..errors import DataError
from .collect import percent
from .pool import Pool

FOUND = "duplicate_of"  # the column that the score `duplicates` writes


@dataclass(frozen=True)
class Copies:
    """`marked` samples are duplicates of one that is kept, `right` of them show its picture; `copies` is how many
    of the pool's samples are a second copy of a picture. `kinds`: name, samples, those whose picture was found twice.
    """

    marked: int
    right: int
    copies: int
    kinds: list[tuple[str, int, int]]

    @property
    def precision(self) -> float:
        """In percent."""
        return percent(self.right, self.marked)

    @property
    def recall(self) -> float:
        """In percent, of the second copies."""
        return percent(self.right, self.copies)


def read_pictures(path: str) -> pl.DataFrame | None:
    """uid, kind and `picture`, which photo a sample shows: of labels with a column `source`, or `duplicate_of`
    (the uid of the first copy, or ""). None where the labels have neither. Raises DataError."""
    labels = read_parquet(path)
    if "source" in labels.columns:
        picture = pl.col("source")
    elif FOUND in labels.columns:
        picture = pl.when(pl.col(FOUND).fill_null("") == "").then("uid").otherwise(FOUND)
    else:
        return None
    try:
        found = labels.select(pl.col("uid", "kind").cast(pl.String), picture=picture.cast(pl.String))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: its uid, kind and {FOUND} or source must be text, not {labels.schema}") from error
    return found.unique("uid", keep="first")


def compare(found: pl.DataFrame, labels: pl.DataFrame) -> Copies:
    """`found`: uid and duplicate_of of every sample; `labels` as `read_pictures` has them."""
    rows = found.select("uid", FOUND).join(labels, on="uid")
    first = rows.select(pl.col("uid").alias(FOUND), pl.col("picture").alias("first"))
    marked = rows.filter(pl.col(FOUND).fill_null("") != "").join(first, on=FOUND, how="left")
    right = marked.filter(pl.col("picture") == pl.col("first"))
    known = rows.filter(pl.col("kind").str.starts_with("duplicate"))
    hit = known.join(right.select("picture").unique(), on="picture", how="semi")
    hits = dict(hit["kind"].value_counts().iter_rows())
    kinds = [
        (str(kind), int(n), int(hits.get(kind, 0))) for kind, n in sorted(known["kind"].value_counts().iter_rows())
    ]
    return Copies(marked.height, right.height, rows.height - rows["picture"].n_unique(), kinds)


def copies(pool: Pool, path: str) -> Copies | None:
    """The pool's column `duplicate_of` against the labels at `path`; None where either says nothing of duplicates."""
    labels = read_pictures(path)
    if labels is None or FOUND not in pool.table.columns:
        return None
    return compare(pl.DataFrame({"uid": pool.series("uid").cast(pl.String), FOUND: pool.series(FOUND)}), labels)
