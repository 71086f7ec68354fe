"""`embed`, `dedup`, `reshard`, `rank` and `download` on Ray, interrupted by Ctrl-C and SIGTERM, then run again.

    python benchmarks/interrupt_verbs.py [--samples 1200] [--verb NAME]

Each verb runs once undisturbed. Then each signal is sent at fixed parts of that time, from start-up to the end; every
second one goes to the whole process group. A row is right when the exit code is 130 or 143, stderr holds one sentence
beside the lines of progress, no process is left, and the same command then ends with exit code 0. A command that ended
before its signal came is counted apart.
"""

import argparse
import csv
import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from interrupts import SIGNALS, Trial, descendants

from mmfilter.subset import Subset
from mmfilter.synth import SynthOptions, generate
from mmfilter.table import open_table

MOMENTS = (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)  # of the undisturbed run's time
RECIPE = {"name": "t", "scores": ["phash", "language"], "select": "everything"}
COLUMNS = ("verb", "seconds undisturbed", "signals", "right", "wrong", "had ended", "seconds to the exit, longest")


def mmfilter(*words: str) -> list[str]:
    return [sys.executable, "-m", "mmfilter", *words]


def prepare(root: Path, samples: int, port: int) -> dict[str, list[str]]:
    """Verb -> its command on a generated pool, up to the folder that it writes."""
    pool, run = root / "pool", root / "run"
    generate(str(pool), SynthOptions(samples, per_shard=50))
    (root / "t.yaml").write_text(json.dumps(RECIPE))
    subprocess.run(
        mmfilter("run", f"{root}/t.yaml", "--pool", str(pool), "--out", str(run), "--local", "-q"), check=True
    )
    subset = root / "half.npy"
    Subset.from_uids(open_table(str(run)).read(["uid"])["uid"].to_list()[::2]).write(str(subset))
    (root / "images").mkdir()
    with open(root / "urls.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("url", "text"))
        rows.writerows((f"http://127.0.0.1:{port}/{n % 8}.jpg", f"picture {n}") for n in range(samples))
    ray, size = ["--workers", "2"], ["--shard-size", str(max(samples // 12, 1))]
    return {
        "embed": mmfilter("embed", f"{root}/t.yaml", "--pool", str(pool), *ray, "--out"),
        "dedup": mmfilter("dedup", "--hamming", "4", *ray, "--out"),
        "reshard": mmfilter("reshard", str(subset), "--pool", str(pool), "--max-samples", "40", *ray, "--out"),
        "rank": mmfilter(*f"rank {subset} --pool {pool} --scale micro --seeds 2 --samples 256".split(), *ray, "--out"),
        "download": mmfilter("download", f"{root}/urls.csv", "--allow-private", *size, *ray, "--out"),
    }


def out_of(verb: str, root: Path, number: int) -> str:
    """A folder for one run of a verb; `dedup` works in a copy of the run."""
    out = root / f"{verb}-{number}"
    if verb == "dedup":
        subprocess.run(["cp", "-a", str(root / "run"), str(out)], check=True)
    return str(out)


def interrupted(command: list[str], out: str, name: str, moment: float, group: bool) -> Trial:
    """One run that gets its signal after `moment` seconds, and the run after it."""
    trial = Trial([*command, out], out, name, "", group)
    driver = trial.start()
    try:
        driver.wait(moment)
        trial.late = True
        driver.communicate()
    except subprocess.TimeoutExpired:
        started, at = descendants(driver.pid), time.monotonic()
        number = getattr(signal, name)
        os.killpg(driver.pid, number) if group else driver.send_signal(number)
        driver.communicate(timeout=60)
        trial.seconds = time.monotonic() - at
        trial.late = driver.returncode == 0
        if not trial.late:
            trial.judge(driver.returncode, started)
    again = subprocess.run([*command, out], capture_output=True, text=True)
    if again.returncode:
        trial.wrong.append(f"run again: exit code {again.returncode}: {again.stderr[-300:]}")
    return trial


def measure(verb: str, command: list[str], root: Path) -> tuple[str, bool]:
    """(a row of the table, whether all was right) of a verb."""
    at = time.monotonic()
    subprocess.run([*command, out_of(verb, root, 0)], check=True, capture_output=True)
    whole = time.monotonic() - at
    trials = []
    for name in SIGNALS:
        for number, part in enumerate(MOMENTS):
            out = out_of(verb, root, len(trials) + 1)
            trial = interrupted(command, out, name, part * whole, number % 2 == 1)
            trials.append(trial)
            state = "; ".join(trial.wrong) or ("had ended" if trial.late else "right")
            print(f"{verb} {name} at {part:.2f}: {trial.seconds:.1f} s, {state}", file=sys.stderr, flush=True)
    wrong, late = sum(bool(t.wrong) for t in trials), sum(t.late for t in trials)
    longest = max(t.seconds for t in trials)
    cells = (verb, f"{whole:.1f}", len(trials), len(trials) - wrong - late, wrong, late, f"{longest:.1f}")
    return f"| {' | '.join(map(str, cells))} |", not wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1200)
    parser.add_argument("--verb", action="append", help="only this one; repeatable")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        handler = functools.partial(Silent, directory=str(root / "images"))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        commands = prepare(root, options.samples, server.server_address[1])
        write_images(root / "images")
        rows = [measure(verb, commands[verb], root) for verb in options.verb or commands]
        server.shutdown()
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    print("\n".join(row for row, _ in rows))
    raise SystemExit(not all(right for _, right in rows))


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves the images, each after a moment, without a log."""

    def do_GET(self) -> None:
        time.sleep(0.02)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


def write_images(folder: Path) -> None:
    from PIL import Image

    for n in range(8):
        Image.new("RGB", (96, 80), (n * 30, 90, 200)).save(folder / f"{n}.jpg")


if __name__ == "__main__":
    main()
