"""Tasks that need no download: scenes of the demo's generator that no pool holds."""

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ..plugs import Task
from ..results import TaskResult
from ..synth import captions, heldout
from ..synth.heldout import HeldOut
from ..synth.words import COLOURS, COUNTS, NOUNS, RELATIONS, TEXTURES

SCENES = "scenes"
"""The name of all of them together."""

Attribute = Literal["colour", "shape", "texture", "count"]
Shift = Literal["", "noise", "blur", "jpeg", "brightness", "background"]


class _Scenes(Task):
    """`samples` scenes are drawn anew, the same for the same `seed`."""

    key: str = ""
    dataset: str = ""
    samples: int = Field(default=360, ge=1)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        name = cls.title({**{k: f.default for k, f in cls.model_fields.items()}, **values})
        return {"key": f"{SCENES}/{name}", "dataset": f"Scenes: {name.replace('_', ' ')}", **values}

    @classmethod
    def title(cls, values: dict[str, Any]) -> str:
        """What the key ends in."""
        raise NotImplementedError

    def result(self, metrics: dict[str, float], outcomes: np.ndarray) -> TaskResult:
        metrics = {**metrics, "main_metric": metrics[str(self.main_metric)]}
        return TaskResult(self.key, self.dataset, metrics, outcomes.astype(np.float64), len(outcomes))


class SceneClasses(_Scenes):
    """Zero-shot classification by `attribute` of a scene's only group; with a `shift`, of pictures changed by it.

    The classes are in equal numbers. A class is the mean over prompts that tell it of many shapes and
    colours, as CLIP's (2103.00020) ensembles do. A tie goes to the smaller label.
    """

    attribute: Attribute = "shape"
    shift: Shift = ""
    main_metric: str | None = "acc1"

    @classmethod
    def title(cls, values: dict[str, Any]) -> str:
        return "_".join(filter(None, (values["attribute"], values["shift"])))

    def run(self, embedder: Any) -> TaskResult:
        names = heldout.VALUES[self.attribute]
        labels = np.arange(self.samples) % len(names)
        held = [
            heldout.of_class(self.attribute, int(label), self.seed, index, self.shift)
            for index, label in enumerate(labels)
        ]
        classes = np.stack([_mean(embedder, prompts(self.attribute, name)) for name in names])
        found = embed(embedder, held) @ classes.T
        rank = ranks(found, labels)
        right = rank == 0
        recalls = [right[labels == label].mean() for label in np.unique(labels)]
        metrics = {"acc1": float(right.mean()), "mean_per_class_recall": float(np.mean(recalls))}
        if len(names) >= 5:
            metrics["acc5"] = float((rank < 5).mean())
        return self.result(metrics, right)


class SceneChoice(_Scenes):
    """Which of several captions is true, where they differ in one thing: `relation` in how two groups stand to
    each other (four captions), `swapped_relation` in their order (two), `swapped_colours` in which one has
    which colour (two). The true one must score above every other: a tie is wrong.
    """

    about: Literal["relation", "swapped_relation", "swapped_colours"] = "relation"
    main_metric: str | None = "acc1"

    @classmethod
    def title(cls, values: dict[str, Any]) -> str:
        return str(values["about"])

    def run(self, embedder: Any) -> TaskResult:
        held = [heldout.of_two(self.seed, index) for index in range(self.samples)]
        told = [self.captions(one) for one in held]
        texts = embedder.texts([text for options in told for text in options]).astype(np.float32)
        options = texts.reshape(len(held), len(told[0]), -1)
        found = np.einsum("nd,nkd->nk", embed(embedder, held), options)
        right = found[:, 0] > found[:, 1:].max(axis=1)
        return self.result({"acc1": float(right.mean())}, right)

    def captions(self, held: HeldOut) -> list[str]:
        """The true caption, then the others."""
        scene = held.scene
        if self.about == "swapped_colours":
            return [heldout.told(scene), heldout.told(scene, "", (scene.groups[1].colour, scene.groups[0].colour))]
        others = [name for name in RELATIONS if name != scene.relation]
        if self.about == "swapped_relation":
            others = [captions.OPPOSITE[scene.relation]]
        return [heldout.told(scene, relation) for relation in (scene.relation, *others)]


class SceneRetrieval(_Scenes):
    """Scenes and their captions, each found by the other among `samples`: R@1, 5 and 10 both ways.

    The main metric is the mean of both R@1, a sample's outcome the mean of its two. A tie goes to the
    smaller position.
    """

    samples: int = Field(default=300, ge=1)
    main_metric: str | None = "mean_recall@1"

    @classmethod
    def title(cls, values: dict[str, Any]) -> str:
        return "retrieval"

    def run(self, embedder: Any) -> TaskResult:
        from random import Random

        held = [heldout.of_any(self.seed, index) for index in range(self.samples)]
        told = [captions.english(one.scene, Random(f"held out/{self.seed}/told/{i}")) for i, one in enumerate(held)]
        found = embed(embedder, held) @ embedder.texts(told).astype(np.float32).T
        own = np.arange(len(held))
        by = {"image": ranks(found.T, own), "text": ranks(found, own)}  # open_clip's names: what is retrieved
        metrics = {f"{name}_retrieval_recall@{k}": float((r < k).mean()) for name, r in by.items() for k in (1, 5, 10)}
        outcomes = ((by["image"] == 0).astype(float) + (by["text"] == 0)) / 2
        return self.result({**metrics, "mean_recall@1": float(outcomes.mean())}, outcomes)


def ranks(found: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) int: how many of (n, k) values stand before the one at `labels` (n,); of equals the smaller position."""
    own = found[np.arange(len(found)), labels][:, None]
    before = np.arange(found.shape[1])[None] < labels[:, None]
    return ((found > own) | ((found == own) & before)).sum(axis=1)


def embed(embedder: Any, held: list[HeldOut]) -> np.ndarray:
    """(n, d) float32, rows of unit length."""
    return embedder.images(np.stack([embedder.prepare(one.image) for one in held])).astype(np.float32)


def _mean(embedder: Any, texts: list[str]) -> np.ndarray:
    """(d,) float32 of unit length: the mean of the texts' unit rows."""
    mean = embedder.texts(texts).astype(np.float32).mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def prompts(attribute: str, value: str) -> list[str]:
    """Captions of many scenes that have nothing in common but `value`."""
    nouns, colours = list(NOUNS), list(COLOURS)
    if attribute == "shape":
        return [_a(f"{colour} {value}") for colour in colours]
    if attribute == "colour":
        return [_a(f"{value} {noun}") for noun in nouns]
    mixed = [(colours[i % len(colours)], noun) for i, noun in enumerate(nouns)]
    if attribute == "texture":
        return [_a(f"{TEXTURES[value][0]} {colour} {noun}".strip()) for colour, noun in mixed]
    if value == "1":
        return [_a(f"{colour} {noun}") for colour, noun in mixed]
    return [f"{COUNTS[int(value)][0]} {colour} {NOUNS[noun][0]}" for colour, noun in mixed]


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def scene_tasks(seed: int = 0, samples: int = 360) -> list[Task]:
    """All of them: five classifications, retrieval, two kinds of pairs, five shifts."""
    same: dict[str, Any] = {"seed": seed, "samples": samples}
    attributes: tuple[Attribute, ...] = ("colour", "shape", "texture", "count")
    shifts: tuple[Shift, ...] = ("noise", "blur", "jpeg", "brightness", "background")
    return [
        *(SceneClasses(attribute=attribute, **same) for attribute in attributes),
        SceneChoice(about="relation", **same),
        SceneRetrieval(**same),
        SceneChoice(about="swapped_colours", **same),
        SceneChoice(about="swapped_relation", **same),
        *(SceneClasses(attribute="colour", shift=shift, **same) for shift in shifts),
    ]
