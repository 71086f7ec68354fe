"""Products of blocks on a GPU, by torch: the guesses of `kmeans.assign` and `semdedup.linked`, the sums of `negclip`
and the norms of `norm_sim`.

Where a float32 product only finds candidates, on either device, `exact.dots` decides, and the answers are the same.
The sums and norms are what was multiplied: their functions say how near the devices' answers are.
"""

from typing import Any

import numpy as np

ROWS = 4096  # of a block of `log_sums`: against 32,768 others 512 MB of similarities

_device = "cpu"


def use(device: str) -> None:
    """Where this process multiplies from now on: ``cpu`` (numpy), ``cuda``, or any other device of torch."""
    global _device
    _device = device


def there() -> bool:
    """Whether products are torch's."""
    return _device != "cpu"


def put(rows: np.ndarray) -> Any:
    """float32 rows as a tensor on the device, multiplied in full precision: `exact.margin` does not hold for TF32."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(_device)


def near_best(rows: Any, centroids: Any, slack: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(best (n,), i, j): each row's greatest product, and all pairs within `slack` of it where there are several."""
    found = rows @ centroids.T
    value, best = found.max(dim=1)
    close = found >= (value - slack)[:, None]
    i, j = (close & (close.sum(dim=1) > 1)[:, None]).nonzero(as_tuple=True)
    return best.cpu().numpy(), i.cpu().numpy(), j.cpu().numpy()


def pairs(x: Any, y: Any, floor: float, slack: float, upper: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(i, j, product) of rows of `x` and `y` at `floor` or above; `slack` inf: all, else within it of column j's best.

    `upper`: only i < j.
    """
    import torch

    found = x @ y.T
    if upper:
        found.masked_fill_(torch.ones_like(found, dtype=torch.bool).tril_(), -2)
    edge = (found.amax(dim=0) - slack).clamp_(min=floor)
    i, j = (found >= edge).nonzero(as_tuple=True)
    return i.cpu().numpy(), j.cpu().numpy(), found[i, j].cpu().numpy()


def log_sums(x: np.ndarray, y: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """`negclip.log_sums` by torch, alike in its types; times tau, both are within `exact.margin` of the exact."""
    import torch

    images, texts = put(x), put(y)
    rows = torch.empty(len(x), dtype=torch.float64, device=images.device)
    top = torch.full((len(y),), -torch.inf, device=images.device)
    total = torch.zeros(len(y), dtype=torch.float64, device=images.device)

    def powers(similar: Any, peak: Any, dim: int) -> Any:
        return (similar - peak).div_(tau).exp_().sum(dim=dim, dtype=torch.float64)

    for at in range(0, len(x), ROWS):
        similar = images[at : at + ROWS] @ texts.T
        peak = similar.amax(dim=1)
        rows[at : at + ROWS] = peak.double() / tau + powers(similar, peak[:, None], 1).log()
        new = torch.maximum(top, similar.amax(dim=0))
        total = total * ((top - new).double() / tau).exp() + powers(similar, new, 0)
        top = new
    return rows.cpu().numpy(), (top.double() / tau + total.log()).cpu().numpy()


def norms(rows: np.ndarray, square: np.ndarray) -> np.ndarray:
    """float64 (n,): sqrt(f^T `square` f) of float32 `rows` f (n, d), all in float64; `square` (d, d) float64."""
    import torch

    f = torch.from_numpy(rows).to(_device, torch.float64)
    found = ((f @ torch.from_numpy(square).to(_device)) * f).sum(dim=1).clamp_(min=0).sqrt_()
    return np.asarray(found.cpu().numpy())
