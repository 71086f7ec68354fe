"""The same training on each of several subsets, some seeds each, and what its model can do: trials to compare."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from . import pairs, storage
from .derived import SAME_UIDS
from .errors import ConflictError, DataError, UsageError
from .evaluate import made_from as measured_on
from .fields import ReadOptions
from .json_file import FORMAT, read_object
from .plugs import Task
from .results import TaskResult
from .scales import Scale, engine_of, packaged_name, training
from .shard_index import index_shard
from .start import configuration, vocabulary
from .subset import Subset, sample_share
from .train_identity import made_from, model_digests, others, pool_digest
from .trained import TRAINED, whole
from .trial_record import RECORD, write_record
from .uids import DTYPE
from .weights import ModelSpec

WHOLE = "no_filter"
NEAR = 0.1
"""A random subset stands beside every subset whose size is within this part of its own. The value is ours."""
START_FILES = frozenset({"model.json", "bpe.txt.gz"})  # of a killed `rank`, which had not begun its record


@dataclass(frozen=True, slots=True)
class Arm:
    """What is trained on. `path` is a subset's file, "" for the whole pool and for a random draw, which each seed
    makes anew; `kept` its samples, repeats included; `beside` the random arm of its size; `sha256` of its uids.
    """

    name: str
    path: str
    kept: int
    beside: str = ""
    random: bool = False
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Trials:
    """`pool` are shard paths, `out` an absolute folder; `processes` and `workers` are for open_clip's code."""

    pool: list[str]
    out: str
    scale: Scale
    tasks: Sequence[Task]
    seeds: Sequence[int] = (0, 1, 2)
    threads: int = 1
    device: str = ""
    processes: int = 1
    workers: int = 4
    read: ReadOptions = ReadOptions()


@dataclass(frozen=True, slots=True)
class Trial:
    """One training and its evaluation, in OUT/trials/ARM/seed-N; small, and it travels to a worker."""

    of: Trials
    arm: Arm
    seed: int
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return os.path.join(self.of.out, "trials", self.arm.name, f"seed-{self.seed}")


def pool_uids(paths: Sequence[str], read: ReadOptions = ReadOptions()) -> np.ndarray:
    """(n,) DTYPE, sorted, each once: every sample of the shards."""
    found = [index_shard(path, read).uids for path in paths]
    return Subset(np.concatenate(found) if found else np.empty(0, DTYPE)).unique().uids


def arms(subsets: Sequence[str], uids: np.ndarray, near: float = NEAR) -> list[Arm]:
    """No filter, the subsets, and beside each a random one of its size; of a size within `near` they share one.

    `uids` (n,) DTYPE are the pool's. Raises UsageError for a name given twice, an empty subset, or one of another pool.
    """
    found = [Arm(WHOLE, "", len(uids))]
    drawn: dict[str, int] = {}
    for path in subsets:
        name, subset = storage.stem(path), Subset.read(path)
        if name in {arm.name for arm in found} or name.startswith("random-"):
            raise UsageError(f"{path}: there is an arm called '{name}' already; rename the file")
        strangers = len(subset) - int(np.isin(subset.uids, uids).sum())
        if not len(subset):
            raise UsageError(f"{path}: no uid is in it; select a subset that keeps something")
        if strangers:
            hint = f". {SAME_UIDS}" if strangers == len(subset) else ""
            raise UsageError(f"{path}: {strangers:,} of its {len(subset):,} uids are in no shard of the pool{hint}")
        wanted = min(len(subset), len(uids))
        beside = next((n for n, size in drawn.items() if abs(size - wanted) <= near * size), f"random-{wanted}")
        drawn.setdefault(beside, wanted)
        found.append(Arm(name, path, len(subset), beside, sha256=subset.digest))
    return [found[0], *(Arm(name, "", size, random=True) for name, size in drawn.items()), *found[1:]]


def draw(uids: np.ndarray, size: int, seed: int) -> Subset:
    """`size` of the pool's uids (n,) at random, by a hash of uid and seed: how the pool is sharded is nothing to it."""
    share = sample_share(uids, seed + 1_000_003)  # not the draw of the rule `random` of that seed
    return Subset(uids[np.lexsort((uids["f1"], uids["f0"], share))[:size]])


def prepare(trials: Trials, chosen: Sequence[Arm], uids: np.ndarray) -> list[Trial]:
    """Write what all trials share: the vocabulary, random draws, rank.json. Returns the trials, seed by seed.

    Trials that are there are kept; arms and seeds can be added. Raises ConflictError where OUT's are others.
    """
    _check_own(trials.out)
    model = _model(trials)
    record = {
        "format": FORMAT,
        "scale": {**asdict(trials.scale), "model": packaged_name(trials.scale.model)},
        "pool": [[storage.stem(path), storage.size(path)] for path in trials.pool],
        "made_from": _made_from(trials, model),
        "samples": len(uids),
        "tasks": {task.key: task.model_dump(mode="json") for task in trials.tasks},
        "arms": [asdict(arm) for arm in chosen],
        "seeds": list(trials.seeds),
    }
    write_record(trials.out, record)
    for arm in chosen:
        for seed in trials.seeds if arm.random else ():
            path, drawn = drawn_path(trials.out, arm, seed), draw(uids, arm.kept, seed)
            if not _holds(path, drawn):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                drawn.write(path)
    return [Trial(trials, arm, seed, {"model": model}) for seed in trials.seeds for arm in chosen]


def _check_own(out: str) -> None:
    """Raise ConflictError where OUT holds folders of these names, and no trials; a start model alone may be ours."""
    others = [name for name in ("start", "trials") if os.path.exists(os.path.join(out, name))]
    begun = others == ["start"] and set(storage.names(os.path.join(out, "start"))) <= START_FILES
    if others and not begun and not storage.exists(os.path.join(out, RECORD)):
        raise ConflictError(f"{out}: holds a folder '{others[0]}' that is not of `rank`; give another --out")


def _made_from(trials: Trials, model: str) -> dict[str, Any]:
    """What the trials hang on by content: the shards, the start model, and by task the data that it measures on."""
    tasks = {f"task {task.key}": measured_on(task)["inputs"] for task in trials.tasks}
    try:
        digests = model_digests(model)
    except DataError:  # the folder was moved, and its vocabulary is not where it was: a training says so
        digests = {}
    return {"pool": pool_digest(trials.pool), **digests, **tasks}


def _holds(path: str, drawn: Subset) -> bool:
    try:
        return Subset.read(path) == drawn
    except (DataError, UsageError):  # not there, or damaged: it is drawn again
        return False


def drawn_path(out: str, arm: Arm, seed: int) -> str:
    return os.path.join(out, "subsets", f"{arm.name}-seed-{seed}.npy")


def _model(trials: Trials) -> str:
    """The scale's model; with a vocabulary learned from the whole pool, once, so that all arms read alike."""
    if not trials.scale.vocabulary:
        return trials.scale.model
    folder = os.path.join(trials.out, "start")
    path = os.path.join(folder, "model.json")
    if not storage.exists(path):
        os.makedirs(folder, exist_ok=True)
        config, _ = configuration(trials.scale.model)
        source = pairs.source(trials.pool, 8, True, None, trials.read)
        source.one_caption = True
        vocabulary(trials.scale.vocabulary, folder, config["model_cfg"], source)
        storage.write_atomic(path, (json.dumps(config, indent=1) + "\n").encode())
    return path


def options_of(trial: Trial) -> Any:
    """The TrainOptions of a trial."""
    of, arm = trial.of, trial.arm
    subset = drawn_path(of.out, arm, trial.seed) if arm.random else arm.path
    asked = training(of.scale, list(of.pool), os.path.join(trial.folder, "model"), subset, trial.seed, of.device)
    return replace(asked, model=trial.more.get("model", of.scale.model), threads=of.threads, read=of.read)


def run_trial(trial: Trial, say: Callable[[dict[str, Any]], None] = lambda row: None) -> list[TaskResult]:
    """Train unless that is done, run the tasks that are not done. Raises as training and evaluation do."""
    from .evaluate import evaluate

    of, asked = trial.of, options_of(trial)
    if not _trained(asked):
        _train(of, asked, say)
    return evaluate(ModelSpec(model=asked.out), of.tasks, trial.folder, of.device or "cpu")


def _trained(asked: Any) -> bool:
    """Whether the model is there, with the weights that were written. Raises ConflictError where it is another."""
    path = os.path.join(asked.out, TRAINED)
    try:
        told = read_object(path, f"delete {asked.out} to train again", {"options": dict})
    except FileNotFoundError:
        return False
    was = told["options"]
    now = json.loads(json.dumps(asdict(asked)))
    was = {**json.loads(json.dumps(asdict(replace(asked, read=ReadOptions())))), **was}  # an older one lacks fields
    other = [name for name in now if was.get(name) != now[name] and name not in ("pool", "out", "subset", "model")]
    if other:
        raise ConflictError(f"{path}: was trained with other {', '.join(other)}; give another --out")
    was_made = told.get("made_from")  # an earlier version did not say
    if isinstance(was_made, dict) and (changed := others(was_made, made_from(asked, list(asked.pool)))):
        raise ConflictError(f"{path}: was trained with another {', '.join(changed)}; give another --out")
    return whole(asked.out)


def _train(of: Trials, asked: Any, say: Callable[[dict[str, Any]], None]) -> None:
    if of.scale.engine == "own":
        from .train import train

        train(asked, say)
        return
    from .engine import FOLDER
    from .engine_run import train_with_open_clip

    begun = os.path.exists(os.path.join(asked.out, FOLDER, "job.json"))
    train_with_open_clip(asked, engine_of(of.scale, of.processes, of.workers), resume=begun, say=say)


def planned(trial: Trial) -> str:
    """The command that a training would be, for a person."""
    of, asked = trial.of, options_of(trial)
    if of.scale.engine == "own":
        return f"{of.scale.steps:,} steps of {of.scale.batch:,} pairs, in this process: {asked.out}"
    from .engine_run import planned as command

    return command(asked, engine_of(of.scale, of.processes, of.workers))
