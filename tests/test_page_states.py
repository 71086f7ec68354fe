"""What the page shows of odd pools, on odd screens, and when something is missing."""

import io
from pathlib import Path
from typing import Any

import pytest
from page_util import SCORE, Watch, cli, fits, scores, served, uids, until

pytest_plugins = ("page_fixtures",)
pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_screens_and_both_themes(browser: Any, address: str, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, base_url=address, color_scheme=scheme)
    page = context.new_page()
    watch = Watch(page)
    paper = "getComputedStyle(document.body).backgroundColor"
    for view in ("search", "scores", "concepts", "duplicates"):
        for query in ("&q=cat", "&kept=kept&without=1"):
            page.goto(f"/#view={view}&t.{SCORE}=0.25..0.8{query}")
            page.wait_for_load_state("networkidle")
            fits(page)
    colours = {"light": "rgb(250, 250, 248)", "dark": "rgb(20, 21, 23)"}
    assert page.evaluate(paper) == colours[scheme]
    for theme in ("light", "dark", "auto"):
        page.click("#theme")
        assert page.evaluate(paper) == colours.get(theme, colours[scheme])
    context.close()
    watch.clean(address)


def test_an_sql_filter_and_its_mistakes(page: Any, page_out: Path) -> None:
    page.click("#where-open")
    page.fill("#where", "caption_words <= 4")
    page.press("#where", "Enter")
    words = scores(page_out, "caption_words")
    until(page, f"document.querySelector('#of')?.textContent.includes('of {(words <= 4).sum()} ')")


def test_bytes_of_one_image_are_enough(page: Any) -> None:
    """Thumbnails come as JPEG of the side that was asked for."""
    from PIL import Image

    until(page, "[...document.images].filter((i) => i.complete && i.naturalWidth).length >= 6")
    body = page.request.get(f"/api/image/{uids(page)[0]}?side=64").body()
    assert max(Image.open(io.BytesIO(body)).size) <= 64


def test_what_is_not_there_yet_names_its_command(browser: Any, address: str, page_bare: Path) -> None:
    page = browser.new_context(base_url=address).new_page()
    watch = Watch(page)
    page.goto("/#pool=bare")
    page.wait_for_selector("#results .hit")
    for view, command in {"search": "index", "concepts": "cluster", "duplicates": "dedup"}.items():
        page.goto(f"/#pool=bare&view={view}")
        page.wait_for_selector(f"#view-{view} .command")
        assert page.text_content(f"#view-{view} .command code") == f"mmfilter {command} {page_bare} --model demo"
    assert page.is_hidden("#kept")
    page.context.close()
    watch.clean(address)


def test_a_link_to_an_index_that_is_gone_says_so(browser: Any, address: str) -> None:
    """No other index is searched in its place until one is chosen."""
    page = browser.new_context(base_url=address).new_page()
    page.goto("/#q=a+red+car&index=gone")
    page.wait_for_selector("#more .empty >> text=no index is called 'gone'")
    assert uids(page) == [] and page.input_value("#index") == ""
    page.select_option("#index", "demo-image")
    page.wait_for_selector("#results .hit")
    page.context.close()


def served_by(address: str, *outs: Path) -> str:
    return f"mmfilter serve {' '.join(map(str, outs))} --port {address.rsplit(':', 1)[1]}"


def test_the_service_is_gone_and_comes_back(browser: Any, address: str, page_out: Path, page_bare: Path) -> None:
    page = browser.new_context(base_url=address).new_page()
    page.goto("/")
    page.wait_for_selector("#results .hit")
    page.context.route("**/api/**", lambda route: route.abort())
    page.fill("#q", "a cat")
    page.press("#q", "Enter")
    page.wait_for_selector("text=The service does not answer")
    assert page.text_content("#more .command code") == served_by(address, page_out, page_bare)
    page.goto("/?again")
    page.wait_for_selector("#trouble .empty")
    assert page.query_selector("#trouble .command") is None, "the folder is not known here, and none is made up"
    page.context.unroute("**/api/**")
    page.click("#trouble .primary")
    page.wait_for_selector("#results .hit")
    assert page.is_hidden("#trouble")
    page.context.close()


def test_a_query_that_fails_says_why(browser: Any, address: str) -> None:
    page = browser.new_context(base_url=address).new_page()
    page.goto("/#where=no_such_column > 1")
    page.wait_for_selector("#more .empty")
    assert "no_such_column" in page.text_content("#more .empty")
    page.goto("/#open=" + "0123456789abcdef" * 2)
    page.wait_for_selector("#detail[open] >> text=not in this pool")
    page.context.close()


def test_a_token_opens_the_page(browser: Any, page_out: Path) -> None:
    with served(page_out, "--no-models", MMFILTER_TOKEN="open sesame") as address:
        page = browser.new_context(base_url=address).new_page()
        page.goto("/")
        page.fill("#trouble input", "wrong")
        page.click("#trouble button")
        page.wait_for_selector("#toast.bad")
        page.fill("#trouble input", "open sesame")
        page.click("#trouble button")
        until(page, "[...document.images].filter((i) => i.complete && i.naturalWidth).length >= 6")
        assert page.evaluate("sessionStorage.length + localStorage.length") <= 2  # the theme and the basket
        page.context.close()


@pytest.mark.slow
@pytest.mark.real
def test_photographs(browser: Any, data: Path, tmp_path: Path) -> None:
    cli("run", "demo", "--pool", data / "pool" / "00000000.tar", "--out", tmp_path / "out", "--local")
    with served(tmp_path / "out", "--no-models") as address:
        page = browser.new_context(base_url=address).new_page()
        watch = Watch(page)
        page.goto("/")
        page.wait_for_selector("#results .hit")
        until(page, "[...document.images].filter((i) => i.complete && i.naturalWidth).length >= 6")
        with page.expect_response("**/api/search") as answer:
            page.check('#kept input[value="kept"]', force=True)
        texts = {hit["uid"]: hit["text"] for hit in answer.value.json()["hits"]}
        until(page, "!document.querySelector('#view-search[aria-busy]')")
        shown = {node.get_attribute("data-uid"): node.text_content() for node in page.query_selector_all(".hit")}
        assert shown and all(texts[uid].strip()[:400] in text for uid, text in shown.items())
        page.context.close()
        watch.clean(address)
