"""The run's pool: the shards that `run` and `embed` were given, against those that OUT holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmfilter import storage
from mmfilter.presence import absent
from mmfilter.run_pool import held_shards, left_out, listed
from mmfilter.sidecar import pool_tars, read_commit

from .outdir import each, pool_fields


@dataclass(frozen=True)
class RunPool:
    """`paths` were given; `earlier` were embedded into OUT before and belong to the run too; of `gone` the tar does not
    exist any more; `others` are in OUT and not in the pool that was given. Both are left out.
    """

    paths: Sequence[str]
    earlier: Sequence[str] = ()
    gone: Sequence[str] = ()
    others: Sequence[str] = ()

    def fields(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {**pool_fields([*self.paths, *self.earlier]), "left_out": sorted([*self.gone, *self.others])}

    def noted(self) -> dict[str, list[str]]:
        """The shards' names as plain values, where there is something to say."""
        found = {"earlier": list(map(storage.stem, self.earlier)), "gone": list(self.gone), "others": list(self.others)}
        return {what: names for what, names in found.items() if names}


def run_pool(out: str, paths: Sequence[str], in_portions: bool) -> RunPool:
    """The pool of a run in OUT that was given `paths`.

    `run` works on exactly these. `embed` may be given a pool in portions, so that shards which OUT has from earlier
    ones stay as long as their tars exist. Raises MMFilterError where that cannot be known.
    """
    extra = sorted(held_shards(out) - set(map(storage.stem, paths)))
    if not extra or not in_portions:
        return RunPool(paths, others=extra)
    before, tars = left_out(out), pool_tars(out)
    asked = [stem for stem in extra if stem not in before]
    unknown = [stem for stem in asked if stem not in tars]
    commits = each(partial(read_commit, out), unknown, storage.is_remote(out))
    tars |= {stem: str(commit.get("path", "")) for stem, commit in zip(unknown, commits, strict=True) if commit}
    known = [_named(tars[stem], stem) for stem in asked if tars.get(stem)]
    missing = set(absent(known))
    earlier = [path for path in known if path not in missing]
    stays = set(map(storage.stem, earlier))
    return RunPool(paths, earlier, [s for s in asked if s not in stays], [s for s in extra if s in before])


def _named(path: str, stem: str) -> str:
    return path if storage.stem(path) == stem else storage.ShardPath(path, stem)


def lines(noted: dict[str, list[str]]) -> list[str]:
    """`RunPool.noted` for a person; nothing where OUT holds the given shards alone."""
    said = []
    if earlier := noted.get("earlier"):
        said.append(
            f"  earlier: {listed(earlier)} embedded into OUT before and not named by this --pool: of the run too, "
            "and read by select, report and the others"
        )
    if gone := noted.get("gone"):
        said.append(
            f"  left out: {listed(gone)} in OUT whose tar does not exist any more: removed or renamed. Their files in "
            "OUT stay and are not counted; give the tars in --pool once more to count them again"
        )
    if others := noted.get("others"):
        said.append(
            f"  left out: {listed(others)} in OUT and not in this --pool: removed, renamed, or of another pool. Their "
            "files in OUT stay and are not counted; to count them, give their tars in a further --pool"
        )
    return said
