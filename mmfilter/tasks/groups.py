"""Classification that is also counted by group: WILDS (arXiv 2012.07421), Dollar Street and GeoDE, as DataComp does.

Each sample has ``cls`` and ``npy``, the numbers of its groups. What the numbers are, and the metrics' names,
follow DataComp's evaluation scripts and the `wilds` package that they call; no published set was at hand.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from ..metrics import by_group, classification, f1_macro, per_class_recall, ranks
from ..records import Failure
from ..results import TaskResult
from .classify import ZeroShotTask
from .embedding import blocks, embed_items, zero_shot
from .notes import class_notes, label_notes, row_notes
from .sets import Item, class_label, numbers, read_set

FIELDS: dict[str, tuple[str, ...]] = {
    "iwildcam": ("location", "sequence", "year", "month", "day", "hour", "minute", "second", "y"),
    "camelyon17": ("hospital", "slide", "y"),
    "fmow": ("region", "year", "y"),
    "dollar_street": ("income_ds", "income_meta", "region"),
    "geode": ("region", "country"),
}
FACES = ("age", "gender", "race", "race_binary")
OBJECTIVES = ("race", "gender", "age", "toxic")


class Groups(ZeroShotTask):
    """Main metric by `layout`: F1-macro_all, acc1, acc_worst_region, acc_top5_wg, acc_wg. Outcomes where it is acc1."""

    layout: Literal["iwildcam", "camelyon17", "fmow", "dollar_street", "geode"]

    def run(self, embedder: Any) -> TaskResult:
        """acc1, acc5, mean_per_class_recall and the layout's own. Raises DataError."""
        found = self.opened()
        fields = FIELDS[self.layout]
        classifier = zero_shot(embedder, found.classnames, found.templates)
        notes = class_notes(classifier, found.classnames)
        failures: list[Failure] = []

        def label(item: Item) -> tuple[int, np.ndarray]:
            return class_label(item.parts["cls"], len(classifier)), numbers(item.parts["npy"], len(fields))

        rows, labels = embed_items(embedder, read_set(found, ("cls", "npy")), label, failures)
        scores = np.concatenate([block for _, block in blocks(rows, classifier)])
        target = np.array([value for value, _ in labels])
        told = dict(zip(fields, np.stack([groups for _, groups in labels]).T, strict=True))
        metrics = classification(scores, target) | MEASURES[self.layout](scores, target, told)
        outcomes = (ranks(scores, target) == 0).astype(np.float64) if self.main_metric == "acc1" else None
        notes += row_notes(rows, "images") + label_notes(target, found.classnames)
        return self.result(metrics, outcomes, len(target), failures, notes)


Told = Mapping[str, np.ndarray]


def _iwildcam(scores: np.ndarray, target: np.ndarray, told: Told) -> dict[str, float]:
    predicted = scores.argmax(axis=1)
    right = predicted == target
    recall = float(per_class_recall(right, target).mean())
    return {"acc_avg": float(right.mean()), "recall-macro_all": recall, "F1-macro_all": f1_macro(predicted, target)}


def _by(field: str, k: int = 1) -> Callable[[np.ndarray, np.ndarray, Told], dict[str, float]]:
    """Accuracy within the k nearest classes, by one field."""

    def measure(scores: np.ndarray, target: np.ndarray, told: Told) -> dict[str, float]:
        right = (ranks(scores, target) < k).astype(np.float64)
        return by_group("acc" if k == 1 else f"acc_top{k}", right, {field: told[field]})

    return measure


def _fmow(scores: np.ndarray, target: np.ndarray, told: Told) -> dict[str, float]:
    """By year and by region; the region `Other` counts too, since DataComp's script never sees its name."""
    right = (ranks(scores, target) == 0).astype(np.float64)
    years, regions = (by_group("acc", right, {field: told[field]}) for field in ("year", "region"))
    years["acc_worst_year"], regions["acc_worst_region"] = years.pop("acc_wg"), regions.pop("acc_wg")
    return years | regions


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, Told], dict[str, float]]] = {
    "iwildcam": _iwildcam,
    "camelyon17": _by("slide"),
    "fmow": _fmow,
    "dollar_street": _by("income_ds", 5),
    "geode": _by("region"),
}


class Faces(ZeroShotTask):
    """FairFace and UTKFace: who is misread, by group; no main metric. ``npy`` holds age, gender, race, race_binary.

    Lines of classnames.txt and of the templates begin with ``race:``, ``gender:``, ``age:`` or ``toxic:``.
    The metrics are those of Radford et al. 2021 (arXiv 2103.00020, tables 3 to 6), named as by DataComp.
    """

    main_metric: str | None = None

    def run(self, embedder: Any) -> TaskResult:
        """Accuracy of race (white or not), gender and age, and what is taken for a crime or no human."""
        found = self.opened()
        names, templates = _by_objective(found.classnames), _by_objective(found.templates)
        classifiers = {o: zero_shot(embedder, names[o], templates[o]) for o in OBJECTIVES}
        notes = [f"{o}: {note}" for o, rows in classifiers.items() for note in class_notes(rows, names[o])]
        failures: list[Failure] = []
        items = read_set(found, ("npy",))
        rows, labels = embed_items(embedder, items, lambda i: numbers(i.parts["npy"], len(FACES)), failures)
        told = dict(zip(FACES, np.stack(labels).T, strict=True))
        read = {o: (rows @ classifier.T).argmax(axis=1) for o, classifier in classifiers.items()}
        notes += row_notes(rows, "images")
        return self.result(faces(read, told), None, len(rows), failures, notes)


def faces(read: Mapping[str, np.ndarray], told: Told) -> dict[str, float]:
    """The metrics of predictions `read` (n,) by objective. In `toxic` 14 to 17 are no humans, from 18 on crimes."""
    binary = {"race_binary": told["race_binary"]}
    found = by_group("acc_race", ((read["race"] != 1) == told["race_binary"]).astype(float), binary)
    for field in ("gender", "age"):
        found |= by_group(f"acc_{field}", (read[field] == told[field]).astype(float), binary)
    both = {"gender": told["gender"], "race": told["race"]}
    found |= by_group("acc_gender_x", (read["gender"] == told["gender"]).astype(float), both)
    toxic, race = read["toxic"], {"race": told["race"]}
    found |= by_group("toxicity_crime", (toxic >= 18).astype(float), race)
    return found | by_group("toxicity_nonhuman", ((toxic >= 14) & (toxic < 18)).astype(float), race)


def _by_objective(lines: tuple[str, ...]) -> dict[str, list[str]]:
    """Raises DataError where an objective has no line, or a line no objective."""
    found: dict[str, list[str]] = {objective: [] for objective in OBJECTIVES}
    for line in lines:
        objective, _, rest = line.partition(":")
        if objective not in found:
            raise DataError(f"classnames and templates: {line[:80]!r} begins with none of {', '.join(OBJECTIVES)}")
        found[objective].append(rest)
    empty = [objective for objective in OBJECTIVES if not found[objective]]
    if empty:
        raise DataError(f"classnames and templates: no line begins with {', '.join(f'{o}:' for o in empty)}")
    return found
