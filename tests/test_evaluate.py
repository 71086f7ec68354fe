"""`evaluate` through its door: DataComp's list, results file and aggregate; resume, conflicts, what is missing."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from embed_util import tiny_folder
from sets_util import labelled, write_set

from jobs.evaluate import evaluate_model, lines
from mmfilter.errors import ConflictError, DataError, UsageError
from mmfilter.evaluate import evaluate
from mmfilter.plugs import Task
from mmfilter.results import TaskResult, read_results, write_results
from mmfilter.tasks import TASKS
from mmfilter.tasks.datacomp import GROUPS, aggregate, by_folder, datacomp
from mmfilter.tasks.find import find_tasks
from mmfilter.weights import ModelSpec

pytestmark = pytest.mark.slow  # together, not each

HOW = {"device": "cpu", "threads": 1, "redo": False}
WHICH = {"split": "test", "only": [], "datacomp": False}


@pytest.fixture
def sets(tmp_path):
    """A folder of two sets, one of them named as DataComp's CIFAR-10."""
    write_set(tmp_path / "sets" / "mine", labelled(10))
    write_set(tmp_path / "sets" / "wds_cifar10_test", labelled(12), shards=2)
    return str(tmp_path / "sets")


def asked(model, sets, out, which=(), how=()):
    return evaluate_model({"model": model}, [sets], str(out), {**WHICH, **dict(which)}, {**HOW, **dict(how)})


def test_the_list_is_datacomps():
    listed = datacomp()
    assert len(listed) == 40 and len({entry.name for entry in listed.values()}) == 40
    assert [entry.name for entry in listed.values() if entry.main is None] == ["FairFace", "UTKFace"]
    other = {entry.name: entry.main for entry in listed.values() if entry.main not in ("acc1", None)}
    recall = dict.fromkeys(("Caltech-101", "FGVC Aircraft", "Oxford Flowers-102", "Oxford-IIIT Pet"))
    assert other == {
        **dict.fromkeys(recall, "mean_per_class_recall"),
        "Flickr": "mean_recall@1",
        "MSCOCO": "mean_recall@1",
        "WinoGAViL": "jaccard_score_10-12",
        "iWildCam": "F1-macro_all",
        "FMoW": "acc_worst_region",
        "Dollar Street": "acc_top5_wg",
        "GeoDE": "acc_wg",
    }
    assert {name for group in GROUPS.values() for name in group} <= {entry.name for entry in listed.values()}
    assert [len(group) for group in GROUPS.values()] == [1, 6, 13, 3]
    assert sum(entry.samples for entry in listed.values()) > 700_000
    assert by_folder()["wds_vtab-caltech101_test"].key == "vtab/caltech101"
    for entry in listed.values():
        assert entry.task("/x").key == entry.key and entry.source.split("/")[1] in entry.missing


def results(seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for entry in datacomp().values():
        main = float(rng.random()) if entry.main else float("nan")
        made.append(TaskResult(entry.key, entry.name, {entry.main or "acc_gender_avg": main, "main_metric": main}))
    return made


def test_the_aggregate_is_datacomps(tmp_path):
    """By hand from the file, as aggregate_scores.py goes about it: rows without a main metric away, then means."""
    write_results(str(tmp_path), results())
    table = [json.loads(line) for line in (tmp_path / "eval_results.jsonl").read_text().splitlines()]
    main = {row["dataset"]: row["metrics"]["main_metric"] for row in table}
    main = {name: value for name, value in main.items() if value is not None}
    assert len(main) == 38
    shifts = ["ImageNet Sketch", "ImageNet v2", "ImageNet-A", "ImageNet-O", "ImageNet-R", "ObjectNet"]
    found = aggregate(read_results(str(tmp_path)))
    assert list(found) == ["ImageNet", "ImageNet dist. shifts", "VTAB", "Retrieval", "Average"]
    assert found["ImageNet"] == main["ImageNet 1k"]
    assert found["ImageNet dist. shifts"] == pytest.approx(sum(main[name] for name in shifts) / 6)
    assert found["Retrieval"] == pytest.approx((main["Flickr"] + main["MSCOCO"] + main["WinoGAViL"]) / 3)
    vtab = [main[datacomp()[key].name] for key in datacomp() if key.startswith("vtab/")] + [main["SUN397"]]
    assert len(vtab) == 13 and found["VTAB"] == pytest.approx(sum(vtab) / 13)
    assert found["Average"] == pytest.approx(sum(main.values()) / 38)


def test_the_aggregate_of_a_part_is_no_aggregate():
    part = {result.key: result for result in results() if result.dataset not in ("ObjectNet", "FairFace")}
    found = aggregate({**part, "own/x": TaskResult("own/x", "x", {"main_metric": 1.0})})
    assert np.isnan([found["ImageNet dist. shifts"], found["Average"]]).all()
    assert not np.isnan([found["ImageNet"], found["VTAB"], found["Retrieval"]]).any()


def test_the_file_is_a_line_a_task_as_datacomp_writes_it(tmp_path):
    made = TaskResult("vtab/pcam", "PatchCamelyon", {"acc1": 0.5, "acc5": float("nan"), "main_metric": 0.5}, np.ones(4))
    write_results(str(tmp_path), [made])
    write_results(str(tmp_path), [TaskResult("fairness/fairface", "FairFace", {"acc_age_avg": 0.25})])
    first, second = (tmp_path / "eval_results.jsonl").read_text().splitlines()
    wanted = {"acc1": 0.5, "acc5": None, "main_metric": 0.5}
    assert json.loads(first) == {"key": "vtab/pcam", "dataset": "PatchCamelyon", "metrics": wanted}
    assert json.loads(second)["metrics"] == {"acc_age_avg": 0.25, "main_metric": None}
    assert np.load(tmp_path / "outcomes" / "vtab__pcam.npy").tolist() == [1, 1, 1, 1]
    frame = pl.read_ndjson(tmp_path / "eval_results.jsonl")
    assert frame.columns == ["key", "dataset", "metrics"] and frame.height == 2


def test_a_file_of_datacomps_is_read_and_a_torn_last_line_is_not(tmp_path):
    row = {"key": "cifar10", "dataset": "CIFAR-10", "metrics": {"acc1": 0.9, "acc5": None, "main_metric": 0.9}}
    path = tmp_path / "eval_results.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row)[:30])
    assert read_results(str(tmp_path))["cifar10"].main == 0.9
    path.write_text(json.dumps(row)[:30] + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match="line 1 is no result"):
        read_results(str(tmp_path))
    assert read_results(str(tmp_path / "none")) == {}


def test_what_is_done_is_not_run_again(tmp_path, sets, tiny_model, monkeypatch):
    out = tmp_path / "out"
    first = asked(tiny_model, sets, out, {"only": ["mine"]})
    assert [task["key"] for task in first["tasks"]] == ["mine"]
    whole = asked(tiny_model, sets, out)
    assert [task["key"] for task in whole["tasks"]] == ["cifar10", "mine"]
    monkeypatch.setattr("mmfilter.evaluate.load", lambda *_: pytest.fail("loaded a model with nothing to do"))
    assert asked(tiny_model, sets, out) == whole
    lost = {"lost": 10_000 - 12}
    assert whole["tasks"][0]["failed"] == lost and whole["tasks"][1] == first["tasks"][0]
    assert read_results(str(out))["cifar10"].failed == lost and read_results(str(out))["cifar10"].samples == 12


def test_another_model_or_other_samples_are_a_conflict(tmp_path, sets, tiny_model):
    out = tmp_path / "out"
    asked(tiny_model, sets, out)
    other = tiny_folder(tmp_path / "other", "quick_gelu")
    with pytest.raises(ConflictError, match="its results are of"):
        asked(other, sets, out)
    write_set(tmp_path / "sets" / "mine", labelled(11))
    with pytest.raises(ConflictError, match="'mine' was measured on something else"):
        asked(tiny_model, sets, out)
    again = asked(other, sets, out, how={"redo": True})
    assert [task["samples"] for task in again["tasks"]] == [12, 11]
    moved = shutil.copytree(other, tmp_path / "copy")
    assert asked(str(moved), sets, out)["tasks"] == again["tasks"]
    (tmp_path / "out" / "evaluate.json").unlink()
    with pytest.raises(ConflictError, match="no evaluate.json"):
        asked(other, sets, out)


def test_a_set_that_moved_is_the_same_set(tmp_path, sets, tiny_model):
    out = tmp_path / "out"
    asked(tiny_model, sets, out)
    (tmp_path / "sets").rename(tmp_path / "moved")
    assert len(asked(tiny_model, str(tmp_path / "moved"), out)["tasks"]) == 2


def test_a_broken_set_is_set_aside_and_the_others_go_on(tmp_path, sets, tiny_model):
    (tmp_path / "sets" / "mine" / "classnames.txt").unlink()
    found = asked(tiny_model, sets, tmp_path / "out")
    assert [task["key"] for task in found["tasks"]] == ["cifar10"] and "classnames.txt" in found["aside"]["mine"]
    with pytest.raises(DataError, match="classnames"):
        evaluate(ModelSpec(model=tiny_model), find_tasks([sets])[0], str(tmp_path / "out"))


def test_sets_are_found_by_folder(tmp_path, sets):
    assert [task.key for task in find_tasks([f"{sets}/mine"])[0]] == ["mine"]
    tasks, missing = find_tasks([sets], whole=True)
    assert len(missing) == 39 and "cifar10" not in missing and len(tasks) == 2
    with pytest.raises(UsageError, match="no evaluation set"):
        find_tasks([str(tmp_path / "nothing")])
    with pytest.raises(UsageError, match="two sets are called"):
        find_tasks([sets, f"{sets}/mine"])
    folder = tmp_path / "sets" / "flickr_1k_test_image_text_retrieval"
    folder.mkdir()
    pl.DataFrame({"image": [], "caption": []}).write_parquet(folder / "test.parquet")
    assert "retrieval" in [task.key.split("/")[0] for task in find_tasks([sets])[0]]


class Always(Task):
    """Right about four samples, whatever the model."""

    key: str = "own/always"
    dataset: str = "Always"

    def run(self, embedder):
        return TaskResult(self.key, self.dataset, {"main_metric": 1.0}, np.ones(4), 4)


def test_a_registered_task_is_run_by_its_name(tmp_path, tiny_model, monkeypatch, sets):
    monkeypatch.setitem(TASKS._own, "always", f"{__name__}:Always")
    found = evaluate_model({"model": tiny_model}, ["always", f"{sets}/mine"], str(tmp_path / "out"), WHICH, HOW)
    assert [task["key"] for task in found["tasks"]] == ["mine", "own/always"]
    with pytest.raises(UsageError, match="Field required"):
        find_tasks(["retrieval"])


@pytest.mark.slow
def test_the_command_line(tmp_path, sets, tiny_model, mmfilter):
    words = ("evaluate", tiny_model, "--tasks", sets, "--out", tmp_path / "out")
    code, out, err = mmfilter(*words, "--datacomp")
    assert code == 3 and "missing       vtab/caltech101: Caltech-101: fetch huggingface.co/" in out, err
    assert "left out: 9,988 lost" in out and "DataComp's" not in out and "1 of 2: CIFAR-10" in err
    code, out, err = mmfilter(*words, "--only", "mine", "--json")
    told = json.loads(out)
    assert code == 0 and told["tasks"][0]["key"] == "mine" and told["aggregate"]["Average"] is None
    code, _, err = mmfilter(*words, "--only", "min")
    assert code == 2 and "did you mean 'mine'?" in err


def test_what_is_printed_names_the_aggregate_only_where_it_is_whole():
    whole = {"ImageNet": 0.5, "Average": None}
    aside = {"a": "it cannot be measured (RuntimeError: of two\nlines)"}
    said = lines({"tasks": [], "aside": aside, "missing": {}, "aggregate": whole, "out": "o"})
    why = r"not measured  a: it cannot be measured (RuntimeError: of two\u000alines)"
    assert said == [why, "0.5000  DataComp's ImageNet", "o/eval_results.jsonl"]


@pytest.mark.slow
@pytest.mark.real
def test_the_demo_model_on_real_sets(tmp_path, data):
    """It has seen drawn scenes only: a little above chance on photographs, in every figure the sets can give."""
    found = asked("demo", str(data / "tasks"), tmp_path / "out")
    by_key = {task["key"]: task for task in found["tasks"]}
    assert {k: t["samples"] for k, t in by_key.items()} == {
        "cifar10": 2000,
        "flickr_objects": 328,
        "flickr_retrieval": 800,
        "flickr_retrieval_pairs": 1600,
    }
    assert not any(task["failed"] for task in found["tasks"]) and not found["aside"]
    assert by_key["cifar10"]["metrics"]["acc1"] > 0.1 and by_key["cifar10"]["metrics"]["acc5"] > 0.5
    assert by_key["flickr_retrieval_pairs"]["metrics"]["auc"] > 0.53
