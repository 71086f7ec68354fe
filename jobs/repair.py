"""Making again what `verify` found: just the shards, columns, subsets and indices that are not as they were written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from mmfilter import storage
from mmfilter.errors import MMFilterError, UsageError
from mmfilter.plugs import PoolScore, Score
from mmfilter.recipe import Recipe
from mmfilter.verify_files import COLUMN, CONCEPTS, INDEX, RUN, SCHEDULE, SHARD, SHARDS, SUBSET

from .cluster import Width
from .outdir import forget_attempts, load_run, only_driver, save_run
from .repair_source import Request, Source, recorded_recipe

ORDER = (RUN, SHARD, CONCEPTS, COLUMN, SUBSET, INDEX, SCHEDULE, SHARDS)
"""What is made from what: each kind after those that it is made from."""
ROUNDS = 3
"""A shard that comes out otherwise than before makes stale what was computed from it, which the next round finds."""


def repair_run(out: str, verified: dict[str, Any], request: Request, width: Width) -> dict[str, Any]:
    """Make again what was found, and verify anew; the last verification with `made` and `left` (sentences).

    What cannot be made again stays as it is. Raises UsageError for a recipe or pool that cannot be read.
    """
    from .verify import verify_run

    if not verified["findings"]:
        return {**verified, "made": [], "left": []}
    made: list[str] = []
    left: list[str] = []
    with only_driver(out):
        source = Source(out, request)
        for _ in range(ROUNDS):
            before, left = verified["findings"], []
            _round(out, before, source, width, made, left)
            verified = verify_run(out, request.deep)
            if not verified["findings"] or verified["findings"] == before:
                break
    return {**verified, "made": list(dict.fromkeys(made)), "left": left}


def _round(
    out: str, findings: Sequence[Mapping[str, str]], source: Source, width: Width, made: list[str], left: list[str]
) -> None:
    """Make again what was found, kind by kind."""
    by_kind: dict[str, dict[str, list[str]]] = {}
    for finding in findings:
        by_kind.setdefault(finding["kind"], {}).setdefault(finding["name"], []).append(finding["path"])
    for kind in ORDER:
        _each(kind, by_kind.get(kind, {}), partial_of(kind, out, source, width), made, left)


def _each(
    kind: str,
    names: Mapping[str, list[str]],
    make: Callable[[dict[str, list[str]]], str],
    made: list[str],
    left: list[str],
) -> None:
    """Make the shards again together, everything else one by one; what fails is a sentence in `left`."""
    groups = [dict(names)] if kind == SHARD and names else [{name: paths} for name, paths in sorted(names.items())]
    for group in groups:
        try:
            made.append(make(group))
        except MMFilterError as error:
            first = next(iter(group.values()))[0]
            left.append(f"{first}: {error}")


def partial_of(kind: str, out: str, source: Source, width: Width) -> Callable[[dict[str, list[str]]], str]:
    """What makes a kind of thing again: names and their damaged files -> a sentence. It raises MMFilterError."""
    makers = (_run_record, _shards, _concepts, _column, _subset, _index, _schedule, _new_shards)
    make: Callable[..., str] = dict(zip(ORDER, makers, strict=True))[kind]
    return lambda group: make(out, group, source, width)


def _run_record(out: str, group: Mapping[str, Any], source: Source, width: Width) -> str:
    from .outdir import pool_fields

    if not (source.request.recipe and source.request.pool):
        raise UsageError("what it said of recipe and pool is lost; give --recipe and --pool")
    recipe, paths = source.recipe, source.paths
    storage.remove(storage.join(out, "run.json"))
    save_run(out, **pool_fields(paths), recipe=recipe.source, models=recipe.model_paths)
    return f"{out}/run.json, from --recipe and --pool"


def _shards(out: str, group: Mapping[str, list[str]], source: Source, width: Width) -> str:
    """Withdraw the shards' commits and embed them again."""
    from mmfilter.shard_state import set_aside
    from mmfilter.sidecar import failures_path, metadata_path, read_commit

    from .embed import embed_pool

    recipe, stems = source.recipe, set(group)
    paths = [path for path in source.paths if storage.stem(path) in stems]
    if absent := sorted(stems - set(map(storage.stem, paths))):
        raise UsageError(f"shard {absent[0]} is not of the pool that run.json names; give its tar with --pool")
    _refuse_other_recipes(out, recipe, stems)
    before = {}
    for stem in sorted(stems):
        if set_aside(out, stem) and not storage.exists(metadata_path(out, stem, "json")):
            storage.remove(failures_path(out, stem))  # written again without another attempt
            continue
        try:
            before[stem] = set((read_commit(out, stem) or {"parts": {}})["parts"])
        except MMFilterError:
            before[stem] = set()
        storage.remove(metadata_path(out, stem, "json"))
        forget_attempts(out, stem)
    counts = embed_pool(recipe, paths, out, width)
    lost = {part for stem in before for part in before[stem] - set((read_commit(out, stem) or {"parts": {}})["parts"])}
    more = f"; not {', '.join(sorted(lost))}, which other recipes made: run them again" if lost else ""
    return f"{counts.shards:,} shard{'s' * (counts.shards != 1)} ({', '.join(sorted(stems)[:5])}{more})"


def _refuse_other_recipes(out: str, recipe: Recipe, stems: Iterable[str]) -> None:
    """Raise UsageError, before anything is withdrawn, where a shard holds what the recipe does not make."""
    from mmfilter.sidecar import read_commit
    from mmfilter.work import plan_work

    makes = plan_work(recipe, out, {}).parts.keys()
    for stem in sorted(stems):
        try:
            held = set((read_commit(out, stem) or {"parts": {}})["parts"])
        except MMFilterError:
            continue  # a damaged commit does not tell
        if others := held - makes:
            raise UsageError(
                f"shard {stem} holds what {recipe.where} does not make: {', '.join(sorted(others))}. Run `mmfilter "
                "embed` with each of the recipes that made this folder, one after the other: it does such shards again"
            )


def _concepts(out: str, group: Mapping[str, list[str]], source: Source, width: Width) -> str:
    """Compute the clusters again, as the column that they gave says."""
    from .pool_scores import add_pool_scores

    ((name, paths),) = group.items()
    score = _recorded_score(out, "cluster_id", source)
    folder = getattr(score, "folder", "")
    if folder != f"concepts/{name}" or not isinstance(score, PoolScore):
        raise UsageError("nothing records how these clusters were made; run `mmfilter cluster` again")
    for path in paths:
        storage.remove(path)
    add_pool_scores([score], out, width)
    return f"{out}/{folder}"


def _column(out: str, group: Mapping[str, list[str]], source: Source, width: Width) -> str:
    """Compute a column again where it is damaged, missing or stale, as its other shards or the recipe say."""
    from .pool_scores import add_pool_scores
    from .score import score_pool

    ((column, paths),) = group.items()
    score = _recorded_score(out, column, source)
    for path in paths:
        if path.endswith(".parquet"):
            storage.remove(path)
    if isinstance(score, PoolScore):
        add_pool_scores([score], out, width)
    else:
        recipe = source.recipe
        score_pool(replace(recipe, scores=(score,), pool_scores=()), out, width=width)
    return f"column {column}"


def _recorded_score(out: str, column: str, source: Source) -> Score | PoolScore:
    """The score that made a column: of the recipe, else as the footer of one of its files says. Raises UsageError."""
    try:
        recipe = source.recipe
        scores: list[Score | PoolScore] = [*recipe.scores, *recipe.pool_scores]
        if matches := [score for score in scores if score.columns[0] == column]:
            return matches[0]
    except MMFilterError:
        pass  # without a recipe the files themselves may tell
    for part in _parts(storage.list_files(storage.join(out, "columns", column), ".parquet")):
        from mmfilter.scores import build_score

        fields = part.get("fields") or {}
        if any(str(value).startswith("sha256:") for value in fields.values()):
            raise UsageError(f"column {column} was computed with a file of yours; name its recipe with --recipe")
        return build_score({part["score"]: fields}, f"column {column}")
    raise UsageError(f"nothing records how column {column} was made; run again the verb or recipe that made it")


def _parts(paths: Iterable[str]) -> Iterable[dict[str, Any]]:
    """What the readable ones of a column's files say that made them."""
    from mmfilter.plug_names import renamed
    from mmfilter.scores import SCORES
    from mmfilter.sources import read_part

    for path in paths:
        try:
            part = renamed(read_part(path), SCORES)
        except MMFilterError:
            continue
        if isinstance(part, dict) and isinstance(part.get("score"), str):
            yield part


def _subset(out: str, group: Mapping[str, list[str]], source: Source, width: Width) -> str:
    """Select again, by the rules that the subset's record has, else by the recipe of that name."""
    from mmfilter.json_file import read_object

    from .select import select_subset

    ((name, _),) = group.items()
    path = storage.join(out, "subsets", f"{name}.json")
    try:
        recipe = recorded_recipe(read_object(path, "")["recipe"], load_run(out).get("models"), f"recipe of {name}")
    except (MMFilterError, OSError, KeyError, TypeError, AttributeError):
        recipe = source.recipe
        if recipe.name != name and not source.request.recipe:
            raise UsageError("nothing records by which rules it was selected; run `mmfilter select` again") from None
    decisions = bool(storage.names(storage.join(out, "subsets", name)))
    result = select_subset(recipe, out, name, decisions=decisions)
    return f"subset {name} ({result['counts']['kept']:,} kept)"


def _index(out: str, group: Mapping[str, list[str]], source: Source, width: Width) -> str:
    """Build an index anew, as its own index.json says, else for the only model there is."""
    from index import knn
    from index.build import IndexOptions, build_index
    from index.vectors import only_model

    from .pool_scores import mapper

    ((name, _),) = group.items()
    try:
        info = knn.read_info(knn.version_folder(out, name))
        options = IndexOptions(
            info["model"], info["modality"], name, info["factory"], info["target"], seed=info["seed"]
        )
    except MMFilterError:
        modality = "text" if name.endswith("text") else "image"
        options = IndexOptions(only_model(out, modality), modality, name)
    build_index(out, replace(options, fresh=True), mapper(replace(width, gpus=0), "index"))
    return f"index {name}"


def _schedule(out: str, group: Mapping[str, list[str]], source: Source, width: Width) -> str:
    """Make a schedule again, as its own file says."""
    from mmfilter.allow import Allow
    from mmfilter.epochs import Window
    from mmfilter.json_file import read_object
    from mmfilter.schedule import ENDING

    from .schedule import make

    ((name, _),) = group.items()
    path = storage.join(out, "schedules", f"{name}{ENDING}")
    try:
        record = read_object(path, "make it anew with `mmfilter schedule`")
        told = record["source"]
        how = {"column": "", "hard": "low", "replacement": True, **told}
        how |= {"kind": record["kind"], "epochs": len(record["epochs"]), "seed": record["seed"]}
        if record["kind"] == "seta":
            how["window"] = Window(**{f.name: told[f.name] for f in fields(Window)})
        make({"out": out, "subset": told["subset"], "metadata": None, "allow": Allow()}, how, name)
    except (KeyError, TypeError, OSError) as error:
        raise UsageError(f"{path}: does not say how it was made; make it anew with `mmfilter schedule`") from error
    return f"schedule {name}"


def _new_shards(out: str, group: Mapping[str, list[str]], source: Source, width: Width) -> str:
    """Write a subset's damaged shards again, with the options that their plan has."""
    from mmfilter.reshard_begun import read_plan
    from mmfilter.reshard_files import PLAN, damaged
    from mmfilter.reshard_plan import ReshardOptions

    from .reshard import Request as ReshardRequest
    from .reshard import reshard_subset

    ((name, _),) = group.items()
    subset = storage.join(out, "subsets", f"{name}.npy")
    if not storage.exists(subset):
        raise UsageError(f"nothing tells which subset they hold (there is no {subset}); run `mmfilter reshard` again")
    folder = storage.join(out, "shards", name)
    try:
        given = read_plan(storage.join(folder, PLAN))["options"]
        options = ReshardOptions(**{**given, "members": tuple(given["members"])})
    except (FileNotFoundError, TypeError, KeyError) as error:
        raise UsageError(f"its plan does not say how it was written; delete {folder} and run again") from error
    for path in damaged(folder):
        storage.remove(path)
    result = reshard_subset(subset, source.paths, folder, width, ReshardRequest(options, source.recipe.read, True))
    return f"{folder} ({result['shards'] - result['shards_done_before']:,} shards)"
