"""What `run`, `submit`, `embed`, `score`, `select` and a dry run check before a model is loaded or a worker started."""

import errno
import os
import posixpath
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from mmfilter import check, storage
from mmfilter.allow import ALL
from mmfilter.errors import ConflictError, MMFilterError, TransientError, UsageError, cannot_write, unreadable
from mmfilter.fields import ReadOptions
from mmfilter.form import SHARDS, look_at_form
from mmfilter.hints import nearest_beside
from mmfilter.hub import nothing_fetched
from mmfilter.recipe import Recipe
from mmfilter.sidecar import read_commit
from mmfilter.subset import check_name
from mmfilter.table import open_table
from mmfilter.weights import ModelSpec
from mmfilter.work import score_part

from .terminal import print

Verb = Literal["run", "dry-run", "embed", "score", "select", "submit"]
READS_TARS = ("run", "dry-run", "embed")
SELECTS = ("run", "dry-run", "select", "submit")
LOOKED_AT = 20  # commits that tell which pool OUT holds


@dataclass(frozen=True)
class Request:
    """What is asked beyond the recipe. `paths` are the shards, for verbs that read them; `resharded` is whether new
    shards are written of what is selected, `name` the subset's; with `keep_going` a pool whose first samples all fail
    is no error.
    """

    verb: Verb
    out: str
    paths: Sequence[str] = ()
    metadata: str | None = None
    name: str = ""
    labels: str | None = None
    resharded: bool = False
    redo: bool = False
    keep_going: bool = False


def check_request(recipe: Recipe, request: Request) -> None:
    """Check the recipe against what it will have; nothing is written, no model is loaded and no worker started.

    Weights that some shard needs are fetched now where they can be; a dry run fetches nothing and its estimate names
    them. Of a column that `embed` or `score` will not have a line on stderr tells, as `dedup` may write it before
    `select`.

    Raises UsageError for a mistake in the recipe, a file that does not exist and an OUT that is none, ConflictError
    where OUT holds another pool's run, MMFilterError for weights that cannot be fetched and for a tar that the
    environment keeps from being read.
    """
    if request.name and recipe.select is not None:
        check_name(request.name)
    if request.labels and not storage.exists(request.labels):
        raise UsageError(
            f"--labels: {request.labels} does not exist; give a parquet file with the columns uid, kind, match"
        )
    _check_out(request)
    if request.verb == "select":  # `select` looks at the pool's columns before all else, and no score is computed
        check.check_rule_files(recipe)
        return
    stored = _stored_columns(recipe, request)
    _check_columns(recipe, request, stored)
    check.check_needs(recipe, stored, pool_scores=request.verb != "embed")
    if request.verb == "submit":  # files, folders and weights are the cluster's, where `run` looks for them
        check.check_model_names(recipe)
        return
    if request.verb in SELECTS:
        check.check_rule_files(recipe)
    todo = _todo(recipe, request)
    scores = [score for score in recipe.scores if score_part(score) in todo]
    check.check_score_files(recipe, [*scores, *(recipe.pool_scores if request.verb != "embed" else ())])
    if request.verb in READS_TARS:
        _check_first_shard(recipe.read, request)
        _check_models(recipe, request, [name for name in recipe.embed if f"embed:{name}" in todo])


def _check_columns(recipe: Recipe, request: Request, stored: set[str]) -> None:
    visible = ", as far as it can be read from here," if request.verb == "submit" else ""
    try:
        check.check_select(recipe, stored | check.columns_of(recipe), f"The recipe and OUT{visible} have")
    except UsageError as error:
        if request.verb in SELECTS:
            raise
        print(f"note: {error}. `mmfilter select` refuses this recipe until something writes it", file=sys.stderr)


def _stored_columns(recipe: Recipe, request: Request) -> set[str]:
    """The columns that OUT has, or the metadata folder; read only where the recipe's own are not enough."""
    try:
        check.check_needs(recipe, ())
        if check.columns_read(recipe) <= check.columns_of(recipe):
            return set()
    except UsageError:
        pass
    try:
        return set(open_table(request.out, request.metadata, *ALL).columns)
    except MMFilterError:  # a new OUT, or one that only the cluster reaches
        return set()


def _todo(recipe: Recipe, request: Request) -> set[str]:
    """The parts of the recipe that some shard lacks, as far as the commits' names and one commit tell.

    A finished OUT needs neither its models nor its scores' packages, and reading all commits is the job's own work.
    """
    parts: dict[str, ModelSpec | None] = {score_part(score): None for score in recipe.scores}
    parts |= {f"embed:{name}": spec for name, spec in recipe.embed.items()}
    if request.verb not in READS_TARS or not request.paths or request.redo or _undone(request):
        return set(parts)
    commit = read_commit(request.out, storage.stem(request.paths[0]))
    have = commit["parts"] if commit else {}
    return {part for part, spec in parts.items() if part not in have or (spec and not _same_model(spec, have[part]))}


def _same_model(spec: ModelSpec, part: dict[str, Any]) -> bool:
    return all(part.get(field) == getattr(spec, field) for field in ("model", "pretrained"))


def _undone(request: Request) -> str:
    """The first shard without a commit; "" where there is none."""
    done = {name.removesuffix(".json") for name in storage.names(storage.join(request.out, "metadata"))}
    return next((path for path in request.paths if storage.stem(path) not in done), "")


def _check_models(recipe: Recipe, request: Request, names: list[str]) -> None:
    """Raise UsageError for a mistake in a model, MMFilterError for weights that cannot be fetched."""
    dry = request.verb == "dry-run"
    with nothing_fetched() if dry else nullcontext():
        absent = check.check_models(recipe, names)
    for name, what in absent.items():
        if not dry:
            raise MMFilterError(f"{recipe.where}: embed.{name}: {what}")


def _check_first_shard(read: ReadOptions, request: Request) -> None:
    """Open the first shard that is to be read. Raises MMFilterError where the environment refuses, and nothing of
    the tar: then every other shard would fail as well. One that may be alone in it is passed over.
    """
    path = _undone(request)
    if not path:
        return
    first = _first(path, request.paths)
    while True:
        try:
            with storage.open_read(first[0]) as stream:
                stream.read(1)
            break
        except FileNotFoundError:
            return  # a pattern matched it a moment ago
        except TransientError:
            if len(first) == 1:
                raise
            first = first[1:]
        except OSError as error:
            raise unreadable(first[0], error) from error
    problem = None if request.keep_going else look_at_form(first, read).problem()
    if problem:
        raise UsageError(f"{path}: {problem}")


def _first(path: str, paths: Sequence[str]) -> list[str]:
    """The shards from `path` on."""
    at = list(paths).index(path)
    return list(paths[at : at + SHARDS])


def _check_out(request: Request) -> None:
    """Raise for an OUT that is a file, cannot be written, holds another pool's run or, where it is read, is none."""
    if request.verb == "submit":
        return
    if not storage.is_remote(request.out):
        _check_folder(request.out)
    if request.verb in ("select", "score"):
        _check_metadata(request.metadata or request.out)
    if request.verb in READS_TARS:
        _check_same_pool(request)


def _check_folder(out: str) -> None:
    """OUT is a folder that can be written, or could be made."""
    place = out
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        what = "is a file" if place == out else f"cannot be made, as {place} is a file"
        raise UsageError(f"--out: {out} {what}; give a folder, which is made where it does not exist")
    if not os.access(place, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        raise cannot_write(out, OSError(number, os.strerror(number)))


def _check_metadata(folder: str) -> None:
    """Raise UsageError where a folder that should hold a pool's metadata does not exist: locking OUT would make it."""
    if storage.is_remote(folder) or os.path.isdir(folder):
        return
    raise UsageError(
        f"{folder}: no folder of a run or of metadata{nearest_beside(folder, folders=True)} "
        "`mmfilter run` or `mmfilter embed` makes one"
    )


def _check_own(out: str, names: Sequence[str]) -> None:
    """Raise ConflictError where OUT/metadata holds files of no run: DataComp's have the names that ours would have."""
    others = [name for name in names if name.endswith((".parquet", ".npz"))]
    if others and not any(name.endswith(".json") for name in names) and not storage.exists(f"{out}/run.json"):
        raise ConflictError(
            f"{out}: its metadata/{others[0]} is not of a run of mmfilter, and is not replaced; give another --out"
        )


def _check_same_pool(request: Request) -> None:
    """Raise ConflictError where no shard in OUT is of this pool: `select` would mix the two, and new shards could not
    be written of the other's samples.
    """
    names = storage.names(storage.join(request.out, "metadata"))
    _check_own(request.out, names)
    done = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    if not done or done & set(map(storage.stem, request.paths)):
        return  # a shard of the same name and another content is a conflict of its own
    commits = [read_commit(request.out, stem) for stem in islice(sorted(done), LOOKED_AT)]
    folders = dict.fromkeys(posixpath.dirname(str(commit.get("path", ""))) for commit in commits if commit)
    if request.verb == "embed" and not folders.keys().isdisjoint(map(posixpath.dirname, request.paths)):
        return  # a pool that is embedded in portions
    raise ConflictError(
        f"{request.out}: holds a run over another pool: {len(done):,} shards of {', '.join(folders)}. "
        "None of them is in --pool. Give another --out; or name both pools, with --pool twice, to select from both"
    )
