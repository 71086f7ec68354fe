"""Text in images: where it stands (rapidocr, with the models in its wheel), and painting it over."""

import functools
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .errors import need

MODELS = tuple(("rapidocr", f"models/PP-OCRv6_{part}_small.onnx") for part in ("det", "rec"))  # that `_engine` loads
MULTIPLE = 32  # of px: what the detector's network takes
RING = 0.2  # how far around a box its surroundings reach, of the box's shorter side: text often stands on a band


class Found(NamedTuple):
    """What a reader made of an image, box by box.

    `quads` (k, 4, 2) float64 are corners in px of the image; `texts` what was read; `scores` (k,)
    float64, 0..1, how surely.
    """

    quads: np.ndarray
    texts: tuple[str, ...]
    scores: np.ndarray

    def words(self, min_score: float, min_chars: int) -> np.ndarray:
        """The quads (m, 4, 2) that read as so many letters or digits, so surely."""
        letters = np.array([sum(c.isalnum() for c in text) for text in self.texts], dtype=np.int64)
        return self.quads[(self.scores >= min_score) & (letters >= min_chars)]


def read_text(image: Image.Image, side: int) -> Found:
    """The text in an image of any mode, looked for at `side` px on the longer side. Thread-safe.

    PP-OCR (Li et al. 2022, arXiv 2206.03001; rapidocr 3.10 brings the small models of PP-OCRv6): a
    detector proposes boxes, a recogniser reads them. The detector alone takes windows, bricks and fences
    for text; what reads as a word is text. One thread a call, nothing is fetched, and the same answer
    each time on a machine. Raises MissingDependency.
    """
    width, height = (max(MULTIPLE, round(s * side / max(image.size) / MULTIPLE) * MULTIPLE) for s in image.size)
    small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    found = _engine(side)(np.ascontiguousarray(np.asarray(small)[:, :, ::-1]))  # it takes blue first
    texts = getattr(found, "txts", None) or ()
    if not texts:
        return Found(np.zeros((0, 4, 2)), (), np.zeros(0))
    scale = np.array([image.width / width, image.height / height])
    quads = np.asarray(found.boxes, np.float64).reshape(-1, 4, 2) * scale
    return Found(quads, tuple(texts), np.asarray(found.scores, np.float64))


def check_installed() -> None:
    """Raise MissingDependency where rapidocr or its runtime is not installed."""
    for module in ("onnxruntime", "rapidocr"):
        need(module, "mmfilter[ocr]")


@functools.cache
def _engine(side: int) -> Any:
    """rapidocr without its turning of lines; the models are loaded at the first image."""
    check_installed()
    import rapidocr

    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.use_cls": False,
            "Global.use_preprocess_img": False,
            "Global.text_score": 0.0,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.limit_type": "max",
            "Det.limit_side_len": max(side, MULTIPLE),
        }
    )


def paint_over(image: Image.Image, quads: np.ndarray) -> tuple[Image.Image, float]:
    """(`image` as RGB with each quad in the mean colour around it, the share of its pixels that were painted).

    Around a box is its upright rectangle grown by a fifth of the box's shorter side on each side, without any
    quad; where nothing is left of it, all of the image without the quads; and else the box itself.
    The colours are of the image as it came, so the order of the quads changes nothing but overlaps.
    """
    painted, text = image.convert("RGB"), Image.new("1", image.size)
    if painted is image:
        painted = image.copy()
    outlines = [[(float(x), float(y)) for x, y in quad] for quad in quads]
    for outline in outlines:
        ImageDraw.Draw(text).polygon(outline, fill=1)
    pixels, is_text = np.asarray(painted).copy(), np.asarray(text)
    draw = ImageDraw.Draw(painted)
    for quad, outline in zip(quads, outlines, strict=True):
        draw.polygon(outline, fill=_around(pixels, is_text, quad))
    return painted, float(is_text.mean())


def _around(pixels: np.ndarray, is_text: np.ndarray, quad: np.ndarray) -> tuple[int, int, int]:
    """The mean colour around a quad, rounded half up."""
    sides = np.linalg.norm(quad - np.roll(quad, 1, axis=0), axis=1)
    by = max(2.0, RING * float(sides.min()))
    box = _within(quad.min(axis=0) - by, quad.max(axis=0) + by)
    for rows in (pixels[box][~is_text[box]], pixels[~is_text], pixels[box].reshape(-1, 3)):
        if len(rows):
            red, green, blue = ((2 * rows.sum(axis=0, dtype=np.int64) + len(rows)) // (2 * len(rows))).tolist()
            return red, green, blue
    return 0, 0, 0


def _within(low: np.ndarray, high: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of pixels from `low` to `high` (x, y)."""
    left, top = np.maximum(np.floor(low), 0).astype(int)
    right, bottom = np.maximum(np.ceil(high), 0).astype(int)
    return slice(top, bottom), slice(left, right)
