"""Retrieval both ways between images and captions, and telling true captions from others'."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import polars as pl

from .. import storage
from ..errors import DataError
from ..metrics import auc_parts, retrieval, retrieval_ranks
from ..records import Failure
from ..results import TaskResult
from .classify import SetTask
from .embedding import embed_items, embed_texts
from .notes import caption_notes, check_differ, row_notes
from .parquet import caption_items, parquet_files
from .sets import Item, captions, is_set, open_set, read_set

MATCH = "match_pairs.parquet"


def _placed(items: Iterable[Item | Failure]) -> Iterator[Item | Failure]:
    """The items with their positions; a sample that cannot be used has one too."""
    position = 0
    for item in items:
        if isinstance(item, Item):
            item.position = position
        position += isinstance(item, Item) or (bool(item.key) and item.status != "key_repeated")
        yield item


class Retrieval(SetTask):
    """Main metric mean_recall@1. Outcomes: an image's part in it, its own recall and that of its captions.

    `root` holds tars, or parquet files with `image` and `caption` (a list), as Hugging Face's `datasets`
    writes nlphuji's two sets, which DataComp's script reads.
    """

    main_metric: str | None = "mean_recall@1"

    @property
    def inputs(self) -> tuple[str, ...]:
        return super().inputs if is_set(self.root, self.split) else tuple(parquet_files(self.root))

    def run(self, embedder: Any) -> TaskResult:
        """image_retrieval_recall@1, 5, 10, text_retrieval_recall@1, 5, 10, mean_recall@1. Raises DataError."""
        failures: list[Failure] = []
        tars = is_set(self.root, self.split)
        items = read_set(open_set(self.root, self.split), ("txt",)) if tars else caption_items(self.root)
        images, told = embed_items(embedder, items, lambda item: captions(item.parts["txt"]), failures)
        owner = np.repeat(np.arange(len(told)), [len(texts) for texts in told])
        words = [text for texts in told for text in texts]
        notes = caption_notes(words, len(told))
        texts = embed_texts(embedder, words)
        notes += row_notes(images, "images") + row_notes(texts, "captions", len(words) - len(set(words)))
        by_text, by_image = retrieval_ranks(images, texts, owner)
        found = np.bincount(owner, by_text == 0, len(images)) * len(images) / len(texts)
        outcomes = (found + (by_image == 0)) / 2
        return self.result(retrieval(by_text, by_image), outcomes, len(images), failures, notes)


class Pairs(SetTask):
    """Main metric auc: how well the similarity tells an image's own caption from another image's.

    `pairs` is a parquet file with `image` (the image's position in the set), `text` and `match` (0 or 1).
    Outcomes are each pair's part in the AUC (DeLong's).
    """

    main_metric: str | None = "auc"
    pairs: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*super().inputs, self.pairs)

    def run(self, embedder: Any) -> TaskResult:
        """auc. Raises DataError."""
        table = self._table()
        failures: list[Failure] = []
        items = _placed(read_set(open_set(self.root, self.split), ()))
        images, kept = embed_items(embedder, items, lambda item: item.position, failures)
        row = np.full(max(kept) + 2, -1)
        row[kept] = np.arange(len(kept))
        asked = table["image"].to_numpy()
        at = row[np.where((asked >= 0) & (asked < len(row)), asked, -1)]
        there = at >= 0
        gone = [Failure("", "", "lost", "its image could not be had")] * int((~there).sum())
        texts = embed_texts(embedder, table["text"].to_list())
        notes = row_notes(images, "images")
        check_differ(texts, "texts")
        scores = np.einsum("nd,nd->n", images[at[there]], texts[there])
        match = table["match"].to_numpy()[there].astype(bool)
        if match.all() or not match.any():
            raise DataError(f"{self.pairs}: pairs that match and pairs that do not are wanted")
        parts = auc_parts(scores, match)
        return self.result({"auc": float(parts.mean())}, parts, int(there.sum()), gone, notes)

    def _table(self) -> pl.DataFrame:
        try:
            table = pl.read_parquet(io.BytesIO(storage.read_bytes(self.pairs)), columns=["image", "text", "match"])
        except (OSError, pl.exceptions.PolarsError) as error:
            why = " ".join(str(error).split())[:200]
            raise DataError(f"{self.pairs}: image, text and match are wanted of a parquet file ({why})") from error
        if not table.height or table.null_count().sum_horizontal()[0]:
            raise DataError(f"{self.pairs}: every pair needs image, text and match")
        image, text, match = (table[name].dtype for name in ("image", "text", "match"))
        if not image.is_integer() or text != pl.String or not (match == pl.Boolean or match.is_integer()):
            raise DataError(
                f"{self.pairs}: image and match are whole numbers and text is words, not {image}, {match} and {text}"
            )
        if not table["match"].cast(pl.Int64).is_in([0, 1]).all():
            raise DataError(f"{self.pairs}: match is 0 or 1, and holds other numbers")
        return table
