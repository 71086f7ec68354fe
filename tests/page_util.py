"""A served pool with hostile captions in it, and a headless browser that tells what went wrong on the page."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

CHROMIUM = "/usr/bin/chromium"
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
HOSTILE = "<img src=x onerror=\"document.title='pwned';alert(1)\"><script>alert(2)</script> cat"
SCORE = "clip_demo_similarity_score"
ARABIC = "قطة على السجادة الحمراء"


def cli(*words: Any) -> None:
    """Run the command line as a user does; its output is the failure's."""
    done = subprocess.run([sys.executable, "-m", "jobs", *map(str, words)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(out: Path, *options: Any, **env: str) -> Iterator[str]:
    """The service over a run's folder in a process of its own: its address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "jobs", "serve", str(out), "--port", str(port), *map(str, options)]
    with open(out.parent / "serve.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **env})
    try:
        for _ in range(300):
            if process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{address}/page/main.js", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        assert process.poll() is None, (out.parent / "serve.log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait(20)


class Watch:
    """What the page said, and where it went."""

    def __init__(self, page: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: message.type in ("error", "warning") and self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))

    def clean(self, address: str) -> None:
        """Nothing was said, and nothing asked of another place."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith((f"{address}/", "blob:", "data:"))] == []


@contextmanager
def headless() -> Iterator[Any]:
    """A headless Chromium, or a skipped test where there is none."""
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"{CHROMIUM} is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", *QUIET]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def until(page: Any, expression: str, seconds: float = 10) -> None:
    """Wait until the expression is true on the page: Playwright's own wait would break the page's policy."""
    for _ in range(int(seconds / 0.05)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within {seconds:g} s: {expression}")


def scores(out: Path, column: str = SCORE) -> np.ndarray:
    return pl.read_parquet(sorted((out / "metadata").glob("*.parquet")))[column].to_numpy()


def uids(page: Any, where: str = "#results") -> list[str]:
    return [node.get_attribute("data-uid") for node in page.query_selector_all(f"{where} .hit")]


def search(page: Any, words: str) -> None:
    with page.expect_response("**/api/search"):
        page.fill("#q", words)
        page.press("#q", "Enter")
    until(page, "document.querySelector('#count').textContent.includes('nearest')")


CUT_OFF = """() => [...document.querySelectorAll('button, select, input, a, label, h1, h2, h3, p')].filter((node) => {
  const box = node.getBoundingClientRect(), style = getComputedStyle(node);
  const seen = box.width && style.visibility !== 'hidden' && style.clipPath === 'none' && !node.matches('.skip');
  if (!seen || (box.right <= innerWidth + 1 && box.left >= -1)) return false;
  return !node.closest('.scroll');  // a table that scrolls in its card
}).map((node) => `${node.tagName} ${node.id || node.className} ${node.textContent.slice(0, 40)}`)"""


def fits(page: Any) -> None:
    """Nothing on the page is wider than the screen, and no control or text lies beyond its edge."""
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1] and page.evaluate(CUT_OFF) == []
