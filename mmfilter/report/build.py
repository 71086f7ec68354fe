"""One HTML file from a folder of results."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import yaml

from .. import storage
from ..allow import Allow, merge, sentences
from ..auc import auc
from ..decisions import resolve_name
from ..own_files import write_page
from ..run_file import read_run
from ..run_pool import left_out
from ..subset_record import changes_since, gaps_of
from . import collect, labels, scores, sheet
from .charts import Chart, draw_histogram
from .comparison import MEASURES, before_after, made, measured, others
from .copies import copies
from .duplicates import duplicates
from .origin import clock, commands, origin
from .page import render
from .pool import Pool, open_pool, read_failures


@dataclass(frozen=True)
class ReportOptions:
    """`samples` thumbnails on each sheet, drawn by `seed`; `labels` is a parquet of uid, kind, match.

    `metadata` is where the score table is when it is not in the output folder; `path` is the file
    to write, OUT/report.html when empty; `allow` says what of the pool may be missing or stale.
    """

    samples: int = 12
    seed: int = 0
    labels: str = ""
    metadata: str = ""
    path: str = ""
    allow: Allow = Allow()


@dataclass(frozen=True)
class ScoreCard:
    """A column's chart, and below it the sheets on each side of each threshold; `auc` against known labels."""

    histogram: scores.Histogram
    chart: Chart
    auc: float | None
    cuts: list[tuple[scores.Cut, tuple[sheet.Sheet, sheet.Sheet]]] = field(default_factory=list)


def build_report(out: str, name: str = "", options: ReportOptions = ReportOptions()) -> str:
    """Write the report on subset `name` in `out`, one self-contained HTML file; returns its path.

    An empty `name` is the only subset there is. Raises UsageError on a name that is not there and
    DataError on files that do not fit together. A tar that is gone only costs its pictures.
    """
    pool = open_pool(out, resolve_name(out, name), options.metadata, options.allow)
    page = render("report.html", _facts(pool, options))
    path = options.path or storage.join(out, "report.html")
    write_page(path, page)
    return path


def _facts(pool: Pool, options: ReportOptions) -> dict[str, Any]:
    """Everything the template shows."""
    failures, run = read_failures(pool), read_run(pool.out)
    counts = collect.count(pool, failures)
    cards = _cards(pool, options)
    sheets = _sheets(pool, options, cards)
    same = duplicates(pool, options.samples)
    shown = [s for group in sheets for s in group[1]] + [s for card in cards for _, pair in card.cuts for s in pair]
    shown += same.sheets if same else []
    source, thumbs = pool.record.get("recipe") or {}, sheet.load_thumbs(pool, shown)
    return {
        "pool": pool,
        "counts": counts,
        "more": int(pool.record.get("copies") or 0),
        "repeat": pool.record.get("repeat") or [],
        "differences": collect.differences(pool, counts),
        "levels": collect.waterfall(pool),
        "cards": cards,
        "categories": [scores.category(pool, column) for column in scores.text_columns(pool)],
        "made": made(before_after(pool)),
        "others": others(pool),
        "measured": measured(pool),
        "measures": MEASURES,
        "sheets": sheets,
        "same": same,
        "thumbs": thumbs,
        "failures": collect.reasons(failures),
        "notes": collect.notes(pool),
        "absent": collect.absent_shards(pool, run),
        "left_out": sorted(left_out(pool.out)),
        "clock": clock(run),
        "stages": collect.stages(pool, counts),
        "labels": labels.label(pool, failures, options.labels) if options.labels else None,
        "copies": copies(pool, options.labels) if options.labels else None,
        "origins": collect.origins(pool),
        "origin": origin(pool, run),
        "replaced": changes_since(pool.table, pool.record),
        "gaps": sentences(merge(gaps_of(pool.record), pool.table.gaps())),
        "absent_tars": sheet.absent_tars(thumbs),
        "commands": commands(pool),
        "recipe": yaml.safe_dump(source, sort_keys=False, allow_unicode=True, width=90) if source else "",
        "title": str(source.get("name") or pool.name) if isinstance(source, dict) else pool.name,
    }


def _cards(pool: Pool, options: ReportOptions) -> list[ScoreCard]:
    """One column in memory at a time."""
    ours, others = scores.numeric_columns(pool)
    match = labels.matches(pool, options.labels) if options.labels else None
    cards = []
    for column in [*ours, *others]:
        values = pool.floats(column)
        histogram = scores.histogram(pool, column, values, column in ours)
        pairs = [(cut, sheet.beside(pool, values, cut, options.samples, options.seed)) for cut in histogram.cuts]
        cards.append(
            ScoreCard(histogram, draw_histogram(histogram), None if histogram.whole else _auc(values, match), pairs)
        )
    return cards


def _auc(values: np.ndarray, match: np.ndarray | None) -> float | None:
    """Of the samples that are known (match 0 or 1) and have a value; None where a side is empty."""
    if match is None:
        return None
    known = np.isfinite(values) & (match >= 0)
    sides = match[known] == 1
    return auc(values[known], sides) if sides.any() and not sides.all() else None


def _sheets(pool: Pool, options: ReportOptions, cards: list[ScoreCard]) -> list[tuple[str, list[sheet.Sheet]]]:
    """Random samples: of all kept, of all dropped, and of what each rule without a threshold dropped."""
    drawn = {cut.step for card in cards for cut, _ in card.cuts}
    rest = [i for i in range(len(pool.steps)) if i not in drawn and (pool.blame == i).any()]
    n, seed = options.samples, options.seed

    def some(title: str, kept: bool, mask: np.ndarray) -> sheet.Sheet:
        return sheet.Sheet(title, kept, sheet.at_random(np.flatnonzero(mask), n, seed))

    both = [some("Kept", True, pool.keep), some("Dropped", False, pool.blame >= 0)]
    by_rule = [some(pool.steps[i].text, False, pool.blame == i) for i in rest]
    return [("At random", both)] + ([("Dropped by rules without a threshold", by_rule)] if by_rule else [])
