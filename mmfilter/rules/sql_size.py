"""How large an SQL expression becomes when it is parsed, found from its words alone.

Polars writes some expressions out: `x BETWEEN a AND b` holds x twice, `CASE x WHEN ...` once for each WHEN, and nested
in each other they fill the memory before anything can count them. So this looks at the text first. What it gives is
never less than the nodes of polars' tree; tests/test_sql_size.py compares the two.
"""

import re
from dataclasses import dataclass, field

NODES = 1_000  # of the parsed expression; polars takes a quarter of a second to plan 800, and far longer for more
CHARACTERS = 200_000  # a list of 5,000 uids
DEPTH = 60  # brackets and CASEs in each other; polars' own parser stops near 50

TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")*")
    |(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)
    |(?P<word>[^\W\d]\w*)
    |(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<comma>,)
    |(?P<operator>\|\||::|<=>|[<>!=~*^@]+|[-+/%&|.:?])""",
    re.VERBOSE,
)
ESCAPED = re.compile(r"""\\['"]""")  # whether it ends a text depends on who reads it
GROWTH = {"nullif": 2, "right": 3, "left": 3, "split_part": 3, "substr": 5, "substring": 5}
"""How often a function repeats an argument of it."""
ONCE = frozenset({
    "abs", "acos", "asin", "atan", "atan2", "bit_and", "bit_count", "bit_length", "bit_or", "bit_xor", "cast", "cbrt",
    "ceil", "ceiling", "char_length", "character_length", "coalesce", "concat", "concat_ws", "cos", "date", "date_part",
    "degrees", "div", "ends_with", "exp", "extract", "floor", "greatest", "if", "ifnull", "initcap", "least", "length",
    "ln", "log", "log10", "log1p", "log2", "lower", "lpad", "ltrim", "mod", "octet_length", "pi", "position", "pow",
    "power", "radians", "regexp_like", "regexp_replace", "replace", "reverse", "round", "rpad", "rtrim", "sign", "sin",
    "sqrt", "starts_with", "strftime", "strpos", "tan", "timestamp", "trim", "try_cast", "upper",
})  # fmt: skip
UNKNOWN, LARGEST = 6, 16  # how often any other function is taken to repeat its arguments, and what it adds at most
KEYWORDS = frozenset({
    "and", "as", "between", "case", "else", "end", "for", "from", "ilike", "in", "is", "like", "not", "or", "regexp",
    "rlike", "then", "when", "xor",
})  # fmt: skip
ADDS = {
    "between": 6, "is": 3, "not": 2, "like": 2, "ilike": 2, "when": 6, "in": 4, "||": 4, "<>": 2, "!=": 2, "-": 2,
    "+": 2, "::": 2,
}  # fmt: skip
"""What a word adds beside itself, where that is more than one."""


class TooLarge(ValueError):
    """An expression that is refused for its size or for what cannot be told of it."""


@dataclass(slots=True)
class _Frame:
    """What is between two brackets, or CASE and END. `part` is the size since the last AND, OR, comma, WHEN, ..."""

    kind: str
    times: int = 1
    adds: int = 0
    total: int = 0
    part: int = 0
    items: int = 1
    whens: int = 0
    operand: int = 0
    between: bool = False  # the next AND is a BETWEEN's
    kinds: set[str] = field(default_factory=set)  # of the tokens so far
    plain: bool = True  # nothing but names of columns in this part

    def end_part(self) -> None:
        self.total, self.part, self.between = self.total + self.part, 0, False
        self.plain = True

    def size(self) -> int:
        self.end_part()
        return self.times * (self.total + self.operand * self.whens) + self.adds


def expression_size(sql: str) -> int:
    """At least the nodes of the parsed expression. Raises TooLarge past the limits, and where quotes are in doubt."""
    if len(sql) > CHARACTERS:
        raise TooLarge(f"{len(sql):,} characters; at most {CHARACTERS:,}")
    frames, before = [_Frame("")], ""
    for kind, token in _tokens(sql):
        top, word = frames[-1], token.lower() if kind == "word" else ""
        if kind == "open" or word == "case":
            frames.append(_opened(word or token, before))
            if len(frames) > DEPTH:
                raise TooLarge(f"brackets or CASEs nested deeper than {DEPTH}")
        elif kind == "close" or word == "end":
            if len(frames) == 1 or (top.kind == "case") != (word == "end"):
                raise TooLarge(f"'{token}' closes nothing")
            frames.pop()
            _take(frames[-1], top)
        elif kind == "comma" or word in ("or", "when", "then", "else") or (word == "and" and not top.between):
            _part(top, word or token)
        else:
            _token(top, kind, word or token)
        if sum(frame.total + frame.part for frame in frames if frame.kind != "in") > NODES:
            raise _too_large()
        before = token
    if len(frames) > 1:
        raise TooLarge("a bracket or a CASE is not closed")
    if (size := frames[0].size()) > NODES:
        raise _too_large()
    return size


def _too_large() -> TooLarge:
    return TooLarge(f"more than {NODES:,} parts, those counted that are written out; split it in several rules")


def _tokens(sql: str) -> list[tuple[str, str]]:
    found, at, end = [], 0, ""
    while at < len(sql):
        match = TOKEN.match(sql, at)
        if match is None:
            raise TooLarge(f"{sql[at : at + 10]!r} may not stand here: no comments, and texts in plain quotes")
        kind, token = str(match.lastgroup), match[0]
        if kind in ("text", "name") and (end in ("word", "number", "text", "name") or ESCAPED.search(token)):
            raise TooLarge(
                f"{token[:10]!r}: put a space before a quote, and no backslash before the quote that ends it"
            )
        if kind == "operator" and ("--" in token or "/*" in sql[at : at + 2]):
            raise TooLarge("no comments may stand here")
        at, end = match.end(), kind
        if kind != "space":
            found.append((kind, token))
    return found


def _opened(token: str, before: str) -> _Frame:
    name = before.lower()
    if token == "case":
        return _Frame("case", adds=6)
    if token == "(" and (name in KEYWORDS or not re.fullmatch(r"\w+|\".*\"", name)):
        return _Frame("in" if name == "in" else "(", adds=0)
    if token == "(" and name in ONCE:
        return _Frame("(", adds=8)
    return _Frame("(", GROWTH.get(name, UNKNOWN), LARGEST)


def _take(outer: _Frame, inner: _Frame) -> None:
    """Add what was between brackets to what is around them."""
    if inner.kind == "in":
        if outer.plain and inner.kinds in ({"text"}, {"number"}, {"whole"}):  # one list
            outer.part += 4
            return
        outer.part *= inner.items  # x IN (a, b) is x = a OR x = b
        inner.adds += 6 * inner.items
    outer.part += inner.size()
    outer.plain = False
    outer.kinds.add("bracket")


def _part(frame: _Frame, token: str) -> None:
    frame.end_part()
    if token == ",":
        frame.items += 1
        return
    if token == "when":
        frame.operand = frame.total if not frame.whens else frame.operand
        frame.whens += 1
    frame.kinds.add(token)
    frame.part = ADDS.get(token, 1)


def _token(frame: _Frame, kind: str, token: str) -> None:
    if token == "between":
        frame.part *= 2
        frame.between = True
    elif token == "and":
        frame.between = False
    frame.kinds.add("whole" if token.isdigit() else kind)
    frame.plain &= (kind == "word" and token not in ("null", "true", "false")) or kind == "name" or token == "."
    frame.part += ADDS.get(token, 4 if kind == "operator" and ("~" in token or "@" in token) else 1)
