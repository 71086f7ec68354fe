"""What stands in an object store's folders: names, patterns and sizes, and an error where that cannot be told."""

import fnmatch
import posixpath
from typing import Any

from .remote import filesystem, retrying


def entries(folder: str) -> list[dict[str, Any]]:
    """fsspec's details of what stands in `folder`; nothing where it is not."""
    fs = filesystem(folder)
    try:
        return list(retrying(lambda: fs.ls(folder, detail=True), folder))
    except FileNotFoundError:
        return []


def listing(folder: str) -> list[tuple[str, bool]]:
    """(path with its scheme, whether it is a folder) of what stands in `folder`, in order; nothing where it is not."""
    itself, root = filesystem(folder)._strip_protocol(folder).strip("/"), folder.rstrip("/")
    named = [(entry["name"].strip("/"), entry["type"] == "directory") for entry in entries(folder)]
    return sorted((f"{root}/{posixpath.basename(name)}", is_dir) for name, is_dir in named if name != itself)


def glob(folder: str, pattern: str) -> list[str]:
    """Sorted paths below `folder`, which is taken as it is, that match `pattern`; `*`, `?` and `[...]` within a name,
    `**` over folders.
    """
    root, parts = folder.rstrip("/"), pattern.split("/")
    if "**" in parts:
        patterns = {pattern, pattern.replace("**/", "")}
        below = [(path, path.removeprefix(root).strip("/")) for path in find(root)]
        return [path for path, name in below if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
    found = [(root, True)]
    for part in parts:
        within = [entry for folder, is_folder in found if is_folder for entry in listing(folder)]
        found = [entry for entry in within if _matches(posixpath.basename(entry[0]), part)]
    return sorted(path for path, _ in found)


def _matches(name: str, part: str) -> bool:
    return fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))


def find(root: str) -> list[str]:
    """Sorted paths of all objects below `root`."""
    root, fs = root.rstrip("/"), filesystem(root)
    itself = fs._strip_protocol(root).strip("/")
    below = [name.strip("/").removeprefix(itself).strip("/") for name in retrying(lambda: fs.find(root), root)]
    return sorted(f"{root}/{name}" for name in below)


def sizes(root: str) -> dict[str, int]:
    """Path -> bytes of all objects below `root`, sorted."""
    root, fs = root.rstrip("/"), filesystem(root)
    itself = fs._strip_protocol(root).strip("/")
    below = retrying(lambda: fs.find(root, detail=True), root)
    found = {name.strip("/").removeprefix(itself).strip("/"): int(info["size"]) for name, info in below.items()}
    return {f"{root}/{name}": size for name, size in sorted(found.items())}
