"""A folder of DataComp's metadata, parquet and npz without tars or commits, in every verb that reads a table."""

import json
import os

import numpy as np
import polars as pl
import pytest
from command import command
from tars import uid

N = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of 40 samples; every second one repeats the file before it."""
    folder = tmp_path_factory.mktemp("datacomp") / "metadata"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for s in range(2):
        english = [bool(i % 3) for i in range(N)]
        frame = {
            "uid": [uid(s * N + i) for i in range(N)],
            "url": [f"https://x.invalid/{s}/{i}" for i in range(N)],
            "text": ["a photo of a small brown dog" if yes else "ein Foto von einem Hund im Schnee" for yes in english],
            "original_width": 300,
            "original_height": [150 + 10 * i for i in range(N)],
            "clip_l14_similarity_score": rng.random(N, np.float32),
            "sha256": [f"{(s * N + i) // 2:064x}" for i in range(N)],
        }
        pl.DataFrame(frame).write_parquet(folder / f"{s:032x}.parquet")
        rows = rng.normal(size=(2, N, 16)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=2, keepdims=True)
        np.savez(folder / f"{s:032x}.npz", l14_img=rows[0].astype(np.float16), l14_txt=rows[1].astype(np.float16))
    return folder


def test_what_was_given_once_is_remembered(folder, tmp_path):
    out, before = tmp_path / "out", sorted(os.listdir(folder))
    assert command("score", "basic_filter", "--metadata", folder, "--out", out).code == 0
    assert json.loads((out / "run.json").read_text())["metadata"] == str(folder)
    done = command("select", "basic_filter", "--out", out)
    assert done.code == 0 and done.out.startswith("in 80 = kept ")
    done = command("report", out)
    assert done.code == 0 and "this pool came without images" in (out / "report.html").read_text()
    assert command("card", out).code == 0
    done = command("explain", uid(0), "--out", out)
    assert done.code == 0 and "dropped by all[0].language" in done.out and "language = de" in done.out
    done = command("dedup", out, "--local")
    assert done.code == 0 and done.out.startswith("80 samples, 40 (50.0%) duplicates")
    assert command("cluster", out, "--model", "l14", "--local").out.startswith("80 samples in ")
    assert command("index", out, "--model", "l14", "--local").code == 0
    done = command("query", "--uid", uid(0), "--out", out, "-k", 3)
    assert done.code == 0 and done.out.splitlines()[-1].startswith("3 samples")
    done = command("query", "a dog", "--out", out)
    assert done.code == 2 and "words and pictures cannot be embedded" in done.err
    assert command("compare", "basic_filter", "--out", out, "--local").code == 0
    assert command("schedule", out, "--kind", "rs2", "--epochs", 2).out.startswith("2 epochs out of 80 samples")
    assert command("probe", out, "--model", "l14", "--column", "language").code == 0
    done = command("status", out)
    assert done.code == 0 and f"scores metadata of {folder}, no tars" in done.out
    assert sorted(os.listdir(folder)) == before, "nothing is written to the folder"


def test_each_verb_takes_it_by_itself(folder, tmp_path):
    given = ("--metadata", folder)
    out = tmp_path / "a"
    assert command("dedup", out, *given, "--local").out.startswith("80 samples, 40")
    assert command("cluster", tmp_path / "b", *given, "--model", "l14", "--local").code == 0
    assert command("index", tmp_path / "c", *given, "--model", "l14", "--local").code == 0
    assert command("query", "--uid", uid(0), *given, "--out", tmp_path / "c").code == 0
    assert command("schedule", tmp_path / "d", *given, "--kind", "rs2", "--epochs", 2).code == 0
    assert command("probe", tmp_path / "e", *given, "--model", "l14", "--column", "text").code == 0
    assert command("select", "clip_score", *given, "--out", out).out.startswith("in 80 = kept 24")
    (out / "run.json").unlink()  # now each has to be told again
    done = command("report", out)
    assert done.code == 2 and "--metadata" not in done.out
    assert command("report", out, *given).code == 0
    assert command("card", out, *given).code == 0
    assert command("explain", uid(0), "--out", out, *given).code == 0
    assert command("compare", "clip_score", "--out", out, *given, "--local").code == 0


def test_the_service_takes_it(folder, tmp_path):
    httpx = pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    from index.service.app import create_app
    from index.service.settings import Settings

    assert httpx and command("index", tmp_path, "--metadata", folder, "--model", "l14", "--local").code == 0
    (tmp_path / "run.json").unlink()
    app = create_app([str(tmp_path)], Settings(models=False, metadata=str(folder)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        found = client.get("/api/info").json()
        assert found["samples"] == 2 * N and found["indices"][0]["name"] == "l14-image"
    done = command("serve", tmp_path / "a", tmp_path / "b", "--metadata", folder)
    assert done.code == 2 and "it is of one OUT, and 2 are given" in done.err


def test_a_folder_without_parquet_leaves_nothing_behind(tmp_path):
    for words in (
        ("select", "clip_score", "--out"),
        ("score", "clip_score", "--out"),
        ("dedup",),
        ("index", "--model", "l14"),
        ("schedule", "--kind", "rs2", "--epochs", "2"),
    ):
        verb, *rest = words
        place = (tmp_path / "o", *rest) if "--out" not in rest else (*rest, tmp_path / "o")
        done = command(verb, *place, "--metadata", tmp_path / "nowhere")
        assert done.code == 2 and "nowhere: " in done.err, done.err
        assert not (tmp_path / "o").exists() or os.listdir(tmp_path / "o") == []


def test_embedding_a_pool_takes_its_place(folder, tmp_path):
    from tars import write_pool

    write_pool(tmp_path / "pool", 1, 4)
    out = tmp_path / "out"
    assert command("select", "clip_score", "--metadata", folder, "--out", out).out.startswith("in 80")
    assert command("run", "no_filter", "--pool", tmp_path / "pool", "--out", out, "--local").out.startswith(
        "in 4 = kept 4"
    )
