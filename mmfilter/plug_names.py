"""How a record names the score or task that made something: by its registry name and the version of its definition.

Records of format 1 have the path of its module and class instead, which changes when a file is moved.
"""

from collections.abc import Mapping
from typing import Any

from .plugs import Plug
from .registry import Registry

FORMER_PATHS = {
    "mmfilter.scores.caption:Caption": "caption",
    "index.agreement:CaptionAgreement": "caption_agreement",
    "mmfilter.scores.clip_similarity:ClipSimilarity": "clip_similarity",
    "index.concepts:Clusters": "clusters",
    "index.duplicates:Duplicates": "duplicates",
    "mmfilter.scores.head:Head": "head",
    "mmfilter.scores.image_size:ImageSize": "image_size",
    "mmfilter.scores.language:Language": "language",
    "mmfilter.scores.masked_similarity:MaskedSimilarity": "masked_similarity",
    "index.metaclip:MetaCLIP": "metaclip",
    "index.negclip:NegClip": "negclip",
    "index.norm_sim:NormSim": "norm_sim",
    "index.overlap:Overlap": "overlap",
    "mmfilter.scores.phash:PHash": "phash",
    "index.quantization:Quantization": "quantization",
    "index.repeats:RepeatedPairs": "repeated_pairs",
    "index.repeats:Repeats": "repeats",
    "index.round_robin:RoundRobin": "round_robin",
    "index.synset:Synset": "synset",
    "index.target:Target": "target",
    "index.target_clusters:TargetClusters": "target_clusters",
    "index.token_frequency:TokenFrequency": "token_frequency",
    "mmfilter.tasks.classify:Classification": "classification",
    "mmfilter.tasks.classify:Multilabel": "multilabel",
    "mmfilter.tasks.groups:Faces": "faces",
    "mmfilter.tasks.groups:Groups": "groups",
    "mmfilter.tasks.retrieve:Pairs": "pairs",
    "mmfilter.tasks.retrieve:Retrieval": "retrieval",
    "mmfilter.tasks.scenes:SceneChoice": "scene_choice",
    "mmfilter.tasks.scenes:SceneClasses": "scene_classes",
    "mmfilter.tasks.scenes:SceneRetrieval": "scene_retrieval",
    "mmfilter.tasks.winogavil:Winogavil": "winogavil",
}
"""Where the packaged plugs were in format 1 -> their names."""


def named(plug: Plug, registry: Registry) -> dict[str, Any]:
    """``{"score": "caption", "version": 1}``: the first fields of the record of what a plug made."""
    return {registry.kind.removesuffix("s"): registry.name_of(type(plug)), "version": type(plug).version}


def renamed(record: Any, registry: Registry) -> Any:
    """A record as `named` has it; one of format 1 with the path of its class in place of the name is translated."""
    if not isinstance(record, Mapping) or "plug" not in record:
        return record
    path = record["plug"]
    others = {value: name for name, value in registry.table().items()}
    rest = {key: value for key, value in record.items() if key != "plug"}
    return {registry.kind.removesuffix("s"): FORMER_PATHS.get(path) or others.get(path, path), "version": 1, **rest}
