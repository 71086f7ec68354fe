"""What a killed driver left half written in OUT: removed by folder and exact name, and nothing else.

`storage.open_atomic` writes NAME.8HEX.tmp and renames it. Only the folders that mmfilter makes in OUT are looked into,
not through links, and only for names that it writes. Folders of shards are swept by `reshard` itself.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress

HALF = r"\.[0-9a-f]{8}\.tmp"
ANY = r"[^/]+"
"""A shard's name: any."""
WRITTEN = {
    "": r"run\.json|\.progress|progress\.json|in-process|(report|compare|leaderboard|advice)\.html"
    r"|(compare|leaderboard|advice|rank|evaluate|train)\.json|eval_results\.jsonl"
    r"|open_clip_(config\.json|model\.safetensors)|bpe\.txt\.gz|recipe\.yaml|\d{8}(\.tar|\.parquet|_stats\.json)",
    "_lists": r"\d{8,}\.arrow|plan\.json",
    "metadata": rf"{ANY}\.(parquet|npz|json)",
    "failures": rf"{ANY}\.parquet",
    "attempts": rf"{ANY}\.json",
    "columns/*": rf"{ANY}\.parquet",
    "subsets": r"[\w-]+\.(npy|json|md)",
    "subsets/*": rf"{ANY}\.parquet",
    "schedules": r"[\w-]+\.schedule\.json",
    "schedules/*": r"epoch-\d{4,}\.npy",
    "pieces": rf"{ANY}\.\d{{4}}-\d{{4}}\.npz",
    "concepts/*": r"centroids\.npy|(concepts|hierarchy)\.json",
    "index/*": "current",
    "index/*/*": r"(knn|trained|part-\d{5,})\.faiss|part-\d{5,}\.npz|uids\.npy|index\.json",
    "overlap": rf"{ANY}\.parquet",
    "metaclip": rf"{ANY}\.parquet",
    "outcomes": rf"{ANY}\.(npy|json)",
    "start": r"model\.json|bpe\.txt\.gz",
}
"""Folder of OUT, `*` for each folder in one -> the names of files that are written there."""
MARKS = ("run.json", ".training", "rank.json", "evaluate.json", "train.json", "_lists/plan.json")
"""Any of these tells that OUT is a folder of mmfilter's."""
LOCKED_FIRST = re.compile(rf"(\.progress|run\.json|in-process){HALF}")
"""What a driver may leave that was killed before it wrote one of the marks."""


def sweep(out: str) -> None:
    """Remove the half-written files of a local OUT."""
    own = any(os.path.isfile(os.path.join(out, mark)) for mark in MARKS)
    for place, names in WRITTEN.items() if own else ():
        pattern = re.compile(rf"({names}){HALF}")
        for folder in _folders(out, place.split("/") if place else []):
            _remove(folder, pattern)
    _remove(out, LOCKED_FIRST)


def _folders(folder: str, parts: list[str]) -> Iterator[str]:
    """The folders that a place stands for; none behind a link."""
    if not parts:
        yield folder
        return
    for name in _names(folder) if parts[0] == "*" else [parts[0]]:
        inner = os.path.join(folder, name)
        if os.path.isdir(inner) and not os.path.islink(inner):
            yield from _folders(inner, parts[1:])


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _remove(folder: str, pattern: re.Pattern[str]) -> None:
    for name in filter(pattern.fullmatch, _names(folder)):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not os.path.islink(path):
            with suppress(FileNotFoundError):
                os.unlink(path)
