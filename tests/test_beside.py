"""Files beside the columns (concepts): written anew where they are not what was written, and never read damaged."""

from pathlib import Path

import numpy as np
import pytest
from command import command
from dedup_util import embedded

from mmfilter.card_facts import _labels
from mmfilter.concepts_file import read_concepts
from mmfilter.errors import DataError

FILES = ("concepts.json", "centroids.npy")


@pytest.fixture
def out(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 8))
    folder = embedded(tmp_path, rows, (20, 20))[0]
    assert command("cluster", folder, "-k", 3, "--model", "b32", "--local").code == 0
    return folder


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["deleted", "emptied", "truncated"])
def test_a_file_that_is_not_whole_is_written_anew(out, name, how):
    path = Path(out, "concepts/b32", name)
    data = path.read_bytes()
    path.unlink() if how == "deleted" else path.write_bytes(b"" if how == "emptied" else data[:-9])
    assert command("cluster", out, "-k", 3, "--model", "b32", "--local").code == 0
    assert path.read_bytes() == data


def test_a_flipped_list_is_named(out):
    path = Path(out, "concepts/b32/concepts.json")
    path.write_bytes(path.read_bytes().replace(b'"size"', b'"siza"', 1))
    done = command("cluster", out, "-k", 3, "--model", "b32", "--local")
    assert done.code == 1 and "concepts.json: is not the file that was recorded" in done.err


def test_labels_are_those_of_the_columns_clusters(out):
    path = str(Path(out, "concepts/b32/concepts.json"))
    sizes = np.array([concept["size"] for concept in read_concepts(path)])
    assert len(_labels(path, sizes)) == 3
    assert _labels(path, np.roll(sizes, 1) + np.array([1, 0, -1])) == {}, "of another clustering"
    Path(path).write_text("[{]")
    Path(f"{path}.record").unlink()
    with pytest.raises(DataError, match=r"concepts\.json: is damaged .*run `mmfilter cluster` again"):
        _labels(path, sizes)
