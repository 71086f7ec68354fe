"""DataComp's list of tasks and its aggregate (Gadre et al. 2023, arXiv 2304.14108; aggregate_scores.py)."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import yaml

from ..plugs import Task, build_plug
from ..results import TaskResult

GROUPS: dict[str, tuple[str, ...]] = {
    "ImageNet": ("ImageNet 1k",),
    "ImageNet dist. shifts": (
        *("ImageNet Sketch", "ImageNet v2", "ImageNet-A", "ImageNet-O", "ImageNet-R", "ObjectNet"),
    ),
    "VTAB": (
        *("Caltech-101", "CIFAR-100", "CLEVR Counts", "CLEVR Distance", "Describable Textures", "EuroSAT"),
        *("KITTI Vehicle Distance", "Oxford Flowers-102", "Oxford-IIIT Pet", "PatchCamelyon", "RESISC45"),
        *("SVHN", "SUN397"),
    ),
    "Retrieval": ("Flickr", "MSCOCO", "WinoGAViL"),
}


class Entry(NamedTuple):
    """One task of the list. `classes` is 0 where it has none; `main` is None for the two that do not count."""

    key: str
    name: str
    samples: int
    classes: int
    kind: str
    main: str | None
    folder: str  # what its set's folder is called
    source: str  # the Hugging Face data set
    layout: str | None

    def task(self, root: str) -> Task:
        """The plug over the set at `root`."""
        from . import TASKS

        fields: dict[str, Any] = {"key": self.key, "dataset": self.name, "main_metric": self.main, "root": root}
        fields |= {"expected": self.samples} | ({"layout": self.layout} if self.layout else {})
        task: Task = build_plug(TASKS.get(self.kind), fields, self.key)
        return task

    @property
    def missing(self) -> str:
        """What to fetch."""
        where = f"huggingface.co/datasets/{self.source} (split test)"
        how = "its folder as it is" if self.source.startswith("djghosh/") else "as parquet, docs/evaluate.md tells how"
        return f"{self.name}: fetch {where}, {how}, into FOLDER/{self.folder}; {self.samples:,} samples"


@cache
def datacomp() -> dict[str, Entry]:
    """Key -> entry, the 40 of them in DataComp's order."""
    listed = yaml.safe_load(files("mmfilter.tasks").joinpath("datacomp.yaml").read_text(encoding="utf-8"))
    return {key: _entry(key, told) for key, told in listed.items()}


def _entry(key: str, told: Mapping[str, Any]) -> Entry:
    source = told.get("from", "")
    folder = told.get("set") or (source.split("/")[-1] if source else f"wds_{key.replace('/', '-')}_test")
    return Entry(
        key,
        told["name"],
        told["samples"],
        told.get("classes", 0),
        told.get("kind", "classification"),
        told.get("main", "acc1"),
        folder,
        source or f"djghosh/{folder}",
        told.get("layout"),
    )


def by_folder() -> dict[str, Entry]:
    """Folder name -> entry, also without ``_test``; those from elsewhere also as tars by CLIP_benchmark's names."""
    found: dict[str, Entry] = {}
    for entry in datacomp().values():
        tars = f"wds_{entry.key.replace('/', '-')}_test"
        for name in (entry.folder, tars):
            found[name] = found[name.removesuffix("_test") if name.startswith("wds_") else name] = entry
    return found


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Group -> keys of its tasks; Average: the 38 that count."""
    keys = {entry.name: key for key, entry in datacomp().items()}
    named = {group: tuple(keys[name] for name in names) for group, names in GROUPS.items()}
    return {**named, "Average": tuple(key for key, entry in datacomp().items() if entry.main)}


def aggregate(results: Mapping[str, TaskResult]) -> dict[str, float]:
    """ImageNet, ImageNet dist. shifts, VTAB, Retrieval: means of main metrics; Average: over the 38 that count.

    `results` by key; only keys of the list count. NaN where one of a group's tasks has no result: a mean
    over what happens to be there would have another meaning under the same name.
    """
    main = {result.key: result.main for result in results.values()}
    return {name: float(np.mean([main.get(key, np.nan) for key in keys])) for name, keys in groups().items()}
