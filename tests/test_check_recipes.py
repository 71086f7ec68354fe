"""Each field of each packaged recipe is misspelt once: `run` and its dry run say so before a model is loaded."""

import copy
import hashlib
import json
from importlib.resources import files

import numpy as np
import polars as pl
import pytest
import yaml
from command import command
from tars import write_pool

from jobs.check import Request, check_request
from mmfilter.errors import UsageError
from mmfilter.recipe import packaged, parse_recipe
from mmfilter.rules import TABLE as RULES

pytestmark = pytest.mark.slow  # each in some hundredths of a second, but there are hundreds

PROSE = {"name", "paper", "about"}
ANY_TEXT = {("is",), ("metaclip", "language")}  # languages: a detector's answers, which nobody lists
HUB = "hf-hub:"


def source(name):
    return yaml.safe_load(files("mmfilter.recipes").joinpath(f"{name}.yaml").read_text())


def breaks(node, path=()):
    """(path, what is misspelt there): "key" or the word of a value. All keys, and all values that are words."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key), "key"
            if path or key not in PROSE:
                yield from breaks(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from breaks(value, (*path, i))
    elif isinstance(node, str) and not any(path[-len(end) :] == end for end in ANY_TEXT):
        if path[-1] == "sql":
            yield from ((path, column) for column in sorted(set(pl.sql_expr(node).meta.root_names())))
        else:
            yield path, node


def broken(recipe, path, word):
    """The recipe with an x at the end of a key or word; of a model on the hub its scheme is misspelt."""
    recipe = copy.deepcopy(recipe)
    *above, last = path
    place = recipe
    for step in above:
        place = place[step]
    if word == "key":
        items = [(f"{key}x" if key == last else key, value) for key, value in place.items()]
        place.clear()
        place.update(items)
    elif word.startswith(HUB):
        place[last] = word.replace("-", "_", 1)
    elif last == "sha256":
        place[last] = place[last][::-1]
    else:
        place[last] = place[last].replace(word, f"{word}x")
    return recipe


CASES = [(name, path, word) for name in packaged() for path, word in breaks(source(name))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pool, and whatever file a packaged recipe names."""
    import torch

    where = tmp_path_factory.mktemp("recipes")
    write_pool(where / "pool", 1, 2)
    for place in ("targets/images", "targets/imagenet1k", "metaclip"):
        (where / place).mkdir(parents=True)
    np.save(where / "targets/centroids.npy", np.eye(4, dtype=np.float32))
    (where / "metaclip/metadata.json").write_text(json.dumps(["red"]))
    torch.save({"weight": torch.ones(1, 768), "bias": torch.zeros(1)}, where / "sa_0_4_vit_l_14_linear.pth")
    return where


@pytest.fixture
def here(folder, monkeypatch):
    """The working directory is that folder, and nothing can be loaded or started."""

    def fail(*_, **__):
        raise AssertionError("something was loaded or started before the mistake was found")

    import open_clip

    import jobs.embed
    import jobs.run
    import mmfilter.embed

    monkeypatch.chdir(folder)
    monkeypatch.setattr(open_clip, "create_model", fail)
    monkeypatch.setattr(mmfilter.embed, "load", fail)
    monkeypatch.setattr(jobs.embed, "resolve", fail)
    monkeypatch.setattr(jobs.embed, "drive", fail)
    monkeypatch.setattr(jobs.run, "run_recipe", fail)
    return folder


def given(name, folder):
    """The packaged recipe; the head's sha256 is that of the file that stands in for LAION's."""
    recipe = source(name)
    for score in recipe.get("scores", []):
        if "head" in score:
            score["head"]["sha256"] = hashlib.sha256((folder / score["head"]["file"]).read_bytes()).hexdigest()
    return recipe


def wordnet_is_absent():
    from index.synset import Synset
    from mmfilter.errors import MMFilterError

    try:
        Synset().check()
    except MMFilterError:
        return True
    return False


@pytest.mark.parametrize("name", packaged())
def test_a_packaged_recipe_passes(name, here):
    if name == "text_based" and wordnet_is_absent():
        pytest.skip("WordNet 3.0 is not on this machine")
    recipe = parse_recipe(json.dumps(given(name, here)), f"recipe {name}")
    check_request(recipe, Request("dry-run", str(here / "out"), [str(here / "pool/00000000.tar")], resharded=True))


@pytest.mark.parametrize(
    ("name", "path", "word"), CASES, ids=[f"{n}-{'.'.join(map(str, p))}-{w}"[:90] for n, p, w in CASES]
)
def test_a_misspelt_field_is_found_before_anything_is_loaded(name, path, word, here):
    recipe = broken(given(name, here), path, word)
    (here / "t.yaml").write_text(json.dumps(recipe))
    words = ("run", "t.yaml", "--pool", "pool", "--out", "out", "--local")
    for more in ((), ("--dry-run",)):
        code, _, said = command(*words, *more)
        assert code == 2, said
        assert str(path[-1] if word == "key" or path[-1] == "sha256" else word).removeprefix(HUB) in said, said
    assert not (here / "out").exists()


def test_the_cases_reach_every_kind_of_field():
    leaves = {path[-1] for _, path, word in CASES if word != "key"}
    assert {"score", "column", "model", "pretrained", "file", "path", "centroids", "entries", "sql"} <= leaves
    assert len(CASES) > 300
    assert {str(path[-1]) for _, path, word in CASES if word == "key"} & set(RULES)


@pytest.mark.parametrize(
    "rule",
    [
        {"ensemble": {"scores": ["phash", "phsh"], "keep": 0.5}},
        {"not": {"where": {"sql": "phsh > 1"}}},
        {"votes": {"at_least": 1, "rules": [{"threshold": {"score": "phsh", "min": 0}}]}},
    ],
)
def test_columns_inside_rules_of_rules_and_in_repeat(rule):
    scores = ["phash"]
    for fields in ({"select": {"any": [rule]}}, {"select": "everything", "repeat": [{"times": 2, "rule": rule}]}):
        recipe = parse_recipe(json.dumps({"name": "t", "scores": scores, **fields}), "recipe t")
        with pytest.raises(
            UsageError, match=r"(select\.any\[0\]|repeat\[0\]\.rule).*no column 'phsh'; did you mean 'phash'"
        ):
            check_request(recipe, Request("dry-run", "/nowhere", []))
