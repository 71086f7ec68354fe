"""Small pools of metadata, as DataComp writes them, for the tests of rules and select."""

import json
import os
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmfilter.plugs import Rule
from mmfilter.rules import build_rule
from mmfilter.select import Selection, SelectOptions, select
from mmfilter.table import open_table


def make_uids(n: int, seed: int = 0) -> list[str]:
    """n different uids, in no order."""
    return [bytes(row).hex() for row in np.random.default_rng(seed).integers(0, 256, (n, 16), dtype=np.uint8)]


def write_pool(folder: Any, shards: list[dict[str, Any]]) -> str:
    """One parquet file a shard: 00000000.parquet, ... Returns the folder."""
    os.makedirs(folder, exist_ok=True)
    for i, columns in enumerate(shards):
        pq.write_table(pa.table(columns), f"{folder}/{i:08d}.parquet")
    return str(folder)


def split(columns: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """The rows of a pool over so many shards of uneven size."""
    n = len(columns["uid"])
    cuts = [n * i * i // (parts * parts) for i in range(parts + 1)]
    return [{name: values[a:b] for name, values in columns.items()} for a, b in pairwise(cuts)]


def run(out: Any, node: Any, metadata: str | None = None, decisions: bool = True) -> Selection:
    """Select by a recipe's `select` node, as the subset `s`."""
    rule: Rule = build_rule(node, "recipe t.yaml: select")
    options = SelectOptions(str(out), "s", "recipe t.yaml: select", {"select": node}, decisions)
    return select(open_table(str(out), metadata), rule, options)


def kept(selection: Selection) -> list[str]:
    """The subset's uids, read without the project's own reader."""
    return [f"{hi:016x}{lo:016x}" for hi, lo in np.load(selection.path).tolist()]


def record(selection: Selection) -> dict[str, Any]:
    with open(selection.path.removesuffix("npy") + "json") as file:
        return dict(json.load(file))
