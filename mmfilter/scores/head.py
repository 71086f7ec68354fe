"""A head of the user's over stored embeddings: aesthetics, NSFW, watermarks."""

import os
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from ..errors import DataError
from ..heads import ENDINGS, Layer, apply_head, read_head, sigmoid, softmax
from ..plugs import Batch, Score

ROWS = 8192  # at a time


class Head(Score):
    """`NAME_score`, float32: a linear or multi-layer head over the embeddings of `model`, no pixels read.

    `file` holds the weights (`mmfilter.heads` says how; from the working directory where the path is relative),
    `sha256` what they must hash to. `normalize` takes unit rows, as LAION's aesthetic predictors do
    (github.com/LAION-AI/aesthetic-predictor, one linear layer; and christophschuhmann's
    improved-aesthetic-predictor, five without activations, dropout between). `activation` stands between the
    layers, `output` after the last: ``softmax:1`` is the share of its output 1. Float64 inside; each row's
    value is its own, however batches are cut. NaN for a row without a direction.
    """

    name: str = Field(pattern=r"^\w+$")
    file: str
    model: str = Field(min_length=1)
    modality: Literal["image", "text"] = "image"
    normalize: bool = True
    activation: Literal["none", "relu", "silu", "tanh"] = "none"
    output: str = Field(default="none", pattern=r"^(none|sigmoid|softmax:\d+)$")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @field_validator("file")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.endswith(ENDINGS):
            raise ValueError(
                f"heads are read from {', '.join(ENDINGS)} files. Of a Keras model write each Dense layer's kernel, "
                "transposed, and bias to an .npz: docs/methods.md, Heads, has the lines"
            )
        return value if "://" in value else os.path.abspath(os.path.expanduser(value))

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"{self.name}_score",)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"{'img' if self.modality == 'image' else 'txt'}_emb:{self.model}"})

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.file,)

    def check(self) -> None:
        self._layers()

    def _layers(self) -> tuple[Layer, ...]:
        """Raises UsageError, DataError, ConflictError for a file that is not the head that the fields describe."""
        layers = read_head(self.file, self.sha256)
        self._check_output(len(layers[-1].bias))
        return layers

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        layers = self._layers()
        (need,) = self.needs
        rows = np.asarray(batch[need])
        if rows.shape[1] != layers[0].weight.shape[1]:
            raise DataError(
                f"{self.file}: its first layer takes {layers[0].weight.shape[1]} numbers, an embedding of "
                f"'{self.model}' has {rows.shape[1]}; name the model that the head was trained on"
            )
        found = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS].astype(np.float64, order="C")
            if self.normalize:
                part = _unit(part)
            found[start : start + ROWS] = self._finish(apply_head(part, layers, self.activation))
        return {self.columns[0]: found}

    def _check_output(self, size: int) -> None:
        kind, _, index = self.output.partition(":")
        if kind == "softmax" and int(index) >= size:
            raise DataError(f"{self.file}: it has {size} outputs, so 'softmax:{index}' is not there; they count from 0")
        if kind != "softmax" and size != 1:
            raise DataError(f"{self.file}: it has {size} outputs; 'output: softmax:INDEX' says which one is the score")

    def _finish(self, x: np.ndarray) -> np.ndarray:
        kind, _, index = self.output.partition(":")
        if kind == "softmax":
            return softmax(x)[:, int(index)]
        return sigmoid(x[:, 0]) if kind == "sigmoid" else x[:, 0]


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; NaN where there is no direction. Of fp16 rows the squares sum exactly."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
