"""Rules: arithmetic over the score table. To add one: a file here, and a line in `TABLE`."""

from ..registry import Registry
from .build import build_rule, check_columns, walk

TABLE = {
    "all": "mmfilter.rules.combine:All",
    "any": "mmfilter.rules.combine:Any",
    "not": "mmfilter.rules.combine:Not",
    "then": "mmfilter.rules.combine:Then",
    "votes": "mmfilter.rules.combine:Votes",
    "balanced": "mmfilter.rules.balanced:Balanced",
    "caption": "mmfilter.rules.caption:Caption",
    "cluster_quota": "mmfilter.rules.cluster_quota:ClusterQuota",
    "density_based": "mmfilter.rules.density_based:DensityBased",
    "ensemble": "mmfilter.rules.ensemble:Ensemble",
    "everything": "mmfilter.rules.everything:Everything",
    "fraction": "mmfilter.rules.fraction:Fraction",
    "image": "mmfilter.rules.image:Image",
    "in_subset": "mmfilter.rules.in_subset:InSubset",
    "language": "mmfilter.rules.language:Language",
    "near_target": "mmfilter.rules.near_target:NearTarget",
    "not_duplicate": "mmfilter.rules.not_duplicate:NotDuplicate",
    "probability": "mmfilter.rules.probability:Probability",
    "prototypes": "mmfilter.rules.prototypes:Prototypes",
    "random": "mmfilter.rules.random:Random",
    "threshold": "mmfilter.rules.threshold:Threshold",
    "where": "mmfilter.rules.where:Where",
}

RULES = Registry("rules", TABLE)

__all__ = ["RULES", "TABLE", "build_rule", "check_columns", "walk"]
