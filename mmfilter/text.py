"""Strings that strangers wrote: made valid where they enter, and harmless where they are printed."""

import re

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys or cannot show: controls but for tab and line feed, marks that turn the direction
of a line, halves of surrogate pairs."""
SHOWN = 200  # characters of a name or caption that are printed
COLOURS = re.compile("\x1b\\[[0-9;]*m")


def valid_text(text: str) -> str:
    """`text` with what no UTF-8 file can hold (a byte of another encoding, half a surrogate pair) as an escape."""
    return text if text.isascii() or _is_valid(text) else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_valid(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    r"""`text` of one or several lines with control characters as `\u001b`, which is an escape in JSON too."""
    return CONTROLS.sub(_escape, text)


def one_line(text: str) -> str:
    r"""`printable` text in one line: tabs and line feeds are escaped too, as `\u000a`."""
    return printable(text).replace("\n", r"\u000a").replace("\t", r"\u0009")


def cut(text: str) -> str:
    """The first SHOWN characters of a name or caption, as a sentence has it: whatever is not printable as an escape."""
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: SHOWN + 1])
    return plain if len(text) <= SHOWN else plain[:SHOWN] + "…"


def uncoloured(text: str) -> str:
    """A log without the colours that Ray gives to its lines."""
    return COLOURS.sub("", text)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
