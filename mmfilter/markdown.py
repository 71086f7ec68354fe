"""Markdown in which foreign text stays text: nothing in it becomes a link, a tag, a heading or a table's edge."""

import re
from collections.abc import Iterable, Sequence

PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")  # all that CommonMark lets a backslash escape
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}  # also for readers that know no backslash
TAG = re.compile(r"<[a-zA-Z/!?]")
CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def plain(text: object) -> str:
    """One line of text as it stands."""
    return PUNCTUATION.sub(lambda found: ENTITIES.get(found[1], f"\\{found[1]}"), _line(text))


def code(text: object) -> str:
    """One line of text in a code span, which also stands in a table's cell."""
    line = _line(text)
    if not line.strip():
        return '""'
    if "|" in line or TAG.search(line):  # a table would cut the span here; a careless reader would see a tag
        return f"<code>{PUNCTUATION.sub(lambda found: f'&#{ord(found[1])};', line)}</code>"
    fence = "`" * (_longest(line) + 1)
    pad = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str, language: str = "") -> str:
    """Lines of text in a fence that none of them closes."""
    fence = "`" * max(_longest(text) + 1, 3)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of cells that are Markdown already: the first column to the left, the others to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _line(text: object) -> str:
    return CONTROL.sub(" ", str(text))


def _longest(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
