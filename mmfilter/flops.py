"""What a model costs, by arithmetic: no weights, no device (for --dry-run and the benchmarks' floor)."""

import os
from typing import Any, NamedTuple

import numpy as np

from .hub import fetch_hub, quiet
from .tokens import TextTower
from .weights import HUB, ModelSpec, find, known


class Flops(NamedTuple):
    """Floating-point operations (a multiply-add is two) of one forward pass.

    `image` is one image's; `text` are (constant, per token, per token squared) of one caption's.
    """

    image: int
    text: tuple[float, float, float]
    context: int

    def caption(self, tokens: int) -> int:
        """Of one caption of so many tokens, both ends counted."""
        a, b, c = self.text
        tokens = min(tokens, self.context)
        return round(a + b * tokens + c * tokens * tokens)


def flops(spec: ModelSpec) -> Flops:
    """Count with torch's counter on the meta device, where nothing is computed. Raises UsageError, MMFilterError."""
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg

    name = _name(spec)
    with torch.device("meta"), quiet():
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False, device="meta").eval()
        height, width = PreprocessCfg(**model.visual.preprocess_cfg).input_size[1:]
        image = _count(model.encode_image, torch.empty(1, 3, height, width))
        return Flops(image, *_text(model))


def _name(spec: ModelSpec) -> str:
    """What open_clip builds the model from; of a hub's model only the configuration is fetched."""
    if spec.folder:
        return find(spec)[0]
    if spec.model.startswith(HUB):
        return f"local-dir:{os.path.dirname(fetch_hub(spec.model[len(HUB) :], weights=False))}"
    known(name := spec.model.replace("/", "-"))
    return name


def _text(model: Any) -> tuple[tuple[float, float, float], int]:
    """((a, b, c), context): a transformer's cost is exactly quadratic in its length, so three points fix it."""
    import torch

    tower = TextTower(model, None)
    context = int(model.context_length)
    full = _count(tower, torch.zeros(1, context, dtype=torch.long))
    if not tower.trims or context < 4:
        return (float(full), 0.0, 0.0), context
    lengths = np.array([1, context // 2, context], dtype=np.float64)
    counts = [_count(tower, torch.zeros(1, int(n), dtype=torch.long)) for n in lengths]
    a, b, c = np.linalg.solve(np.vander(lengths, 3, increasing=True), np.array(counts, dtype=np.float64))
    return (float(a), float(b), float(c)), context


def _count(encode: Any, inputs: Any) -> int:
    # With gradients on, attention goes through operations the counter knows; the fused one it does not.
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        encode(inputs)
    return int(counter.get_total_flops())
