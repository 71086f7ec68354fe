"""A folder that an earlier version's packaged recipe began goes on with that recipe, and says so."""

from pathlib import Path

import pytest
import yaml
from command import command
from jobs_util import results
from tars import write_pool

from mmfilter.recipe import recipe_yaml
from mmfilter.sources import read_part

SAYS = "was begun by an earlier version of the recipe demo, and goes on as it was"


@pytest.mark.slow
def test_a_folder_of_the_former_demo_goes_on(tmp_path):
    source = yaml.safe_load(recipe_yaml("demo")[0])
    source["scores"][-1]["duplicates"].pop("mode")  # as version 0.1.0 had it: greedy
    Path(tmp_path, "demo.yaml").write_text(yaml.safe_dump(source))
    write_pool(tmp_path / "pool", 2, 6)
    words = ("--pool", tmp_path / "pool", "--out", tmp_path / "run", "--local", "--no-reshard")
    assert command("run", tmp_path / "demo.yaml", *words).code == 0
    before = results(tmp_path / "run")

    def mode():
        column = sorted(Path(tmp_path, "run/columns/duplicate_of").glob("*.parquet"))[0]
        return read_part(str(column))["fields"]["mode"]

    assert mode() == "greedy"
    done = command("run", "demo", *words)
    assert done.code == 0 and SAYS in done.err and results(tmp_path / "run") == before
    done = command("score", "demo", "--out", tmp_path / "run", "--local")
    assert done.code == 0 and SAYS in done.err and mode() == "greedy"
    done = command("run", "demo", *words, "--redo-changed")
    assert done.code == 0 and SAYS not in done.err and mode() == "groups"
    assert SAYS not in command("run", "demo", *words).err
    other = command("run", tmp_path / "demo.yaml", *words)
    assert other.code == 1 and 'mode "groups", now "greedy"' in other.err  # a file of one's own is taken as it is
