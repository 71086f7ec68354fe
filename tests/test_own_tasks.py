"""Tasks on held-out scenes: against plain loops, on ties, and what is told of each picture is true of it."""

import hashlib
from random import Random

import numpy as np
import pytest

from mmfilter.synth import SynthOptions, heldout
from mmfilter.synth.noise import scene_of
from mmfilter.synth.words import RELATIONS
from mmfilter.tasks import TASKS, build_task
from mmfilter.tasks.scenes import SceneChoice, SceneClasses, SceneRetrieval, prompts, ranks, scene_tasks


class Hashed:
    """An embedder whose rows hang on the input's bytes alone; `same` makes all rows equal."""

    def __init__(self, same=False, dim=8):
        self.same, self.dim = same, dim

    def prepare(self, image):
        return np.asarray(image.resize((8, 8)))

    def images(self, pixels):
        return np.stack([self.row(one.tobytes()) for one in pixels])

    def texts(self, texts):
        return np.stack([self.row(text.encode()) for text in texts])

    def row(self, data):
        digest = hashlib.blake2b(b"" if self.same else data, digest_size=8).digest()
        row = np.random.default_rng(int.from_bytes(digest)).normal(size=self.dim)
        return (row / np.linalg.norm(row)).astype(np.float16)


def unit(rows):
    mean = np.mean(rows, axis=0, dtype=np.float32)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("attribute", ["colour", "shape", "texture", "count"])
def test_classes_against_a_plain_loop(attribute):
    embedder = Hashed()
    task = SceneClasses(attribute=attribute, samples=80)
    result = task.run(embedder)
    names = heldout.VALUES[attribute]
    classes = [unit(embedder.texts(prompts(attribute, name))) for name in names]
    right, top5 = [], []
    for i in range(80):
        image = embedder.row(embedder.prepare(heldout.of_class(attribute, i % len(names), 0, i).image).tobytes())
        order = np.argsort([-float(image.astype(np.float32) @ c) for c in classes], kind="stable")
        right.append(order[0] == i % len(names))
        top5.append(i % len(names) in order[:5])
    assert result.outcomes.tolist() == [float(x) for x in right]
    assert result.metrics["acc1"] == result.main == np.mean(right)
    assert result.metrics["acc5"] == np.mean(top5)
    labels = np.arange(80) % len(names)
    by_class = [np.mean(np.array(right)[labels == label]) for label in range(len(names))]
    assert result.metrics["mean_per_class_recall"] == pytest.approx(np.mean(by_class))


def test_retrieval_against_a_plain_loop():
    from mmfilter.synth import captions

    embedder, n = Hashed(), 30
    result = SceneRetrieval(samples=n).run(embedder)
    held = [heldout.of_any(0, i) for i in range(n)]
    images = [embedder.row(embedder.prepare(one.image).tobytes()).astype(np.float32) for one in held]
    told = [captions.english(one.scene, Random(f"held out/0/told/{i}")) for i, one in enumerate(held)]
    texts = [embedder.row(text.encode()).astype(np.float32) for text in told]
    for k in (1, 5, 10):
        by_image = [i in sorted(range(n), key=lambda j: -float(images[i] @ texts[j]))[:k] for i in range(n)]
        by_text = [i in sorted(range(n), key=lambda j: -float(images[j] @ texts[i]))[:k] for i in range(n)]
        assert result.metrics[f"text_retrieval_recall@{k}"] == np.mean(by_image)
        assert result.metrics[f"image_retrieval_recall@{k}"] == np.mean(by_text)
    assert result.main == result.outcomes.mean()


def test_where_all_is_alike_only_the_first_class_is_right_and_no_choice_is():
    same = Hashed(same=True)
    shapes = SceneClasses(samples=72).run(same)
    assert shapes.main == pytest.approx(1 / 36) and shapes.outcomes[0] == 1
    assert SceneChoice(samples=10).run(same).main == 0
    retrieval = SceneRetrieval(samples=20).run(same)
    assert retrieval.metrics["mean_recall@1"] == 1 / 20 and retrieval.metrics["text_retrieval_recall@5"] == 5 / 20


def test_ranks_of_ties():
    found = np.array([[1.0, 1.0, 2.0], [3.0, 3.0, 3.0], [0.0, 1.0, 0.0]])
    assert ranks(found, np.array([1, 2, 1])).tolist() == [2, 2, 0]


@pytest.mark.parametrize("about", ["relation", "swapped_relation", "swapped_colours"])
def test_choices_differ_in_one_thing_and_the_first_is_true(about):
    for index in range(40):
        held = heldout.of_two(0, index)
        told = SceneChoice(about=about).captions(held)
        scene = held.scene
        first, second = scene.groups
        assert len(set(told)) == len(told) == (4 if about == "relation" else 2)
        assert told[0] == f"{heldout.phrase(first)} {RELATIONS[scene.relation][0][0]} {heldout.phrase(second)}"
        if about == "swapped_colours":
            assert sorted(told[1].split()) == sorted(told[0].split()) or {"a", "an"} & set(told[1].split())
        centres = [np.mean([(x + s / 2, y + s / 2) for g, x, y, s in scene.items if g == n], axis=0) for n in (0, 1)]
        apart = centres[1] - centres[0]
        way = {"left": apart[0] > 0, "right": apart[0] < 0, "above": apart[1] > 0, "below": apart[1] < 0}
        assert way[scene.relation]


def test_a_class_is_what_is_in_the_scene():
    for attribute, values in heldout.VALUES.items():
        for label, value in enumerate(values):
            (group,) = heldout.of_class(attribute, label, 5, label).scene.groups
            assert str(getattr(group, attribute)) == value
            scene = heldout.of_class(attribute, label, 5, label).scene
            assert group.colour not in heldout.clash(scene)


def test_scenes_are_the_same_each_time_and_no_pools():
    one, two = heldout.of_any(0, 3), heldout.of_any(0, 3)
    assert one.scene == two.scene and one.image.tobytes() == two.image.tobytes()
    assert heldout.of_any(1, 3).scene != one.scene
    pool = {scene_of(SynthOptions(seed=0), index) for index in range(300)}
    assert not pool & {heldout.of_any(0, index).scene for index in range(300)}


@pytest.mark.parametrize("shift", list(heldout.SHIFTS))
def test_shifts_change_the_picture_and_not_the_scene(shift):
    plain, shifted = (heldout.of_class("colour", 2, 0, 2, name) for name in ("", shift))
    assert plain.scene == shifted.scene and plain.image.size == shifted.image.size
    assert np.abs(np.asarray(plain.image, int) - np.asarray(shifted.image, int)).mean() > 1


def test_they_are_all_there_and_can_be_named():
    tasks = scene_tasks(samples=4)
    keys = [task.key for task in tasks]
    assert len(set(keys)) == len(keys) == 13 and "scenes/colour_background" in keys
    for task in tasks:
        result = task.run(Hashed())
        assert result.key == task.key and len(result.outcomes) == result.samples == 4
        assert np.mean(result.outcomes) == pytest.approx(result.main)
    assert {"scene_classes", "scene_choice", "scene_retrieval"} <= set(TASKS.table())
    named = build_task({"scene_classes": {"attribute": "colour", "shift": "blur"}}, "here")
    assert named.key == "scenes/colour_blur" and named.dataset == "Scenes: colour blur"
