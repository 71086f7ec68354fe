"""The models that turn a query's words and pictures into vectors, as the pool was embedded with."""

import base64
import binascii
import threading
from typing import Any

import numpy as np

from mmfilter.errors import MMFilterError
from mmfilter.records import failure_of

from ..pool import Pool
from ..reference import Asked, embedder
from ..vectors import unit
from .decoding import decoded
from .settings import Refused, Settings


class Models:
    """A pool's embedders, each loaded when it is first wanted. Any thread."""

    def __init__(self, out: str, settings: Settings) -> None:
        self.allowed, self.pool = (
            settings.models,
            Pool(out, settings.metadata or None, settings.weights, settings.allow),
        )
        self._loaded: dict[str, Any] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Any:
        """The embedder. Raises Refused where there is none to be had."""
        if not self.allowed:
            raise Refused(400, "this service was started without models; ask by uid or by vector")
        with self._lock:
            if name not in self._loaded:
                try:
                    self._loaded[name] = embedder(Asked(self.pool, name))
                except MMFilterError as error:
                    raise Refused(503, f"model '{name}' cannot be loaded: {error}") from error
            return self._loaded[name]

    def texts(self, name: str, texts: list[str]) -> np.ndarray:
        """float32 (n, d) of unit rows."""
        return unit(self.get(name).texts(texts))

    def prepared(self, name: str, data: bytes) -> np.ndarray:
        """A picture as the model takes it. Raises Refused on what is no image."""
        model = self.get(name)
        try:
            with decoded(data, self.pool.limits) as picture:
                return np.array(model.prepare(picture))
        except Exception as error:  # whatever a picture raises is the request's fault
            raise Refused(400, f"image: {failure_of('', '', error).error}") from error

    def image(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """float32 (d,) of length 1, of a picture that is prepared."""
        return np.asarray(unit(self.get(name).images(pixels[None]))[0])


def from_base64(text: str) -> bytes:
    """The bytes of base64, with or without a data URI's head. Raises Refused."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "image: not base64") from error
