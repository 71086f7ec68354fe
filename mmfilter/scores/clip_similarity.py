"""The CLIP score: cosine of an image's and its caption's embedding (Hessel et al. 2021, arXiv 2104.08718)."""

import numpy as np
from pydantic import Field

from ..plugs import Batch, Score

ROWS = 8192  # at a time: 8192 x 768 doubles are 50 MB


class ClipSimilarity(Score):
    """`clip_{model}_similarity_score`, float32 in -1..1.

    Computed from the stored fp16 rows, never from the model's fp32 output, so that a pass over the
    pixels and a later pass over the npz give the same bits. The sum is exact whatever its order: a
    product of two fp16 numbers of at most 1 is a multiple of 2**-48, and a double holds 53 bits.
    """

    model: str = Field(min_length=1)

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"clip_{self.model}_similarity_score",)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"img_emb:{self.model}", f"txt_emb:{self.model}"})

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        images, texts = np.asarray(batch[f"img_emb:{self.model}"]), np.asarray(batch[f"txt_emb:{self.model}"])
        return {self.columns[0]: cosine(images, texts)}


def cosine(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """(n,) float32 of unit rows (n, d), row by row."""
    scores = np.empty(len(images), dtype=np.float32)
    for start in range(0, len(images), ROWS):
        rows = slice(start, start + ROWS)
        scores[rows] = np.multiply(images[rows], texts[rows], dtype=np.float64).sum(axis=1)
    return scores
