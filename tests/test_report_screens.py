"""Every page that a verb writes, on a phone's screen and on a narrow one: nothing is cut off."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_util import cli, fits
from test_evaluate_subsets import made, write_trials

pytest_plugins = ("page_fixtures",)
pytestmark = pytest.mark.browser
LONG = "a-subset-of-an-uncommonly-long-name_" * 3
LAW = """bucket,samples_seen,error
a bucket of a very long name indeed,1e6,0.9
a bucket of a very long name indeed,2e6,0.8
a bucket of a very long name indeed,4e6,0.74
b,1e6,0.95
b,2e6,0.9
b,4e6,0.86
"""


@pytest.fixture(scope="module")
def pages(page_out: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The report with another subset and replaced columns, and the pages of compare, leaderboard and advise."""
    root = tmp_path_factory.mktemp("screens")
    out = root / "out"
    shutil.copytree(page_out, out, ignore=shutil.ignore_patterns("index", "shards"))
    (root / "other.yaml").write_text(f"name: {LONG}\nselect: {{random: {{keep: 0.5}}}}\n")
    cli("select", root / "other.yaml", "--out", out)
    cli("compare", "demo", LONG, "--out", out, "--local")
    labels = page_out.parent / "pool" / "labels" / "labels.parquet"
    cli("report", out, "--name", "demo", "--labels", labels)
    (root / "trials").mkdir()
    rates = {"no_filter": 0.3, LONG: 0.6, "random-50": 0.31}
    write_trials(root / "trials", made(np.random.default_rng(5), rates), ["a", "b"])
    cli("leaderboard", root / "trials")
    (root / "law.csv").write_text(LAW)
    words = ("--budget", "4e6", "--bucket-size", 1_000_000, "--draws", 5, "--page", root / "advise.html")
    cli("advise", root / "law.csv", *words)
    return [out / "report.html", out / "compare.html", root / "trials" / "leaderboard.html", root / "advise.html"]


@pytest.mark.parametrize("width", [390, 320])
def test_nothing_is_cut_off(browser: Any, pages: list[Path], width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    for path in pages:
        page.goto(f"file://{path}")
        for box in page.query_selector_all("details"):
            box.evaluate("box => { box.open = true; }")
        if more := page.query_selector("button.more"):
            more.click()
        fits(page)
    assert "was replaced" in pages[0].read_text()
    context.close()
