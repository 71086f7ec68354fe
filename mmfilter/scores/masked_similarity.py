"""T-MARS: does the caption describe what is to be seen, or only what is to be read?"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from ..ocr import MODELS, check_installed, paint_over, read_text
from ..plugs import Batch, Score
from ..preprocess import Unpreparable
from .clip_similarity import cosine


class MaskedSimilarity(Score):
    """`masked_{model}_similarity_score` (float32, -1..1), `text_boxes` (int32), `text_area` (float32, 0..1).

    T-MARS (Maini et al. 2023, arXiv 2307.03132): the text in an image is painted over with the mean colour
    around it, and the image is compared with its caption again. Without text it is the stored embedding that
    is compared, so the score is `clip_similarity`'s to the bit. The authors find text with FAST at 512 px
    and their published code stops at the boxes; here it is rapidocr at `side` px on the longer side, and a box
    is text that reads as `min_chars` letters or digits with a score of `min_score`: chosen on generated images
    by `benchmarks/real_ocr.py`. `text_area` is the painted share of the pixels.

    Runs in the pass over the pixels, and beside the embedding of `model` if that is wanted too. It takes
    `pip install 'mmfilter[ocr]'` and 0.13 to 0.17 s of a core an image.
    """

    model: str = Field(min_length=1)
    side: int = Field(default=320, ge=32, le=2048)
    min_score: float = Field(default=0.9, ge=0, le=1)
    min_chars: int = Field(default=3, ge=0)

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"masked_{self.model}_similarity_score", "text_boxes", "text_area")

    @property
    def needs(self) -> frozenset[str]:
        name = self.model
        return frozenset({"image", "threads", f"embedder:{name}", f"img_emb:{name}", f"txt_emb:{name}"})

    @property
    def packaged(self) -> tuple[tuple[str, str], ...]:
        return MODELS

    def check(self) -> None:
        check_installed()

    def look(self, batch: Batch) -> dict[str, np.ndarray]:
        """The painted images' embeddings (n, d) float16, zeros where nothing was painted."""
        images, threads = list(batch["image"]), int(batch["threads"])
        embedder: Any = batch[f"embedder:{self.model}"]
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(lambda image: self._painted(image, embedder), images))
        else:
            found = [self._painted(image, embedder) for image in images]
        rows = np.array([i for i, one in enumerate(found) if one is not None], dtype=np.int64)
        masked = np.zeros((len(images), embedder.dim), np.float16)
        boxes, area = np.zeros(len(images), np.int32), np.zeros(len(images), np.float32)
        painted = [one for one in found if one is not None]
        if painted:
            masked[rows] = embedder.images(np.stack([one[0] for one in painted]))
            boxes[rows], area[rows] = [one[1] for one in painted], [one[2] for one in painted]
        return dict(zip(self._looked, (masked, boxes, area), strict=True))

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        masked, boxes, area = (np.asarray(batch[name]) for name in self._looked)
        images, texts = np.asarray(batch[f"img_emb:{self.model}"]), np.asarray(batch[f"txt_emb:{self.model}"])
        if len(images):
            images = np.where((boxes > 0)[:, None], masked, images)
        return dict(zip(self.columns, (cosine(images, texts), boxes, area), strict=True))

    @property
    def _looked(self) -> tuple[str, str, str]:
        first, boxes, area = self.columns
        return f"{first}:masked", f"{first}:{boxes}", f"{first}:{area}"

    def _painted(self, image: Image.Image, embedder: Any) -> tuple[np.ndarray, int, float] | None:
        """(the model's input, boxes, area) of an image with text, None of one without."""
        quads = read_text(image, self.side).words(self.min_score, self.min_chars)
        if not len(quads):
            return None
        painted, area = paint_over(image, quads)
        try:
            return embedder.prepare(painted), len(quads), area
        except Unpreparable:  # embedding the image as it is fails alike, and is told there
            return None
