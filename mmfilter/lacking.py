"""Which parts of the work a shard still lacks, and what it was made of that is something else now."""

import json
import posixpath
from collections.abc import Mapping
from typing import Any

from . import storage
from .errors import ConflictError, DataError
from .parts import FORM, defaults, earlier_read, filled, read_conflict
from .plug_names import renamed
from .plugs import Score
from .scores import SCORES
from .shard_record import unsound_files
from .sidecar import columns_path, failures_path, metadata_path
from .sources import Origin, read_origin, stored_sources
from .weights import ModelSpec
from .work import RESOLVED, Work, score_part


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
