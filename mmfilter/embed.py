"""A CLIP model that turns prepared images and captions into fp16 rows of unit length."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from .errors import MMFilterError
from .model_identity import identity, precision_on
from .preprocess import Preparation, preparation, prepare
from .tokens import TextTower
from .weights import ModelSpec, Resolved, build, resolve

BATCH = {"cuda": 256, "cpu": 32}


def load(name: str, spec: ModelSpec, device: str = "cpu", batch: int | None = None) -> "Embedder":
    """Find, check and build a model; `name` is what the recipe calls it.

    `batch` is images a step (default 256 on a GPU, 32 on a CPU). Raises what `resolve` and `build` raise.
    """
    found = resolve(spec)
    return Embedder(name, spec, found, build(spec, found), device, batch)


class Embedder:
    """Thread-safe; several threads feeding one embedder keep a GPU's queue full.

    A row's last bit can depend on the other rows of its batch (the BLAS picks its kernel by shape), so
    the same list of inputs and the same `batch` give the same bytes, and another `batch` the same to
    about 1e-3 in one fp16 component.
    """

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        found: Resolved,
        built: tuple[Any, Any, Any],
        device: str = "cpu",
        batch: int | None = None,
    ) -> None:
        import torch

        model, transform, tokenizer = built
        self.name, self.spec, self.found = name, spec, found
        self.identity = identity(spec, found)
        self.device = torch.device(device)
        self.model = model.requires_grad_(False).to(self.device)
        self.text_tower = TextTower(self.model, tokenizer)
        self.preparation: Preparation = preparation(transform, spec.decoder)
        self.batch = batch or BATCH.get(self.device.type, 32)
        self.halved = 0  # how often memory ran out
        self.full = False  # rows as float32, which a metric wants: a pool's are stored as fp16
        self.cuda = self.device.type == "cuda"
        self.precision = precision_on(spec, self.device.type)
        self._mean = torch.tensor(self.preparation.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(self.preparation.std, device=self.device).view(1, 3, 1, 1)
        self._lock = threading.Lock()
        self.image_size = _square(model.visual.preprocess_cfg["size"])
        self.dim = int(self.texts([""]).shape[1])

    @property
    def prepare_key(self) -> str:
        """Models of equal keys take the same prepared array."""
        return self.preparation.key

    def prepare(self, image: Image.Image) -> np.ndarray:
        """uint8 (height, width, 3) as the model takes it. Any thread. Raises preprocess.Unpreparable."""
        return prepare(image, self.preparation)

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """fp16 (n, dim), rows of unit length, of prepared uint8 (n, height, width, 3).

        A row can be bad (see `bad_rows`) where the weights are. Raises MMFilterError when one image
        alone does not fit in the device's memory.
        """
        return self.submit(pixels)()

    def submit(self, pixels: np.ndarray) -> Callable[[], np.ndarray]:
        """`images` in two halves: queue the work on the device now, and wait for it when called."""

        def step(rows: slice) -> Any:
            x = self._put(pixels[rows]).permute(0, 3, 1, 2).contiguous()
            x = x.float().div_(255).sub_(self._mean).div_(self._std)  # as torchvision does, to the bit
            return self._unit(self.model.encode_image, x)

        return self._queue(len(pixels), self.batch, step)

    def texts(self, texts: list[str]) -> np.ndarray:
        """fp16 (n, dim), rows of unit length, in the order of `texts`. Raises MMFilterError (memory)."""
        tokens = self.text_tower.tokens(texts) if texts else np.zeros((0, 1), np.int64)
        lengths = self.text_tower.lengths(tokens)
        order = np.argsort(lengths, kind="stable")

        def step(rows: slice) -> Any:
            picked = order[rows]
            return self._unit(self.text_tower, self._put(tokens[picked, : self._width(lengths[picked], tokens)]))

        rows = self._queue(len(texts), 2 * self.batch, step)()
        back = np.empty_like(rows)
        back[order[: len(rows)]] = rows
        return back

    def _width(self, lengths: np.ndarray, tokens: np.ndarray) -> int:
        """Columns to compute: the longest, on a GPU rounded up to 8, which its attention kernels want."""
        longest = int(lengths.max())
        return min(-(-longest // 8) * 8, tokens.shape[1]) if self.cuda else longest

    def _put(self, array: np.ndarray) -> Any:
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.cuda else tensor.to(self.device)

    def _unit(self, encode: Callable[[Any], Any], inputs: Any) -> Any:
        import torch

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = encode(inputs)
        features = features[0] if isinstance(features, tuple) else features
        rows = torch.nn.functional.normalize(features.float(), dim=-1)
        return rows if self.full else rows.half()

    def _queue(self, n: int, batch: int, step: Callable[[slice], Any]) -> Callable[[], np.ndarray]:
        """`step` over n rows; a batch that does not fit is halved and tried again, and stays halved.

        What is returned waits for the device, outside the lock: another thread can queue meanwhile.
        """
        import torch

        done: list[Any] = []
        start = 0
        with self._lock, torch.inference_mode():
            while start < n:
                size = max(1, batch >> self.halved)
                try:
                    done.append(step(slice(start, min(start + size, n))))
                    start += size
                except torch.OutOfMemoryError as error:
                    if size == 1:
                        raise MMFilterError(f"{self.name}: one sample does not fit on {self.device}") from error
                    self.halved += 1
                    if self.cuda:
                        torch.cuda.empty_cache()
        empty = np.zeros((0, getattr(self, "dim", 0)), np.float32 if self.full else np.float16)
        return lambda: torch.cat(done).cpu().numpy() if done else empty

    def part(self) -> dict[str, str]:
        """What tells this model from others: its weights, its configuration and what it computes in."""
        return {"weights": self.found.sha256, **self.identity, "precision": self.precision}

    def info(self) -> dict[str, Any]:
        """What the embeddings depend on, for the sidecar: plain JSON values."""
        import open_clip
        import PIL
        import torch

        return {
            "model": self.spec.model,
            "pretrained": self.spec.pretrained,
            "weights": self.found.path.replace("\\", "/").rsplit("/", 1)[-1] or f"random, seed {self.spec.seed}",
            "sha256": self.found.sha256,
            "preprocessing": f"{self.prepare_key} > mean {self.preparation.mean} std {self.preparation.std}",
            "decoder": self.spec.decoder,
            "precision": self.precision,
            "device": self.device.type,
            "identity": self.identity,
            "batch": self.batch,
            "dim": self.dim,
            "image_size": self.image_size,
            "padding": "cut" if self.text_tower.trims else "full",
            "versions": {"torch": torch.__version__, "open_clip": open_clip.__version__, "pillow": PIL.__version__},
        }


def _square(size: Any) -> tuple[int, int]:
    """(height, width) in pixels, of open_clip's int or pair."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))


def bad_rows(rows: np.ndarray) -> np.ndarray:
    """(n,) bool: rows with NaN, Inf, or a length that is not 1 to 1 %; (n, d) of any float type."""
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.sqrt(np.square(rows, dtype=np.float32).sum(axis=1))
        return ~(np.abs(lengths - 1) < 0.01)
