"""The models that turn a query's words and pictures into vectors, as the pool was embedded with."""

import base64
import binascii
import json
import threading
from typing import Any

import numpy as np

from mmfilter import storage
from mmfilter.errors import MMFilterError
from mmfilter.images import DecodeError, decode

from ..vectors import unit
from .settings import Refused


class Models:
    """A pool's embedders, each loaded when it is first wanted. Any thread."""

    def __init__(self, out: str, metadata: str, allowed: bool = True) -> None:
        self.out, self.metadata, self.allowed = out, metadata, allowed
        self._loaded: dict[str, Any] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Any:
        """The embedder. Raises Refused where there is none to be had."""
        if not self.allowed:
            raise Refused(400, "this service was started without models; ask by uid or by vector")
        with self._lock:
            if name not in self._loaded:
                from mmfilter.embed import load

                try:
                    self._loaded[name] = load(name, self._spec(name), _device())
                except MMFilterError as error:
                    raise Refused(503, f"model '{name}' cannot be loaded: {error}") from error
            return self._loaded[name]

    def _spec(self, name: str) -> Any:
        """As the last recipe has it; its weights must be those of the pool's commits."""
        from mmfilter.recipe import parse_recipe

        path = storage.join(self.out, "run.json")
        source = json.loads(storage.read_bytes(path)).get("recipe") if storage.exists(path) else None
        recipe = parse_recipe(json.dumps(source), path) if source else None
        if recipe is None or name not in recipe.embed:
            raise Refused(400, f"no recipe in {path} tells what model '{name}' is; ask by uid or by vector")
        spec = recipe.embed[name]
        commits = storage.glob(storage.join(self.metadata, "*.json"))
        part = json.loads(storage.read_bytes(commits[0]))["parts"].get(f"embed:{name}", {}) if commits else {}
        return spec.model_copy(update={"sha256": part["weights"]}) if part.get("weights") else spec

    def texts(self, name: str, texts: list[str]) -> np.ndarray:
        """float32 (n, d) of unit rows."""
        return unit(self.get(name).texts(texts))

    def image(self, name: str, data: bytes) -> np.ndarray:
        """float32 (d,) of length 1. Raises Refused on what is no image."""
        embedder = self.get(name)
        try:
            pixels = embedder.prepare(decode(data))
        except (DecodeError, ValueError) as error:
            raise Refused(400, f"image: {error}") from error
        return np.asarray(unit(embedder.images(np.array(pixels)[None]))[0])


def from_base64(text: str) -> bytes:
    """The bytes of base64, with or without a data URI's head. Raises Refused."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "image: not base64") from error


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
