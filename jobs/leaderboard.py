"""`leaderboard`: trials as a table with intervals, as JSON, and as a page with plots."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def leaderboard(
        outs: Annotated[list[str], typer.Argument(help="Folders that `rank` wrote; several budgets.", metavar="OUT")],
        proxy: Annotated[str, typer.Option(help="A folder of cheaper trials: does their ranking agree?")] = "",
        page: Annotated[str, typer.Option(help="The page to write (default: OUT/leaderboard.html).")] = "",
        as_json: o.Json = False,
    ) -> None:
        """Who trains the better model: a table with intervals, and OUT/leaderboard.html with plots."""
        from .outdir import absolute

        print(show([absolute(path) for path in outs], as_json, proxy and absolute(proxy), page and absolute(page)))


def show(outs: Sequence[str], as_json: bool, proxy: str = "", page: str = "") -> str:
    """Write the page and leaderboard.json; returns what to print. Raises UsageError, DataError."""
    from mmfilter import storage
    from mmfilter.leaderboard import agreement, board
    from mmfilter.own_files import check_replaceable, is_json_with, write_page
    from mmfilter.report.board import render

    boards = [board(out) for out in outs]
    tau = agreement(board(proxy), boards[0]) if proxy else None
    found: dict[str, Any] = {"boards": [one.plain() for one in boards]}
    if tau:
        found["proxy"] = {"out": proxy, "kendall": tau.plain()}
    page, record = page or storage.join(outs[0], "leaderboard.html"), storage.join(outs[0], "leaderboard.json")
    check_replaceable(record, is_json_with("boards"), "a leaderboard")
    write_page(page, render(boards, tau, proxy))
    storage.write_atomic(record, (json.dumps(found, indent=1) + "\n").encode())
    if as_json:
        return json.dumps(found, indent=1)
    return "\n".join([*(line for one in boards for line in lines(one)), *_agreed(tau, proxy), f"page  {page}"])


def lines(board: Any) -> list[str]:
    """The table, for a person."""
    said = [
        f"{board.samples:,} pairs seen ({board.scale}, {board.model}, lr {board.lr:g}) of a pool of {board.pool:,}; "
        "mean over tasks, 95 % intervals",
        f"{'subset':<22} {'kept':>8}  {'score':<21}  {'over no filter':<24}  over random of its size",
    ]
    for row in board.rows:
        said.append(
            f"{row.name:<22} {row.fraction:>8.1%}  {_level(row.score):<21}  {_apart(row.gain):<24}  {_apart(row.lead)}"
            + ("" if row.seeds > 1 else "  (one seed: nothing is compared)")
        )
    for group in board.rows[0].groups:
        said.append(f"  {group}: " + ", ".join(f"{row.name} {_level(row.groups[group])}" for row in board.rows))
    said += [f"  unfinished: {name} lacks {count} seeds" for name, count in board.unfinished.items()]
    return [*said, *(f"  {a} is better than {', '.join(b)}" for a, b in beaten(board).items())]


def beaten(board: Any) -> dict[str, list[str]]:
    """Arm -> those that it is better than."""
    found: dict[str, list[str]] = {}
    for a, b in board.better:
        found.setdefault(a, []).append(b)
    return found


def _level(figure: Any) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f}..{figure.high:.3f})"


def _apart(figure: Any) -> str:
    if figure is None:
        return ""
    mark = " *" if figure.low > 0 or figure.high < 0 else ""
    return f"{figure.value:+.3f} ({figure.low:+.3f}..{figure.high:+.3f}){mark}"


def _agreed(tau: Any, proxy: str) -> list[str]:
    return [f"Kendall's tau with {proxy}: {_level(tau)}"] if tau else []
