"""A page from its template: one HTML file with its style and script inside, that fetches nothing."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from .charts import exact, number, short, span

TEMPLATES = ("frame.html", "macros.html", "report.html", "advise.html", "compare.html")


def render(template: str, facts: dict[str, Any]) -> str:
    """The HTML of `template` with `facts`; every one of them is escaped."""
    here = files(__package__)
    parts = {name: here.joinpath(name).read_text("utf-8") for name in TEMPLATES}
    style, script = (here.joinpath(name).read_text("utf-8") for name in ("report.css", "report.js"))
    environment = Environment(
        loader=DictLoader(parts), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(n=lambda v: f"{v:,}", num=number, exact=exact, span=span, pct=percent, short=short)
    # Only this script may run, whatever a caption says: the browser itself refuses every other.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        **facts, style=Markup(style), script=Markup(script), script_hash=f"sha256-{digest}"
    )


def percent(value: float) -> str:
    """One decimal, and never 100 or 0 for what is not all or nothing."""
    if 0 < value < 0.05:
        return "< 0.1 %"
    if 99.95 <= value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %"
