"""What stands in local folders: all files below one, and which of them are named like a tar."""

import os


def is_tar(path: str) -> bool:
    """Whether a path or URL ends in .tar, in any case."""
    return path[-4:].lower() == ".tar"


def files_below(folder: str) -> list[str]:
    """The sorted paths of all files below a local folder, those behind links to other folders too.

    Each folder counts once, however many links lead to it: under its own path where it is below `folder`. A link to
    a folder that `folder` itself is in leads back and is not followed.
    """
    return sorted(_walk(folder, {os.path.realpath(folder)}, os.path.join(os.path.realpath(folder), "")))


def _walk(folder: str, seen: set[str], root: str) -> list[str]:
    """Files below `folder`, first without links; `seen` are the real paths of folders that were met."""
    files: list[str] = []
    links: list[str] = []
    for where, names, own in os.walk(folder):
        files += [os.path.join(where, name) for name in own]
        paths = [os.path.join(where, name) for name in names]
        links += filter(os.path.islink, paths)
        names[:] = [name for name, path in zip(names, paths, strict=True) if _first(path, seen)]
    for link in sorted(links):
        real = os.path.realpath(link)
        if real not in seen and not root.startswith(os.path.join(real, "")):
            seen.add(real)
            files += _walk(link, seen, root)
    return files


def _first(path: str, seen: set[str]) -> bool:
    """Whether this is a folder, and no link, that was not met before; it has been, from now on."""
    real = os.path.realpath(path)
    if os.path.islink(path) or real in seen:
        return False
    seen.add(real)
    return True
