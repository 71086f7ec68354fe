"""clip-retrieval's web front, as its wheel ships it, against the service from another origin. `make clip-front`."""

import functools
import http.server
import io
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import command
from page_util import served, until
from PIL import Image

from mmfilter.uids import parse_uids

pytest_plugins = ("page_fixtures",)
pytestmark = [pytest.mark.browser, pytest.mark.slow]
FRONT = Path(__file__).resolve().parent.parent / "build" / "clip-front" / "front" / "build"
SHOWN = "document.querySelector('clip-front')?.shadowRoot?.querySelectorAll('img.pic')"
LOADED = f"{SHOWN}?.length && [...{SHOWN}].every((picture) => picture.naturalWidth > 0)"


class Files(http.server.SimpleHTTPRequestHandler):
    """The front's files, and a config.json that names the service."""

    config: dict[str, str] = {}

    def do_GET(self) -> None:
        if self.path != "/config.json":
            return super().do_GET()
        body = json.dumps(self.config).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def front() -> Iterator[str]:
    """The front's origin."""
    if not (FRONT / "index.html").is_file():
        pytest.skip("clip-front is not fetched: `make clip-front`")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(FRONT))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with an index of images, and none of texts."""
    root = tmp_path_factory.mktemp("front")
    assert command("synth", root / "pool", "--samples", 150, "--per-shard", 75)[0] == 0
    assert command("run", "demo", "--pool", root / "pool", "--out", root / "out", "--local")[0] == 0
    assert command("index", root / "out", "--model", "demo", "--local")[0] == 0
    return root / "out"


@pytest.fixture(scope="module")
def address(out: Path, front: str) -> Iterator[str]:
    with served(out, "--cors", front) as address:
        yield address


@pytest.fixture
def opened(browser: Any, front: str) -> Iterator[Callable[..., Any]]:
    """`opened(address, column)`: the front's page, told where the service is and which column holds the picture."""
    contexts = []

    def open_page(address: str, column: str = "none") -> Any:
        Files.config = {"defaultBackend": address, "defaultIndex": "", "urlColumn": column}
        contexts.append(browser.new_context(viewport={"width": 1300, "height": 900}, accept_downloads=True))
        page = contexts[-1].new_page()
        with page.expect_request(lambda request: request.url.endswith("/indices-list")):
            page.goto(front)
        page.wait_for_selector("#searchBar")
        return page

    yield open_page
    for context in contexts:
        context.close()


@contextmanager
def answered(page: Any) -> Iterator[list[Any]]:
    """What /knn-service answers to what is done inside."""
    found: list[Any] = []
    with page.expect_response(lambda answer: answer.url.endswith("/knn-service"), timeout=60_000) as answer:
        yield found
    found.append(answer.value)


def search(page: Any, words: str) -> list[dict[str, Any]]:
    with answered(page) as found:
        page.fill("#searchBar", words)
        page.press("#searchBar", "Enter")
    return found[0].json()


def ask(address: str, **fields: Any) -> list[dict[str, Any]]:
    body = {"modality": "image", "indice_name": "demo-image", **fields}
    with urllib.request.urlopen(f"{address}/knn-service", json.dumps(body).encode(), timeout=60) as answer:
        return json.load(answer)


def test_words_show_the_pools_own_pictures(opened: Callable[..., Any], address: str) -> None:
    page = opened(f"{address}/")  # as `serve` prints it
    found = search(page, "a red car")
    assert found == ask(address, text="a red car", num_images=40, num_result_ids=3000, deduplicate=True)
    until(page, LOADED)
    captions = page.locator("figcaption").all_text_contents()
    assert captions[0].strip(" .\n")[:40] == found[0]["caption"].strip(" .")[:40] and len(captions) >= 40
    with page.expect_response("**/metadata") as more:  # what stands below the screen is asked for by id
        page.mouse.wheel(0, 20_000)
    assert all(set(entry) == {"id", "metadata"} and "image" in entry["metadata"] for entry in more.value.json())
    until(page, f"{SHOWN}.length > 40 && {LOADED}")
    for icon, field in (("subImageSearch", "image"), ("subTextSearch", "text")):  # by a result's picture, its caption
        shown = page.evaluate("document.querySelector('clip-front').images[0].caption")
        with answered(page) as again:
            page.evaluate(f"document.querySelector('clip-front').shadowRoot.querySelector('.{icon}').click()")
        assert again[0].request.post_data_json[field] and again[0].status == 200
        assert field == "text" or again[0].json()[0]["caption"] == shown
        until(page, LOADED)


def test_a_picture_finds_itself_and_the_results_are_downloaded(
    opened: Callable[..., Any], address: str, out: Path, tmp_path: Path
) -> None:
    first = ask(address, text="a red car", num_images=1)[0]
    with urllib.request.urlopen(f"{address}/api/image/{first['uid']}?side=0") as answer:
        data = answer.read()
    page = opened(address)
    with answered(page) as found:
        page.set_input_files("#filechooser", {"name": "q.jpg", "mimeType": "image/jpeg", "buffer": data})
    assert found[0].json()[0]["uid"] == first["uid"]
    until(page, LOADED)
    with page.expect_download() as saved:
        page.click("#download")
    saved.value.save_as(tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    assert saved.value.suggested_filename == "clipsubset.json" and results[0]["uid"] == first["uid"]
    uids = [result["uid"] for result in results]
    assert len(set(uids)) == len(parse_uids(uids)) == len(uids) > 100
    assert sum("image" in result for result in results) == 100


def test_a_missing_index_is_an_error_and_the_front_goes_on(opened: Callable[..., Any], address: str) -> None:
    page = opened(address)
    search(page, "a red car")
    with answered(page) as found:
        page.select_option("select:has(option[value='text'])", "text")
    assert found[0].status == 404 and "--modality text" in found[0].json()["error"]
    page = opened(address)
    assert search(page, "a green bottle")
    until(page, LOADED)


def test_another_origin_reads_nothing(opened: Callable[..., Any], out: Path) -> None:
    with served(out, "--no-models", "--cors", "http://localhost:1") as address:
        page = opened(address)
        read = f"fetch('{address}/api/info').then(() => 'read', (error) => error.name)"
        assert page.evaluate(read) == "TypeError"


def test_a_token_is_asked_of_another_origin_too(opened: Callable[..., Any], out: Path, front: str) -> None:
    """The preflight for the header is answered; no cookie of the service's own page is taken from elsewhere."""
    with served(out, "--no-models", "--cors", front, MMFILTER_TOKEN="secret") as address:
        page = opened(address)
        fetch = "fetch('%s/api/info', %s).then((answer) => answer.status, (error) => error.name)"
        assert page.evaluate(fetch % (address, "{}")) == 401
        assert page.evaluate(fetch % (address, "{headers: {Authorization: 'Bearer secret'}}")) == 200
        own = page.context.new_page()
        own.goto(address)
        session = (
            "fetch('/api/session', {method: 'POST', headers: {Authorization: 'Bearer secret'}}).then((a) => a.status)"
        )
        assert own.evaluate(session) == 200 and own.evaluate("fetch('/api/info').then((a) => a.status)") == 200
        assert page.evaluate(fetch % (address, "{credentials: 'include'}")) == "TypeError"


def test_pictures_are_small_jpegs(address: str) -> None:
    import base64

    for hit in ask(address, text="a red car", num_images=5):
        picture = Image.open(io.BytesIO(base64.b64decode(hit["image"])))
        assert picture.format == "JPEG" and max(picture.size) <= 256
