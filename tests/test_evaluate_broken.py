"""`evaluate` as typed on sets that cannot be measured, or not as they look: a sentence each, and the others go on."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from sets_util import CLASSES, captioned, labelled, npy, png, write_set

from mmfilter.errors import DataError
from mmfilter.plugs import Task
from mmfilter.results import TaskResult
from mmfilter.tasks import TASKS
from mmfilter.tasks.find import find_tasks
from mmfilter.tasks.notes import class_notes
from mmfilter.tasks.sets import open_set

pytestmark = pytest.mark.slow  # together, not each


@pytest.fixture
def evaluate(tmp_path, mmfilter):
    """The command on tmp_path/sets, with a sound set beside the others: (exit code, result, what stdout says)."""
    write_set(tmp_path / "sets" / "sound", labelled(6))

    def call(*words):
        told = ("evaluate", "demo", "--tasks", tmp_path / "sets", "--out", tmp_path / "out", *words)
        code, out, err = mmfilter(*told, "--json")
        assert "Traceback" not in err
        result = json.loads(out)
        assert [task["key"] for task in result["tasks"]].count("sound") == 1
        code_again, said, _ = mmfilter(*told)
        assert code_again == code, "what is not measured is said again"
        return code, result, said

    return call


CLASS_FILES = {
    "no_placeholder": ((*CLASSES,), ("a photo of a cat.", "{c}"), "is no template"),
    "another_placeholder": ((*CLASSES,), ("a photo of a {}.",), "is no template"),
    "two_placeholders": ((*CLASSES,), ("a photo of {c} by {artist}.",), "is no template"),
    "only_empty_templates": ((*CLASSES,), ("", " "), "is not there or empty"),
    "one_class": (("cat",), ("a {c}",), "the only class"),
    "one_name": (("cat", "cat"), ("a {c}",), "the only class"),
    "empty_line": (("cat", "", *CLASSES[2:]), ("a {c}",), "line 2 is empty"),
    "cut_before_the_name": ((*CLASSES,), ("a photo " * 60 + "{c}",), "the same text embedding"),
}


def test_files_that_make_no_classifier(tmp_path, evaluate):
    for name, (classes, templates, _) in CLASS_FILES.items():
        write_set(tmp_path / "sets" / name, labelled(4, classes), classes=classes, templates=templates)
    write_set(tmp_path / "sets" / "wds_cifar10_test", labelled(4), templates=("a photo.",))
    code, found, said = evaluate()
    assert code == 3 and set(found["aside"]) == {*CLASS_FILES, "cifar10"}
    for name, (_, _, why) in CLASS_FILES.items():
        assert why in found["aside"][name] and f"not measured  {name}: " in said
    assert "{c}" in found["aside"]["cifar10"]
    code, found, _ = evaluate("--only", "sound", "--only", "one_class")
    assert code == 3 and list(found["aside"]) == ["one_class"]
    with pytest.raises(DataError):
        find_tasks([str(tmp_path / "sets")])


def test_files_of_other_editors_are_the_same_set(tmp_path, evaluate):
    root = tmp_path / "sets" / "odd"
    write_set(root, labelled(6))
    (root / "classnames.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(CLASSES).encode() + b"\r\n\r\n  \r\n")
    (root / "zeroshot_classification_templates.txt").write_bytes(b"\xef\xbb\xbfa photo of a {c}.\r\n\r\n{c}\r\n")
    (root / "dataset_type.txt").write_bytes(b"\xef\xbb\xbfclassification\r\n")
    (root / "test" / "nshards.txt").write_bytes(b"\xef\xbb\xbf1\r\n")
    odd, sound = open_set(str(root)), open_set(str(tmp_path / "sets" / "sound"))
    assert (odd.classnames, odd.templates) == (sound.classnames, sound.templates)
    code, found, _ = evaluate()
    assert code == 0 and found["tasks"][0]["metrics"] == found["tasks"][1]["metrics"]


def test_sets_that_are_half_there(tmp_path, evaluate):
    sets = tmp_path / "sets"
    for name in ("no_count", "utf16", "more_tars", "no_tar", "folder", "kind"):
        write_set(sets / name, labelled(4), 2)
    (sets / "no_count" / "test" / "nshards.txt").unlink()
    (sets / "utf16" / "classnames.txt").write_text("cat\ndog\n", encoding="utf-16")
    (sets / "more_tars" / "test" / "nshards.txt").write_text("1")
    (sets / "no_tar" / "test" / "1.tar").unlink()
    (sets / "folder" / "test" / "0.tar").unlink()
    (sets / "folder" / "test" / "0.tar").mkdir()
    (sets / "kind" / "dataset_type.txt").write_text("detection")
    write_set(sets / "no_split", labelled(2))
    shutil.rmtree(sets / "no_split" / "test")
    write_set(sets / "no_images", [{"cls": b"1"}, {"cls": b"2"}])
    write_set(sets / "nothing", [])
    write_set(sets / "labels", [{"png": png(1), "cls": b"6"}, {"png": png(2), "cls": b"-1"}])
    why = {
        "no_count": "nshards.txt: is not there",
        "utf16": "UTF-8",
        "more_tars": "1.tar: nshards.txt counts 1 tars",
        "no_tar": "1.tar: cannot be opened",
        "folder": "0.tar: cannot be opened",
        "kind": "'detection' is none of",
        "no_split": "nshards.txt: is not there",
        "no_images": "no sample of it can be measured",
        "nothing": "it holds none",
        "labels": "classnames.txt has 0 to 5",
    }
    code, found, _ = evaluate()
    assert code == 3 and set(found["aside"]) == set(why)
    for name, sentence in why.items():
        assert sentence in found["aside"][name], name


def test_figures_that_would_mislead_have_a_note_or_are_none(tmp_path, evaluate):
    sets = tmp_path / "sets"
    write_set(sets / "twins", labelled(9), classes=("cat", "dog", "cat", "bird", "tree", "car"))
    write_set(sets / "one_picture_broken", [*labelled(9), {"png": b"II*\0", "cls": b"1"}])
    write_set(sets / "few", captioned(4), classes=(), kind="retrieval")
    write_set(sets / "alone", captioned(1), classes=(), kind="retrieval")
    write_set(sets / "same", [{"png": png(i), "txt": b"a cat"} for i in range(3)], classes=(), kind="retrieval")
    for name, held in (("none_held", np.zeros(6)), ("all_held", np.ones(6)), ("held", np.arange(6) % 2)):
        write_set(sets / name, [{"png": png(i), "npy": npy(held)} for i in range(3)], kind="multilabel")
    code, found, said = evaluate()
    notes = {task["key"]: " ".join(task["notes"]) for task in found["tasks"]}
    assert code == 3 and "1 of 6 classes has the text embedding of an earlier class" in notes["twins"]
    assert "classes have no image" in notes["sound"] and "        note: among 4 images recall@10 is always 1" in said
    assert set(found["aside"]) == {"alone", "same", "none_held", "all_held"}
    assert "always found" in found["aside"]["alone"] and "no image can be found" in found["aside"]["same"]
    broken = next(task for task in found["tasks"] if task["key"] == "one_picture_broken")
    assert broken["samples"] == 9 and sum(broken["failed"].values()) == 1 and "left out: 1 " in said
    assert "3 of 6 classes have no image: 'cat', 'red square', 'tree'" in notes["held"]


@pytest.mark.parametrize(
    ("column", "values", "why"),
    [
        ("match", ["0", "1"], "whole numbers"),
        ("match", [0, 2], "match is 0 or 1"),
        ("match", [1, 1], "pairs that do not"),
        ("image", [0.0, float("nan")], "whole numbers"),
        ("text", [1, 2], "words"),
    ],
)
def test_pairs_of_another_kind(tmp_path, evaluate, column, values, why):
    write_set(tmp_path / "sets" / "p", captioned(11), classes=(), kind="retrieval")
    table = {"image": [0, 1], "text": ["a", "b"], "match": [0, 1], column: values}
    pl.DataFrame(table).write_parquet(tmp_path / "sets" / "p" / "match_pairs.parquet")
    code, found, _ = evaluate()
    assert code == 3 and why in found["aside"]["p_pairs"] and {t["key"] for t in found["tasks"]} == {"p", "sound"}


class Odd(Task):
    """Another package's task."""

    key: str = "own/odd"
    dataset: str = "Odd"
    main_metric: str | None = "acc1"

    def run(self, embedder):
        if self.dataset == "raises":
            raise KeyError("x")
        return TaskResult(self.key, self.dataset, {"acc5": 1.0, "main_metric": float("nan")}, None, 4)


@pytest.mark.parametrize(("dataset", "why"), [("Odd", "'acc1' is no number"), ("raises", "KeyError")])
def test_a_task_without_its_main_metric_is_not_measured(tmp_path, evaluate, monkeypatch, dataset, why):
    monkeypatch.setitem(TASKS._own, "odd", f"{__name__}:Odd")
    monkeypatch.setattr(Odd.model_fields["dataset"], "default", dataset)
    Odd.model_rebuild(force=True)
    code, found, _ = evaluate("--tasks", "odd")
    assert code == 3 and why in found["aside"]["own/odd"]


@pytest.mark.parametrize("name", ["evaluate.json", "outcomes/sound.json", "outcomes/sound.npy"])
def test_results_that_are_damaged_are_said(tmp_path, evaluate, mmfilter, name):
    evaluate()
    (tmp_path / "out" / name).write_bytes(b'{"outcomes": 1, "failures": 3, "tasks": 1, "model": {"model": 1}}')
    words = ("evaluate", "demo", "--tasks", tmp_path / "sets", "--out", tmp_path / "out")
    code, _, err = mmfilter(*words)
    assert code == 1 and "--redo" in err and name.split(".")[0] in err and "Traceback" not in err
    assert mmfilter(*words, "--redo")[0] == 0


def test_vectors_of_classes_that_are_no_number():
    with pytest.raises(DataError, match="weights are damaged"):
        class_notes(np.array([[1.0, 0.0], [np.nan, 0.0]], np.float32), ["a", "b"])
    assert class_notes(np.eye(3, dtype=np.float32), ["a", "b", "c"]) == []
