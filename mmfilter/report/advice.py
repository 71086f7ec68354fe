"""The page of `advise`: the curve at the budget, and the law through each bucket's results."""

from typing import Any

import numpy as np

from ..scaling import Law
from .lines import Line, draw_lines
from .page import render

POINTS = 120  # of a fitted curve


def advice_page(advice: dict[str, Any]) -> str:
    """The HTML of what `mmfilter.advise.advise` returned."""
    rows = advice["curve"]
    k, error = (np.array([row[name] for row in rows], float) for name in ("buckets", "error"))
    bands = [row["interval"] for row in rows]
    low, high = np.array(bands).T if all(bands) else (None, None)
    line = Line("error at the budget", k, error, dots=True, low=low, high=high)
    curve = draw_lines([line], "Error by buckets merged", float(advice["keep"]), whole=True)
    return render("advise.html", {"advice": advice, "curve": curve, "fits": _fits(advice)})


def _fits(advice: dict[str, Any]) -> Any:
    lines = []
    most = max(result["samples_seen"] for bucket in advice["buckets"] for result in bucket["results"])
    for hue, bucket in enumerate(advice["buckets"]):
        shape = (np.array([bucket[name]]) for name in ("utility", "half_life"))
        law = Law(advice["bucket_size"], advice["scale"], advice["floor"], *shape)
        seen = np.array([result["samples_seen"] for result in bucket["results"]])
        x = np.linspace(seen.min(), most, POINTS)
        lines.append(Line(bucket["bucket"], x, np.array([law.error(v, [0]) for v in x]), hue))
        error = np.array([result["error"] for result in bucket["results"]])
        lines.append(Line(bucket["bucket"], seen, error, hue, dots=True, joined=False))
    return draw_lines(lines, "Error against samples seen, by bucket")
