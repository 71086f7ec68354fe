"""Faults of disk and mount at the n-th system call, verb by verb: what came of each, and of the same command after it.

    python benchmarks/inject_faults.py [--samples 60] [--each 40] [--seed 0] [--verb NAME] [--show]

Needs a C compiler. `failing_calls.c` is preloaded, so that calls of libraries in C++ and Rust fail as well as Python's.
Each injection draws a folder (the pool's or the results'), a kind of call, one of its calls in an undisturbed command,
an errno, and whether it fails once, three times or for good. A row counts

survived    the command ended well, with the bytes of an undisturbed one
stopped     it ended with exit code 1 and one sentence, and the same command, undisturbed, ended with those bytes
set aside   it ended with exit code 3, having set a shard aside for now; then as above
silent      exit code 0 with other bytes; or a commit that counts a loss; or other bytes after the same command
traceback   a traceback, or an end by a signal
"""

import argparse
import contextlib
import ctypes
import errno
import glob
import hashlib
import importlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
KINDS = ("open", "read", "write", "fsync", "rename", "stat", "list")
ERRNOS = (
    *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "ECONNRESET", "EHOSTDOWN"),
    *("EACCES", "EPERM", "ENOSPC", "EDQUOT", "EROFS", "EFBIG", "ENOTCONN"),
    *("EMFILE", "ENFILE", "ENOMEM"),
)
FOREVER = 1 << 40
COLUMNS = ("verb", "injected", "survived", "stopped", "set aside", "silent", "traceback")
RESULTS = (".parquet", ".npz", ".npy", ".tar", ".faiss", ".safetensors", ".out")
MODEL = {"demo": {"model": "demo"}}
SCORES = [{"clip_similarity": {"model": "demo"}}, "phash"]
ADDED = [*SCORES, "language", "caption"]
LOADED = ("torch", "open_clip", "faiss", "polars", "pyarrow.parquet", "pandas", "mmfilter.embed", "mmfilter.shard")
ROOMS = ("embed", "run", "score", "select", "dedup", "index", "reshard", "inspect", "train", "evaluate")


class Verb(NamedTuple):
    """A command, the folder of results that stands before it, and how it ends undisturbed."""

    name: str
    words: str
    before: str = ""
    tries: float = 1.0  # of --each


VERBS = (
    Verb("embed", "embed t.yaml --pool pool --out work/out --local"),
    Verb("run", "run t.yaml --pool pool --out work/out --name t --local"),
    Verb("score", "score added.yaml --out work/out --local", "embedded"),
    Verb("select", "select t.yaml --out work/out --name t", "embedded"),
    Verb("dedup", "dedup work/out --model demo --local", "embedded"),
    Verb("index", "index work/out --model demo --local", "embedded"),
    Verb("reshard", "reshard work/out/subsets/t.npy --pool pool --out work/new --local", "selected"),
    Verb("inspect", "inspect pool --local --json"),
    Verb(
        "train",
        "train --pool pool --out work/m --samples 64 --batch-size 16 --model micro.json --vocabulary 80",
        "",
        0.5,
    ),
    Verb("evaluate", "evaluate demo --tasks sets --out work/e", "", 0.5),
)


class Fault(NamedTuple):
    """Calls of a kind below a folder fail, from the n-th on and so many times."""

    folder: str
    kind: str
    n: int
    errno: str
    times: int


def digests(folder: str) -> dict[str, str]:
    """Relative path -> sha256 of every result; commits, reports and notes hold times and are left out."""
    found = {}
    for path in glob.glob(f"{folder}/**", recursive=True):
        if path.endswith(RESULTS) and os.path.isfile(path):
            found[os.path.relpath(path, folder)] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return found


def losses(folder: str) -> list[str]:
    """Commits that count a failed sample: the pool is sound."""
    commits = glob.glob(f"{folder}/out/metadata/*.json")
    return [path for path in commits if json.loads(Path(path).read_text())["counts"]["failed"]]


class Ended(NamedTuple):
    """How a command ended: its exit code (below 0: by a signal), stderr, and the calls that were met and failed."""

    code: int
    said: str
    calls: int
    failed: int


def command(words: str, fault: Fault | None) -> Ended:
    """Run a command line in a forked process, with a fault."""
    told = tempfile.TemporaryFile("w+")  # noqa: SIM115, of both processes
    child = os.fork()
    if child == 0:
        _in_child(words, fault, told)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    told.seek(0)
    record = json.loads(told.read() or '["", 0, 0]')
    return Ended(status, *record)


def _in_child(words: str, fault: Fault | None, told: io.TextIOBase) -> None:
    from jobs import cli
    from mmfilter import narrow, patience

    patience.PAUSES, narrow.PAUSE = (0.001, 0.001), 0.0
    out, err = io.StringIO(), io.StringIO()
    calls = ctypes.CDLL(None)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if fault is not None:
            folder, number = os.path.abspath(fault.folder), getattr(errno, fault.errno)
            n, times = ctypes.c_long(fault.n), ctypes.c_long(fault.times)
            calls.arm(folder.encode(), KINDS.index(fault.kind) + 1, n, number, times)
        try:
            code = cli.run([*words.split(), "-q"])
        except BaseException:
            code = 99
            traceback.print_exc()
    counted = [int(calls.calls_met()), int(calls.calls_failed())] if fault is not None else [0, 0]
    calls.arm(b"/nowhere", 0, ctypes.c_long(0), 0, ctypes.c_long(0))
    if code == 0 and words.startswith("inspect"):  # that a sidecar could not be read is told, and is no result
        report = json.loads(out.getvalue())
        report["findings"] = [found for found in report["findings"] if not found["what"].endswith("_unreadable")]
        Path("work/inspect.out").write_text(json.dumps(report))
    json.dump([err.getvalue(), *counted], told)
    told.flush()
    os._exit(code)


def fresh(before: str) -> None:
    """The folder of results as it stands before a verb."""
    shutil.rmtree("work", ignore_errors=True)
    shutil.copytree(f"states/{before}", "work") if before else os.mkdir("work")


def prepare(samples: int) -> None:
    """Pool, recipes, a set, and the folders that verbs begin with."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from sets_util import labelled, write_set
    from train_util import CONFIG

    from mmfilter.synth import SynthOptions, generate

    generate("pool", SynthOptions(samples, per_shard=samples // 3, seed=3))
    write_set(Path("sets/animals"), labelled(12))
    Path("micro.json").write_text(json.dumps(CONFIG))
    for name, scores in (("t", SCORES), ("added", ADDED)):
        recipe = {"name": name, "embed": MODEL, "scores": scores, "select": "everything"}
        Path(f"{name}.yaml").write_text(json.dumps(recipe))
    fresh("")
    os.mkdir("states")
    for state, words in (("embedded", VERBS[0].words), ("selected", VERBS[3].words)):
        ended = command(words, None)
        assert ended.code == 0, ended.said
        shutil.copytree("work", f"states/{state}")


def judged(verb: Verb, fault: Fault, quiet: dict[str, str], show: bool) -> str:
    """Under which column an injection counts; "" where the call was not made."""
    fresh(verb.before)
    ended = command(verb.words, fault)
    if not ended.failed:
        return ""
    lost, well, column = losses("work"), digests("work") == quiet, ""
    if ended.code < 0 or ended.code == 99 or "Traceback" in ended.said:
        column = "traceback"
    elif lost or (ended.code == 0 and not well):
        column = "silent"
    else:
        again = command(verb.words, None)
        if again.code != 0 or digests("work") != quiet or losses("work"):
            column = "silent"
            ended = ended._replace(said=f"{ended.said}\nafterwards {again.code}: {again.said}")
        else:
            column = {0: "survived", 3: "set aside"}.get(ended.code, "stopped")
    if show or column in ("silent", "traceback"):
        print(f"{verb.name} {fault}: {column}, exit code {ended.code}\n  {ended.said[-1500:].strip()}", flush=True)
    return column


def drawn(verb: Verb, count: int, chance: random.Random) -> list[Fault]:
    """Faults on calls that the undisturbed command makes."""
    met = {}
    for folder in ("pool", "work", "sets"):
        for kind in KINDS:
            fresh(verb.before)
            calls = command(verb.words, Fault(folder, kind, FOREVER, "EIO", 0)).calls
            if calls:
                met[folder, kind] = calls
    faults = []
    for _ in range(count):
        (folder, kind), calls = chance.choice(sorted(met.items()))
        times = chance.choice((1, 1, 3, FOREVER))
        faults.append(Fault(folder, kind, chance.randint(1, calls), chance.choice(ERRNOS), times))
    return faults


def measure(verb: Verb, each: int, seed: int, show: bool) -> Counter[str]:
    fresh(verb.before)
    ended = command(verb.words, None)
    assert ended.code == 0, ended.said
    quiet = digests("work")
    columns = (judged(verb, fault, quiet, show) for fault in drawn(verb, each, random.Random(f"{seed} {verb.name}")))
    return Counter(filter(None, columns))


def preloaded() -> None:
    """This script anew, with failing_calls.c preloaded."""
    if "FAILING_CALLS" in os.environ:
        return
    library = os.path.join(tempfile.mkdtemp(), "failing_calls.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, HERE / "failing_calls.c", "-ldl"], check=True)
    names = {"LD_PRELOAD": library, "FAILING_CALLS": library, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **names, "HF_HUB_OFFLINE": "1"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--each", type=int, default=40, help="injections for each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", choices=[verb.name for verb in VERBS])
    parser.add_argument("--show", action="store_true", help="what each command said")
    asked = parser.parse_args()
    preloaded()
    for name in (*LOADED, *(f"jobs.{room}" for room in ROOMS)):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mmf-faults") as folder:
        os.chdir(folder)
        prepare(asked.samples)
        print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
        total: Counter[str] = Counter()
        for verb in VERBS:
            if asked.verb in (None, verb.name):
                found = measure(verb, round(asked.each * verb.tries), asked.seed, asked.show)
                total += found
                print(row(verb.name, found), flush=True)
        print(row("all", total))
        os.chdir("/")


def row(name: str, found: Counter[str]) -> str:
    return f"| {name} | {found.total()} | " + " | ".join(str(found[column]) for column in COLUMNS[2:]) + " |"


if __name__ == "__main__":
    main()
