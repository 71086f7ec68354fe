"""`reshard`: a subset's samples as new shards, by workers; bytes are copied, and decoded only to blur faces."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mmfilter.errors import OK, MMFilterError

from . import choice
from . import options as o
from .cluster import Width
from .driver import Crash, Setup, drive
from .progress import Progress
from .terminal import print


@dataclass(frozen=True)
class MakeIndexer:
    """Indexes a tar: what of the subset is in it, and where."""

    subset: Any
    read: Any
    blur: bool = False
    members: tuple[str, ...] = ()

    def __call__(self, _: Setup) -> Callable[[str], Any]:
        from mmfilter.shard_index import index_shard

        return lambda path: index_shard(path, self.read, self.subset, self.blur, self.members)


@dataclass(frozen=True)
class MakeWriter:
    """Writes an output shard of a plan."""

    folder: str

    def __call__(self, _: Setup) -> Callable[[Any], Any]:
        from mmfilter.reshard import write_output

        return lambda shard: write_output(shard, self.folder)


def add(app: typer.Typer) -> None:
    @app.command()
    def reshard(
        subset: Annotated[str, typer.Argument(help="A subset's .npy, or a .schedule.json.", metavar="SUBSET")],
        pool: o.Pool,
        out: Annotated[str, typer.Option("--out", help="The folder of the new shards.", metavar="FOLDER")],
        max_samples: Annotated[int, typer.Option(min=1, help="Samples a shard at most.")] = 10_000,
        max_bytes: Annotated[int, typer.Option(min=1, help="Bytes a shard at most.")] = 3_000_000_000,
        allow_missing: Annotated[
            bool,
            typer.Option(
                "--allow-missing", help="Go on without named shards that do not exist, and uids that the pool lacks."
            ),
        ] = False,
        blur_faces: Annotated[
            bool, typer.Option("--blur-faces", help="Blur faces by the json's face_bboxes; other samples are copied.")
        ] = False,
        members: Annotated[
            str, typer.Option(help="Further members to copy, by extension: 'npy,mask.png'.", metavar="'A,B'")
        ] = "",
        deep: Annotated[
            bool, typer.Option("--deep", help="Look at every byte of what was written before, not at sizes alone.")
        ] = False,
        uids: o.Uids = None,
        pool_id: o.PoolId = None,
        captions: o.Captions = None,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        as_json: o.Json = False,
    ) -> None:
        """Copy a subset's samples into new shards, checked to the uid; resumes; fails loudly on a gap."""
        from mmfilter.fields import member_names, read_options
        from mmfilter.reshard_plan import ReshardOptions

        from .outdir import absolute, reading_beside
        from .shards import find_shards

        asked = ReshardOptions(max_samples, max_bytes, allow_missing, blur_faces, member_names(members.split(",")))
        width = Width(address=address, workers=workers, gpus=0, local=local)
        wanted = epochs(absolute(subset), absolute(out))
        read = read_options(reading_beside(absolute(subset)), uids, pool_id, captions)
        request = Request(asked, read, deep=deep)
        results = reshard_subsets(wanted, find_shards(pool, allow_missing).paths, width, request)
        _say(results, absolute(subset), as_json)
        raise typer.Exit(OK)


def _say(results: list[dict[str, Any]], subset: str, as_json: bool) -> None:
    """Print what was written, and on standard error what the subset's record warns of."""
    from mmfilter.subset_notes import notes_of

    notes = notes_of(subset)
    for note in notes:
        print(f"mmfilter: {note}", file=sys.stderr)
    told: Any = results if subset.endswith(".schedule.json") else {**results[0], "notes": notes}
    print(json.dumps(told, indent=1) if as_json else "\n".join(map(line, results)))


@dataclass(frozen=True)
class Request:
    """Beyond subset and pool: limits, how uids are read, whether an earlier subset's shards may be replaced, and
    whether each byte of what was written before is looked at.
    """

    options: Any = None
    read: Any = None
    replace: bool = False
    deep: bool = False


def epochs(subset: str, folder: str) -> dict[str, str]:
    """Folder -> subset: `folder` itself, or of a schedule FOLDER/epoch-0000, ..."""
    from mmfilter import storage
    from mmfilter.schedule import ENDING, load_schedule

    if not subset.endswith(ENDING):
        return {folder: subset}
    return {storage.join(folder, f"epoch-{n:04d}"): path for n, path in enumerate(load_schedule(subset))}


def reshard_subset(
    subset: str, paths: list[str], folder: str, width: Width, request: Request = Request()
) -> dict[str, Any]:
    """Index, plan, write, finish; the counts as plain values. Nothing is opened when it is done already.

    Raises DataError on a gap, ConflictError where `folder` holds something else.
    """
    return reshard_subsets({folder: subset}, paths, width, request)[0]


def reshard_subsets(
    wanted: dict[str, str], paths: list[str], width: Width, request: Request = Request()
) -> list[dict[str, Any]]:
    """`reshard_subset` of each folder's subset; the pool is indexed once for all of them."""
    from dataclasses import replace

    from mmfilter.fields import ReadOptions
    from mmfilter.reshard import finished
    from mmfilter.reshard_plan import ReshardOptions
    from mmfilter.subset import Subset

    options = request.options or ReshardOptions()
    indexes: list[Any] = []
    if request.deep:
        _remove_damaged(wanted)
    read = request.read or ReadOptions()
    if not all(finished(paths, Subset.read(path), folder, options, read) for folder, path in wanted.items()):
        width = choice.choose(replace(width, gpus=0), choice.copying(paths))
        union = Subset.from_uids([])
        for path in dict.fromkeys(wanted.values()):
            union |= Subset.read(path).unique()
        found = _all(
            paths,
            MakeIndexer(union, read, options.blur_faces, options.members),
            width,
            "index",
        )
        indexes = [found[path] for path in paths]
    return [_written(Subset.read(path), paths, folder, (width, request), indexes) for folder, path in wanted.items()]


def _remove_damaged(folders: Iterable[str]) -> None:
    """Take away each shard that is not what was written, by its sha256: it is then written anew."""
    from mmfilter import storage
    from mmfilter.reshard_files import damaged

    for folder in folders:
        for path in damaged(folder):
            storage.remove(path)


def _written(
    wanted: Any, paths: list[str], folder: str, how: tuple[Width, Request], indexes: list[Any]
) -> dict[str, Any]:
    from mmfilter.fields import ReadOptions
    from mmfilter.reshard import begin, clear, finish, finished
    from mmfilter.reshard_begun import begun
    from mmfilter.reshard_plan import ReshardOptions, plan_output

    width, request = how
    options = request.options or ReshardOptions()
    meta, written = finished(paths, wanted, folder, options, request.read or ReadOptions()), {}
    if meta is None:
        plan = plan_output(indexes, wanted, options)
        if request.replace and not begun(plan, folder):
            clear(folder)
        begin(plan, folder)
        written = _all(list(plan.shards), MakeWriter(folder), width, "reshard", key=lambda shard: shard.name)
        meta = finish(plan, folder)
    return {
        "path": folder,
        "shards": meta["output_shard_count"],
        "samples": meta["output_count"],
        "shards_done_before": meta["output_shard_count"] - sum(not report.skipped for report in written.values()),
        "bytes": sum(report.bytes for report in written.values()),
        "missing": meta["missing_count"],
        "repeated": meta["repeated_count"],
        **({"encoded": meta["encoded_count"]} if "encoded_count" in meta else {}),
        **({"blurred": meta["blurred_count"]} if options.blur_faces else {}),
    }


def _all(
    tasks: list[Any], make: Any, width: Width, stage: str, key: Callable[[Any], Any] = lambda task: task
) -> dict[Any, Any]:
    """Key of task -> result, for every task; one that crashes is tried once more, then the job fails."""
    results: dict[Any, Any] = {}
    if not tasks:
        return results
    with Progress(stage, len(tasks)) as progress:
        for last in (False, True):
            crashed = []
            for task, result in drive([t for t in tasks if key(t) not in results], make, width):
                if isinstance(result, Crash):
                    crashed.append(f"{key(task)}: {result.error.splitlines()[0]}")
                    continue
                results[key(task)] = result
                progress.advance(getattr(result, "successes", 0))
            if not crashed:
                return results
            if last:
                raise MMFilterError(f"{stage}: {len(crashed)} tasks failed twice: {crashed[0]}")
    return results


def line(result: dict[str, Any]) -> str:
    """The result for a person."""
    told = f"{result['samples']:,} samples in {result['shards']:,} shards in {result['path']}"
    if result["shards_done_before"]:
        told += f" ({result['shards_done_before']:,} were done before)"
    if result["missing"] or result["repeated"]:
        told += f"; {result['missing']:,} uids are not in the pool, {result['repeated']:,} stood in it twice"
    if "encoded" in result:
        told += f"; {result['encoded']:,} images of other formats encoded as PNG"
    if "blurred" in result:
        told += f"; faces blurred in {result['blurred']:,}"
    return told
