"""`query` and `serve` take `--weights NAME=PATH` as the other verbs do, for a model that is not where it was."""

import shutil

import pytest
from command import command
from embed_util import tiny_folder
from fastapi.testclient import TestClient
from jobs_util import recipe_text
from tars import write_pool


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run with an index, whose model's folder has been moved to `moved` since."""
    folder = tmp_path_factory.mktemp("weights")
    model = tiny_folder(folder / "model")
    (folder / "t.yaml").write_text(recipe_text(model))
    write_pool(folder / "pool", 1, 6)
    words = ("embed", folder / "t.yaml", "--pool", folder / "pool", "--out", folder / "out", "--local")
    assert command(*words).code == 0
    assert command("index", folder / "out", "--model", "b32", "--local").code == 0
    shutil.move(folder / "model", folder / "moved")
    return folder


def query(place, *weights):
    return command("query", "a red square", "--out", place / "out", "-k", 3, *weights)


def test_query_finds_the_model_where_it_is_now(place):
    done = query(place)
    assert done.code in (1, 2) and "Traceback" not in done.err
    done = query(place, "--weights", f"b32={place / 'moved'}")
    assert done.code == 0 and done.out.splitlines()[-1].startswith("3 samples"), done.err


def test_what_cannot_be_is_said(place, tmp_path):
    done = query(place, "--weights", f"b23={place / 'moved'}")
    assert done.code == 2 and f"--weights b23: {place / 'out'} has no such model; did you mean 'b32'?" in done.err
    done = query(place, "--weights", f"b32={tmp_path / 'nowhere'}")
    assert done.code == 2 and "it is not there" in done.err
    other = tiny_folder(tmp_path / "other", "quick_gelu")
    with open(f"{other}/open_clip_model.safetensors", "r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\0\0\0\0")
    done = query(place, "--weights", f"b32={other}")
    assert done.code == 1 and "its weights hash to" in done.err


def test_serve_answers_by_the_model_that_is_given(place, monkeypatch):
    applications = []
    monkeypatch.setattr("jobs.serve.listen", lambda application, listening, token: applications.append(application))
    done = command("serve", place / "out", "--port", 0, "--weights", f"b23={place / 'moved'}")
    assert done.code == 2 and "did you mean 'b32'?" in done.err and not applications
    for words in ((), ("--weights", f"b32={place / 'moved'}")):
        assert command("serve", place / "out", "--port", 0, *words).code == 0
    for application, status in zip(applications, (503, 200), strict=True):
        with TestClient(application, base_url="http://localhost") as client:
            asked = {"text": "a red square", "indice_name": "b32-image", "num_images": 3, "modality": "image"}
            assert client.post("/knn-service", json=asked).status_code == status


def test_dedup_and_compare_embed_images_beside_the_pool(place, monkeypatch):
    monkeypatch.chdir(place)
    assert command("select", "no_filter", "--out", "out").code == 0
    given = ("--weights", "b32=moved", "--local")
    done = command("dedup", "out", "--against", "pool", "--model", "b32", *given)
    assert done.code == 0 and "6 (100.0%) in the other set too" in done.out, done.err
    done = command("compare", "no_filter", "--out", "out", "--target", "pool", *given)
    assert done.code == 0 and "to target" in done.out, done.err
    for words in (("dedup", "out", "--against", "pool", "--model", "b32"), ("compare", "no_filter", "--out", "out")):
        done = command(*words, "--weights", "b23=moved", "--local")
        assert done.code == 2 and "did you mean 'b32'?" in done.err
