"""The scaling law of repeated data against its authors' numbers, its fit against what made the results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_util import Page

from mmfilter.advise import Asked, advise, merged
from mmfilter.errors import DataError, UsageError
from mmfilter.report.advice import advice_page
from mmfilter.scaling import HALF_LIVES, UTILITIES, Law, Runs, fit, on_grid, refine
from mmfilter.small_runs import Result, read_results

pytestmark = pytest.mark.slow  # together, not each

SIZE = 12_800_000
# What the authors fitted to T-MARS buckets on ImageNet, and what their estimate_best_pool.py makes of it
# (locuslab/scaling_laws_data_filtering, results/parameter_values.jsonl at 251f695, key tmars_imagenet1k_utility).
LAW = Law(
    SIZE, 0.025, 0.1,
    np.array([-0.16, -0.125, -0.1, -0.085]),
    np.array([6.7272727272727275, 8.545454545454547, 5.2727272727272725, 2.2727272727272725]),
)  # fmt: skip
PUBLISHED = {
    6_400_000: [1.0275574175713553, 1.035218097844514, 1.041465916871789, 1.0462718092264978],
    32_000_000: [0.8175287362543828, 0.8416394371545322, 0.8657789985471914, 0.8832256945650481],
    64_000_000: [0.753789637082097, 0.7669856580112071, 0.7960198040392135, 0.8201107546999951],
    128_000_000: [0.7127099872429347, 0.7040003405525712, 0.7323403787915516, 0.7587190166530329],
    640_000_000: [0.6882421336379344, 0.6144756496831194, 0.6243515070972889, 0.648641053484556],
}


def plain(samples: float, law: Law, k: int) -> float:
    """The law read aloud, for the first k buckets."""
    n, seen = law.size * k, min(law.size * k, samples)
    y = (law.scale * seen / 1e5) ** np.mean(law.utilities[:k]) + law.floor
    j = 1
    while seen < samples:
        after = min(seen + n, samples)
        decayed = [b * 0.5 ** (j / (c * k)) for b, c in zip(law.utilities[:k], law.half_lives[:k], strict=True)]
        y *= (after / seen) ** np.mean(decayed)
        seen, j = after, j + 1
    return float(y)


def results(law: Law, names: str = "ABCD", noise: float = 0.0, passes: Any = (2, 4, 6, 8, 10)) -> list[Result]:
    rng = np.random.default_rng(0)
    return [
        Result(name, law.size * p, law.error(law.size * p, [i]) + noise * rng.normal())
        for i, name in enumerate(names)
        for p in passes
    ]


@pytest.mark.parametrize("budget", PUBLISHED)
def test_the_authors_parameters_give_the_authors_errors(budget: int) -> None:
    found = merged(LAW, np.arange(4), budget)
    assert found == pytest.approx(PUBLISHED[budget], rel=1e-12)
    assert found == pytest.approx([plain(budget, LAW, k) for k in (1, 2, 3, 4)], rel=1e-12)


@pytest.mark.parametrize(("budget", "keep"), [(32e6, 1), (64e6, 1), (128e6, 2), (640e6, 2)])
def test_fitted_to_its_own_results_it_keeps_what_the_authors_keep(budget: float, keep: int) -> None:
    found = advise(results(LAW), Asked(budget, SIZE, draws=5))
    assert found["keep"] == keep and found["samples"] == keep * SIZE
    assert [row["error"] for row in found["curve"]] == pytest.approx(PUBLISHED[int(budget)], abs=1e-6)
    assert found["scale"] == pytest.approx(0.025, rel=1e-3) and found["rmse"] < 1e-8
    assert [b["half_life"] for b in found["buckets"]] == pytest.approx(LAW.half_lives, rel=1e-3)


def test_the_grids_best_point_is_that_of_every_point() -> None:
    x, law = np.array([500.0, 2000, 7000]), Law(1000, 3e2, 0.1, np.array([-0.2]), np.array([3.0]))
    y = np.array([law.error(v, [0]) + off for v, off in zip(x, (0.003, -0.004, 0.002), strict=True)])
    losses = {}
    for b in UTILITIES[::9]:
        for c in HALF_LIVES[::9]:
            one = Law(1000, 3e2, 0.1, np.array([b]), np.array([c]))
            losses[b, c] = sum((plain(v, one, 1) - w) ** 2 for v, w in zip(x, y, strict=True))
    found, b, c = on_grid(Runs(x, y, 1000), 3e2, 0.1, UTILITIES[::9], HALF_LIVES[::9])
    assert found == pytest.approx(min(losses.values()), rel=1e-9) and losses[b, c] == min(losses.values())


def test_random_laws_are_read_and_fitted() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        k = int(rng.integers(2, 5))
        law = Law(1000, rng.uniform(1, 9) * 1e2, 0.05, -rng.uniform(0.02, 0.3, k), rng.uniform(1.5, 9, k))
        for budget in (300.0, 1000.0, 1001.0, 25_000.0):
            assert law.error(budget, range(k)) == pytest.approx(plain(budget, law, k), rel=1e-12)
        runs = [
            Runs(x := np.array([500.0, 1000, 3000, 9000, 20_000]), np.array([law.error(v, [i]) for v in x]), 1000)
            for i in range(k)
        ]
        again = fit(runs, 0.05)
        assert again.utilities == pytest.approx(law.utilities, rel=0.02)
        assert refine(runs, law).utilities == pytest.approx(law.utilities, rel=1e-6)


def test_the_order_of_results_and_of_buckets_has_no_say() -> None:
    rows = results(LAW, noise=0.002)
    found = advise(rows, Asked(128e6, SIZE, draws=0))
    other = advise(rows[::-1], Asked(128e6, SIZE, draws=0))
    assert [row["error"] for row in other["curve"]] == pytest.approx([row["error"] for row in found["curve"]], abs=1e-7)
    assert found["in_rank_order"] and not other["in_rank_order"] and other["keep_buckets"] == found["keep_buckets"]
    ranked = advise(rows[::-1], Asked(128e6, SIZE, draws=0, ranked=True))
    assert ranked["in_rank_order"] and ranked["keep_buckets"][0] == "D"


def test_the_interval_is_seeded_and_holds_the_truth() -> None:
    rows = results(LAW, noise=0.003)
    found, again = (advise(rows, Asked(128e6, SIZE, draws=60, seed=3)) for _ in range(2))
    assert found == again
    for row, true in zip(found["curve"], PUBLISHED[128_000_000], strict=True):
        low, high = row["interval"]
        assert low <= row["error"] <= high and low - 0.01 <= true <= high + 0.01
    assert sum(row["best_share"] for row in found["curve"]) == pytest.approx(1)


def test_one_bucket_and_a_given_scale() -> None:
    found = advise(results(LAW, "A", passes=(1, 3)), Asked(64e6, SIZE, scale=0.025, draws=3))
    assert found["keep"] == 1 and found["buckets"][0]["utility"] == pytest.approx(-0.16, rel=1e-4)


def test_files_of_results(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("samples_seen,bucket,error,note\n100,a,0.5,x\n")
    (tmp_path / "r.jsonl").write_text('{"bucket": "a", "samples_seen": 200, "error": 0.25}\n\n')
    rows = [{"key": "imagenet1k", "metrics": {"main_metric": 0.1}}, {"key": "x", "metrics": {"main_metric": None}}]
    rows += [{"key": "imagenet1k", "metrics": {"main_metric": 0.25}}, {"key": "cars", "metrics": {"main_metric": 0.75}}]
    evaluation = tmp_path / "eval_results.jsonl"
    evaluation.write_text("\n".join(map(json.dumps, rows)))
    words = [str(tmp_path / "r.csv"), str(tmp_path / "r.jsonl"), f"top 10%@3e2={evaluation}"]
    assert read_results(words) == [Result("a", 100, 0.5), Result("a", 200, 0.25), Result("top 10%", 300, 0.75)]
    assert read_results(words[2:], "average") == [Result("top 10%", 300, 0.5)]
    with pytest.raises(DataError, match="no main_metric of 'car'; did you mean 'cars'"):
        read_results(words[2:], "car")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "bucket,samples_seen\na,1\n", "row 1: no error"),
        ("a.csv", "bucket,samples_seen,error\na,x,0.1\n", "must both be numbers"),
        ("a.csv", "bucket,samples_seen,error\na,1,nan\n", "at most 1"),
        ("a.jsonl", "{", "line 1 is no JSON object"),
        ("a.jsonl", "3", "line 1 is no JSON object"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=told):
        read_results([str(tmp_path / name)])


def test_what_does_not_determine_the_law_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than a pass"):
        advise(results(LAW, passes=(0.2, 0.5, 1)), Asked(1e8, SIZE))
    with pytest.raises(UsageError, match="wanted for as many unknowns"):
        advise(results(LAW, "A", passes=(1, 2)), Asked(1e8, SIZE))
    with pytest.raises(UsageError, match="is --bucket-size right"):
        advise(results(LAW), Asked(1e8, 1))
    with pytest.raises(UsageError, match="0 results"):
        advise([], Asked(1e8, SIZE))


def test_the_page_obeys_nothing_and_has_the_numbers() -> None:
    found = advise(results(LAW, ["<script>alert(1)</script>", "b", "c", "d"]), Asked(128e6, SIZE, draws=4))
    text = advice_page(found)
    page = Page(text)
    assert page.count("script") == 1 and page.count("svg") == 2 and "0.704" in text and text == advice_page(found)


def test_the_command(mmfilter: Any, tmp_path: Path) -> None:
    rows = [f"{r.bucket},{r.samples:.0f},{r.error}" for r in results(LAW)]
    (tmp_path / "r.csv").write_text("bucket,samples_seen,error\n" + "\n".join(rows))
    words = ("advise", tmp_path / "r.csv", "--budget", "128e6", "--bucket-size", SIZE, "--draws", 5)
    code, said, error = mmfilter(*words, "--page", tmp_path / "page.html")
    assert code == 0, error
    assert said.startswith("keep 2 of 4 buckets: 25,600,000 samples, each seen 5 times (A, B)")
    assert "2 of 4 buckets" in (tmp_path / "page.html").read_text().replace("</span>", "").replace("<span>", "")
    code, said, _ = mmfilter(*words, "--json")
    assert json.loads(said)["keep"] == 2
    assert mmfilter("advise", tmp_path / "none.csv", "--budget", 1, "--bucket-size", 1)[0] == 1


def test_points_that_tell_nothing_of_a_parameter_are_no_traceback(mmfilter: Any, tmp_path: Path) -> None:
    """Draws of few points can leave a parameter without any: the equations of a step have no single solution."""
    rows = ["a,1e6,0.5", "a,2e6,0.4", "a,4e6,0.3"]
    (tmp_path / "r.csv").write_text("\n".join(["bucket,samples_seen,error", *rows]))
    code, said, error = mmfilter("advise", tmp_path / "r.csv", "--budget", "1e7", "--bucket-size", 1000000)
    assert code == 0 and said.startswith("keep 1 of 1 buckets"), error
