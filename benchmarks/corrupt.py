"""Every kind of file of a run damaged in every way, and every verb on it: no effect, named, or done again.

    python benchmarks/corrupt.py [--seeds 3] [--only npz commit] [--verbs select report] [--damages deleted older]
    python benchmarks/corrupt.py --repair              # after each damage `verify --repair`, against the sound bytes
    python benchmarks/corrupt.py --kills [--only embed]  # a verb is killed at each rename, link and removal

One folder is made (tests/damage.py), with everything a run may hold. For each damage a fresh copy is damaged, and the
verb runs in this process. A verdict is by comparison with the same verb on the sound folder: the exit code, what it
printed and every file that it wrote. SILENT is the same exit code with another result, TRACEBACK an exception that no
verb may raise, "unnamed" another exit code whose sentence names neither the file nor its shard. The exit code is 1
where one of these is met that tests/damage.py does not list as known.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]

import damage as d  # noqa: E402
import damage_files as f  # noqa: E402

BAD = (f.UNNAMED, f.SILENT, f.TRACEBACK)


def kind_of(damage: str) -> str:
    """`truncated to 17` is of the kind `truncated`."""
    return next(
        kind
        for kind in ("truncated", "emptied", "deleted", "flipped", "appended", "of another", "older")
        if damage.startswith(kind)
    )


def corrupt(sample: d.Sample, args: argparse.Namespace) -> bool:
    """Each damage and each verb; whether nothing unknown was bad."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    well = True
    for kind, damage, data in damages(sample, args):
        for verb in args.verbs or (f.VERBS if args.all_verbs else d.verbs(kind)):
            verdict, outcome = d.verdict(sample, kind, data, verb)
            known = d.known(kind, damage, verb) if verdict in BAD else ""
            counts[kind, kind_of(damage)][f"known {verdict}" if known else verdict] += 1
            if verdict in BAD:
                well &= bool(known)
                why = known or d.shown(sample, verb, outcome)
                print(f"{verdict}: {kind}, {damage}: {verb}: {why}", flush=True)
    table(counts, f.VERDICTS)
    return well


def damages(sample: d.Sample, args: argparse.Namespace) -> Iterator[tuple[str, str, bytes | None]]:
    """(kind of file, damage, bytes afterwards); what does not hang on the seed comes once."""
    for kind in args.only or f.ARTEFACTS:
        for seed in range(args.seed, args.seed + args.seeds):
            for damage, data in d.damages(sample, kind, seed, args.count):
                drawn = kind_of(damage) in ("truncated", "flipped", "appended")
                if (drawn or seed == args.seed) and (not args.damages or kind_of(damage) in args.damages):
                    yield kind, damage, data


def repair(sample: d.Sample, args: argparse.Namespace) -> bool:
    """`verify --deep --repair` after each damage: whether each ends with the sound bytes or lists what it cannot."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    well = True
    for kind, damage, data in damages(sample, args):
        verdict, outcome = d.repaired(sample, kind, data)
        counts[kind, kind_of(damage)][verdict] += 1
        if verdict not in (f.NO_EFFECT, f.REPAIRED):
            well &= verdict in (f.LISTED, f.NOT_VOUCHED_FOR)
            print(f"{verdict}: {kind}, {damage}: {outcome.error or outcome.text[:1200]!r}", flush=True)
    table(counts, f.REPAIRS)
    return well


def kill(sample: d.Sample, args: argparse.Namespace) -> bool:
    """Each verb killed at each `--every`-th change of a name."""
    from kills import KILLS, Killer

    killer, well = Killer(sample), True
    print("| killed | changes of names | kills | wrong |\n|---|---|---|---|", flush=True)
    for verb in args.only or KILLS:
        made = killer.undisturbed(verb)
        points = range(1, made + 1, args.every)
        wrong = [line for at in points for line in killer.kill(verb, at)]
        well &= not wrong
        print(f"| {verb} | {made} | {len(points)} | {len(wrong)} |", *wrong, sep="\n", flush=True)
    killer.close()
    return well


def table(counts: dict[tuple[str, str], Counter[str]], columns: tuple[str, ...]) -> None:
    """A row for each kind of file and of damage, and the totals."""
    verdicts = [*columns, *sorted({v for c in counts.values() for v in c} - set(columns))]
    print("| file | damage | " + " | ".join(verdicts) + " |\n|---|---|" + "---|" * len(verdicts))
    totals: Counter[str] = Counter()
    for (kind, damage), found in counts.items():
        totals += found
        print(f"| {kind} | {damage} | " + " | ".join(f"{found[v]:,}" for v in verdicts) + " |")
    print("| all | | " + " | ".join(f"{totals[v]:,}" for v in verdicts) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="times that cuts, flips and appended bytes are drawn")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--count", type=int, default=3, help="cuts and flips of a file, by each seed")
    parser.add_argument("--only", nargs="*", help="kinds of files")
    parser.add_argument("--verbs", nargs="*", choices=[*f.VERBS])
    parser.add_argument("--repair", action="store_true", help="what `verify --repair` makes of each damage")
    parser.add_argument("--kills", action="store_true", help="verbs killed at changes of names")
    parser.add_argument("--every", type=int, default=1, help="--kills: at each so many-th change")
    parser.add_argument("--all-verbs", action="store_true", help="also those that have nothing to do with the file")
    parser.add_argument("--damages", nargs="*", help="kinds of damage")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        sample, began = d.Sample(Path(home)), time.monotonic()
        well = (kill if args.kills else repair if args.repair else corrupt)(sample, args)
        print(f"{time.monotonic() - began:,.0f} s")
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
