"""A whole `run` on a Ray cluster under blows, until it is done; its bytes against those of a quiet `--local` run.

    python benchmarks/chaos.py [--repeats 10] [--samples 3000] [--per-shard 15] [--every 4] [--recipe demo]

The cluster is several raylets on this machine (`ray.cluster_utils.Cluster`): a head without cores, which holds the
driver, and `--nodes` nodes of one core. As soon as `--every` seconds have passed and something has been committed
since the last blow, the next one falls, drawn by the seed: SIGKILL to a worker; SIGKILL to a node with all that is on
it, and another node joins; SIGKILL to the driver, and the same command again.
"""

import argparse
import contextlib
import glob
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any

BLOWS = ("worker", "node", "driver")
COLUMNS = ("run", "seed", "workers", "nodes", "drivers", "shards", "samples", "lost", "doubled", "same bytes", "s")
RESULTS = (".parquet", ".npz", ".npy", ".tar")


def digests(out: str) -> dict[str, str]:
    """Relative path -> sha256 of every result; commits and reports hold times and are left out."""
    found = {}
    for path in glob.glob(f"{out}/**", recursive=True):
        if path.endswith(RESULTS):
            with open(path, "rb") as stream:
                found[os.path.relpath(path, out)] = hashlib.sha256(stream.read()).hexdigest()
    return found


def uids(out: str) -> Counter[str]:
    """How often each uid stands in the metadata and failures of a run."""
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    for path in [*glob.glob(f"{out}/metadata/*.parquet"), *glob.glob(f"{out}/failures/*.parquet")]:
        found.update(pq.read_table(path, columns=["uid"])["uid"].to_pylist())
    return found


def children(pid: int) -> dict[int, str]:
    """Process -> its command line, of the processes that `pid` started."""
    found = {}
    for stat in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended
            with open(stat) as stream:
                parent = int(stream.read().rsplit(")", 1)[1].split()[1])
            with open(f"{os.path.dirname(stat)}/cmdline") as stream:
                if parent == pid:
                    found[int(stat.split("/")[2])] = stream.read()
    return found


class Nodes:
    """The cluster: a head without cores, and nodes of one core that come and go."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(head_node_args={"num_cpus": 0, "include_dashboard": False}, initialize_head=True)
        self.nodes = [self.add() for _ in range(count)]

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, wait=False)

    def raylet(self, node: Any) -> int:
        return node.all_processes["raylet"][0].process.pid

    def workers(self) -> list[int]:
        named = [children(self.raylet(node)) for node in self.nodes]
        return sorted(pid for found in named for pid, command in found.items() if command.startswith("ray::Worker"))

    def lose(self, number: int) -> None:
        """End a node and everything on it at once, and let another one join."""
        node = self.nodes.pop(number)
        raylet = self.raylet(node)
        for pid in [raylet, *children(raylet)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.kill_all_processes(check_alive=False, allow_graceful=False)
        self.cluster.worker_nodes.discard(node)
        self.nodes.append(self.add())


class Storm:
    """One disturbed run: its driver, and the blows that it took."""

    def __init__(self, nodes: Nodes, command: list[str], out: str, seed: int) -> None:
        self.nodes, self.command, self.out, self.random = nodes, command, out, random.Random(seed)
        self.blows: Counter[str] = Counter()

    def start(self) -> subprocess.Popen:
        with open(f"{self.out}.log", "ab") as log:
            return subprocess.Popen(self.command, stdout=log, stderr=log)

    def committed(self) -> int:
        return len(glob.glob(f"{self.out}/metadata/*.json") + glob.glob(f"{self.out}/shards/*/*_stats.json"))

    def strike(self, kind: str, driver: subprocess.Popen) -> subprocess.Popen:
        if kind == "worker":
            workers = self.nodes.workers()
            if not workers:
                return driver
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(workers), signal.SIGKILL)
        elif kind == "node":
            self.nodes.lose(self.random.randrange(len(self.nodes.nodes)))
        else:
            driver.kill()
            driver.wait()
            driver = self.start()
        self.blows[kind] += 1
        return driver

    def rage(self, every: float, blows: list[str] | None = None) -> int:
        """Until the job is done; returns its exit code. `blows`: these in turn, and then no more."""
        driver, at, before = self.start(), time.monotonic(), 0
        while driver.poll() is None:
            time.sleep(0.05)
            if blows != [] and time.monotonic() - at > every and self.committed() > before:
                kind = self.random.choice(BLOWS) if blows is None else blows.pop(0)
                driver = self.strike(kind, driver)
                at, before = time.monotonic(), self.committed()
        return driver.returncode


def told(out: str, code: int, want: dict[str, str], expected: set[str]) -> tuple[list[Any], bool]:
    """(lost, doubled, same bytes), and whether all is well."""
    found, same = uids(out), digests(out) == want
    lost, doubled = len(expected - set(found)), sum(n - 1 for n in found.values())
    if code or lost or doubled or not same:
        with open(f"{out}.log", errors="replace") as stream:
            print(f"exit code {code}\n{stream.read()[-3000:]}", file=sys.stderr)
        return [lost, doubled, "yes" if same else "NO"], False
    return [lost, doubled, "yes"], True


def repeat(args: argparse.Namespace, root: str, nodes: Nodes) -> bool:
    """Every run, a row each; whether all were well."""
    words = [sys.executable, "-m", "jobs", "run", args.recipe, "--pool", f"{root}/pool", "--gpus", "0", "--out"]
    subprocess.run([*words, f"{root}/whole", "--local"], check=True, capture_output=True)
    want, expected, well = digests(f"{root}/whole"), set(uids(f"{root}/whole")), True
    shards = len(glob.glob(f"{root}/pool/*.tar"))
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for number in range(args.repeats):
        out, began = f"{root}/run{number}", time.monotonic()
        storm = Storm(nodes, [*words, out, "--address", nodes.cluster.address], out, args.seed + number)
        code = storm.rage(args.every, list(args.blows) if args.blows else None)
        seconds = round(time.monotonic() - began)
        row, good = told(out, code, want, expected)
        well &= good
        counts = [storm.blows[kind] for kind in BLOWS]
        cells = [number + 1, args.seed + number, *counts, shards, len(expected), *row, seconds]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--per-shard", type=int, default=15)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two blows, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="demo", help="a recipe's name or file")
    parser.add_argument("--blows", nargs="*", choices=BLOWS, help="these in turn, and then no more")
    args = parser.parse_args()
    from mmfilter.synth import SynthOptions, generate

    with tempfile.TemporaryDirectory() as root:
        generate(f"{root}/pool", SynthOptions(args.samples, args.per_shard, seed=5, workers=os.cpu_count() or 1))
        nodes = Nodes(args.nodes)
        try:
            well = repeat(args, root, nodes)
        finally:
            nodes.cluster.shutdown()
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
