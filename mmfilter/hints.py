"""What a message about a path that does not exist suggests: the nearest name beside it."""

import os

from . import storage
from .errors import nearest


def nearest_beside(path: str, ending: str = "", folders: bool = False) -> str:
    """How the sentence ends: ``"; did you mean 'x'?"``, or ``"."``. Of the names beside a local `path` those with the
    `ending`, or only folders, are considered; nothing is suggested for a remote path.
    """
    if storage.is_remote(path):
        return "."
    parent, name = os.path.split(os.path.abspath(path))
    others = [other for other in storage.names(parent) if other != name and other.endswith(ending)]
    return nearest(name, [other for other in others if not folders or os.path.isdir(os.path.join(parent, other))])
