"""Every packaged recipe on a labelled pool: kept, precision, recall, by kind, seconds. Markdown tables.

    python benchmarks/all_recipes.py --folder /tmp/recipes                                        # a generated pool
    python benchmarks/all_recipes.py --folder /tmp/real --pool ../shared/data/pool \
        --labels ../shared/data/pool_labels.parquet --target ../shared/data/tasks/cifar10/test --model MODEL \
        --clean ../shared/data/clean

No pretrained weights are at hand here, so each recipe's models are `--model`; its rules and scores are as published
but for what is scaled to a pool of some thousands: clusters (one for 40 samples at most), MetaCLIP's entries (the
words of the pool's own captions that stand three times), image_based's centroids (100, trained on the pool). LAION's
head is for ViT-L/14's 768 numbers: in its place stands a linear head by least squares on pictures that are not the
pool's (500 other generated scenes, or `--clean`), of their colourfulness (Hasler and Susstrunk 2003) scaled to the
mean 5 and the deviation 1. Labels choose nothing.
"AP kind": average precision of the column that the recipe cuts at, true pairs against that kind.
"""

import argparse
import json
import os
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import yaml

from index.vectors import open_vectors
from jobs.cluster import Width
from jobs.demo import quality
from jobs.outdir import shard_paths
from jobs.run import RunOptions, run_recipe
from mmfilter.errors import MMFilterError
from mmfilter.pairs import Source
from mmfilter.recipe import load_recipe, packaged, parse_recipe
from mmfilter.synth import SynthOptions, generate
from mmfilter.table import open_table
from mmfilter.uids import format_uids

MODELS = ("b32", "l14", "dfn", "demo")


def scaled(node: Any, paths: dict[str, str], most: int) -> Any:
    """A recipe's part, with paths of ours and clusters that suit the pool."""
    if isinstance(node, list):
        return [scaled(item, paths, most) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: scaled(value, paths, most) for key, value in node.items()}
    for key in {"path", "entries", "file"} & set(found):
        found[key] = paths[found[key]]
    found.pop("sha256", None)
    if "synset" in found:
        found["synset"] = {"wordnet": paths["wordnet"]} if "wordnet" in paths else {}
    if "centroids" in found:
        found["k"] = min(100, most)
        del found["centroids"]
    if isinstance(found.get("k"), int):
        found["k"] = min(found["k"], most)
    if isinstance(found.get("levels"), list):
        levels = [level for level in found["levels"] if level < found.get("k", most)]
        found["levels"] = levels if len(levels) == len(found["levels"]) else [found["k"] // n for n in (2, 4, 8)]
    return found


def cut_at(node: Any) -> str | None:
    """The first column that a rule cuts from below."""
    if isinstance(node, list):
        return next(filter(None, map(cut_at, node)), None)
    if not isinstance(node, dict):
        return None
    if "score" in node and ("keep" in node or "min" in node):
        return str(node["score"])
    return next(filter(None, map(cut_at, node.values())), None)


def average_precision(score: np.ndarray, match: np.ndarray) -> float:
    """Mean over the true of the precision at their place; `score` (n,) highest first, NaN last; ties count together."""
    score = np.nan_to_num(score.astype(np.float64), nan=-np.inf)
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = np.cumsum(match[order])[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / max(match.sum(), 1))


def by_kind(out: str, column: str, labels: pl.DataFrame) -> dict[str, float]:
    """Kind that is no match -> AP of the true pairs against it."""
    table = open_table(out).read(["uid", column]).join(labels, on="uid")
    score, match, kind = table[column].cast(pl.Float64).to_numpy(), table["match"].to_numpy(), table["kind"].to_numpy()
    wrong = sorted(set(kind[~match].tolist()))
    return {
        name: round(average_precision(score[match | (kind == name)], match[match | (kind == name)]), 3)
        for name in wrong
    }


def entries(out: str, path: str) -> None:
    counts = Counter(
        word for text in open_table(out).read(["text"])["text"].to_list() for word in set((text or "").split())
    )
    with open(path, "w", encoding="utf-8") as file:
        json.dump(sorted(word for word, n in counts.items() if n > 2), file, ensure_ascii=False)


def head(clean: str, model: str, folder: str) -> str:
    """A linear head of the pictures' colourfulness over the model's embeddings, as .npz; its path."""
    out, paths = os.path.join(folder, "clean"), shard_paths([clean])
    recipe = parse_recipe(yaml.safe_dump({"name": "clean", "embed": {"demo": {"model": model}}}), "clean")
    run_recipe(recipe, paths, RunOptions(out, "all", Width(workers=1, gpus=0, local=True)))
    vectors = open_vectors(out, "demo")
    told = {pair.uid: colourfulness(pair.pixels) for pair in Source(paths, 64)}
    x = np.concatenate([vectors.take(np.arange(len(vectors))), np.ones((len(vectors), 1))], axis=1)
    y = np.array([told[uid] for uid in format_uids(vectors.all_uids())])
    weights = np.linalg.lstsq(x, 5 + (y - y.mean()) / y.std(), rcond=None)[0].astype(np.float32)
    path = os.path.join(folder, "colourfulness.npz")
    np.savez(path, **{"0.weight": weights[None, :-1], "0.bias": weights[-1:]})
    return path


def colourfulness(pixels: np.ndarray) -> float:
    """Hasler and Susstrunk 2003, of (h, w, 3)."""
    r, g, b = pixels.reshape(-1, 3).T.astype(float)
    sides = np.stack([r - g, (r + g) / 2 - b])
    return float(np.linalg.norm(sides.std(axis=1)) + 0.3 * np.linalg.norm(sides.mean(axis=1)))


def one(name: str, asked: argparse.Namespace, paths: dict[str, str], labels: pl.DataFrame) -> dict[str, Any]:
    source = dict(load_recipe(name).source)
    most = max(labels.height // 40, 4)
    source["embed"] = {short: {"model": asked.model} for short in source.get("embed", {})}
    for part in ("scores", "select"):
        if part in source:
            source[part] = scaled(source[part], paths, most)
    recipe = parse_recipe(json.dumps(source), f"recipe {name}")
    options = RunOptions(asked.out, name, Width(workers=asked.workers), redo=True, reshard=False)
    result = run_recipe(recipe, shard_paths([asked.pool]), options)
    found = quality(asked.labels, asked.out, name)
    column = cut_at(source.get("select"))
    return {
        "recipe": name,
        **{key: result["counts"][key] for key in ("kept", "dropped", "failed")},
        "precision": found["precision"],
        "recall": found["recall"],
        "seconds": round(sum(result["seconds"].values()), 1),
        "kinds": {row["kind"]: round(row["kept"] / row["in"], 3) for row in found["kinds"]},
        "column": column,
        "AP": by_kind(asked.out, column, labels) if column else {},
    }


def prepare(asked: argparse.Namespace) -> dict[str, str]:
    """Embed the pool by each short name once, so that a recipe's seconds are its own; paths that recipes ask for."""
    os.makedirs(asked.folder, exist_ok=True)
    if not asked.pool:
        asked.pool = os.path.join(asked.folder, "pool")
        asked.labels = f"{asked.pool}/labels/labels.parquet"
        if not os.path.isdir(asked.pool):
            generate(asked.pool, SynthOptions(samples=asked.samples, size=208, workers=asked.workers))
    scenes = os.path.join(asked.folder, "target")
    if not os.path.isdir(scenes):
        generate(scenes, SynthOptions(samples=500, seed=99, noise=False))
    asked.out = os.path.join(asked.folder, "out")
    source = {
        "name": "embeddings",
        "embed": {short: {"model": asked.model} for short in MODELS},
        "scores": ["language", "caption", "phash", "image_size"]
        + [{"clip_similarity": {"model": short}} for short in MODELS],
    }
    recipe = parse_recipe(yaml.safe_dump(source), "embeddings")
    run_recipe(recipe, shard_paths([asked.pool]), RunOptions(asked.out, "all", Width(workers=asked.workers)))
    words = os.path.join(asked.folder, "entries.json")
    entries(asked.out, words)
    target = os.path.abspath(asked.target or scenes)
    found = {"targets/images": target, "targets/imagenet1k": target, "metaclip/metadata.json": words}
    found["sa_0_4_vit_l_14_linear.pth"] = head(asked.clean or scenes, asked.model, asked.folder)
    return {**found, "wordnet": asked.wordnet} if asked.wordnet else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--pool", help="default: a generated one")
    parser.add_argument("--labels")
    parser.add_argument("--target", help="default: 500 other generated scenes")
    parser.add_argument("--clean", help="shards that the head learns from; default: 500 other generated scenes")
    parser.add_argument("--wordnet", help="a folder of WordNet 3.0, for text_based")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*")
    asked = parser.parse_args()
    asked.model = asked.model if asked.model == "demo" else os.path.abspath(asked.model)
    paths = prepare(asked)
    labels = pl.read_parquet(asked.labels, columns=["uid", "kind", "match"])
    rows = []
    for name in asked.only or packaged():
        try:
            rows.append(one(name, asked, paths, labels))
        except MMFilterError as error:
            rows.append({"recipe": name, "not run": str(error)[:200]})
        print(json.dumps(rows[-1]), flush=True)
    with open(os.path.join(asked.folder, "recipes.json"), "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
    table(rows)


def table(rows: list[dict[str, Any]]) -> None:
    """Markdown."""
    done = [row for row in rows if "kept" in row]
    kinds = sorted({kind for row in done for kind in row["kinds"]})
    print("\n| recipe | kept | precision | recall | seconds | " + " | ".join(kinds) + " |")
    print("|---" * (5 + len(kinds)) + "|")
    for row in done:
        shares = " | ".join(f"{row['kinds'].get(kind, 0):.2f}" for kind in kinds)
        numbers = f"{row['kept']:,} | {row['precision']:.3f} | {row['recall']:.3f} | {row['seconds']}"
        print(f"| `{row['recipe']}` | {numbers} | {shares} |")
    wrong = sorted({kind for row in done for kind in row["AP"]})
    print("\n| recipe | column | " + " | ".join(wrong) + " |")
    print("|---" * (2 + len(wrong)) + "|")
    for row in (row for row in done if row["AP"]):
        print(
            f"| `{row['recipe']}` | `{row['column']}` | "
            + " | ".join(f"{row['AP'][kind]:.2f}" for kind in wrong)
            + " |"
        )
    for row in (row for row in rows if "not run" in row):
        print(f"\n`{row['recipe']}` was not run: {row['not run']}")


if __name__ == "__main__":
    main()
