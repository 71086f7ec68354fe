"""One served pool and one browser for all tests of the page."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import command
from page_util import ARABIC, HOSTILE, Watch, headless, served
from tars import sample, tar


@pytest.fixture(scope="session")
def page_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder over generated samples and two with captions nobody would like to meet."""
    root = tmp_path_factory.mktemp("page")
    assert command("synth", root / "pool", "--samples", 240, "--per-shard", 120)[0] == 0
    texts = [HOSTILE, ARABIC, "x" * 3000]
    members = [member for n, text in enumerate(texts) for member in sample(n, text)]
    (root / "pool" / "00000009.tar").write_bytes(tar(members))
    assert command("run", "demo", "--pool", root / "pool", "--out", root / "out", "--local")[0] == 0
    assert command("cluster", root / "out", "--model", "demo", "--local")[0] == 0
    assert command("dedup", root / "out", "--model", "demo", "--redo-changed", "--local")[0] == 0
    assert command("index", root / "out", "--model", "demo", "--local")[0] == 0
    return root / "out"


@pytest.fixture(scope="session")
def page_bare(page_out: Path) -> Path:
    """The same pool when it was only embedded: no index, no subset, no concepts, no duplicates."""
    bare = page_out.parent / "bare"
    shutil.copytree(page_out / "metadata", bare / "metadata")
    shutil.copy(page_out / "run.json", bare)
    return bare


@pytest.fixture(scope="session")
def address(page_out: Path, page_bare: Path) -> Iterator[str]:
    with served(page_out, page_bare) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with headless() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page of its own; after the test, nothing was logged and nothing asked of another place."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=address, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    watch = Watch(page)
    page.goto("/")
    page.wait_for_selector("#results .hit")
    yield page
    context.close()
    watch.clean(address)
