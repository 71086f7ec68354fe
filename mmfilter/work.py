"""What a recipe asks of each shard, as named parts; and which of them a shard still lacks."""

import hashlib
import json
import platform
import posixpath
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import storage
from .errors import ConflictError, DataError, UsageError
from .fields import ReadOptions
from .model_identity import packaged_digest
from .parts import FORM, defaults, earlier_read, filled, read_conflict, read_part
from .plug_names import named, renamed
from .plugs import Score
from .recipe import Recipe
from .scores import SCORES
from .shard_record import unsound_files
from .sidecar import BASE, columns_path, failures_path, metadata_path
from .sources import Origin, read_origin, stored_sources
from .weights import ModelSpec

WHOLE = "read"
"""The part that a shard lacks if it is to be done wholly."""
PIXELS = frozenset({"image", "bytes"})
RESOLVED = "resolved"  # in a part: what the recipe does not say of a model, and the values hang on
IDENTITY = ("architecture", "preprocessing", "vocabulary", "precision")


@dataclass(frozen=True)
class Work:
    """One pass over a pool, small and picklable: it travels to every worker.

    `parts` says what each part is made from (model, weights, fields): it is written into every
    commit, and a part that is there but was made from something else is a conflict. `added` are the scores that stand
    in OUT/columns, for every shard: also for one whose tar is read.
    """

    out: str
    models: Mapping[str, ModelSpec]
    scores: tuple[Score, ...]
    read: ReadOptions
    parts: Mapping[str, Any]
    batch_size: int = 64
    threads: int = 1
    redo: bool = False
    added: frozenset[str] = frozenset()


def plan_work(
    recipe: Recipe,
    out: str,
    weights: Mapping[str, str | None],
    resolved: Mapping[str, Mapping[str, Any]] | None = None,
) -> Work:
    """The work of a recipe. `weights` maps each model to its weights' sha256, `resolved` to what else is known of it:
    architecture, preprocessing and vocabulary (`mmfilter.model_identity`), the precision that it computes in. What is
    not there, or None, is not at hand.
    """
    parts: dict[str, Any] = {"read": read_part(recipe.read)}
    for name, spec in recipe.embed.items():
        known = {**dict.fromkeys(IDENTITY), **((resolved or {}).get(name) or {})}
        parts[f"embed:{name}"] = {**_plain(spec.model_dump()), "weights": weights.get(name), RESOLVED: known}
    for score in recipe.scores:
        models = sorted({need.split(":")[1] for need in score.needs if "_emb:" in need})
        parts[score_part(score)] = {
            **named(score, SCORES),
            "fields": _fields(score),
            "models": {name: _plain(recipe.embed[name].model_dump()) for name in models},
        }
        if score.packaged:
            parts[score_part(score)][RESOLVED] = {"packaged": packaged_digest(score.packaged)}
    return Work(out, recipe.embed, recipe.scores, recipe.read, parts)


def _fields(score: Score) -> dict[str, Any]:
    """A score's fields; a file of the user's by its sha256, wherever it lies. Raises UsageError."""
    fields: dict[str, Any] = _plain(score.model_dump())
    for name, value in fields.items():
        if value in score.inputs:
            try:
                fields[name] = f"sha256:{hashlib.sha256(storage.read_bytes(value)).hexdigest()}"
            except OSError as error:
                what = f"{value}: cannot be read ({error.strerror or error})"
                raise UsageError(f"{what}; the score of '{score.columns[0]}' wants it") from error
    return fields


def _plain(value: Any) -> Any:
    """As JSON reads it back, so that a part compares equal to its record."""
    return json.loads(json.dumps(value, default=lambda v: v.__dict__ if hasattr(v, "__dict__") else repr(v)))


def score_part(score: Score) -> str:
    return f"score:{score.columns[0]}"


def reads_pixels(score: Score) -> bool:
    return bool(score.needs & PIXELS)


def looks(score: Score) -> bool:
    """Whether it keeps something of the pixels until the embeddings are there."""
    return type(score).look is not Score.look


def embedders_of(work: Work, parts: Collection[str]) -> set[str]:
    """The models that these parts have to load: to embed with, or because a score asks for the model itself."""
    needs = {need for score in work.scores if score_part(score) in parts for need in score.needs}
    asked = {need.split(":")[1] for need in needs if need.startswith("embedder:")}
    return asked | {name for name in work.models if f"embed:{name}" in parts}


def pending(
    work: Work, commit: Mapping[str, Any] | None, path: str, sizes: Mapping[str, int] | None = None
) -> list[str]:
    """Parts that the shard lacks, in the recipe's order; all of them where a file is not as the commit says.

    `sizes`, path -> bytes, are of a listing of OUT's metadata and failures; without it each file is looked up.
    Raises ConflictError when the input or a part's origin is not what the commit says, with the
    difference; with `work.redo` such a shard is simply done again (a tar that was only `touched`: see
    recheck.py).
    """
    if commit is None or arrived(commit, path):
        return list(work.parts)
    stem, have = storage.stem(path), _parts_there(work, commit, path)
    conflict = _input_conflict(commit, path) or _part_conflict(work, have, commit)
    if work.redo and (conflict or lost_to_form(commit)):
        return list(work.parts)
    if conflict:
        raise ConflictError(
            f"{work.out}: shard {stem} was made from something else. {conflict} "
            "Give another --out, put back what changed, or pass --redo-changed: a tar whose samples are the same is "
            "read once and not embedded anew, other such shards are done again"
        )
    unsound = damaged(work, commit, path, sizes)
    return [part for part in work.parts if unsound or part not in have]


def damaged(work: Work, commit: Mapping[str, Any], path: str, sizes: Mapping[str, int] | None = None) -> list[str]:
    """The shard's files that are gone or cut short, by their sizes: such a shard is done again."""
    stem = storage.stem(path)
    paths = {ending: metadata_path(work.out, stem, ending) for ending in ("parquet", "npz")}
    return unsound_files({**paths, "failures": failures_path(work.out, stem)}, commit, sizes)


def arrived(commit: Mapping[str, Any], path: str) -> bool:
    """Whether the shard was recorded as failed while its tar did not exist, and now it does: that is no conflict."""
    return commit.get("input", {}) is None and storage.identity_or_none(path) is not None


def touched(work: Work, commit: Mapping[str, Any], path: str) -> bool:
    """Whether the tar's date or etag is all that differs from what the commit says."""
    now, was = storage.identity_or_none(path), commit.get("input")
    same_size = now is not None and was is not None and now["bytes"] == was["bytes"]
    return (
        same_size
        and bool(_input_conflict(commit, path))
        and not _part_conflict(work, _parts_there(work, commit, path), commit)
        and not lost_to_form(commit)
    )


def _parts_there(work: Work, commit: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The commit's parts, and those of the work that were added as columns."""
    have, stem = dict(commit["parts"]), storage.stem(path)
    for score in work.scores:
        part = score_part(score)
        if part in work.added:
            have.pop(part, None)
        added = None if part in have else added_column(work.out, score.columns[0], stem)
        if added is not None and fresh(work.out, stem, score, added):
            have[part] = added.part
    return have


def added_column(out: str, column: str, stem: str) -> Origin | None:
    """The origin of a shard's added column; None where there is none, or a damaged one: it is computed again."""
    try:
        return read_origin(columns_path(out, column, stem))
    except DataError:
        return None


def fresh(out: str, stem: str, score: Score, origin: Origin, metadata: str = "") -> bool:
    """Whether an added column of a shard was computed from what the shard holds now, as far as it says."""
    was = origin.sources.get("shard")
    return not was or was == stored_sources(out, metadata or storage.join(out, "metadata"), stem, score.needs)


def _input_conflict(commit: Mapping[str, Any], path: str) -> str:
    now, was = storage.identity_or_none(path), commit.get("input")
    if now in [was, *commit.get("also", [])]:
        return ""
    before, here = (posixpath.dirname(tar) for tar in (str(commit.get("path", path)), path))
    other = f" It was made of another pool, {before}: one OUT holds one pool." if before != here else ""
    return f"Its tar {path} was {was} and is {now}.{other}"


def _part_conflict(work: Work, have: Mapping[str, Any], commit: Mapping[str, Any]) -> str:
    for part, now in work.parts.items():
        if part in have and _differs(work, part, have[part], commit.get("notes") or {}):
            return f"Its part '{part}' was {_told(have[part], now)}."
    return ""


def _differs(work: Work, part: str, was: Any, notes: Mapping[str, int]) -> bool:
    now = work.parts[part]
    if part == "read":
        return read_conflict(was, now, notes)
    return part_differs(work, part, was)


def part_differs(work: Work, part: str, was: Any) -> bool:
    """Whether a model's or a score's record `was` is of something else than the work's part."""
    now = work.parts[part]
    was = filled(renamed(was, SCORES), now, part_defaults(work, part))
    return bool(_known(now, was) != was)


def check_loaded(work: Work, name: str, loaded: Mapping[str, Any]) -> None:
    """Raise ConflictError unless a model that was loaded here (`loaded` is its part's fields) is the one that the work
    was planned with: a folder of the same name may hold another on this machine, or since.
    """
    part = work.parts[f"embed:{name}"]
    was = {"weights": part["weights"], **part[RESOLVED]}
    if others := [key for key, value in loaded.items() if was.get(key) is not None and was[key] != value]:
        raise ConflictError(
            f"model '{name}' has another {', '.join(others)} on {platform.node()} than where the work was planned; "
            "copy the same model to every node, and run again"
        )


def part_defaults(work: Work, part: str) -> dict[str, Any]:
    """The defaults of the fields of a model's or a score's part, laid out as the part is."""
    model = defaults(ModelSpec)
    if part.startswith("embed:"):
        return model
    score = next(score for score in work.scores if score_part(score) == part)
    return {"fields": defaults(type(score)), "models": dict.fromkeys(work.parts[part]["models"], model)}


def lost_to_form(commit: Mapping[str, Any]) -> int:
    """Samples of an older version's commit that failed for their form alone, and may be valid samples now."""
    if not earlier_read(commit["parts"].get("read") or {}):
        return 0
    return sum(commit["counts"]["failed"].get(status, 0) for status in FORM)


def _known(now: Any, was: Any) -> Any:
    """`now` with what is not at hand (None) taken as it was, and without what `was` does not tell of a model."""
    if not (isinstance(now, dict) and isinstance(was, dict)):
        return now
    known = {
        name: was.get(name) if name == "weights" and value is None else _known(value, was.get(name))
        for name, value in now.items()
        if name != RESOLVED
    }
    if isinstance(was.get(RESOLVED), dict):
        here = now.get(RESOLVED) or {}
        known[RESOLVED] = {
            name: value if None in (value, here.get(name)) else here[name] for name, value in was[RESOLVED].items()
        }
    return known


def _told(was: Any, now: Any) -> str:
    """What differs between a part's record and the part as it would be made now, name by name."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return f"{json.dumps(was)} and is now {json.dumps(now)}"
    now = _known(now, was)
    told = []
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name):
            inner = isinstance(was.get(name), dict) and isinstance(now.get(name), dict)
            said = f"{json.dumps(was.get(name))} and is {json.dumps(now.get(name))}"
            said = _told(was[name], now[name]) if inner else said
            told.append(said if name == RESOLVED else f"{name} {said}")
    return "; ".join(told)


def select_parts(work: Work, todo: list[str]) -> Work:
    """The work with only the models and scores named in `todo`."""
    models = {name: spec for name, spec in work.models.items() if f"embed:{name}" in todo}
    return replace(work, models=models, scores=tuple(s for s in work.scores if score_part(s) in todo))


def added_parts(work: Work, todo: Iterable[list[str]] = ()) -> frozenset[str]:
    """The scores that stand in OUT/columns, or will, as some shard is to get them without a pass over its tar.

    A column is in OUT/columns for all shards or for none. `todo` are lists of parts, one for each shard.
    """
    folders = set(storage.names(storage.join(work.out, "columns")))
    added = {score_part(s) for s in work.scores if s.columns[0] in folders and not reads_pixels(s)}
    for parts in todo:
        if parts and WHOLE not in parts and not needs_pass(select_parts(work, parts)):
            added.update(parts)
    return frozenset(added)


def passed(work: Work, todo: Collection[str]) -> list[str]:
    """The parts of `todo` that a pass over the tar computes; the others are added to OUT/columns after it."""
    return [part for part in todo if part not in work.added]


def needs_pass(work: Work) -> bool:
    """Whether the tars must be read: a model to run, or a score that looks at pixels."""
    return bool(work.models) or any(reads_pixels(score) for score in work.scores)


def known_need(need: str, models: Mapping[str, Any], columns: frozenset[str]) -> bool:
    """Whether a score's need can be met by the base columns, a model, the pixels or `columns`."""
    kind, _, name = need.partition(":")
    of_model = kind in ("img_emb", "txt_emb", "embedder") and name in models
    return need in BASE or need in PIXELS or need in columns or need == "threads" or of_model
