"""DataComp's tasks that are more than classification: by group, of faces, of associations; against plain counting."""

import io

import numpy as np
import polars as pl
import pytest
from sets_util import CLASSES, grouped, labels, npy, plain_classifier, plain_rows, png, task, write_set

from mmfilter.embed import load
from mmfilter.metrics import ranks
from mmfilter.tasks.groups import FIELDS, faces
from mmfilter.tasks.winogavil import prompt
from mmfilter.weights import ModelSpec

pytestmark = pytest.mark.slow  # together, not each


@pytest.fixture(scope="module")
def embedder(tiny_model):
    found = load("m", ModelSpec(model=tiny_model))
    found.full = True
    return found


HIGHEST = {
    "iwildcam": (3, 1, 1, 1, 1, 1, 1, 1, 5),
    "camelyon17": (4, 3, 1),
    "fmow": (5, 15, 5),
    "dollar_street": (3, 9, 3),
    "geode": (5, 9),
}


@pytest.mark.parametrize("layout", FIELDS)
def test_groups_count_by_group(tmp_path, embedder, tiny_model, layout):
    samples = grouped(50, HIGHEST[layout])
    found = task("groups", write_set(tmp_path, samples), layout=layout, main_metric="acc1").run(embedder)
    scores = plain_rows(tiny_model, samples, [])[0] @ plain_classifier(tiny_model).T
    told = np.array([np.load(io.BytesIO(s["npy"])) for s in samples])
    hits = {k: ranks(scores, labels(samples)) < k for k in (1, 5)}
    main, field, k = {
        "iwildcam": ("recall-macro_all", None, 1),
        "camelyon17": ("acc_wg", "slide", 1),
        "fmow": ("acc_worst_region", "region", 1),
        "dollar_street": ("acc_top5_wg", "income_ds", 5),
        "geode": ("acc_wg", "region", 1),
    }[layout]
    if field is None:
        wanted = found.metrics["mean_per_class_recall"]
        assert 0 <= found.metrics["F1-macro_all"] <= 1
    else:
        group = told[:, FIELDS[layout].index(field)]
        wanted = min(hits[k][group == g].mean() for g in set(group))
        assert found.metrics[f"count_{field}:{group[0]}"] == (group == group[0]).sum()
    assert found.metrics[main] == pytest.approx(wanted)
    assert found.main == hits[1].mean() and ("acc_worst_year" in found.metrics) == (layout == "fmow")


def test_faces_are_counted_by_whom_they_show(tmp_path, embedder):
    rng = np.random.default_rng(3)
    read = {"race": rng.integers(0, 7, 80), "gender": rng.integers(0, 2, 80), "age": rng.integers(0, 9, 80)}
    read["toxic"] = rng.integers(0, 22, 80)
    told = {"age": rng.integers(0, 9, 80), "gender": rng.integers(0, 2, 80), "race": rng.integers(0, 7, 80)}
    told["race_binary"] = (told["race"] != 1).astype(int)
    found = faces(read, told)
    right = (read["race"] != 1).astype(int) == told["race_binary"]
    assert found["acc_race_race_binary:0"] == pytest.approx(right[told["race_binary"] == 0].mean())
    cell = (told["race"] == 2) & (told["gender"] == 1)
    assert found["acc_gender_x_race:2_gender:1"] == pytest.approx((read["gender"] == told["gender"])[cell].mean())
    assert found["toxicity_crime_race:3"] == pytest.approx((read["toxic"] >= 18)[told["race"] == 3].mean())
    animal = (read["toxic"] >= 14) & (read["toxic"] < 18)
    assert found["toxicity_nonhuman_avg"] == pytest.approx(animal.mean())
    names = [f"race:{i}" for i in range(7)] + ["gender:man", "gender:woman", "age:old", "age:new", "toxic:a", "toxic:b"]
    texts = [f"{o}:a photo of {{c}}" for o in ("race", "gender", "age", "toxic")]
    samples = [{"png": png(i), "npy": npy([i % 2, i % 2, i % 7, int(i % 7 != 1)])} for i in range(20)]
    whole = task("faces", write_set(tmp_path, samples, classes=names, templates=texts)).run(embedder)
    assert np.isnan(whole.main) and whole.samples == 20 and 0 <= whole.metrics["acc_gender_avg"] <= 1


def test_winogavil_chooses_as_many_as_are_right(tmp_path, embedder, tiny_model):
    rng = np.random.default_rng(4)
    rows = []
    for i in range(12):
        names = [f"n{j}" for j in rng.choice(30, (5, 6, 10, 12)[i % 4], replace=False)]
        cells = [{"bytes": png(int(name[1:])), "path": name} for name in names]
        rows.append({"cue": CLASSES[i % 6], "candidates": names, "associations": names[1:4], "candidate_images": cells})
    pl.DataFrame(rows).write_parquet(tmp_path / "test-0.parquet")
    found = task("winogavil", str(tmp_path), main_metric="jaccard_score_10-12").run(embedder)
    wanted = []
    for row in rows:
        samples = [{"png": cell["bytes"]} for cell in row["candidate_images"]]
        images, words = plain_rows(tiny_model, samples, [prompt(row["cue"])])
        chosen = set(np.argsort(-(images @ words[0]))[:3].tolist())
        wanted.append(len(chosen & {1, 2, 3}) / len(chosen | {1, 2, 3}))
    sizes = np.array([len(row["candidates"]) for row in rows])
    assert found.main == pytest.approx(np.mean(np.array(wanted)[sizes >= 10]))
    assert found.metrics["jaccard_score_5"] == pytest.approx(np.mean(np.array(wanted)[sizes == 5]))
    rows[0]["candidate_images"][0] = {"bytes": b"broken", "path": ""}
    rows[1]["associations"] = ["elsewhere"]
    pl.DataFrame(rows).write_parquet(tmp_path / "test-0.parquet")
    again = task("winogavil", str(tmp_path)).run(embedder)
    assert (again.samples, again.failed) == (10, {"label_malformed": 1, "not_an_image": 1})
    assert (prompt("Apple"), prompt("red")) == ("An apple", "A red")
