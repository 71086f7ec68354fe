"""Reading tars: webdataset, the standard library's tarfile, and ours, on one core and the same bytes.

    python benchmarks/bench_read.py [--pool FOLDER] [--samples 3000] [--kb 111] [--repeat 5]

Every way yields each sample's raw image, caption and json once, undecoded; ours also groups, checks the
uid and parses the json, as its samples need. Tars are in the page cache; the best of --repeat rounds counts.
"""

import argparse
import glob
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable

from bench_reshard import generate

from mmfilter.records import Sample
from mmfilter.samples import read_samples
from mmfilter.tar import members


def by_webdataset(paths: list[str]) -> int:
    import webdataset

    return sum(1 for _ in webdataset.WebDataset(paths, shardshuffle=False))


def by_tarfile(paths: list[str]) -> int:
    count = 0
    for path in paths:
        with tarfile.open(path) as file:
            for entry in file:
                stream = file.extractfile(entry)
                count += stream is not None and len(stream.read()) >= 0
    return count // 3


def by_members(paths: list[str]) -> int:
    count = 0
    for path in paths:
        with open(path, "rb") as stream:
            count += sum(1 for _ in members(stream))
    return count // 3


def by_samples(paths: list[str]) -> int:
    return sum(isinstance(sample, Sample) for path in paths for sample in read_samples(path))


WAYS: dict[str, Callable[[list[str]], int]] = {
    "webdataset": by_webdataset,
    "tarfile (members only)": by_tarfile,
    "mmfilter.tar (members only)": by_members,
    "mmfilter.samples": by_samples,
}


def rates(paths: list[str], samples: int, repeat: int) -> dict[str, float]:
    """Samples a second of each way, the rounds interleaved."""
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(repeat):
        for name, way in WAYS.items():
            started = time.perf_counter()
            found = way(paths)
            best[name] = min(best[name], time.perf_counter() - started)
            assert found == samples, f"{name} read {found} of {samples} samples"
    return {name: samples / seconds for name, seconds in best.items()}


def show(title: str, found: dict[str, float]) -> None:
    print(f"\n{title}\n{'':<30}{'samples/s':>12}{'x webdataset':>14}")
    for name, rate in found.items():
        print(f"{name:<30}{rate:>12,.0f}{rate / found['webdataset']:>14.2f}")


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", help="also on the tars of this folder")
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--kb", type=float, default=111)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", help="write the figures here")
    args = parser.parse_args(list(words) if words is not None else None)
    figures = {}
    with tempfile.TemporaryDirectory() as root:
        paths = generate(f"{root}/pool", args.samples, args.kb)
        figures[f"{args.kb:g} kB a sample"] = rates(paths, args.samples, args.repeat)
    if args.pool:
        paths = sorted(glob.glob(f"{args.pool}/*.tar"))
        figures[args.pool] = rates(paths, by_samples(paths), args.repeat)
    for title, found in figures.items():
        show(title, found)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
