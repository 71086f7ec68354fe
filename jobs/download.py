"""`download`: lists of urls become shards, by img2dataset; then only what failed is asked for again."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from mmfilter import storage
from mmfilter.errors import OK, SET_ASIDE, MissingDependency, MMFilterError
from mmfilter.json_file import COUNT, read_object
from mmfilter.text import one_line

from . import choice
from . import options as o
from .cluster import Width
from .driver import ATTEMPTS, Crash, Setup, drive
from .progress import Progress
from .terminal import print

PATIENCE = 6  # an answer may take so many timeouts as a whole; a guess
DIGITS = 8  # of a shard's number, as DataComp has them


@dataclass(frozen=True)
class Fetching:
    """How images are asked for and stored; the defaults are DataComp's call of img2dataset, with 2 retries."""

    image_size: int = 512
    timeout: int = 10
    retries: int = 2
    threads: int = 64
    max_bytes: int = 64 << 20
    allow_private: bool = False

    @property
    def made(self) -> dict[str, Any]:
        """What the shards' bytes depend on."""
        return {"image_size": self.image_size, "max_bytes": self.max_bytes}


def add(app: typer.Typer) -> None:
    @app.command()
    def download(
        urls: Annotated[
            list[str], typer.Argument(help="Lists: parquet, csv, tsv, txt (.gz), or folders of them.", metavar="URLS")
        ],
        out: Annotated[str, typer.Option("--out", help="The folder of the shards.", metavar="FOLDER")],
        url_col: Annotated[str, typer.Option(help="The column of urls.")] = "url",
        caption_col: Annotated[str, typer.Option(help="The column of captions.")] = "text",
        uid_col: Annotated[str, typer.Option(help="The column of uids; made where it is not there.")] = "uid",
        keep: Annotated[list[str], typer.Option(help="A further column for each json. Repeatable.")] = [],  # noqa: B006
        shard_size: Annotated[int, typer.Option(min=1, help="Rows a shard.")] = 10_000,
        image_size: Annotated[int, typer.Option(min=1, help="Pixels; a larger image's longer side.")] = 512,
        timeout: Annotated[
            int, typer.Option(min=1, help="Seconds without a byte; the whole may take 6 times that.")
        ] = 10,
        retries: Annotated[int, typer.Option(min=0, help="Further tries of each url within a pass.")] = 2,
        max_bytes: Annotated[int, typer.Option(min=1, help="An image's bytes at most.")] = 64 << 20,
        threads: Annotated[int, typer.Option(min=1, help="Urls asked for at once, a worker.")] = 64,
        retry_failed: Annotated[
            bool, typer.Option("--retry-failed", help="Ask again for the rows that failed, into further shards.")
        ] = False,
        allow_private: Annotated[
            bool, typer.Option("--allow-private", help="Also ask addresses of your own network.")
        ] = False,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        as_json: o.Json = False,
    ) -> None:
        """Lists of urls to shards, through img2dataset; resumes, retries what failed, lints the result."""
        from mmfilter.url_lists import Columns

        from .outdir import absolute

        fetching = Fetching(image_size, timeout, retries, threads, max_bytes, allow_private)
        columns = Columns(url_col, caption_col, uid_col, tuple(keep))
        asked = Asked(tuple(map(absolute, urls)), absolute(out), columns, shard_size, fetching, retry_failed)
        result = download_lists(asked, Width(address=address, workers=workers, gpus=0, local=local))
        print(json.dumps(result, indent=1) if as_json else "\n".join(lines(result)))
        raise typer.Exit(SET_ASIDE if result["failed"] else OK)


@dataclass(frozen=True)
class Asked:
    """A whole request."""

    urls: tuple[str, ...]
    out: str
    columns: Any
    shard_size: int = 10_000
    fetching: Fetching = Fetching()
    retry_failed: bool = False


@dataclass(frozen=True)
class MakeFetcher:
    """Downloads a piece of a list into its shard; what it returns is (rows, successes)."""

    out: str
    fetching: Fetching

    def __call__(self, _: Setup) -> Callable[[int], tuple[int, int]]:
        from .fetcher import prepare

        return prepare(self.out, self.fetching)


def download_lists(asked: Asked, width: Width = Width()) -> dict[str, Any]:
    """Cut the lists up, fetch what is not done, lint. Returns plain values. Raises MMFilterError."""
    from mmfilter.download_rows import list_failed, repeated_rows, standing
    from mmfilter.url_lists import find_lists, plan_lists

    from .inspect import inspect_pool
    from .outdir import only_driver

    if find_spec("img2dataset") is None:  # its import takes seconds, and is the workers'
        raise MissingDependency("img2dataset is not installed. Run: pip install 'mmfilter[download]'")
    lists = find_lists(asked.urls)
    with only_driver(asked.out):
        rows = plan_lists(asked.out, lists, asked.columns, asked.shard_size, asked.fetching.made)
        again = list_failed(asked.out, asked.shard_size) if asked.retry_failed else 0
        before = len(standing(asked.out)[0])
        _fetch(asked, width)
        done, _ = standing(asked.out)
        counts = _counts(asked.out, done)
        stated = counts.pop("success", 0)
        findings = inspect_pool([asked.out], width)
        ok = findings.held  # what is in the tars counts, not what the stats say of them
        repeated = repeated_rows(asked.out, rows, asked.shard_size) if ok < rows else 0
    return {
        "path": asked.out,
        "rows": rows,
        "ok": ok,
        "repeated": repeated,
        "failed": rows - ok - repeated,
        "tried_again": again,
        "shards": len(done),
        "shards_done_before": before,
        "stated_by_stats": stated,
        "answers": dict(counts.most_common(10)),
        "inspect": findings.to_dict(),
    }


def _fetch(asked: Asked, width: Width) -> None:
    """Every pending piece, each tried three times. Raises MMFilterError when one does not get through."""
    from mmfilter.download_rows import standing

    for attempt in range(ATTEMPTS):
        _, pending = standing(asked.out)
        if not pending:
            return
        error, width = "", choice.choose(width, choice.downloads(len(pending)))
        with Progress("download", len(pending)) as progress:
            for number, result in drive(pending, MakeFetcher(asked.out, asked.fetching), width):
                if isinstance(result, Crash):
                    error = f"shard {number:0{DIGITS}d}: {result.error.splitlines()[0]}"
                    continue
                progress.advance(result[0], result[0] - result[1])
        if error and attempt == ATTEMPTS - 1:
            raise MMFilterError(f"{asked.out}: {error} ({ATTEMPTS} attempts). The same command goes on from here")


def _counts(out: str, done: list[int]) -> Counter[str]:
    """What the stats of all shards tell, by status: `success`, or the reason, once for every pass that met it.

    Stats that cannot be read tell nothing; the inspection names them.
    """
    counts: Counter[str] = Counter()
    for number in done:
        try:
            shape = {"successes": COUNT, "status_dict": {str: COUNT}}
            stats = read_object(storage.join(out, f"{number:0{DIGITS}d}_stats.json"), "download it again", shape)
        except (OSError, MMFilterError):
            continue
        counts.update({why: n for why, n in stats["status_dict"].items() if why != "success"})
        counts["success"] += stats["successes"]
    return counts


def lines(result: dict[str, Any]) -> list[str]:
    """The result for a person."""
    repeated = f" + repeated {result['repeated']:,}" if result["repeated"] else ""
    said = [
        f"rows {result['rows']:,} = ok {result['ok']:,}{repeated} + failed {result['failed']:,}"
        f" ({result['shards']:,} shards in {result['path']})"
    ]
    if result["tried_again"]:
        said.append(f"  asked again for {result['tried_again']:,}")
    said += [f"  {n:>9,} x {one_line(why)}" for why, n in result["answers"].items()]
    if result["stated_by_stats"] != result["ok"]:
        said.append(
            f"  the shards' _stats.json tell of {result['stated_by_stats']:,}, their tars hold {result['ok']:,}: "
            "the tars count, and --retry-failed asks again for what they lack"
        )
    return said + [f"  inspect: {f['severity']} {f['what']}: {f['text']}" for f in result["inspect"]["findings"]]
