"""WinoGAViL (Bitton et al. 2022, arXiv 2207.12576): which of the candidate images belong to a cue."""

import hashlib
from typing import Any

import numpy as np

from ..errors import DataError
from ..metrics import jaccard
from ..records import Failure
from ..results import TaskResult
from .classify import SetTask
from .embedding import embed_items, embed_texts
from .parquet import image_bytes, parquet_files, rows
from .sets import Item

COLUMNS = ("cue", "candidates", "associations", "candidate_images")
SIZES = {"5": (5, 5), "6": (6, 6), "10": (10, 10), "12": (12, 12), "5-6": (0, 6), "10-12": (10, 1 << 30)}


class Winogavil(SetTask):
    """Main metric jaccard_score_10-12: as many of 10 or 12 candidates as are right. No outcomes.

    DataComp reads it with Hugging Face's `datasets` (nlphuji/winogavil, split test), not from tars; what is
    read here are the parquet files that `to_parquet` writes of it into `root`: ``cue``, ``candidates`` and
    ``associations`` (lists of image names), ``candidate_images`` (list of {bytes, path}).
    """

    main_metric: str | None = "jaccard_score_10-12"

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(parquet_files(self.root))

    def run(self, embedder: Any) -> TaskResult:
        """avg_jaccard_score, jaccard_score_N by the number of candidates. Raises DataError."""
        failures: list[Failure] = []
        scores: list[float] = []
        sizes: list[int] = []
        images: dict[bytes, np.ndarray] = {}
        for row in rows(self.root, COLUMNS):
            found = checked(row) or self._one(embedder, row, images)
            if isinstance(found, Failure):
                failures.append(found)
            else:
                sizes.append(found[0])
                scores.append(found[1])
        if not scores:
            raise DataError(f"{self.root}: no instance of it can be measured")
        return self.result(by_size(np.array(scores), np.array(sizes)), None, len(scores), failures)

    def _one(self, embedder: Any, row: dict[str, Any], images: dict[bytes, np.ndarray]) -> tuple[int, float] | Failure:
        """(candidates, Jaccard) of an instance; an image (known by its bytes) is embedded once."""
        names, cue = row["candidates"], row["cue"]
        true = np.isin(names, row["associations"])
        items = [
            Item(name, image_bytes(cell) or b"", {}) for name, cell in zip(names, row["candidate_images"], strict=True)
        ]
        new = {digest: item for item in items if (digest := _digest(item)) not in images}
        broken: list[Failure] = []
        if new:
            try:
                found, done = embed_items(embedder, new.values(), _digest, broken)
                images.update(zip(done, found, strict=True))
            except DataError:
                pass  # all of them are in `broken`
        if broken:
            return Failure(row["key"], "", broken[0].status, f"candidate {broken[0].key}: {broken[0].error}")
        text = embed_texts(embedder, [prompt(cue)])[0]
        return len(names), jaccard(np.stack([images[_digest(item)] for item in items]) @ text, true)


def _digest(item: Item) -> bytes:
    return hashlib.sha256(item.image).digest()


def prompt(cue: str) -> str:
    """``A cue`` or ``An cue``, in lower case: DataComp's, by the first letter alone."""
    return f"{'An' if cue[0].lower() in 'aeiou' else 'A'} {cue.lower()}"


def by_size(scores: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """Mean Jaccard of all and by the number of candidates; NaN where no instance has it."""
    found = {"avg_jaccard_score": float(scores.mean())}
    for name, (low, high) in SIZES.items():
        chosen = scores[(sizes >= low) & (sizes <= high)]
        found[f"jaccard_score_{name}"] = float(chosen.mean()) if len(chosen) else float("nan")
    return found


def checked(row: dict[str, Any]) -> Failure | None:
    """Why a row is no instance, or None."""
    names, images = row["candidates"], row["candidate_images"]
    if not row["cue"] or not names or not images or len(names) != len(images):
        return Failure(row["key"], "", "label_malformed", "a cue, and as many images as candidates, are wanted")
    if any(image_bytes(image) is None for image in images):
        return Failure(row["key"], "", "image_empty", "a candidate has no bytes; write the files with images inside")
    if not set(names) & set(row["associations"] or ()):
        return Failure(row["key"], "", "label_malformed", "none of its associations is a candidate")
    return None
