"""`run` on Ray, interrupted by Ctrl-C and SIGTERM, then resumed: exit codes, messages, leftovers, bytes.

    python benchmarks/interrupts.py [--times 20] [--samples 2000] [--per-shard 25] [--workers 2] [--recipe FILE]

Each signal is sent `--times` times, in turn at start-up (at a random moment before the first commit), in mid-shard
(shortly after a random commit) and while Ray stops (after the result was printed); every second one goes to the whole
process group, as a terminal's Ctrl-C does. A row is right when the exit code is 130 or 143, stderr holds one sentence
beside the lines of progress, no process is left, and `run --local` then completes the same folder to the bytes of an
undisturbed run.
"""

import argparse
import contextlib
import glob
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field

from chaos import digests

SIGNALS = {"SIGINT": 130, "SIGTERM": 143}
STAGES = ("start-up", "mid-shard", "stopping")
COLUMNS = ("signal", "stage", "interrupts", "right", "wrong", "seconds to the exit (median, longest)")
RECIPE = {"name": "t", "scores": ["phash", "language", "caption"], "select": {"caption": {"min_words": 2}}}


@dataclass
class Quiet:
    """An undisturbed run: seconds until its first commit, its commits, and the bytes that it wrote. `python` are the
    seconds that the interpreter takes before any of our code runs, in which a signal ends it as Python does."""

    python: float = 0.0
    first: float = 0.0
    commits: int = 0
    bytes: dict[str, str] = field(default_factory=dict)


@dataclass
class Trial:
    """One interrupted run."""

    command: list[str]
    out: str
    name: str
    stage: str
    group: bool
    seconds: float = 0.0  # from the signal to the exit
    wrong: list[str] = field(default_factory=list)
    late: bool = False  # the run was done before the signal reached it

    def start(self) -> subprocess.Popen:
        with open(f"{self.out}.err", "wb") as log:
            env = {**os.environ, "MMFILTER_PROGRESS": "json"}
            return subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, env=env, start_new_session=True)

    def stderr_text(self) -> str:
        with open(f"{self.out}.err", errors="replace") as log:
            return log.read()

    def commits(self) -> int:
        return len(glob.glob(f"{self.out}/metadata/*.json"))

    def wait(self, driver: subprocess.Popen, quiet: Quiet, rng: random.Random) -> None:
        """Until the moment of the signal."""
        if self.stage == "start-up":
            time.sleep(rng.uniform(quiet.python, quiet.first))
        elif self.stage == "mid-shard":
            until = rng.randrange(1, max(2, quiet.commits - 2))
            while self.commits() < until and driver.poll() is None:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.1))
        else:
            select.select([driver.stdout], [], [])
            time.sleep(rng.uniform(0, 0.45))  # Ray stops for at least 0.5 s

    def strike(self, quiet: Quiet, rng: random.Random) -> None:
        driver = self.start()
        self.wait(driver, quiet, rng)
        started = descendants(driver.pid)
        number = getattr(signal, self.name)
        at = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, number) if self.group else driver.send_signal(number)
        try:
            driver.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.communicate()
            self.wrong.append("did not end within 60 s")
        self.seconds = time.monotonic() - at
        self.late = driver.returncode == 0
        self.judge(driver.returncode, started)

    def judge(self, code: int, started: dict[int, str]) -> None:
        if code != SIGNALS[self.name]:
            self.wrong.append(f"exit code {code}")
        others = [line for line in self.stderr_text().splitlines() if not line.startswith("{")]
        if len(others) != 1 or not others[0].startswith("mmfilter: stopped;"):
            self.wrong.append(f"stderr: {others}")
        until = time.monotonic() + 10
        while (running := alive(started)) and time.monotonic() < until:
            time.sleep(0.1)
        if running:
            self.wrong.append(f"left over: {sorted(running.values())}")

    def resume(self, quiet: Quiet) -> None:
        local = [*self.command[: self.command.index("--workers")], "--local"]
        done = subprocess.run(local, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            self.wrong.append(f"resumed: exit code {done.returncode}: {done.stderr[-300:]}")
        if digests(self.out) != quiet.bytes:
            self.wrong.append("resumed: other bytes")


def descendants(pid: int) -> dict[int, str]:
    """Process -> start time and command, of everything that `pid` started."""
    parents: dict[int, list[int]] = {}
    for stat in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(stat) as stream:
            parents.setdefault(int(stream.read().rsplit(")", 1)[1].split()[1]), []).append(int(stat.split("/")[2]))
    pids, young = [], [pid]
    while young:
        young = [child for one in young for child in parents.get(one, [])]
        pids += young
    return {one: identity(one) for one in pids}


def identity(pid: int) -> str:
    """A process's start time and command; empty where it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            rest = stream.read().rsplit(")", 1)[1].split()
        with open(f"/proc/{pid}/cmdline") as stream:
            command = stream.read().replace("\0", " ")[:80]
    except OSError:
        return ""
    return "" if rest[0] == "Z" else f"{rest[19]} {command}"


def alive(started: dict[int, str]) -> dict[int, str]:
    return {pid: was for pid, was in started.items() if was and identity(pid).split(" ")[:1] == was.split(" ")[:1]}


def undisturbed(command: list[str], out: str) -> Quiet:
    quiet, at = Quiet(), time.monotonic()
    subprocess.run([sys.executable, "-m", "jobs.processes"], check=True)
    quiet.python = 2 * (time.monotonic() - at)
    at = time.monotonic()
    trial = Trial(command, out, "", "", False)
    driver = trial.start()
    while not trial.commits() and driver.poll() is None:
        time.sleep(0.005)
    quiet.first = time.monotonic() - at
    driver.communicate()
    if driver.returncode not in (0, 3):
        raise SystemExit(trial.stderr_text())
    quiet.commits, quiet.bytes = trial.commits(), digests(out)
    return quiet


def table(trials: list[Trial]) -> str:
    rows = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for name in SIGNALS:
        for stage in (*STAGES, "all"):
            some = [t for t in trials if t.name == name and stage in (t.stage, "all")]
            seconds = sorted(t.seconds for t in some) or [0.0]
            wrong = sum(bool(t.wrong) for t in some)
            cells = [name, stage, len(some), len(some) - wrong, wrong]
            rows.append(f"| {' | '.join(map(str, cells))} | {seconds[len(seconds) // 2]:.1f}, {seconds[-1]:.1f} |")
    return "\n".join(rows)


def storm(args: argparse.Namespace, root: str) -> list[Trial]:
    base = [sys.executable, "-m", "jobs", "run", args.recipe or f"{root}/t.yaml", "--pool", f"{root}/pool", "--out"]
    width = ["--workers", str(args.workers), "--gpus", "0"]
    rng, trials, late = random.Random(args.seed), [], Counter[str]()
    quiet = undisturbed([*base, f"{root}/whole", *width], f"{root}/whole")
    print(f"undisturbed: {quiet.commits} shards, first commit after {quiet.first:.1f} s", file=sys.stderr)
    for name in SIGNALS:
        number = 0
        while number < args.times:
            out = f"{root}/{name}{len(trials)}-{late[name]}"
            trial = Trial([*base, out, *width], out, name, STAGES[number % 3], number // 3 % 2 == 1)
            trial.strike(quiet, rng)
            if trial.late and late[name] < args.times:
                late[name] += 1  # done before the signal came: again
                continue
            trial.resume(quiet)
            trials.append(trial)
            number += 1
            state = "; ".join(trial.wrong) or "right"
            print(
                f"{name} {trial.stage}{' (group)' * trial.group}: {trial.seconds:.1f} s, {state}",
                file=sys.stderr,
                flush=True,
            )
    if late:
        print(f"came too late and were repeated: {dict(late)}", file=sys.stderr)
    return trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--per-shard", type=int, default=25)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="", help="a recipe's name or file (default: one without a model)")
    args = parser.parse_args()
    from mmfilter.synth import SynthOptions, generate

    with tempfile.TemporaryDirectory() as root:
        generate(f"{root}/pool", SynthOptions(args.samples, args.per_shard, seed=5))
        with open(f"{root}/t.yaml", "w") as stream:
            json.dump(RECIPE, stream)
        trials = storm(args, root)
    print(table(trials))
    raise SystemExit(any(trial.wrong for trial in trials))


if __name__ == "__main__":
    main()
