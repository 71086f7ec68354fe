"""Verbs killed at each change of a name, then a verb that reads, then the same command again.

What a reader finds after a kill has to be what it finds before the verb or after it, or an error; the same command
again has to end with the bytes of an undisturbed one.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from damage import ROOT, Outcome, Sample, digests
from damage_files import EXTRA, VERBS

READERS = {
    "embed": ("select", "report", "query", "index", "schedule", "card"),
    "embed --redo-changed": ("select", "report", "query", "index", "card", "probe", "compare"),
    "score": ("select, by the column", "report", "card"),
    "select": ("report", "card", "explain", "reshard", "schedule, of a subset", "compare"),
    "index": ("query",),
    "cluster": ("report", "card", "select, by the cluster"),
    "dedup": ("select", "report", "card", "explain"),
    "schedule": ("reshard, of a schedule",),
    "reshard": ("status",),
}
"""Verb that is killed -> verbs that read what it writes."""

BY_COLUMN = {"name": "by_column", "select": {"fraction": {"score": EXTRA, "keep": 0.5}}}
BY_CLUSTER = {"name": "by_cluster", "select": {"fraction": {"score": "density", "keep": 0.5}}}
OTHER_RULES = {"name": "demo", "select": {"caption": {"min_words": 5}}}


@dataclass(frozen=True)
class Kill:
    """The state that a verb begins with, and its words."""

    start: Callable[[Sample], None]
    words: str


def from_older(sample: Sample) -> None:
    sample.restore(sample.older)


def without(*names: str) -> Callable[[Sample], None]:
    """The sound folder without some of its files."""

    def start(sample: Sample) -> None:
        sample.restore()
        for name in names:
            shutil.rmtree(sample.out / name)

    return start


def with_older_index(sample: Sample) -> None:
    without("index")(sample)
    shutil.copytree(sample.older / "index", sample.out / "index")


def empty(sample: Sample) -> None:
    shutil.rmtree(sample.out, ignore_errors=True)
    shutil.copytree(sample.sound / "attempts", sample.out / "attempts")


KILLS = {
    "embed": Kill(empty, VERBS["embed"]),
    "embed --redo-changed": Kill(from_older, VERBS["embed"] + " --redo-changed"),
    "score": Kill(without(f"columns/{EXTRA}"), VERBS["score"]),
    "select": Kill(Sample.restore, "select {h}/other.yaml --out {o}"),
    "index": Kill(with_older_index, VERBS["index"]),
    "cluster": Kill(Sample.restore, "cluster {o} --k 5 --local --redo-changed"),
    "dedup": Kill(Sample.restore, "dedup {o} --hamming 12 --mode groups --local --redo-changed"),
    "schedule": Kill(Sample.restore, VERBS["schedule"] + " --seed 1"),
    "reshard": Kill(without("shards/demo"), VERBS["reshard"]),
}


class Killer:
    """The process that forks verbs and kills them."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        for name, recipe in (("other", OTHER_RULES), ("by_column", BY_COLUMN), ("by_cluster", BY_CLUSTER)):
            (sample.home / f"{name}.yaml").write_text(json.dumps(recipe))
        words = [sys.executable, str(Path(__file__).parent / "killed_verbs.py")]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.calls: dict[str, int] = {}
        self.after: dict[str, Path] = {}
        self.read: dict[tuple[str, str], list[Outcome]] = {}

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def words(self, line: str) -> list[str]:
        home = self.sample.home
        values = {
            "r": home / "demo.yaml",
            "e": home / "extra.yaml",
            "p": home / "pool",
            "o": self.sample.out,
            "h": home,
        }
        return [word.format(**values, **self.sample.uids) for word in line.split()]

    def reader(self, name: str) -> list[str]:
        own = {"select, by the column": "by_column", "select, by the cluster": "by_cluster"}
        return self.words(f"select {{h}}/{own[name]}.yaml --out {{o}}" if name in own else VERBS[name])

    def run(self, words: list[str], at: int = 0) -> tuple[int, int]:
        """(exit status, changes of names made) of a verb that is killed before its `at`-th (0: not)."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"words": words, "at": at}) + "\n")
        self.process.stdin.flush()
        done = json.loads(self.process.stdout.readline())
        return done["code"], done["made"]

    def undisturbed(self, verb: str) -> int:
        """Run the verb to its end once, keep what it makes, and what readers find before and after it."""
        if verb not in self.calls:
            kill, kept = KILLS[verb], self.sample.home / f"after {verb}"
            kill.start(self.sample)
            code, self.calls[verb] = self.run(self.words(kill.words))
            assert code in (0, 3), (verb, code)
            shutil.copytree(self.sample.out, kept)
            self.after[verb] = kept
        return self.calls[verb]

    def found(self, verb: str, reader: str) -> list[Outcome]:
        """What a reader comes to before and after the undisturbed verb."""
        if (verb, reader) not in self.read:
            outcomes = []
            for start in (KILLS[verb].start, lambda sample: sample.restore(self.after[verb])):
                start(self.sample)
                outcomes.append(self.changes(reader))
            self.read[verb, reader] = outcomes
        return self.read[verb, reader]

    def changes(self, reader: str) -> Outcome:
        """A reader's outcome; of the files only those that it wrote."""
        before = digests(self.sample.out)
        outcome = self.sample.run(*self.reader(reader))
        written = {name: value for name, value in outcome.files.items() if before.get(name) != value}
        return Outcome(outcome.code, outcome.text, written, outcome.error)

    def kill(self, verb: str, at: int, readers: tuple[str, ...] | None = None) -> list[str]:
        """Kill the verb before its `at`-th change, read, run it again; what is wrong, a line each."""
        self.undisturbed(verb)
        readers = READERS[verb] if readers is None else readers
        expected = {reader: self.found(verb, reader) for reader in readers}
        words, wrong, killed = self.words(KILLS[verb].words), [], self.sample.home / "killed"
        KILLS[verb].start(self.sample)
        code, _ = self.run(words, at)
        if code != -9:
            return [f"{verb}, {at}: exit status {code} in place of the kill"]
        shutil.rmtree(killed, ignore_errors=True)
        shutil.copytree(self.sample.out, killed)
        for reader in readers:
            self.sample.restore(killed)
            outcome = self.changes(reader)
            if outcome.error:
                wrong.append(f"{verb}, {at}: {reader}: TRACEBACK {outcome.error}")
            elif outcome.code in (0, 3) and not any(same(outcome, one) for one in expected[reader]):
                shown = outcome.text.splitlines()
                wrong.append(f"{verb}, {at}: {reader}: MIXED {[line for line in shown if line][:6]}"[:500])
        self.sample.restore(killed)
        code, _ = self.run(words)
        ends, whole = digests(self.sample.out), digests(self.after[verb])
        if code not in (0, 3):
            wrong.append(f"{verb}, {at}: again: exit status {code}")
        elif other := sorted(name for name in {*ends, *whole} if ends.get(name) != whole.get(name)):
            wrong.append(f"{verb}, {at}: again: other bytes of {other[:8]}")
        return wrong


def same(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes are one result: exit code and written files; what was printed counts where none was.

    `one` may lack a file that it says, in a sentence, it did not write, as `select` does of a card.
    """
    said = "the subset is written, its card is not" in one.text
    files = {name: value for name, value in other.files.items() if name in one.files} if said else other.files
    return one.code == other.code and (one.files == files or (one.text == other.text and not one.files))
