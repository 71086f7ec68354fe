"""Small networks over stored embeddings: linear layers read from a user's file, and applied exactly.

A file is a chain of linear layers: `weight` (out, in) and `bias` (out,) by torch's names
(``0.weight``, ``layers.6.bias``, or plain ``weight``), in the order of the numbers in the names.
What stands between them (dropout, an activation) has no weights and is told by the recipe.
"""

import functools
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import storage
from .errors import COPY, ConflictError, DataError, UsageError
from .hub import why

ENDINGS = (".safetensors", ".npz", ".npy", ".pth", ".pt", ".bin")
BITS = 26  # of an input, relative to its row's largest: finer than float32's 24


class Layer(NamedTuple):
    """`weight` (out, in) and `bias` (out,), float64."""

    weight: np.ndarray
    bias: np.ndarray


ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x * sigmoid(x),
    "tanh": np.tanh,
}


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), float64 of any shape."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis of (n, k)."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def read_head(path: str, sha256: str | None = None) -> tuple[Layer, ...]:
    """The layers in `path`, which must hash to `sha256` where one is given.

    Raises UsageError (no such file), DataError (what it holds is no chain
    of linear layers), ConflictError (another sha256).
    """
    identity = storage.identity_or_none(path)
    if identity is None:
        raise UsageError(f"{path}: no such file; it was to hold a head's weights")
    layers, digest = _read(path, json.dumps(identity))
    if sha256 and digest != sha256:
        raise ConflictError(
            f"{path}: its sha256 is {digest}, the recipe wants {sha256}. Fetch the right file, or change the recipe "
            f"({COPY})"
        )
    return layers


@functools.lru_cache(maxsize=16)
def _read(path: str, identity: str) -> tuple[tuple[Layer, ...], str]:
    """(layers, sha256), once for a file and its `identity`."""
    data = storage.read_bytes(path)
    try:
        arrays = _arrays(path, data)
    except Exception as error:  # zip, unpickling, safetensors' own: none share a base class
        raise DataError(
            f"{path}: it does not hold plain arrays ({why(error)}). Pickled objects are never loaded; save the "
            "weights alone (a state_dict, an .npz)"
        ) from error
    return _chain(path, arrays), hashlib.sha256(data).hexdigest()


def _arrays(path: str, data: bytes) -> dict[str, np.ndarray]:
    """Name -> array, by the format that the ending tells."""
    stream = io.BytesIO(data)
    if path.endswith(".npy"):
        return {"weight": np.atleast_2d(np.load(stream, allow_pickle=False))}
    if path.endswith(".npz"):
        with np.load(stream, allow_pickle=False) as npz:
            return {name: npz[name] for name in npz.files}
    if path.endswith(".safetensors"):
        from safetensors.torch import load

        return _numpy(load(data))
    import torch

    held = torch.load(stream, map_location="cpu", weights_only=True)
    return _numpy(held.get("state_dict", held))


def _numpy(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}  # bf16 has no numpy type


def _chain(path: str, arrays: Mapping[str, np.ndarray]) -> tuple[Layer, ...]:
    """Layers in the order of their names' numbers. Raises DataError where they do not fit together."""
    held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
    names = sorted((name for name in arrays if name.endswith("weight")), key=_order)
    layers: list[Layer] = []
    for name in names:
        weight = np.asarray(arrays[name], np.float64)
        bias = np.asarray(arrays.get(f"{name.removesuffix('weight')}bias", np.zeros(len(weight))), np.float64)
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            break
        if layers and len(layers[-1].bias) != weight.shape[1]:
            break
        layers.append(Layer(weight, bias))
    known = {f"{name.removesuffix('weight')}{part}" for name in names for part in ("weight", "bias")}
    if not layers or len(layers) < len(names) or set(arrays) - known:
        raise DataError(
            f"{path}: no chain of linear layers, weight (out, in) and bias (out,), each taking what the one before "
            f"gives. It holds {held}. Fold what stands between (a normalisation) into its neighbour and save again"
        )
    if not all(np.isfinite(part).all() for layer in layers for part in layer):
        raise DataError(f"{path}: its weights are not finite; fetch or save them again")
    return tuple(layers)


def _order(name: str) -> list[tuple[int, str]]:
    """Sorts ``layers.10.weight`` after ``layers.2.weight``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[./]", name)]


def apply_head(rows: np.ndarray, layers: tuple[Layer, ...], activation: str = "none") -> np.ndarray:
    """(n, out of the last layer) float64 for rows (n, d); `activation` follows every layer but the last.

    A row's value does not hang on the rows beside it, nor on threads or the BLAS: see `linear`.
    """
    x = np.asarray(rows, np.float64)
    for number, layer in enumerate(layers):
        x = linear(x if number == 0 else ACTIVATIONS[activation](x), layer)
    return x


def linear(x: np.ndarray, layer: Layer) -> np.ndarray:
    """x (n, in) float64 -> (n, out), by products that a double holds exactly, so in whatever order they are summed.

    Inputs become whole multiples of 2**-26 of their row's largest (as a power of two), weights the sum of
    two parts of so few bits that in x 2**26 x 2**bits stays below 2**53. What is lost is below float32's own error.
    """
    d = x.shape[1]
    bits = 53 - BITS - max(1, d).bit_length()
    x, scale = _whole(x, BITS)
    rest, products = layer.weight, []
    for _ in range(2):
        step = np.ldexp(1.0, int(np.frexp(np.abs(rest).max(initial=0.0))[1]) - bits)
        part = np.rint(rest / step)
        products.append((x @ part.T) * step)
        rest = rest - part * step
    return (products[0] + products[1]) * scale + layer.bias


def _whole(x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(whole numbers up to 2**bits, (n, 1) the unit of each row): x to `bits` bits of its row's largest."""
    with np.errstate(invalid="ignore"):
        exponent = np.frexp(np.abs(x).max(axis=1, initial=0.0, keepdims=True))[1]
    unit = np.ldexp(1.0, exponent - bits)
    return np.rint(x / unit), unit
