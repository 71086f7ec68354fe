"""A fingerprint of plain values: what says that two things were made from the same."""

import hashlib
import json
from typing import Any


def fingerprint(part: Any) -> str:
    """sha256 (64 hex) of the canonical JSON of plain values."""
    return hashlib.sha256(json.dumps(part, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
