"""A subset of derived uids, and a pool that is read with others: what was forgotten is named."""

import pytest
from command import command
from tars import jpeg, tar
from train_util import write_config


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run whose uids are made of content, and a copy of its subset elsewhere, where nothing says so."""
    monkeypatch.chdir(tmp_path)
    kinds = (("jpg", lambda n: jpeg((n * 20, 4, 4))), ("txt", lambda n: b"a b c"))
    rows = [(f"{n}.{kind}", make(n)) for n in range(12) for kind, make in kinds]
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "0.tar").write_bytes(tar(rows))
    done = command("run", "no_filter", "--pool", "pool", "--out", "out", "--uids", "content", "--local", "--no-reshard")
    assert done.code == 0, done.err
    (tmp_path / "s.npy").write_bytes((tmp_path / "out/subsets/no_filter.npy").read_bytes())
    return tmp_path


def words(place, verb):
    if verb == "rank":
        return ("rank", "s.npy", "--pool", "pool", "--out", "r", "--scale", "micro", "--samples", 16, "--local")
    engine = ("--engine", "open_clip", "--prepare") if verb == "open_clip" else ()
    model = ("--model", write_config(place), "--vocabulary", 300)
    return ("train", "m", "--pool", "pool", "--subset", "s.npy", "--samples", 8, "--batch-size", 4, *model, *engine)


@pytest.mark.parametrize("verb", [pytest.param("train", marks=pytest.mark.slow), "open_clip", "rank", "reshard"])
def test_a_forgotten_option_is_named(place, verb):
    line = ("reshard", "s.npy", "--pool", "pool", "--out", "n", "--local") if verb == "reshard" else words(place, verb)
    done = command(*line)
    assert done.code in (1, 2) and "--uids and --pool-id" in done.err and "Traceback" not in done.err, done.err
