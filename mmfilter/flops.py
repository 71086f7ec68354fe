"""What a model costs, by arithmetic: no weights, no device (for --dry-run and the benchmarks' floor)."""

from typing import Any, NamedTuple

import numpy as np

from .hub import quiet
from .tokens import TextTower
from .weights import ModelSpec, find, known


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
    """Count with torch's counter on the meta device, where nothing is computed. Raises UsageError."""
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg

    if spec.folder or ":" in spec.model:
        name = find(spec)[0]
    else:
        name = spec.model.replace("/", "-")
        known(name)
    with torch.device("meta"), quiet():
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False, device="meta").eval()
        height, width = PreprocessCfg(**model.visual.preprocess_cfg).input_size[1:]
        image = _count(model.encode_image, torch.empty(1, 3, height, width))
        return Flops(image, *_text(model))


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
