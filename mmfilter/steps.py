"""The parts of one training step: pixels ready for the model, text without its padding, the optimiser, the rate."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .train import Augment, TrainOptions


class Pixels:
    """(n, side, side, 3) uint8 to the model's normalised float32 (n, 3, size, size), augmented on the way."""

    def __init__(self, preprocess: dict[str, Any], augment: "Augment", rng: np.random.Generator) -> None:
        size = preprocess["size"]
        self.size: int = size if isinstance(size, int) else size[0]
        self.mean, self.std = preprocess["mean"], preprocess["std"]
        self.augment, self.rng = augment, rng

    def __call__(self, images: np.ndarray, device: str) -> Any:
        import torch

        x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div_(255)
        if self.augment.crop < 1 or self.augment.flip:
            x = self._cropped(x)
        if self.augment.jitter:
            x = self._jittered(x)
        mean, std = (torch.tensor(value, device=device).view(1, 3, 1, 1) for value in (self.mean, self.std))
        return x.sub_(mean).div_(std)

    def _cropped(self, x: Any) -> Any:
        """A random window of each image, both sides of their own scale, brought to size x size px (bilinear)."""
        import torch
        import torch.nn.functional as functional

        n = len(x)
        scale = self.rng.uniform(self.augment.crop, 1.0, (n, 2))
        shift = self.rng.uniform(-1.0, 1.0, (n, 2)) * (1 - scale)
        theta = np.zeros((n, 2, 3), np.float32)
        theta[:, 0, 0], theta[:, 1, 1] = scale[:, 0], scale[:, 1]
        theta[:, :, 2] = shift
        if self.augment.flip:
            theta[:, 0, 0] *= np.where(self.rng.random(n) < 0.5, -1, 1)
        grid = functional.affine_grid(torch.from_numpy(theta).to(x.device), [n, 3, self.size, self.size], False)
        return functional.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _jittered(self, x: Any) -> Any:
        """Brightness and contrast of each image, changed by up to `jitter`."""
        import torch

        by = self.rng.uniform(-self.augment.jitter, self.augment.jitter, (2, len(x), 1, 1, 1)).astype(np.float32)
        brightness, contrast = torch.from_numpy(1 + by).to(x.device)
        middle = x.mean((1, 2, 3), keepdim=True)
        return ((x - middle) * contrast + middle).mul_(brightness).clamp_(0, 1)


def encode_text(model: Any, tokens: Any) -> Any:
    """Unit rows (n, d) for token ids (n, context), padded only as far as the longest text of the batch.

    In a causal tower what follows a text's end does not touch it, so the result is that of the full
    length; the tower's mask is cut to fit. Other towers get the full length.
    """
    tower: Any = getattr(model, "text", None)
    mask = getattr(tower, "attn_mask", None)
    if mask is None or getattr(tower, "use_pad_mask", True) or getattr(tower, "cls_emb", None) is not None:
        return model.encode_text(tokens, normalize=True)
    length = int((tokens != 0).sum(1).max())
    tower.attn_mask = mask[:length, :length]
    try:
        return model.encode_text(tokens[:, :length], normalize=True)
    finally:
        tower.attn_mask = mask


def similarities(folder: str, images: np.ndarray, captions: list[str], batch: int = 256) -> np.ndarray:
    """(n,) float32: cosine of each of (n, size, size, 3) uint8 with its caption, under a model folder."""
    import torch

    from .checkpoint import checkpoint_config, load_checkpoint
    from .train import Augment

    model, _, tokenizer = load_checkpoint(folder)
    pixels = Pixels(checkpoint_config(folder).preprocess_cfg, Augment(crop=1.0), np.random.default_rng(0))
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            image = model.encode_image(pixels(images[start : start + batch], "cpu"), normalize=True)
            text = encode_text(model, tokenizer(captions[start : start + batch]))
            found.append((image * text).sum(1).numpy())
    return np.concatenate(found)


def optimizer(model: Any, options: "TrainOptions") -> Any:
    """AdamW with CLIP's betas; gains, biases and the logit scale are not decayed."""
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98), eps=1e-6)


def rate(step: int, steps: int, warmup: float) -> float:
    """The learning rate's part of its peak at `step` (from 1): a line up, then half a cosine down to 0."""
    rise = max(1, int(steps * warmup))
    if step <= rise:
        return step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
