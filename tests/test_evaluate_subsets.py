"""Subsets compared by what their models can do: arms, trials that resume, intervals, the leaderboard."""

import html
import json
import os
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from mmfilter.bootstrap import interval, kendall, sample_draws, totals, widening
from mmfilter.errors import ConflictError, UsageError
from mmfilter.leaderboard import Contest, agreement, board
from mmfilter.results import TaskResult, write_results
from mmfilter.subset import Subset
from mmfilter.synth import SynthOptions, generate
from mmfilter.tasks.datacomp import groups
from mmfilter.trials import arms, draw, pool_uids
from mmfilter.uids import DTYPE


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A pool of 120, and clean.npy in it, the subset of its clean pairs."""
    folder = str(tmp_path_factory.mktemp("pool"))
    generate(folder, SynthOptions(samples=120, per_shard=60, size=64))
    labels = pl.read_parquet(f"{folder}/labels/labels.parquet")
    clean = labels.filter(pl.col("kind") == "clean")["uid"].to_list()
    Subset.from_uids(clean).write(f"{folder}/clean.npy")
    return folder


def result(key, outcomes):
    outcomes = np.asarray(outcomes, float)
    return TaskResult(key, key, {"main_metric": float(outcomes.mean())}, outcomes, len(outcomes))


def made(rng, rates, seeds=3, n=200, keys=("a", "b"), spread=0.0):
    """Arm -> seed -> key -> result: coins that land right at each arm's rate, moved by `spread` from seed to seed."""
    coins = {key: rng.random(n) for key in keys}
    moved = rng.normal(0, spread, seeds)
    return {
        name: {s: {key: result(key, coins[key] < rate + moved[s]) for key in keys} for s in range(seeds)}
        for name, rate in rates.items()
    }


@pytest.mark.slow
def test_rank_trains_evaluates_resumes_and_refuses_another_scale(mmfilter_process, pool, tmp_path):
    out = tmp_path / "out"
    words = ("rank", f"{pool}/clean.npy", "--pool", pool, "--out", out, "--local", "--samples", 64)
    code, said, error = mmfilter_process(*words, "--scale", "micro", "--seeds", 2)
    assert code == 0, error
    record = json.loads((out / "rank.json").read_text())
    kept = {arm["name"]: (arm["kept"], arm["beside"]) for arm in record["arms"]}
    assert kept == {"no_filter": (120, ""), "random-59": (59, ""), "clean": (59, "random-59")}
    reports = {}
    for arm in kept:
        for seed in range(2):
            folder = out / "trials" / arm / f"seed-{seed}"
            report = json.loads((folder / "model" / "train.json").read_text())
            reports[arm, seed] = os.stat(folder / "model" / "train.json").st_mtime_ns
            assert report["options"]["samples"] == 64 and report["options"]["seed"] == seed and report["steps"] == 2
            assert len((folder / "eval_results.jsonl").read_text().splitlines()) == 13
    words_of = {(out / "trials" / arm / "seed-0" / "model" / "bpe.txt.gz").read_bytes() for arm in kept}
    assert len(words_of) == 1  # all arms read by one vocabulary
    draws = [Subset.read(str(out / "subsets" / f"random-59-seed-{seed}.npy")) for seed in range(2)]
    assert draws[0] != draws[1] and all(len(one) == 59 for one in draws)
    page = (out / "leaderboard.html").read_text()
    assert page.count("<svg") == 1 and "random-59" in page and "src=" not in page and "<script" not in page
    found = json.loads((out / "leaderboard.json").read_text())["boards"][0]
    assert {arm["name"]: arm["seeds"] for arm in found["arms"]} == dict.fromkeys(kept, 2)
    assert found["samples"] == 64 and "64 pairs seen (micro" in said
    assert json.loads((out / "rank.json").read_text())["scale"]["model"] == "micro", "wherever the package lies"

    code, again, error = mmfilter_process(*words, "--scale", "micro", "--seeds", 2)
    assert (code, again) == (0, said), error
    for (arm, seed), was in reports.items():
        assert os.stat(out / "trials" / arm / f"seed-{seed}" / "model" / "train.json").st_mtime_ns == was
    code, _, error = mmfilter_process(*words, "--scale", "micro", "--seeds", 2, "--lr-scale", 0.1)
    assert code != 0 and "another scale" in error


def test_a_models_own_open_clip_scores_the_same(pool, tmp_path):
    """A trained checkpoint is one that plain open_clip loads, and it gives the same similarities."""
    import open_clip
    import torch

    from mmfilter.embed import load
    from mmfilter.scales import find_scale, training
    from mmfilter.synth import heldout
    from mmfilter.train import train
    from mmfilter.weights import ModelSpec

    scale = find_scale("micro", 64)
    asked = training(scale, [f"{pool}/00000000.tar", f"{pool}/00000001.tar"], str(tmp_path / "m"), "", 0)
    from dataclasses import replace

    train(replace(asked, vocabulary=100))
    ours = load("m", ModelSpec(model=str(tmp_path / "m")))
    held = [heldout.of_any(0, index) for index in range(6)]
    told = ["a red star", "two blue circles on a wooden table"]
    mine = ours.images(np.stack([ours.prepare(one.image) for one in held])).astype(np.float32) @ ours.texts(told).T
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'm'}")
    from mmfilter.checkpoint import load_checkpoint

    tokenizer = load_checkpoint(str(tmp_path / "m"))[2]
    with torch.inference_mode():
        image = model.eval().encode_image(torch.stack([transform(one.image) for one in held]), normalize=True)
        theirs = (image @ model.encode_text(tokenizer(told), normalize=True).T).numpy()
    assert np.abs(mine - theirs).max() < 2e-3


def test_arms_share_a_random_subset_of_about_their_size(tmp_path):
    uids = np.zeros(1000, DTYPE)
    uids["f1"] = np.arange(1000)
    for name, size in (("a", 500), ("b", 540), ("c", 100), ("d", 560)):
        Subset(uids[:size]).write(str(tmp_path / f"{name}.npy"))
    found = arms([str(tmp_path / f"{name}.npy") for name in "abcd"], uids)
    assert [(arm.name, arm.kept, arm.beside) for arm in found] == [
        *(("no_filter", 1000, ""), ("random-500", 500, ""), ("random-100", 100, ""), ("random-560", 560, "")),
        *(("a", 500, "random-500"), ("b", 540, "random-500"), ("c", 100, "random-100"), ("d", 560, "random-560")),
    ]
    stranger = np.zeros(2, DTYPE)
    stranger["f0"] = 7
    Subset(stranger).write(str(tmp_path / "other.npy"))
    Subset(uids[:0]).write(str(tmp_path / "empty.npy"))
    for names, told in ((("a", "a"), "already"), (("other",), "2 of its 2 uids"), (("empty",), "no uid is in it")):
        with pytest.raises(UsageError, match=told):
            arms([str(tmp_path / f"{name}.npy") for name in names], uids)


def test_a_draw_hangs_on_the_uids_alone(pool, tmp_path):
    uids = pool_uids([f"{pool}/00000000.tar", f"{pool}/00000001.tar"])
    back = pool_uids([f"{pool}/00000001.tar", f"{pool}/00000000.tar"])
    assert len(uids) == 120 and draw(uids, 30, 1) == draw(back, 30, 1) == draw(uids[::-1].copy(), 30, 1)
    assert draw(uids, 30, 1) != draw(uids, 30, 2) and len(draw(uids, 120, 0) & Subset(uids)) == 120
    assert len(draw(uids, 0, 0)) == 0


def test_the_bootstrap_of_samples_against_a_plain_one():
    rng = np.random.default_rng(0)
    found = made(rng, {"x": 0.6}, seeds=1, n=300, keys=("a",))
    draws = totals(sample_draws(found, ["a"])["x"])
    outcomes = found["x"][0]["a"].outcomes
    plain = [rng.choice(outcomes, 300).mean() for _ in range(4000)]
    assert np.allclose(interval(draws), np.quantile(plain, [0.025, 0.975]), atol=0.01)
    assert abs(draws.mean() - outcomes.mean()) < 0.005


def test_few_seeds_give_students_interval():
    """Outcomes that do not vary by sample: what is left is the seeds' spread, by Student's t."""
    values = [0.50, 0.52, 0.57]
    seeds = {s: {"a": result("a", np.full(50, value))} for s, value in enumerate(values)}
    low, high = interval(totals(sample_draws({"x": seeds}, ["a"])["x"]))
    half = 4.303 * np.std(values, ddof=1) / np.sqrt(3)
    assert (high - low) / 2 == pytest.approx(half, rel=0.25)
    assert widening(2) > widening(3) > widening(30) > 1


@pytest.mark.slow
def test_intervals_of_differences_cover_the_truth():
    """Two arms that are alike but for chance: a difference is claimed in few of many repeats."""
    claimed = 0
    for repeat in range(60):
        rng = np.random.default_rng(repeat)
        coins = {s: rng.normal(0.5, 0.03, 2) for s in range(3)}
        found = {
            name: {s: {"a": result("a", rng.random(150) < coins[s][place])} for s in range(3)}
            for place, name in enumerate(("x", "y"))
        }
        difference = Contest(found, ["a"]).difference("x", "y")
        claimed += difference.low > 0 or difference.high < 0
    assert claimed <= 7


def test_a_difference_is_paired_and_needs_two_seeds():
    rng = np.random.default_rng(1)
    found = made(rng, {"x": 0.60, "y": 0.55, "z": 0.55}, spread=0.1)
    contest = Contest(found, ["a", "b"])
    apart = contest.difference("x", "y")
    assert apart.low > 0 and apart.high - apart.low < 0.5 * (contest.score("x").high - contest.score("x").low)
    same = contest.difference("y", "z")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    one = {"x": {0: found["x"][0]}, "y": found["y"]}
    assert Contest(one, ["a"]).difference("x", "y") is None


def test_kendall_against_pairs_and_with_ties():
    rng = np.random.default_rng(2)
    for _ in range(20):
        a, b = rng.integers(0, 5, 7), rng.integers(0, 5, 7)
        signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in combinations(range(7), 2)]
        agree = sum(x * y for x, y in signs)
        whole = (sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)) ** 0.5
        assert kendall(a, b) == pytest.approx(agree / whole)
    assert kendall(np.arange(5), np.arange(5)) == 1 and kendall(np.arange(5), -np.arange(5)) == -1
    assert np.isnan(kendall(np.zeros(4), np.arange(4)))


def write_trials(out, found, keys, samples=1000, lr=1e-3):
    """A folder as `rank` leaves it."""
    for name, seeds in found.items():
        for seed, results in seeds.items():
            write_results(str(out / "trials" / name / f"seed-{seed}"), results.values())
    names = list(found)
    record = {
        "scale": {"name": "tiny", "samples": samples, "model": "/x/tiny.json", "lr": lr},
        "pool": [],
        "samples": 100,
        "tasks": {key: {} for key in keys},
        "arms": [
            {"name": n, "kept": 100 if n == "no_filter" else 50, "beside": "", "random": n.startswith("random")}
            for n in names
        ],
        "seeds": [0, 1, 2],
    }
    (out / "rank.json").write_text(json.dumps(record))
    return str(out)


def test_the_board_orders_compares_and_tells_what_is_unfinished(tmp_path):
    rates = {"no_filter": 0.3, "good": 0.6, "same": 0.6, "random-50": 0.31}
    found = made(np.random.default_rng(3), rates, n=400)
    del found["random-50"][2]
    (tmp_path / "full").mkdir()
    full = board(write_trials(tmp_path / "full", found, ["a", "b"]))
    assert [row.name for row in full.rows][:2] == ["good", "same"] and full.unfinished == {"random-50": 1}
    assert ("good", "no_filter") in full.better and ("same", "random-50") in full.better
    assert not {("good", "same"), ("same", "good")} & set(full.better)
    (good,) = [row for row in full.rows if row.name == "good"]
    assert good.score.low <= good.score.value <= good.score.high and good.gain.low > 0.2
    assert good.score.value == pytest.approx(np.mean([found["good"][s][k].main for s in range(3) for k in "ab"]))

    (tmp_path / "proxy").mkdir()
    proxy = made(np.random.default_rng(4), {"no_filter": 0.2, "good": 0.4, "same": 0.38, "random-50": 0.25}, n=400)
    tau = agreement(board(write_trials(tmp_path / "proxy", proxy, ["a", "b"], 100, 1e-4)), full)
    assert tau.low <= tau.value <= tau.high and tau.value > 0.6


def test_datacomps_groups_stand_on_the_board_where_they_are_whole(mmfilter, tmp_path):
    keys = [*groups()["Retrieval"], groups()["VTAB"][0]]
    found = made(np.random.default_rng(7), {"no_filter": 0.3, "good": 0.6}, keys=keys)
    (good,) = [row for row in board(write_trials(tmp_path, found, keys)).rows if row.name == "good"]
    assert list(good.groups) == ["Retrieval"]
    figure = good.groups["Retrieval"]
    assert figure.value == pytest.approx(np.mean([found["good"][s][k].main for s in range(3) for k in keys[:3]]))
    assert figure.low < figure.value < figure.high
    code, said, error = mmfilter("leaderboard", tmp_path)
    assert code == 0 and f"Retrieval: good {figure.value:.3f} (" in said, error
    assert "DataComp's groups" in html.unescape((tmp_path / "leaderboard.html").read_text())


def test_the_command_line_compares_budgets_and_a_proxy(mmfilter, tmp_path):
    for name, samples in (("small", 100), ("large", 1000)):
        (tmp_path / name).mkdir()
        found = made(np.random.default_rng(5), {"no_filter": 0.3, "mine<b>": 0.5, "random-50": 0.3})
        write_trials(tmp_path / name, found, ["a", "b"], samples)
    words = ("leaderboard", tmp_path / "large", tmp_path / "small", "--proxy", tmp_path / "small")
    code, said, error = mmfilter(*words, "--page", tmp_path / "page.html")
    assert code == 0, error
    assert "mine<b> is better than" in said and "Kendall's tau" in said
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 3 and "mine&lt;b&gt;" in page and "mine<b>" not in page
    code, _, error = mmfilter("leaderboard", tmp_path)
    assert code == 2 and "rank.json" in error


class Doubles:
    """What a worker calls: twice a task."""

    def __call__(self, setup):
        return lambda task: 2 * task


def test_more_workers_than_cores_do_not_hang(ray_here):
    from jobs.cluster import Width
    from jobs.driver import drive

    assert dict(drive(range(9), Doubles(), Width(workers=64, gpus=0))) == {n: 2 * n for n in range(9)}


def test_a_subset_that_changed_is_refused(tmp_path):
    from mmfilter.trial_record import write_record

    scale = {"name": "tiny", "samples": 1, "model": "m"}
    base = {"scale": scale, "pool": [], "samples": 9, "tasks": {}, "seeds": [0]}
    write_record(str(tmp_path), {**base, "arms": [{"name": "a", "kept": 5, "beside": "", "random": False}]})
    write_record(
        str(tmp_path), {**base, "arms": [{"name": "b", "kept": 6, "beside": "", "random": False}], "seeds": [1]}
    )
    merged = json.loads((tmp_path / "rank.json").read_text())
    assert [arm["name"] for arm in merged["arms"]] == ["a", "b"] and merged["seeds"] == [0, 1]
    with pytest.raises(ConflictError, match="other samples"):
        write_record(str(tmp_path), {**base, "arms": [{"name": "a", "kept": 9, "beside": "", "random": False}]})
