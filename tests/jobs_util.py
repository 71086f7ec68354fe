"""Recipes over a tiny model, a score that kills its worker, and fingerprints of an output folder."""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import time
from pathlib import Path

import numpy as np

from mmfilter import shard
from mmfilter.plugs import Score

RESULTS = {".parquet", ".npz", ".npy", ".tar"}


def recipe_text(model, keep=0.5, **extra):
    """A recipe with a model, three scores and four rules, as YAML (JSON is YAML)."""
    rules = [
        {"language": {"is": "en"}},
        {"caption": {"min_words": 2}},
        {"image": {"min_side": 8, "max_aspect": 3.0}},
        {"fraction": {"score": "clip_b32_similarity_score", "keep": keep}},
    ]
    scores = [{"clip_similarity": {"model": "b32"}}, "language", "phash"]
    return json.dumps(
        {"name": "t", "embed": {"b32": {"model": str(model)}}, "scores": scores, "select": {"all": rules}, **extra}
    )


def results(out):
    """Relative path -> sha256 of every result; commits and reports hold times and are left out."""
    files = sorted(p for p in Path(out).rglob("*") if p.suffix in RESULTS)
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def leftovers(out):
    """Half-written files that a kill left behind."""
    return sorted(str(p) for p in Path(out).rglob("*.tmp"))


def descendants(pid):
    """Process -> its command line (words end with NUL), of everything that `pid` started."""
    parents, found, young = {}, {}, [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended
            parents.setdefault(int(stat.read_text().rsplit(")", 1)[1].split()[1]), []).append(int(stat.parent.name))
    while young:
        young = [child for one in young for child in parents.get(one, [])]
        for child in young:
            with contextlib.suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_text()
    return found


class Alive(Score):
    """A column of ones, and whatever `meet` does to its worker when it sees a sample's text."""

    @property
    def columns(self):
        return ("alive",)

    @property
    def needs(self):
        return frozenset({"bytes", "text"})

    def __call__(self, batch):
        for text in batch["text"]:
            self.meet(text)
        return {"alive": np.ones(len(batch["text"]), np.int32)}


class Killer(Alive):
    """Ends its process when it meets a sample whose text says so."""

    def meet(self, text):
        if "kill the worker" in text:
            os._exit(9)


class Blow(Alive):
    """Once for each word in `marks`' folder: what a sample's text says happens to its worker ("blow: WORD")."""

    marks: str

    def meet(self, text):
        word = text.partition("blow: ")[2]
        if word and (word.endswith("always") or self.first(word)):
            name = word.split()[0]
            lose_node(self.marks) if name == "node" else BLOWS[name]()

    def first(self, word):
        """Whether it is the first time, over all workers."""
        try:
            Path(self.marks, word).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_commit(before):
    """SIGKILL in place of this worker's next commit, or right after it."""
    real = shard.write_commit

    def commit(*args):
        if not before:
            real(*args)
        die()

    shard.write_commit = commit


def lose_node(marks):
    """Where it is the spare node that does the work, the node is gone, with all that is on it. Others wait for that."""
    gone, until = Path(marks, "gone"), time.monotonic() + 60
    if "SPARE_NODE" in os.environ:
        gone.touch()
        os.kill(os.getppid(), signal.SIGKILL)
        die()
    while not gone.exists() and time.monotonic() < until:
        time.sleep(0.1)


def take_memory():
    """Far more than there is left before Ray calls memory short, until it does."""
    held = []
    for _ in range(192):
        held.append(b"x" * (64 << 20))
        time.sleep(0.02)
    time.sleep(60)


BLOWS = {
    "memory": take_memory,
    "mid-shard": die,
    "before-commit": lambda: die_at_commit(True),
    "after-commit": lambda: die_at_commit(False),
    "hang": lambda: time.sleep(3600),
    "slow": lambda: time.sleep(0.3),
}


@dataclasses.dataclass(frozen=True)
class Hurdles:
    """Makes a worker that doubles a number; in `marks`, each start after the first `well` ones meets what is next of
    `blows`, one each, over all workers.
    """

    marks: str
    blows: tuple[str, ...]
    well: int = 0

    def __call__(self, setup):
        blow = self.next()
        if blow == "raise":
            raise OSError("a folder is gone")
        if blow == "die":
            die()
        return self.double

    def next(self):
        for number, blow in enumerate(("",) * self.well + self.blows):
            with contextlib.suppress(FileExistsError):
                Path(self.marks, str(number)).touch(exist_ok=False)
                return blow
        return ""

    def double(self, number):
        """When every blow has fallen: no worker is done before."""
        until, last = time.monotonic() + 30, self.well + len(self.blows) - 1
        while not Path(self.marks, str(last)).exists() and time.monotonic() < until:
            time.sleep(0.1)
        return 2 * number


@dataclasses.dataclass(frozen=True)
class Pids:
    """Makes a worker that says which process it is, once `want` of them have left a mark in the folder `marks`."""

    marks: str
    want: int

    def __call__(self, setup):
        def pid(_):
            Path(self.marks, str(os.getpid())).touch()
            until = time.monotonic() + 60
            while len(os.listdir(self.marks)) < self.want and time.monotonic() < until:
                time.sleep(0.05)
            return os.getpid()

        return pid
