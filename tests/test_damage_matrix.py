"""Damaged files of a run: every verb names the file, does it again, or gives the sound result; kills leave no mixture.

A few of the cases of benchmarks/corrupt.py, drawn so that each kind of file, of damage and each verb occurs.
"""

import pytest
from damage import Sample, damage, damages, digests, known, repaired, shown, verbs, verdict
from damage_files import ARTEFACTS, LISTED, NOT_VOUCHED, REPAIRED, SILENT, TRACEBACK, UNNAMED
from kills import Killer

BAD = (SILENT, TRACEBACK, UNNAMED)
CASES = [(kind, number) for number, kind in enumerate(ARTEFACTS)]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Sample(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def killer(sample):
    process = Killer(sample)
    yield process
    process.close()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), CASES, ids=[kind for kind, _ in CASES])
def test_a_damaged_file_is_named_done_again_or_of_no_effect(sample, kind, number):
    cases, readers = list(damages(sample, kind, 0, 2)), verbs(kind)
    what, data = cases[number % len(cases)]
    verb = readers[5 * number % len(readers)]
    found, outcome = verdict(sample, kind, data, verb)
    assert found not in BAD or known(kind, what, verb), f"{found}: {what}: {verb}: {shown(sample, verb, outcome)}"


VOUCHED = ["commit", "metadata parquet", "npz", "failures", "column", "pool column", "index.json", "knn.faiss"]
VOUCHED += ["index uids", "concepts json", "centroids"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", VOUCHED)
def test_verify_deep_names_a_flipped_bit(sample, kind):
    what, data = next(case for case in damages(sample, kind, 1, 1) if case[0].startswith("flipped"))
    sample.restore()
    assert sample.run("verify --deep").code == 0
    damage(sample.path(kind), data)
    outcome = sample.run("verify --deep")
    assert outcome.code == 1 and str(sample.path(kind)) in outcome.text, (what, outcome.text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npz", "failures", "pool column", "concepts json", "knn.faiss"])
def test_repair_ends_with_the_bytes_of_the_sound_folder(sample, kind):
    data = next(data for what, data in damages(sample, kind, 2, 1) if what.startswith("flipped"))
    found, outcome = repaired(sample, kind, data)
    assert found == REPAIRED, outcome.text


@pytest.mark.slow
def test_repair_lists_what_it_cannot_make(sample):
    found, outcome = repaired(sample, "column", None)
    assert found == LISTED and "look_score" in outcome.text and "--recipe" in outcome.text
    sample.run("verify", sample.out, "--repair", "--recipe", sample.home / "extra.yaml", "--local")
    assert digests(sample.out) == sample.files


def test_files_for_people_are_read_by_no_verb():
    assert NOT_VOUCHED == ("report", "card")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "at", "readers"),
    [
        ("embed --redo-changed", 4, ("select", "query")),
        ("score", 2, ("select, by the column",)),
        ("cluster", 4, ("select, by the cluster", "card")),
        ("index", 10, ("query",)),
    ],
)
def test_killed_at_a_rename_nothing_is_mixed_and_the_same_command_mends_it(killer, verb, at, readers):
    wrong = killer.kill(verb, at, readers)
    assert not wrong, "\n".join(wrong)
