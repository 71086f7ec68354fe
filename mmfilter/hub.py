"""The Hugging Face hub: what is in its cache, fetching what is not, and saying what to fetch by hand."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .checkpoint import CONFIG
from .errors import COPY, NotFetched

_dry: ContextVar[bool] = ContextVar("dry", default=False)


@contextmanager
def nothing_fetched() -> Iterator[None]:
    """Within this block only what is in the cache is found."""
    token = _dry.set(True)
    try:
        yield
    finally:
        _dry.reset(token)


def fetch_tag(name: str, pretrained: str, tag: dict[str, Any]) -> str:
    """The weights' file of open_clip's `tag`, from the cache or the network. Raises NotFetched."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME
    from open_clip.pretrained import download_pretrained

    repo, _, file = str(tag.get("hf_hub", "")).rpartition("/")
    here = _cached(repo, file)
    if here:
        return here
    try:
        _online()
        with quiet():
            return str(download_pretrained(tag))
    except Exception as error:  # the hub's errors share no base class
        file = file or HF_SAFE_WEIGHTS_NAME
        fetch = f"hf download {repo} {file}" if repo else f"curl -LO {tag.get('url')}"
        file = file if repo else os.path.basename(str(tag.get("url")))
        raise NotFetched(
            f"the weights of {name} ({pretrained}) are not on this machine and could not be fetched "
            f"({why(error)}). Where there is a network run `{fetch}`, bring {file} here, and give it as "
            f"`--weights NAME=/path/to/{file}`, where NAME is the model's in the recipe (or write "
            f"`weights: /path/to/{file}` beside `pretrained: {pretrained}` in the recipe; {COPY}); "
            f"or bring the cache itself to {_cache()}"
        ) from error


def fetch_hub(repo: str, weights: bool = True) -> str:
    """The weights' file of ``hf-hub:{repo}``, its configuration beside it. Raises NotFetched.

    With `weights` False only the configuration is fetched, and its path returned.
    """
    from open_clip.pretrained import download_pretrained_from_hf

    config = _cached(repo, CONFIG)
    here = _cached(repo, "") if weights and config else config
    if here:
        return here
    try:
        _online()
        config = download_pretrained_from_hf(repo, filename=CONFIG)
        return str(download_pretrained_from_hf(repo) if weights else config)
    except Exception as error:
        raise NotFetched(
            f"the model hf-hub:{repo} is not on this machine and could not be fetched ({why(error)}). "
            f"Where there is a network run `hf download {repo} --local-dir {repo.split('/')[-1]}`, bring the folder "
            f"here (it holds {CONFIG} and the weights), and write `model: /path/to/{repo.split('/')[-1]}` in the "
            f"recipe; or bring the cache itself to {_cache()}"
        ) from error


def _cached(repo: str, file: str) -> str | None:
    """The file in the hub's cache, safetensors first; no file name means open_clip's default ones."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    safe = os.path.splitext(file)[0] + ".safetensors" if file.endswith((".bin", ".pth")) else ""
    for name in (safe, file) if file else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME):
        found = try_to_load_from_cache(repo, name) if repo and name else None
        if isinstance(found, str):
            return found
    return None


def _online() -> None:
    """Raise OSError at once where the hub cannot be reached; its own retries take a minute to say so."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    if _dry.get():
        raise OSError("a dry run fetches nothing; the run itself would try")
    url = urlsplit(ENDPOINT)
    if not getproxies():
        socket.create_connection((url.hostname, url.port or (80 if url.scheme == "http" else 443)), timeout=10).close()


def why(error: Exception) -> str:
    """The first sentence of what the hub said: the rest is a traceback in words."""
    text = str(error).split("Last error: ")[-1].strip() or type(error).__name__
    return text.splitlines()[0][:160].rstrip(".")


def _cache() -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return f"{HF_HUB_CACHE} (HF_HUB_CACHE)"


@contextmanager
def quiet() -> Iterator[None]:
    """Drop open_clip's own log lines and warnings: what matters in them is an error here."""
    import logging

    def theirs(record: logging.LogRecord) -> bool:
        return "open_clip" not in record.pathname

    root = logging.getLogger()
    root.addFilter(theirs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        root.removeFilter(theirs)
