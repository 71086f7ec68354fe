"""Rules: arithmetic over the score table. To add one: a file here, and a line in `TABLE`."""

from ..registry import Registry
from .build import build_rule, check_columns, walk

TABLE = {
    "all": "mmfilter.rules.combine:All",
    "any": "mmfilter.rules.combine:Any",
    "not": "mmfilter.rules.combine:Not",
    "then": "mmfilter.rules.combine:Then",
    "caption": "mmfilter.rules.caption:Caption",
    "everything": "mmfilter.rules.everything:Everything",
    "fraction": "mmfilter.rules.fraction:Fraction",
    "image": "mmfilter.rules.image:Image",
    "language": "mmfilter.rules.language:Language",
    "random": "mmfilter.rules.random:Random",
    "threshold": "mmfilter.rules.threshold:Threshold",
    "where": "mmfilter.rules.where:Where",
}

RULES = Registry("rules", TABLE)

__all__ = ["RULES", "TABLE", "build_rule", "check_columns", "walk"]
