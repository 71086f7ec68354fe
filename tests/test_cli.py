"""The command line as a person meets it: exit codes, messages, and verbs one by one."""

import json
import textwrap

import numpy as np
import polars as pl
import pytest
from jobs_util import recipe_text, results
from tars import sample, tar, uid, write_pool

from mmfilter.subset import Subset


@pytest.fixture
def recipe(tmp_path, tiny_model):
    path = tmp_path / "t.yaml"
    path.write_text(recipe_text(tiny_model))
    return path


@pytest.mark.slow
def test_verbs_one_by_one_are_the_same_as_run(recipe, tmp_path, mmfilter_process):
    write_pool(tmp_path / "pool", 2, 8)
    pool, a, b = tmp_path / "pool", tmp_path / "a", tmp_path / "b"
    code, said, _ = mmfilter_process("run", recipe, "--pool", pool, "--out", a, "--local")
    assert code == 0 and "in 16 = kept 8 (50.0%) + dropped 8 + failed 0" in said
    assert mmfilter_process("embed", recipe, "--pool", pool, "--out", b, "--local")[0] == 0
    assert mmfilter_process("select", recipe, "--out", b)[0] == 0
    shards = b / "shards" / "t"
    assert mmfilter_process("reshard", b / "subsets/t.npy", "--pool", pool, "--out", shards, "--local")[0] == 0
    assert mmfilter_process("report", b)[1].strip() == str(b / "report.html")
    assert results(a) == results(b)
    kept = Subset.read(str(b / "subsets/t.npy")).strings()[0]
    code, said, _ = mmfilter_process("explain", kept, "--out", b)
    assert code == 0 and f"{kept}: kept" in said and "clip_b32_similarity_score" in said


@pytest.mark.slow
def test_exit_codes_and_messages(recipe, tmp_path, mmfilter):
    pool = tmp_path / "pool"
    write_pool(pool, 1, 3)
    code, _, said = mmfilter("run", "laion2c", "--pool", pool)
    assert code == 2 and "did you mean 'laion2b'" in said
    code, _, said = mmfilter("run", recipe, "--pool", tmp_path / "nothing" / "*.tar")
    assert code == 2 and "no shard matches" in said
    code, _, said = mmfilter("run", recipe, "--pool", "pipe:echo owned")
    assert code == 2 and "pipe:" in said
    code, _, said = mmfilter("explain", "0" * 32, "--out", tmp_path / "absent")
    assert code in (1, 2) and "Traceback" not in said
    (pool / "00000000.tar").write_bytes(tar([*sample(0, text="a nice red square"), *sample(1)[::2]]))
    code, said, _ = mmfilter("run", recipe, "--pool", pool, "--out", tmp_path / "o", "--local", "--no-reshard")
    assert code == 3 and "missing_text" in said


def test_a_dry_run_writes_nothing_and_counts_the_cost(recipe, tmp_path, mmfilter):
    write_pool(tmp_path / "pool", 3, 5)
    code, said, _ = mmfilter("run", recipe, "--pool", tmp_path / "pool", "--out", tmp_path / "o", "--dry-run", "--json")
    cost = json.loads(said)
    assert code == 0 and not (tmp_path / "o").exists()
    assert (cost["shards_to_do"], cost["samples_to_do"]) == (3, 15)
    assert cost["models"]["b32"]["gflop_a_sample"] >= 0 and cost["parts"]["embed:b32"] == 3


def test_progress_is_json_lines_when_asked(recipe, tmp_path, mmfilter_process):
    write_pool(tmp_path / "pool", 2, 5)
    words = ("run", recipe, "--pool", tmp_path / "pool", "--out", tmp_path / "o", "--local", "--progress", "json")
    _, _, said = mmfilter_process(*words)
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    last = [event for event in events if event["stage"] == "embed"][-1]
    assert (last["event"], last["shards"], last["of"], last["samples"]) == ("end", 2, 2, 10)


def test_subset_algebra(tmp_path, mmfilter):
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    Subset.from_uids([uid(n) for n in (1, 2, 3)]).write(str(a))
    Subset.from_uids([uid(n) for n in (3, 4)]).write(str(b))
    for sign, want in (("&", [3]), ("|", [1, 2, 3, 4]), ("-", [1, 2])):
        assert mmfilter("subset", a, sign, b, "--write", tmp_path / "c.npy")[0] == 0
        assert Subset.read(str(tmp_path / "c.npy")).strings() == [uid(n) for n in want]


def test_datacomps_metadata_is_filtered_without_its_images(tmp_path, mmfilter):
    """Parquet with npz as published, no tar: language from the texts, then a clip score from the npz."""
    folder = tmp_path / "metadata"
    folder.mkdir()
    n = 40
    rng = np.random.default_rng(0)
    for s in range(2):
        texts = [
            "a photo of a small brown dog on the beach"
            if i % 3
            else "ein Foto von einem kleinen braunen Hund am Strand"
            for i in range(n)
        ]
        frame = pl.DataFrame(
            {
                "uid": [uid(s * n + i) for i in range(n)],
                "url": "",
                "text": texts,
                "original_width": 300,
                "original_height": [150 + 10 * i for i in range(n)],
            }
        )
        frame.write_parquet(folder / f"{s:032x}.parquet")
        rows = rng.normal(size=(2, n, 16)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=2, keepdims=True)
        np.savez(folder / f"{s:032x}.npz", l14_img=rows[0].astype(np.float16), l14_txt=rows[1].astype(np.float16))
    out = tmp_path / "out"
    assert mmfilter("score", "basic_filter", "--metadata", folder, "--out", out)[0] == 0
    code, said, _ = mmfilter("select", "basic_filter", "--metadata", folder, "--out", out, "--json")
    want = sum(bool(i % 3) and 150 + 10 * i >= 200 for i in range(n)) * 2
    assert code == 0 and json.loads(said)["counts"]["kept"] == want
    assert mmfilter("score", "clip_score", "--metadata", folder, "--out", out)[0] == 0
    code, said, _ = mmfilter("select", "clip_score", "--metadata", folder, "--out", out, "--json")
    assert code == 0 and json.loads(said)["counts"]["kept"] == round(0.3 * 2 * n)
    assert not list(folder.glob("*.json")), "nothing is written beside what is not ours"


PLUGIN = '''
    """A score and a rule from outside the tree."""
    import numpy as np
    from mmfilter.plugs import Rule, Score

    class Shouting(Score):
        columns = ("shouting",)
        needs = frozenset({"text"})

        def __call__(self, batch):
            shares = [sum(c.isupper() for c in text) / max(len(text), 1) for text in batch["text"]]
            return {"shouting": np.array(shares, np.float32)}

    class Quiet(Rule):
        at_most: float = 0.5

        @property
        def needs(self):
            return frozenset({"shouting"})

        def mask(self, table):
            return table["shouting"].to_numpy() <= self.at_most

        def describe(self):
            return f"at most {self.at_most:g} capitals"

    RECIPE = "name: hush\\nscores: [shouting]\\nselect: {quiet: {at_most: 0.2}}"
'''


@pytest.mark.slow
def test_another_package_adds_a_score_a_rule_and_a_recipe(tmp_path, mmfilter_process):
    site = tmp_path / "site"
    (site / "loud-1.0.dist-info").mkdir(parents=True)
    (site / "loud.py").write_text(textwrap.dedent(PLUGIN))
    (site / "loud-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (site / "loud-1.0.dist-info" / "entry_points.txt").write_text(
        "[mmfilter.scores]\nshouting = loud:Shouting\n[mmfilter.rules]\nquiet = loud:Quiet\n"
        "[mmfilter.recipes]\nhush = loud:RECIPE\n"
    )
    (tmp_path / "pool").mkdir()
    rows = [m for n in range(6) for m in sample(n, text="A LOUD CAPTION" if n % 2 else "a quiet caption")]
    (tmp_path / "pool/00000000.tar").write_bytes(tar(rows))
    import os

    from conftest import ROOT

    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    code, said, err = mmfilter_process("run", "hush", "--pool", tmp_path / "pool", "--out", tmp_path / "o", env=env)
    assert code == 0, err
    assert "kept 3" in said and "at most 0.2 capitals" in said
    code, said, err = mmfilter_process("recipe", "list", env=env)
    assert code == 0 and "hush " in said and "[loud:RECIPE]" in said, err
    code, _, err = mmfilter_process("run", "hus", "--pool", tmp_path / "pool", "--out", tmp_path / "p", env=env)
    assert code == 2 and "did you mean 'hush'" in err
