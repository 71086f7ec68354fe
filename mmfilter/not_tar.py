"""What a file is that is named like a tar and is none, told from its first bytes."""

DOWNLOAD = "download the shard again"
BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # the first one, or the end of a file without one
COMPRESSED = {
    b"\x1f\x8b\x08": ("gzip", "gzip -dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc"),
    b"\xfd7zXZ\0": ("xz", "xz -dc"),
    **{b"BZh%d" % size + block: ("bzip2", "bzip2 -dc") for size in range(1, 10) for block in BZIP2_BLOCKS},
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc"),
}
"""First bytes -> name and command. They are long enough that no file's name in a tar begins with them."""

PARQUET = b"PAR1"  # at both ends
OTHERS = {
    b"PK\x03\x04": "a zip archive; unpack it and pack its files as a tar",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and pack its files as a tar",
    PARQUET: "a parquet file; give the tars that it belongs to",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file; give tars",
    b"version https://git-lfs": "a git-LFS pointer in place of the file; run `git lfs pull` where it was cloned",
}
MARKUP = {
    b"<!doctype html": f"an HTML page, such as an error or login page saved under this name; {DOWNLOAD}",
    b"<html": f"an HTML page, such as an error or login page saved under this name; {DOWNLOAD}",
    b"<?xml": f"an XML document, such as the error message of an object store; {DOWNLOAD}",
}


def is_container(head: bytes, tail: bytes) -> bool:
    """Whether a file with these first 512 and last 4 bytes is compressed, or holds others in a form of its own.

    A damaged tar header is neither, whatever the name of its file begins with.
    """
    if head.startswith(PARQUET) and tail != PARQUET:
        return False
    return not _is_header(head) and head.startswith((*COMPRESSED, *OTHERS))


def _is_header(block: bytes) -> bool:
    """Whether the block has the magic of a tar header at its place; its checksum may be wrong."""
    return block[257:262] == b"ustar"


def recognise(head: bytes) -> str:
    """What a file with these first bytes (512, or all) is, and what to do; "" where it is not known."""
    if _is_header(head):
        return "its only header is damaged"
    for magic, (name, command) in COMPRESSED.items():
        if head.startswith(magic):
            return f"it is compressed with {name}; unpack it first: `{command} < FILE > NEW.tar`"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, what in {**OTHERS, **MARKUP}.items():
        if head.startswith(magic) or start.startswith(magic):
            return f"it is {what}"
    if _is_text(head):
        return f"it is text that begins {head[:60].decode('utf-8', 'ignore')!a}; {DOWNLOAD}"
    return ""


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8 without control characters; the last character may be cut."""
    decoded = head.decode("utf-8", "ignore")
    printable = all(char.isprintable() or char in "\t\r\n" for char in decoded)
    return bool(head.strip()) and printable and len(decoded.encode()) >= len(head) - 3
