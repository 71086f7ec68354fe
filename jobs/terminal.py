"""Where text is printed: what names and captions of strangers hold is shown, and a terminal obeys none of it."""

import builtins
import sys
from typing import TextIO

from mmfilter.text import printable


def print(text: object = "", file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """The built-in `print` of one text, with control characters as escapes, and what the stream's encoding lacks too.

    Every module of this room that prints takes it from here.
    """
    stream = file or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = printable(str(text)).encode(encoding, "backslashreplace").decode(encoding)
    builtins.print(shown, file=stream, end=end, flush=flush)
