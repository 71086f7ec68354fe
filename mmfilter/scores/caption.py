"""How long a caption is."""

import numpy as np

from ..plugs import Batch, Score


class Caption(Score):
    """`caption_words`: ``len(text.split())``, DataComp's count for its basic filter; `caption_chars`: code points."""

    @property
    def columns(self) -> tuple[str, ...]:
        return ("caption_words", "caption_chars")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text"})

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        texts = batch["text"]
        return {
            "caption_words": np.array([len(text.split()) for text in texts], dtype=np.int32),
            "caption_chars": np.array([len(text) for text in texts], dtype=np.int32),
        }
