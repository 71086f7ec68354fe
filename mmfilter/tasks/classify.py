"""Zero-shot classification: the class whose description lies nearest to the image."""

from typing import Any

import numpy as np
from pydantic import Field

from ..metrics import classification, mean_average_precision, per_class_recall, ranks
from ..plugs import Task
from ..records import Failure
from ..results import TaskResult
from .embedding import blocks, embed_items, zero_shot
from .sets import BadLabel, EvalSet, Item, class_label, numbers, open_set, read_set


class SetTask(Task):
    """A task over a set in CLIP_benchmark's layout at `root`. `expected` is how many samples it should have (0: any).

    Samples that are expected and not there are counted as lost.
    """

    root: str
    split: str = "test"
    expected: int = Field(default=0, ge=0)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(open_set(self.root, self.split).files)

    def lost(self, samples: int, failures: list[Failure]) -> list[Failure]:
        """`failures`, and one more for each sample that nothing is known of."""
        gone = max(self.expected - samples - len(failures), 0) if self.expected else 0
        why = f"the set has {self.expected:,} samples, the tars hold {samples + len(failures):,}"
        return failures + [Failure("", "", "lost", why)] * gone

    def result(self, metrics: dict[str, float], outcomes: Any, samples: int, failures: list[Failure]) -> TaskResult:
        """With the main metric named, and what was lost counted."""
        main = metrics.get(self.main_metric or "", float("nan"))
        gone = tuple(self.lost(samples, failures))
        return TaskResult(self.key, self.dataset, {**metrics, "main_metric": main}, outcomes, samples, gone)


class Classification(SetTask):
    """Main metric acc1, or mean_per_class_recall. Outcomes: right or wrong, for the latter weighted by class."""

    main_metric: str | None = "acc1"

    def run(self, embedder: Any) -> TaskResult:
        """acc1, acc5 (from five classes up), mean_per_class_recall. Raises DataError."""
        found = open_set(self.root, self.split)
        failures: list[Failure] = []
        scores, target = self.scores(embedder, found, failures)
        correct = (ranks(scores, target) == 0).astype(np.float64)
        parts = {"acc1": correct, "mean_per_class_recall": per_class_recall(correct, target)}
        outcomes = parts.get(self.main_metric or "")
        return self.result(classification(scores, target), outcomes, len(target), failures)

    def scores(self, embedder: Any, found: EvalSet, failures: list[Failure]) -> tuple[np.ndarray, np.ndarray]:
        """(similarities float32 (n, classes), labels (n,))."""
        found.need_classes()
        classifier = zero_shot(embedder, found.classnames, found.templates)

        def label(item: Item) -> int:
            return class_label(item.parts["cls"], len(found.classnames))

        rows, labels = embed_items(embedder, read_set(found, ("cls",)), label, failures)
        return np.concatenate([block for _, block in blocks(rows, classifier)]), np.array(labels)


class Multilabel(SetTask):
    """Main metric mean_average_precision: images that hold several of the classes. No outcomes."""

    main_metric: str | None = "mean_average_precision"

    def run(self, embedder: Any) -> TaskResult:
        """mean_average_precision over the classes. Raises DataError."""
        found = open_set(self.root, self.split)
        found.need_classes()
        classifier = zero_shot(embedder, found.classnames, found.templates)
        failures: list[Failure] = []

        def label(item: Item) -> np.ndarray:
            held = numbers(item.parts["npy"], len(found.classnames))
            if not np.isin(held, (0, 1)).all():
                raise BadLabel("label_malformed", "npy holds numbers that are neither 0 nor 1")
            return held.astype(bool)

        rows, labels = embed_items(embedder, read_set(found, ("npy",)), label, failures)
        scores = np.concatenate([block for _, block in blocks(rows, classifier)])
        metrics = {"mean_average_precision": mean_average_precision(scores, np.stack(labels))}
        return self.result(metrics, None, len(labels), failures)
