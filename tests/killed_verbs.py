"""Verbs that are killed at the n-th change of a name: a rename, a link, a removal, in a child forked for each.

    python killed_verbs.py

For a line `{"words": [...], "at": n}` a child runs `mmfilter WORDS` and gets SIGKILL before its n-th such call (0:
none). Answers with a line: its exit status, and how many calls it made. The process that forks has loaded what verbs
load, and started no thread.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress

import torch

import jobs.look
import jobs.pool_scores
import jobs.reshard
import jobs.schedule
import jobs.select
import mmfilter.embed
import mmfilter.shard
from jobs import cli

LOADED = (torch, jobs.look, jobs.pool_scores, jobs.reshard, jobs.schedule, jobs.select, mmfilter.embed, mmfilter.shard)
for name in ("pandas", "faiss", "index.build", "index.concepts", "index.duplicates", "index.knn"):
    with suppress(ImportError):
        importlib.import_module(name)

CALLS = ("replace", "rename", "link", "unlink", "rmdir")
PASSING = (".progress", ".lock")
"""Files that say how far a run is, and no result."""


class Count:
    """Wraps the calls; the `at`-th ends the process as `kill -9` does."""

    def __init__(self, at: int, to: str) -> None:
        self.at, self.made, self.to = at, 0, to
        for call in CALLS:
            setattr(os, call, self.wrap(getattr(os, call)))

    def wrap(self, call):
        def counted(*paths, **options):
            if not str(paths[-1]).endswith(PASSING):
                self.made += 1
                if self.made == self.at:
                    os.kill(os.getpid(), signal.SIGKILL)
                with open(self.to, "w") as stream:
                    stream.write(str(self.made))
            return call(*paths, **options)

        return counted


def child(words: list[str], at: int, to: str) -> None:
    """Run the verb; it ends here."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    Count(at, to)
    code = cli.run(words)
    os._exit(code)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        to = os.path.join(folder, "made")
        for line in sys.stdin:
            task = json.loads(line)
            with open(to, "w") as stream:
                stream.write("0")
            pid = os.fork()
            if pid == 0:
                child(task["words"], task["at"], to)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with open(to) as stream:
                print(json.dumps({"code": code, "made": int(stream.read() or 0)}), flush=True)


if __name__ == "__main__":
    main()
