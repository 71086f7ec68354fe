"""The sections of a data card; whatever came from the pool or a recipe is told as text and never obeyed."""

import shlex
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from . import storage
from .card_facts import Facts
from .composition import QUANTILES
from .markdown import block, code, plain, table
from .provenance import fingerprint
from .report.origin import derived

HASH = 16  # digits of a fingerprint that are shown


def sections(facts: Facts) -> list[str]:
    """Each begins with its heading."""
    parts = [_summary, _origin, _removed, _composition, _models, _limits, _again]
    return [text for part in parts if (text := part(facts))]


def _summary(facts: Facts) -> str:
    counts = facts.record["counts"]
    whole = counts.get("in") or counts["kept"]
    share = f" ({counts['kept'] / whole:.1%})" if whole else ""
    more = int(facts.record.get("copies") or 0)
    copies = f", some of them repeated, {counts['kept'] + more:,} with copies" if more else ""
    lines = [
        f"{counts['kept']:,}{share} of {whole:,} image-text pairs{copies}, chosen by mmfilter. It is a list of uids: "
        f"{code(f'subsets/{facts.name}.npy')} (sha256 {code(facts.sha256)}), dtype `u8,u8`, sorted."
    ]
    told = _recipe(facts.record)
    lines += [f"Note: {code(note)}" for note in facts.notes]
    lines += [f"{head}: {plain(told[key])}" for key, head in (("about", "Recipe"), ("paper", "Paper")) if told.get(key)]
    return "\n\n".join(lines)


def _recipe(source: dict[str, Any]) -> dict[str, Any]:
    recipe = source.get("recipe")
    return recipe if isinstance(recipe, dict) else {}


def _origin(facts: Facts) -> str:
    paths = [str(path) for path in facts.run.get("pool") or []]
    paths = paths or [str(c["path"]) for c in facts.commits.values() if c.get("path")]
    inputs = {stem: commit.get("input") or {} for stem, commit in sorted(facts.commits.items())}
    size = sum(int(given.get("bytes") or 0) for given in inputs.values())
    rows = []
    if paths:
        rows.append(
            ("Shards", f"{len(paths):,}: {code(paths[0])}" + (f" to {code(paths[-1])}" if len(paths) > 1 else ""))
        )
    if others := facts.run.get("left_out"):
        rows.append(("Left out", f"{len(others):,} shards in the run's folder that are not of its pool"))
    if inputs:
        rows.append(("Identity of the shards", f"{size:,} bytes, fingerprint {code(fingerprint(inputs)[:HASH])}"))
    if made := derived(facts.run):
        rows.append(("Uids", made))
    counts = facts.record["counts"]
    rows += [(name, f"{counts[name]:,}") for name in ("in", "kept", "dropped", "failed") if name in counts]
    return "## Where it came from\n\n" + table(["Pool", ""], rows)


def _removed(facts: Facts) -> str:
    steps, failed = facts.record["steps"], facts.record.get("failed") or {}
    lines = ["## What was removed"]
    if steps:
        lines.append("Each rule sees what the ones above it left; *alone* is what it would drop of the whole pool.")
        rows = []
        for step in steps:
            numbers = [int(step.get(key) or 0) for key in ("in", "dropped", "alone")]
            rows.append((code(step["path"]), code(step.get("text", "")), *(f"{n:,}" for n in numbers)))
        lines.append(table(["Rule", "What it asks", "In", "Dropped", "Alone"], rows))
    else:
        lines.append("No rule: every sample that could be read is kept.")
    if failed:
        lines.append(
            table(["Failed before any rule", "Samples"], ((code(k), f"{n:,}") for k, n in sorted(failed.items())))
        )
    return "\n\n".join(lines)


def _composition(facts: Facts) -> str:
    made = facts.composition
    whole = made["samples"]
    lines = ["## What it is made of"]
    for key, head in (("languages", "Language"), ("sides", "Shorter side of the image")):
        if made.get(key):
            told = code if key == "languages" else plain
            lines.append(table([head, "Pool", "Subset"], _counted(made[key], whole, told)))
    if made["scores"]:
        heads = ["Score", "Of", "Mean", *(f"{q:.0%}" for q in QUANTILES), "Missing"]
        lines.append(table(heads, _scores(made["scores"])))
    if "concepts" in made:
        rows = [
            (name, f"{c['hit']:,}", f"{c['entropy']:.4g}", f"{c['effective']:.4g}")
            for name, c in made["concepts"].items()
        ]
        lines.append(table(["Concepts", "Clusters hit", "Entropy, nats", "Effective clusters"], rows))
    if facts.concepts:
        largest = [(code(label), f"{pool:,}", f"{subset:,}") for label, pool, subset in facts.concepts]
        lines.append(table(["Largest concepts", "Pool", "Subset"], largest))
    return "\n\n".join(lines) if len(lines) > 1 else ""


def _counted(
    rows: Iterable[dict[str, Any]], whole: dict[str, int], told: Callable[[object], str]
) -> list[tuple[str, ...]]:
    return [(told(row["value"]), *(_part(n, whole[name]) for name, n in row["counts"].items())) for row in rows]


def _part(n: int, whole: int) -> str:
    return f"{n:,} ({n / whole:.1%})" if whole else "0"


def _scores(scores: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, ...]]:
    return [
        (code(column), name, *(_number(v) for v in (row["mean"], *row["quantiles"])), f"{row['missing']:,}")
        for column, sets in scores.items()
        for name, row in sets.items()
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _models(facts: Facts) -> str:
    """By short name: what the commits say of it; shards that differ have a row each."""
    rows: dict[tuple[str, ...], int] = {}
    for commit in facts.commits.values():
        for name, model in sorted((commit.get("models") or {}).items()):
            weights = model.get("sha256") or model.get("weights_sha256") or ""
            source = "/".join(str(model[key]) for key in ("model", "pretrained") if model.get(key))
            row = (code(name), code(source), code(weights), code(model.get("preprocessing", "")))
            rows[row] = rows.get(row, 0) + 1
    if not rows:
        return ""
    heads = ["Model", "What it is", "sha256 of the weights", "Preprocessing", "Shards"]
    return "## Models\n\n" + table(heads, ((*row, f"{n:,}") for row, n in sorted(rows.items())))


def _limits(facts: Facts) -> str:
    used = {str(column) for step in facts.record["steps"] for column in step.get("columns") or ()}
    failed = int(facts.record["counts"].get("failed") or 0)
    told = {
        "Rights in the images and captions are their owners'; nobody has cleared them here, and the license above is "
        "of the list of uids at most.": True,
        "Duplicates were not removed.": "duplicate_of" not in used,
        "It was not decontaminated: it may hold images of evaluation sets.": "overlap_of" not in used,
        "Languages are a detector's guess, which errs on short captions.": "language" in used,
        "A similarity has its model's own preferences: what the model knows badly is dropped more often.": any(
            "similarity" in column for column in used
        ),
        f"{failed:,} samples of the pool could not be read or scored and are not in it.": failed,
        "No filter for harmful content or personal data was applied, unless a rule above says so.": True,
    }
    return "## Known limits\n\n" + "\n".join(f"- {line}" for line, holds in told.items() if holds)


def _again(facts: Facts) -> str:
    lines = ["## How to make it again"]
    recipe, first = _recipe(facts.record), _recipe(facts.run)
    pool = (
        " ".join(f"--pool {shlex.quote(storage.join(folder, '*.tar'))}" for folder in _folders(facts)) or "--pool POOL"
    )
    to = f"--out runs/{facts.name}"
    if first and first != recipe:
        lines += _saved(first, "pool.yaml", f"mmfilter run pool.yaml {pool} {to}")
        lines += _saved(recipe, "recipe.yaml", f"mmfilter select recipe.yaml {to} --name {facts.name}")
    elif recipe:
        lines += _saved(recipe, "recipe.yaml", f"mmfilter run recipe.yaml {pool} {to} --name {facts.name}")
    versions: dict[str, set[str]] = {}
    for source in [facts.record, *facts.commits.values()]:
        for name, version in (source.get("versions") or {}).items():
            versions.setdefault(str(name), set()).add(str(version))
    if versions:
        lines.append("The same shards, weights and versions give the same uids.")
        rows = ((code(name), code(", ".join(sorted(found)))) for name, found in sorted(versions.items()))
        lines.append(table(["Package", "Version"], rows))
    return "\n\n".join(lines) if len(lines) > 1 else ""


def _folders(facts: Facts) -> list[str]:
    return sorted({str(path).rpartition("/")[0] or "." for path in facts.run.get("pool") or []})


def _saved(recipe: dict[str, Any], name: str, command: str) -> list[str]:
    """A recipe as a file to save, and the command that takes it."""
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
    return [f"Save this as {code(name)}:", block(text, "yaml"), block(command, "sh")]
