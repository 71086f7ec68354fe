"""Which URLs are opened: fsspec also has drivers that run programs, log in to other machines and unpack archives."""

import re

from .errors import UsageError

EXTRAS = {
    "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp",
}  # fmt: skip
"""The package that a scheme needs."""
SCHEMES = frozenset({*EXTRAS, "file", "local", "memory"})
"""All that are opened, whether a person, a recipe or a file names them."""

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://.*)?::[A-Za-z][A-Za-z0-9+.-]*://", re.DOTALL)


def check_scheme(path: str) -> None:
    """Raise UsageError for a URL of a scheme that is not opened, or of several in a chain."""
    if CHAIN.match(path):
        raise UsageError(f"{path}: file systems in a chain ('::') are not opened; give one path or URL")
    match = URL.match(path)
    if match and match[1] not in SCHEMES:
        known = ", ".join(f"{name}://" for name in sorted(SCHEMES - {"local", "memory"}))
        raise UsageError(f"{path}: no storage is known for '{match[1]}://'. Opened are {known}; copy or mount the data")
