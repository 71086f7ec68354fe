"""Products of blocks on a GPU, by torch: the guesses of `kmeans.assign` and `semdedup.linked`.

A float32 product only finds candidates, on either device; `exact.dots` decides, so the answers are the same.
"""

from typing import Any

import numpy as np

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
