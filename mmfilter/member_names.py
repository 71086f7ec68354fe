"""Names of a tar's members: key and extension, which are read, and whether a key's members stand together."""

from collections.abc import Callable
from functools import lru_cache

from . import storage
from .fields import CONTENT, KNOWN, ReadOptions, is_image
from .tar import WHOLE, Member, members

HEAD = 64  # bytes of an image that tell its format


@lru_cache(maxsize=4)  # a member's name is asked for twice: what of it is read, and what it is
def split_name(name: str) -> tuple[str, str]:
    """(key, lower-case extension) of a member by WebDataset's rule; ("", "") when it has none."""
    base = name.rfind("/") + 1
    dot = name.find(".", base + 1)  # the file name needs one character before the dot
    if dot < 0 or name[base] == ".":
        return "", ""
    return name[:dot], name[dot + 1 :].lower()


def wanted_bytes(options: ReadOptions, want_images: bool) -> Callable[[str], int]:
    """How many bytes of each member are read, by its name."""
    texts = {"json", *options.caption_members}
    image = WHOLE if want_images or options.uids == CONTENT else HEAD
    known: dict[str, int] = {}

    def bytes_of(name: str) -> int:
        extension = split_name(name)[1]
        if extension not in known:
            if len(known) >= KNOWN:
                known.clear()
            known[extension] = WHOLE if extension in texts else image if is_image(extension) else 0
        return known[extension]

    return bytes_of


def stand_apart(path: str) -> bool:
    """Whether members of a key have other keys' members between them, by the names of the tar at `path`."""
    earlier: set[str] = set()
    last = ""
    with storage.open_read(path) as stream, storage.reading(path):
        for entry in members(stream, lambda name: 0):
            key = split_name(entry.name)[0] if isinstance(entry, Member) and entry.kind == "file" else ""
            if key and key != last:
                if key in earlier:
                    return True
                earlier.add(key)
                last = key
    return False
