"""Zero-shot classification: the class whose description lies nearest to the image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from ..errors import DataError
from ..metrics import classification, mean_average_precision, per_class_recall, ranks
from ..plugs import Task
from ..records import Failure
from ..results import TaskResult
from .embedding import blocks, embed_items, zero_shot
from .notes import class_notes, label_notes, row_notes
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

    def result(
        self,
        metrics: dict[str, float],
        outcomes: Any,
        samples: int,
        failures: list[Failure],
        notes: Sequence[str] = (),
    ) -> TaskResult:
        """With the main metric named, what was lost counted, and a note where there are more samples than expected."""
        main = metrics.get(self.main_metric or "", float("nan"))
        gone = tuple(self.lost(samples, failures))
        if self.expected and samples > self.expected:
            notes = [*notes, f"the set should have {self.expected:,} samples, and {samples:,} were measured"]
        metrics = {**metrics, "main_metric": main}
        return TaskResult(self.key, self.dataset, metrics, outcomes, samples, gone, tuple(notes))


class ZeroShotTask(SetTask):
    """One whose classes are told apart by their names in templates."""

    def opened(self) -> EvalSet:
        """The set's text files, from which a classifier can be made. Raises DataError."""
        found = open_set(self.root, self.split)
        found.need_classes()
        return found


class Classification(ZeroShotTask):
    """Main metric acc1, or mean_per_class_recall. Outcomes: right or wrong, for the latter weighted by class."""

    main_metric: str | None = "acc1"

    def run(self, embedder: Any) -> TaskResult:
        """acc1, acc5 (from five classes up), mean_per_class_recall. Raises DataError."""
        found = self.opened()
        classifier = zero_shot(embedder, found.classnames, found.templates)
        notes = class_notes(classifier, found.classnames)
        failures: list[Failure] = []

        def label(item: Item) -> int:
            return class_label(item.parts["cls"], len(found.classnames))

        rows, labels = embed_items(embedder, read_set(found, ("cls",)), label, failures)
        scores = np.concatenate([block for _, block in blocks(rows, classifier)])
        target = np.array(labels)
        correct = (ranks(scores, target) == 0).astype(np.float64)
        parts = {"acc1": correct, "mean_per_class_recall": per_class_recall(correct, target)}
        outcomes = parts.get(self.main_metric or "")
        notes += row_notes(rows, "images") + label_notes(target, found.classnames)
        return self.result(classification(scores, target), outcomes, len(target), failures, notes)


class Multilabel(ZeroShotTask):
    """Main metric mean_average_precision: images that hold several of the classes. No outcomes."""

    main_metric: str | None = "mean_average_precision"

    def run(self, embedder: Any) -> TaskResult:
        """mean_average_precision over the classes. Raises DataError."""
        found = self.opened()
        classifier = zero_shot(embedder, found.classnames, found.templates)
        notes = class_notes(classifier, found.classnames)
        failures: list[Failure] = []

        def label(item: Item) -> np.ndarray:
            held = numbers(item.parts["npy"], len(found.classnames))
            if not np.isin(held, (0, 1)).all():
                raise BadLabel("label_malformed", "npy holds numbers that are neither 0 nor 1")
            return held.astype(bool)

        rows, labels = embed_items(embedder, read_set(found, ("npy",)), label, failures)
        scores = np.concatenate([block for _, block in blocks(rows, classifier)])
        held = np.stack(labels)
        if held.all() or not held.any():
            raise DataError(f"{'every' if held.any() else 'no'} image holds {'every' if held.any() else 'a'} class")
        metrics = {"mean_average_precision": mean_average_precision(scores, held)}
        notes += row_notes(rows, "images") + label_notes(np.nonzero(held)[1], found.classnames)
        return self.result(metrics, None, len(labels), failures, notes)
