"""From folders and URLs to the tasks that can be measured there, and what is missing."""

from collections.abc import Sequence

from .. import storage
from ..errors import DataError, MMFilterError, UsageError, nearest, short_reason
from ..plugs import Task, build_plug
from . import TASKS, build_task
from .classify import ZeroShotTask
from .datacomp import Entry, by_folder, datacomp
from .retrieve import MATCH
from .scenes import SCENES, scene_tasks
from .sets import BLIND, is_set, open_set


def find_tasks(
    roots: Sequence[str], split: str = "test", whole: bool = False, aside: dict[str, str] | None = None
) -> tuple[list[Task], dict[str, str]]:
    """(tasks, key -> what to fetch) of sets at `roots`: a set, a folder of sets, a registered task's name, `scenes`.

    A folder that is named as DataComp's set is, is DataComp's task; with `whole` those of its 40 that are
    nowhere are told as missing. Others are named after their folder. A set whose text files cannot be measured by is
    noted in `aside` (its folder's name -> why); without `aside` its DataError is raised. Raises UsageError where a root
    holds no set, or two have one name.
    """
    tasks: dict[str, Task] = {}
    broken: dict[str, str] = {}
    for root in roots:
        if is_name(root):
            found = scene_tasks() if root == SCENES else [build_task(root, "--tasks")]
        else:
            found = _tasks_below(root.rstrip("/"), split, broken if aside is not None else None)
        if not found and not broken and not whole:
            raise UsageError(f"{root}: no evaluation set here, nor in its folders (there is no {split}/nshards.txt)")
        for task in found:
            if task.key in tasks:
                raise UsageError(f"two sets are called '{task.key}', one of them in {root}; evaluate them apart")
            tasks[task.key] = task
    if aside is not None:
        aside.update(broken)
    order = {key: i for i, key in enumerate(datacomp())}
    listed = sorted(tasks.values(), key=lambda task: (order.get(task.key, len(order)), task.key))
    known = {*tasks, *broken}
    missing = {key: entry.missing for key, entry in datacomp().items() if whole and key not in known}
    return listed, missing


def is_name(root: str) -> bool:
    """Whether it names a registered task, which needs no set, rather than a path."""
    return "/" not in root and (root == SCENES or root in TASKS.table()) and not storage.exists(root)


def _tasks_below(root: str, split: str, aside: dict[str, str] | None) -> list[Task]:
    """The tasks of all sets at `root`."""
    tasks: list[Task] = []
    for place in _places(root, split):
        entry = by_folder().get(_name(place))
        try:
            tasks += tasks_of(place, split)
        except Exception as error:  # a set is strangers' files: what one raises ends no other
            known = isinstance(error, DataError)
            if aside is None or (isinstance(error, MMFilterError) and not known):
                raise
            aside[entry.key if entry else _name(place)] = str(error) if known else short_reason(error)
    return tasks


def _places(root: str, split: str) -> list[str]:
    """Folders of sets, and those that look like a part of one."""
    if is_set(root, split) or _is_parquet(root, by_folder().get(_name(root))):
        return [root]
    scheme = root.split("://", 1)[0] if storage.is_remote(root) else ""
    inside = [] if scheme in BLIND else storage.list_files(root)
    found = {_name(place): place for place in inside if _looks_like_a_set(place, split)}
    for name, entry in by_folder().items():
        place = storage.join(root, name)
        if name not in found and ((scheme in BLIND and is_set(place, split)) or _is_parquet(place, entry)):
            found[name] = place
    return [found[name] for name in sorted(found)]


def _looks_like_a_set(place: str, split: str) -> bool:
    """Whether it has what tells a set, or what is left of one that was half copied."""
    held = storage.names(place)
    if split not in held:
        return "classnames.txt" in held
    below = storage.names(storage.join(place, split))
    return "nshards.txt" in below or "0.tar" in below


def _is_parquet(root: str, entry: Entry | None) -> bool:
    """Whether it is one of the sets that come as parquet, and lies here as such."""
    if entry is None or entry.source.startswith("djghosh/") or root.split("://", 1)[0] in ("http", "https"):
        return False
    return bool(storage.list_files(root, ".parquet"))


def _name(root: str) -> str:
    return root.rsplit("/", 1)[-1]


def tasks_of(root: str, split: str = "test") -> list[Task]:
    """The task of the set at `root`, and `pairs` where it has a match_pairs.parquet.

    Raises DataError, also where class names and templates are no classifier; tars are not looked at.
    """
    tasks = _built(root, split)
    for task in tasks:
        if isinstance(task, ZeroShotTask):
            task.opened()
    return tasks


def _built(root: str, split: str) -> list[Task]:
    name = _name(root)
    entry = by_folder().get(name)
    if entry is not None:
        return [entry.task(root)]
    fields = {"dataset": name, "root": root, "split": split}
    kind = open_set(root, split).kind
    tasks: list[Task] = [build_plug(TASKS.get(kind), {"key": name, **fields}, root)]
    pairs = storage.join(root, MATCH)
    if storage.exists(pairs):
        fields["dataset"] = f"{name}, pairs"
        tasks.append(build_plug(TASKS.get("pairs"), {"key": f"{name}_pairs", "pairs": pairs, **fields}, root))
    return tasks


def choose(tasks: Sequence[Task], keys: Sequence[str]) -> list[Task]:
    """The tasks of these keys, in their own order; all where none is named. Raises UsageError."""
    known = [task.key for task in tasks]
    for key in keys:
        if key not in known:
            raise UsageError(f"no task '{key}'{nearest(key, known)} There are: {', '.join(known)}")
    return [task for task in tasks if not keys or task.key in keys]
