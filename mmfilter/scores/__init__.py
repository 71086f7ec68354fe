"""Scores: what costs a model or a look at the pixels. To add one: one file here, and one line below.

Those in `index` look at the whole pool (`PoolScore`).
"""

from collections.abc import Collection

from ..errors import UsageError, nearest
from ..plugs import PoolScore, Score, build_plug, one_key
from ..registry import Registry

TABLE = {
    "caption": "mmfilter.scores.caption:Caption",
    "caption_agreement": "index.agreement:CaptionAgreement",
    "clip_similarity": "mmfilter.scores.clip_similarity:ClipSimilarity",
    "clusters": "index.concepts:Clusters",
    "duplicates": "index.duplicates:Duplicates",
    "head": "mmfilter.scores.head:Head",
    "image_size": "mmfilter.scores.image_size:ImageSize",
    "language": "mmfilter.scores.language:Language",
    "masked_similarity": "mmfilter.scores.masked_similarity:MaskedSimilarity",
    "metaclip": "index.metaclip:MetaCLIP",
    "negclip": "index.negclip:NegClip",
    "norm_sim": "index.norm_sim:NormSim",
    "overlap": "index.overlap:Overlap",
    "phash": "mmfilter.scores.phash:PHash",
    "quantization": "index.quantization:Quantization",
    "repeated_pairs": "index.repeats:RepeatedPairs",
    "repeats": "index.repeats:Repeats",
    "round_robin": "index.round_robin:RoundRobin",
    "synset": "index.synset:Synset",
    "target": "index.target:Target",
    "target_clusters": "index.target_clusters:TargetClusters",
    "token_frequency": "index.token_frequency:TokenFrequency",
}

SCORES = Registry("scores", TABLE)


def build_score(node: object, where: str, models: Collection[str] | None = None) -> Score | PoolScore:
    """A score from a recipe's one-key mapping, ``{clip_similarity: {model: l14}}``, or from a bare name.

    `where` leads every error, e.g. ``recipe x.yaml: scores[1]``. With `models`, the names in the
    recipe's `embed`, a score that asks for another is refused. Raises UsageError.
    """
    name, fields = one_key(node, where)
    score: Score | PoolScore = build_plug(SCORES.get(str(name), where), fields, f"{where}.{name}")
    if models is not None:
        _check_models(score, f"{where}.{name}", models)
    return score


def score_of(column: str) -> str:
    """The name of a score that writes `column` with its default fields; "" where none does. Imports them all."""
    for name in SCORES.table():
        try:
            if column in SCORES.get(name)().columns:
                return name
        except Exception:  # fields without a default, or a package of somebody's that cannot be imported
            continue
    return ""


def _check_models(score: Score | PoolScore, where: str, models: Collection[str]) -> None:
    for need in sorted(score.needs):
        kind, _, model = need.partition(":")
        if kind in ("img_emb", "txt_emb", "embedder") and model not in models:
            known = f" It names: {', '.join(sorted(models))}" if models else " It names none"
            raise UsageError(f"{where}.model: no model '{model}' in embed{nearest(model, models)}{known}")
