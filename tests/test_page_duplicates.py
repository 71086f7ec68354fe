"""The duplicates on the page: each number is of the two pictures beside each other, and every group can be reached."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from page_util import Watch, fits, served, until

from index.duplicates import Duplicates
from index.vectors import open_vectors
from jobs.cluster import Width
from jobs.pool_scores import add_pool_scores

EPS = 0.2  # enough for chains among some hundred scenes

pytest_plugins = ("page_fixtures",)
pytestmark = pytest.mark.browser

CARDS = """[...document.querySelectorAll('#groups .group')].map((group) => {
  const [kept, ...others] = [...group.querySelectorAll('.hit')];
  return others.map((hit) => [kept.dataset.uid, hit.dataset.uid, hit.querySelector('.tag').textContent,
    [...hit.querySelectorAll('.likeness > :not(.joined)')].map((n) => n.textContent).join(' '),
    Boolean(hit.querySelector('.joined'))]);
}).flat()"""


@pytest.fixture(scope="module")
def chained(page_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool of the other tests with duplicates of all kinds, many of them joined by chains."""
    out = tmp_path_factory.mktemp("chained") / "out"
    shutil.copytree(page_out / "metadata", out / "metadata")
    shutil.copy(page_out / "run.json", out)
    add_pool_scores([Duplicates(model="demo", eps=EPS, hamming=4)], str(out), Width(local=True))
    return out


@pytest.fixture(scope="module")
def address_of(chained: Path) -> Iterator[str]:
    with served(chained, "--no-models") as address:
        yield address


@pytest.fixture
def page(browser: Any, address_of: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=address_of)
    page = context.new_page()
    page.set_default_timeout(20_000)
    watch = Watch(page)
    yield page
    context.close()
    watch.clean(address_of)


def open_view(page: Any, query: str = "") -> None:
    page.goto(f"/?{abs(hash(query))}#view=duplicates{query}")
    page.wait_for_selector("#groups .group")


def test_each_number_is_of_the_two_pictures(page: Any, chained: Path) -> None:
    vectors = open_vectors(str(chained), "demo")
    at = {uid.tobytes().hex(): i for i, uid in enumerate(vectors.all_uids().astype([("f0", ">u8"), ("f1", ">u8")]))}
    files = pl.read_parquet(sorted((chained / "metadata").glob("*.parquet")), columns=["uid", "sha256"])
    sha256 = dict(files.iter_rows())
    rows = vectors.take(np.arange(len(vectors))).astype(np.float64)
    open_view(page)
    cards = page.evaluate(CARDS)
    assert {kind for _, _, kind, *_ in cards} >= {"semantic", "exact"}
    joined = 0
    for kept, uid, kind, said, chain in cards:
        cosine = float(rows[at[kept]] @ rows[at[uid]])
        if kind == "exact" and sha256[kept] == sha256[uid]:
            assert "same file" in said and "not the same" not in said
            continue
        assert f"cosine {cosine:.3f}" in said or (cosine > 0.9995 and "> 0.999" in said)
        assert kind != "semantic" or chain == (cosine <= 1 - EPS)
        joined += chain
    assert joined, "the pool has a chain"
    cosines = [float(rows[at[kept]] @ rows[at[uid]]) for kept, uid, kind, *_ in cards if kind == "semantic"]
    assert cosines[0] == min(cosines), "the doubtful come first"


def test_every_group_is_on_a_page_and_a_kind_can_be_picked(page: Any, chained: Path) -> None:
    frame = pl.read_parquet(chained / "columns" / "duplicate_of" / "*.parquet").filter(pl.col("duplicate_of") != "")
    for first, (kind, wanted) in enumerate({"": frame, "exact": frame.filter(duplicate_kind="exact")}.items()):
        open_view(page, f"&order={'alike' if first else ''}&alike={kind}")
        seen: set[str] = set()
        while True:
            while more := page.query_selector(".rest button"):
                before = page.evaluate("document.querySelectorAll('#groups .hit').length")
                more.click()
                until(page, f"document.querySelectorAll('#groups .hit').length > {before}")
            seen |= {uid for _, uid, *_ in page.evaluate(CARDS)}
            after = page.query_selector("#pages:not([hidden]) [aria-label='Next page']:not([disabled])")
            if not after:
                break
            number = int(page.input_value("#pages input"))
            after.click()
            until(page, f"document.querySelector('#pages input').value === '{number + 1}'")
            assert f"page={number + 1}" in page.evaluate("location.hash"), "a page has an address"
        assert seen == set(wanted["uid"])
    page.click("#alike label >> nth=0")
    until(page, "!location.hash.includes('alike=exact')")
    page.select_option("#order", "size")
    until(page, "location.hash.includes('order=size')")
    page.wait_for_load_state("networkidle")
    sizes = page.evaluate("[...document.querySelectorAll('#groups h3.d')].map((h) => parseInt(h.textContent))")
    assert sizes == sorted(sizes, reverse=True)


def test_a_chain_opens_and_a_sample_says_what_it_is_to_the_one_kept(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_view(page)
    if page.query_selector("#groups details.joined summary"):
        page.click("#groups details.joined summary >> nth=0")
    fits(page)
    page.click("#groups .joined .face >> nth=0")
    page.wait_for_selector("#detail[open] .right")
    page.keyboard.press("Escape")
    page.click("#groups .wide .frame >> nth=0")
    page.wait_for_selector("#detail[open] .same .tag")
    assert "duplicate_similarity" not in page.text_content("#detail table")
    kept = page.get_attribute("#detail .same .large-face", "title")
    page.click("#detail .same .large-face")
    until(page, f"document.querySelector('#detail .uid')?.textContent === '{kept}'")
    assert "kept of" in page.text_content("#detail .right")
