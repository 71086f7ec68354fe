"""The page, in a headless Chromium on a served pool: what a person does with it, and what data must not do to it."""

import base64
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import polars as pl
import pytest
import yaml
from page_util import SCORE, scores, search, served, uids, until

from mmfilter.rules import build_rule
from mmfilter.subset import Subset

pytest_plugins = ("page_fixtures",)
pytestmark = pytest.mark.browser


@pytest.mark.slow
def test_words_find_what_they_say(page: Any) -> None:
    search(page, "a red car")
    told = page.request.post("/api/search", data={"text": "a red car", "k": 60, "index": "demo-image"}).json()["hits"]
    values = [float(node.text_content()) for node in page.query_selector_all("#results .value")]
    assert uids(page) == [hit["uid"] for hit in told] and values == sorted(values, reverse=True) and len(values) == 60
    until(page, "location.hash.includes('q=a+red+car')")
    again = uids(page)
    page.reload()
    page.wait_for_selector("#results .hit")
    assert uids(page) == again and page.input_value("#q") == "a red car"
    page.go_back()
    until(page, "document.querySelector('#count').textContent.includes('random')")


@pytest.mark.slow
def test_keys(page: Any) -> None:
    focused = "document.activeElement.dataset.uid"
    page.keyboard.press("/")
    page.keyboard.type("b m l ?")  # letters are text in a field
    assert page.input_value("#q") == "b m l ?" and page.text_content("#basket-count") == "0"
    page.fill("#q", "")
    page.keyboard.press("ArrowDown")
    shown = uids(page)
    assert page.evaluate(focused) == shown[0]
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == shown[1]
    page.keyboard.press("ArrowDown")
    across = page.evaluate("getComputedStyle(document.querySelector('#results')).gridTemplateColumns.split(' ').length")
    assert page.evaluate(focused) == shown[1 + across]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("b")
    assert page.text_content("#basket-count") == "1"
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail[open] .caption")
    until(page, f"location.hash.includes('open={shown[1]}')")
    page.keyboard.press("ArrowRight")
    until(page, f"document.querySelector('#detail .uid')?.textContent === '{shown[2]}'")
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    until(page, "!location.hash.includes('open=')")
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    assert page.is_visible("#view-scores") and not page.is_visible("#view-search")


def asks(what: str) -> Callable[[Any], bool]:
    """Whether a request is a search that names `what`."""
    return lambda request: request.url.endswith("/api/search") and bool((request.post_data_json or {}).get(what))


def test_more_and_less_like_this(page: Any) -> None:
    search(page, "a cat")
    one, two = uids(page)[1:3]
    page.focus(f'.hit[data-uid="{one}"]')
    with page.expect_request(asks("like")) as more:  # an earlier search may still be on its way
        page.keyboard.press("m")
    page.wait_for_selector(f'.hit[data-uid="{two}"]')
    page.focus(f'.hit[data-uid="{two}"]')
    with page.expect_request(asks("unlike")) as less:
        page.keyboard.press("l")
    assert more.value.post_data_json["like"] == [one] and more.value.post_data_json["text"] == "a cat"
    assert (less.value.post_data_json["like"], less.value.post_data_json["unlike"]) == ([one], [two])
    until(
        page,
        """!document.querySelector('#view-search[aria-busy]')
        && document.querySelectorAll('#terms .chip').length === 2""",
    )
    order = uids(page)
    assert two not in order or order.index(two) > order.index(one)


def test_an_image_is_dropped_pasted_and_picked(page: Any, page_out: Path, address: str) -> None:
    wanted = uids(page)[3]
    data = page.request.get(f"/api/image/{wanted}?side=0").body()
    encoded = base64.b64encode(data).decode()
    give = """([event, kind]) => {
        const bytes = Uint8Array.from(atob(window.given), (c) => c.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "a.jpg", { type: "image/jpeg" }));
        const made = kind === "drop" ? new DragEvent(event, { dataTransfer: transfer, bubbles: true, cancelable: true })
            : new ClipboardEvent(event, { clipboardData: transfer, bubbles: true });
        document.body.dispatchEvent(made);
    }"""
    page.evaluate("(data) => { window.given = data; }", encoded)
    for event in ("drop", "paste"):
        with page.expect_response("**/api/search") as answer:
            page.evaluate(give, [event, event])
        assert answer.value.request.post_data_json["image"] == encoded
        until(page, f"document.querySelector('#results .hit').dataset.uid === '{wanted}'")
        assert page.is_visible("#query-image")
        page.click("#clear")
        until(page, "document.querySelector('#count').textContent.includes('random')")
    with page.expect_response("**/api/search"):
        page.set_input_files("#file", {"name": "b.jpg", "mimeType": "image/jpeg", "buffer": data})
    until(page, f"document.querySelector('#results .hit').dataset.uid === '{wanted}'")
    page.set_input_files("#file", {"name": "c.png", "mimeType": "image/png", "buffer": b"no image"})
    page.wait_for_selector("#toast.bad")


def test_a_slider_counts_as_numpy_does(page: Any, page_out: Path) -> None:
    page.goto("/#view=scores")
    card = f'.score[data-column="{SCORE}"]'
    page.wait_for_selector(f"{card} .handles")
    values = scores(page_out)
    low = page.locator(f"{card} .handles input").first
    low.focus()
    for _ in range(3):
        page.keyboard.press("PageUp")
    told = page.text_content(f"{card} .keeps")
    at = float(page.input_value(f"{card} .bounds input >> nth=0"))
    exact = int((values >= np.float32(at)).sum())
    about = int(told.split(" of ")[0].strip("≈ ").replace(",", ""))
    assert told.startswith("≈") and abs(about - exact) <= np.histogram(values, 80)[0].max()
    until(page, f"document.querySelector('{card} .keeps').textContent.startsWith('{exact} of {len(values)}')")
    until(page, f"document.querySelector('#sum-kept')?.textContent === '{exact}'")
    page.wait_for_selector(f"{card} .sides .hit")
    sides = [
        [float(node.text_content()) for node in page.query_selector_all(f"{card} .sides section:nth-child({i}) .value")]
        for i in (1, 2)
    ]
    below, above = (np.sort(values[values < np.float32(at)])[::-1][:6], np.sort(values[values >= np.float32(at)])[:6])
    np.testing.assert_allclose(sides[0], below, atol=6e-5)
    np.testing.assert_allclose(sides[1], above, atol=6e-5)
    page.fill(f"{card} .bounds input >> nth=1", "0.8")
    page.press(f"{card} .bounds input >> nth=1", "Enter")
    both = int(((values >= np.float32(at)) & (values <= np.float32(0.8))).sum())
    until(page, f"document.querySelector('{card} .keeps').textContent.startsWith('{both} of')")
    with page.expect_response("**/api/search") as answer:
        page.click("#sum .primary")
    found = answer.value.json()["hits"]
    assert found and all(at <= hit["scores"][SCORE] <= 0.8 for hit in found)


def test_kept_and_dropped(page: Any, page_out: Path) -> None:
    kept = set(Subset.read(str(page_out / "subsets" / "demo.npy")).strings())
    for choice, wanted in (("kept", True), ("dropped", False)):
        with page.expect_response("**/api/search"):
            page.check(f'#kept input[value="{choice}"]', force=True)
        until(page, f"document.querySelector('#of').textContent.includes('of {len(kept) if wanted else ''}')")
        until(page, "!document.querySelector('#view-search[aria-busy]')")
        assert {uid in kept for uid in uids(page)} == {wanted}


def test_the_basket_is_a_sorted_subset(page: Any, tmp_path: Path) -> None:
    wanted = uids(page)[:5]
    for uid in reversed(wanted):
        page.hover(f'.hit[data-uid="{uid}"]')
        page.click(f'.hit[data-uid="{uid}"] [data-act="basket"]')
    page.reload()
    page.wait_for_selector("#results .hit.held")
    assert page.text_content("#basket-count") == "5"
    page.click("#basket-open")
    with page.expect_download() as saved:
        page.click("#basket-download")
    saved.value.save_as(tmp_path / "basket.npy")
    assert saved.value.suggested_filename == "basket.npy"
    assert Subset.read(str(tmp_path / "basket.npy")).strings() == sorted(wanted)
    page.click("#basket >> text=Empty")
    page.click("#basket >> text=Really empty")
    page.click('#basket [aria-label="Close"]')
    assert page.text_content("#basket-count") == "0"
    with page.expect_download() as saved:
        page.click("#all-download")
    saved.value.save_as(tmp_path / "all.npy")
    assert len(Subset.read(str(tmp_path / "all.npy"))) == 60


def test_what_passes_the_filters_downloads_and_copies(page: Any, page_out: Path, tmp_path: Path) -> None:
    page.goto(f"/#view=scores&t.{SCORE}=0.25..")
    page.wait_for_selector("#sum-kept")
    with page.expect_download() as saved:
        page.click("#sum >> text=Download")
    saved.value.save_as(tmp_path / "selection.npy")
    assert len(Subset.read(str(tmp_path / "selection.npy"))) == (scores(page_out) >= np.float32(0.25)).sum()
    text = page.evaluate("import('/page/state.js').then((module) => module.recipe())")
    rules = f"select:\n  all:\n    - threshold: {{score: {SCORE}, min: 0.25}}\n"
    assert text == f"# mmfilter select selection.yaml --out {page_out}\nname: selection\n{rules}"
    where = """text LIKE '%"a": #%' AND caption_words > 3"""
    page.goto(f"/#kept=dropped&without=1,2&t.{SCORE}=-0.5..0.5&{urlencode({'where': where})}")
    page.wait_for_selector("#chips .chip")
    text = page.evaluate("import('/page/state.js').then((module) => module.recipe())")
    assert yaml.safe_load(text)["select"] == {"all": [
        {"threshold": {"score": SCORE, "min": -0.5, "max": 0.5}}, {"where": {"sql": where}},
        {"where": {"sql": "cluster_id NOT IN (1, 2)"}},
        {"not": {"in_subset": {"path": f"{page_out}/subsets/demo.npy"}}},
    ]}  # fmt: skip
    build_rule(yaml.safe_load(text)["select"], "select")


def test_a_copied_recipe_selects_what_was_shown(browser: Any, page_out: Path, tmp_path: Path) -> None:
    """Pasted into a file of the name that its first line says, and that line into a shell, in any folder."""
    out = tmp_path / "it's a run"
    for part in ("metadata", "columns", "subsets"):
        shutil.copytree(page_out / part, out / part)
    shutil.copy(page_out / "subsets" / "demo.npy", out / "subsets" / "selection.npy")
    shutil.copy(page_out / "subsets" / "demo.json", out / "subsets" / "selection.json")
    where = """text NOT LIKE '%"a": #%' AND caption_words > 3"""
    views = [f"t.{SCORE}=1e-7..", f"kept=dropped&subset=demo&t.{SCORE}=-0.5..0.5&{urlencode({'where': where})}"]
    with served(out, "--no-models") as address:
        context = browser.new_context(base_url=address)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        for number, (view, hash) in enumerate([(v, h) for v in ("search", "scores") for h in views]):
            page.goto(f"/?{number}#view={view}&{hash}")
            until(page, "/of [\\d,]+ (that )?pass/.test(document.querySelector('main').textContent)")
            told = page.text_content("#of") if view == "search" else page.text_content("#sum")
            page.click("#copy-recipe" if view == "search" else "#sum >> text=Copy recipe")
            page.wait_for_selector("#toast >> text=Copied")
            text = page.evaluate("navigator.clipboard.readText()")
            command, name = shlex.split(text.split("\n")[0].removeprefix("# ")), yaml.safe_load(text)["name"]
            assert command[:3] == ["mmfilter", "select", f"{name}.yaml"] and name not in ("demo", "selection")
            (tmp_path / f"{name}.yaml").write_text(text)
            words = [sys.executable, "-m", "jobs", *command[1:], "--json"]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert f"{json.loads(done.stdout)['counts']['kept']:,}" in told
        context.close()


def test_captions_are_text_whatever_they_contain(page: Any, page_out: Path) -> None:
    frame = pl.read_parquet(page_out / "metadata" / "00000009.parquet")
    for text, uid in zip(frame["text"], frame["uid"], strict=True):
        page.goto(f"/#uid={uid}&open={uid}")
        page.wait_for_selector("#detail[open] .caption")
        assert page.text_content("#detail .caption") == text
        page.keyboard.press("Escape")
        cap = page.locator(f'#results .hit[data-uid="{uid}"] .cap')
        assert cap.text_content() == text[:400]
    assert page.evaluate("getComputedStyle(document.querySelector('#detail .caption')).direction") == "ltr"
    page.goto(f"/#open={frame['uid'][1]}")
    until(page, "document.querySelector('#detail .caption')?.matches(':dir(rtl)')")
    page.wait_for_timeout(300)
    assert page.title() != "pwned" and page.evaluate("document.querySelectorAll('script').length") == 1


def test_concepts_open_and_exclude(page: Any, page_out: Path) -> None:
    page.goto("/#view=concepts")
    page.wait_for_selector("#map .concept")
    known = json.loads((page_out / "concepts" / "demo" / "concepts.json").read_text())
    assert len(page.query_selector_all("#map .concept")) == len(known)
    page.focus('#map [tabindex="0"]')
    page.keyboard.press("Enter")
    largest = max(known, key=lambda concept: concept["size"])
    assert page.text_content("#panel dd >> nth=0") == str(largest["size"])
    assert page.evaluate("document.activeElement.dataset.id") == str(largest["id"])
    page.click("#exclude")
    until(page, f"location.hash.includes('without={largest['id']}')")
    assert page.is_visible("#map .without")
    page.goto("/#view=search")
    page.goto(f"/#clusters={largest['id']}")
    until(page, f"document.querySelector('#of')?.textContent.includes('{largest['size']}')")


def test_duplicates_side_by_side(page: Any, page_out: Path) -> None:
    page.keyboard.press("4")
    until(page, "document.querySelector('#duplicates-lead').textContent")
    frame = pl.concat([pl.read_parquet(path) for path in (page_out / "columns" / "duplicate_of").glob("*.parquet")])
    pairs = {uid: of for uid, of in frame.select("uid", "duplicate_of").iter_rows() if of}
    assert pairs
    page.wait_for_selector("#groups .group")
    for group in page.query_selector_all("#groups .group"):
        kept, *others = [node.get_attribute("data-uid") for node in group.query_selector_all(".hit")]
        assert {pairs[uid] for uid in others} == {kept}
    page.focus('#groups .hit[tabindex="0"]')
    shown = uids(page, "#groups")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.uid") == shown[1]
    page.keyboard.press("b")
    assert page.text_content("#basket-count") == "1"
