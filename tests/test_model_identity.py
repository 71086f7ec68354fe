"""A model's folder may change between two runs while its weights stay: what it embeds with is part of what it is."""

import gzip
import json
import shutil

import pytest
from command import command
from jobs_util import recipe_text
from tars import write_pool

from mmfilter.json_file import encode
from mmfilter.model_identity import of_folder
from mmfilter.weights import DEMO

CONFIG = "open_clip_config.json"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A run of one shard, by a folder that is a copy of the demo model, and a second shard that is not done yet."""
    folder = tmp_path_factory.mktemp("identity")
    shutil.copytree(DEMO, folder / "model")
    (folder / "t.yaml").write_text(recipe_text(folder / "model"))
    write_pool(folder / "pool", 2, 4)
    words = ("embed", folder / "t.yaml", "--pool", folder / "pool/00000000.tar", "--out", folder / "out", "--local")
    assert command(*words).code == 0
    return folder


@pytest.fixture
def place(embedded, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(embedded, tmp_path / "copy")
    for path in [tmp_path / "copy/t.yaml", *(tmp_path / "copy/out").rglob("*.json")]:
        text = path.read_text().replace(str(embedded), str(tmp_path / "copy"))
        path.write_text(text)
        if '"check"' in text:
            path.write_bytes(encode(json.loads(text)))
    return tmp_path / "copy"


def embed(place, shards="{00000000..00000001}", *words):
    return command("embed", place / "t.yaml", "--pool", place / f"pool/{shards}.tar", "--out", place / "out", *words)


def write(place, change):
    path = place / "model" / CONFIG
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def darker(place):
    write(place, lambda config: config["preprocess_cfg"].update(mean=[0.5, 0.5, 0.5]))


def quick(place):
    write(place, lambda config: config["model_cfg"].update(quick_gelu=True))


def other_words(place):
    path = place / "model/bpe.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    lines[5], lines[9] = lines[9], lines[5]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


CHANGES = {"preprocessing": darker, "architecture": quick, "vocabulary": other_words}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("shards", ["00000000", "{00000000..00000001}"])
def test_a_folder_that_changed_is_a_conflict_that_names_what(place, what, shards):
    CHANGES[what](place)
    done = embed(place, shards, "--local")
    assert done.code == 1 and f"Its part 'embed:b32' was {what} " in done.err and "--redo-changed" in done.err
    assert not (place / "out/metadata/00000001.json").exists()
    assert embed(place, shards, "--local", "--redo-changed").code == 0
    assert embed(place, shards, "--local").code == 0


@pytest.mark.parametrize("what", CHANGES)
def test_words_are_not_searched_with_another_model_than_the_pools(place, what):
    assert command("index", place / "out", "--model", "b32", "--local").code == 0
    CHANGES[what](place)
    done = command("query", "a red square", "--out", place / "out", "-k", 2)
    assert done.code == 1 and f"its {what} hash to" in done.err


def test_how_a_configuration_is_written_is_nothing_to_it(place):
    before = of_folder(str(place / "model"))
    path = place / "model" / CONFIG
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items())), indent=7))
    shutil.move(place / "model/bpe.txt.gz", place / "model/words.gz")
    write(place, lambda config: config["model_cfg"]["text_cfg"]["tokenizer_kwargs"].update(bpe_path="words.gz"))
    assert of_folder(str(place / "model")) == before
    assert embed(place, "{00000000..00000001}", "--local").code == 0


def test_a_commit_that_does_not_tell_is_taken_as_it_was(place):
    path = place / "out/metadata/00000000.json"
    commit = json.loads(path.read_text())
    assert set(commit["parts"]["embed:b32"].pop("resolved")) == {
        *CHANGES,
        "precision",
    }
    path.write_bytes(encode(commit))
    darker(place)
    assert embed(place, "00000000", "--local").code == 0


def test_another_precision_is_a_conflict_and_another_device_is_none(place, monkeypatch):
    monkeypatch.setattr("jobs.embed.device_of", lambda width: "cuda")
    done = embed(place, "{00000000..00000001}", "--local")
    assert done.code == 1 and 'Its part \'embed:b32\' was precision "fp32" and is "bf16"' in done.err
    text = (place / "t.yaml").read_text()
    monkeypatch.undo()
    commit = json.loads((place / "out/metadata/00000000.json").read_text())
    assert commit["models"]["b32"]["device"] == "cpu" and commit["models"]["b32"]["precision"] == "fp32"
    assert embed(place, "{00000000..00000001}", "--local").code == 0, text


def test_a_worker_that_has_another_model_than_was_planned_stops(place, monkeypatch):
    """As on a node whose folder was not copied along."""
    from jobs.embed import work_of
    from mmfilter.errors import ConflictError
    from mmfilter.recipe import load_recipe
    from mmfilter.work import check_loaded

    monkeypatch.chdir(place)
    work = work_of(load_recipe("t.yaml"), str(place / "out"))
    here = {"weights": work.parts["embed:b32"]["weights"], **of_folder("model"), "precision": "fp32"}
    check_loaded(work, "b32", here)
    with pytest.raises(ConflictError, match=r"model 'b32' has another vocabulary on"):
        check_loaded(work, "b32", {**here, "vocabulary": "0" * 64})


def test_an_evaluation_is_of_one_vocabulary(place, tmp_path):
    words = ("evaluate", place / "model", "--tasks", "scenes", "--out", tmp_path / "eval")
    first = command(*words)
    assert first.code == 0, first.err
    other_words(place)
    done = command(*words)
    assert done.code == 1 and "another vocabulary" in done.err


def test_another_model_of_a_package_is_a_conflict(place, monkeypatch):
    """As after an upgrade that brings another language model: half of a column would be the former's."""
    commit = json.loads((place / "out/metadata/00000000.json").read_text())
    assert len(commit["parts"]["score:language"]["resolved"]["packaged"]) == 64
    monkeypatch.setattr("mmfilter.work.packaged_digest", lambda files: "0" * 64)
    done = embed(place, "00000000", "--local")
    assert done.code == 1 and "Its part 'score:language' was packaged" in done.err
    monkeypatch.setattr("mmfilter.work.packaged_digest", lambda files: None)
    assert embed(place, "00000000", "--local").code == 0
