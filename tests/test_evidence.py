"""What a duplicate is to the one that is kept: every number is of the two samples it names, and the chain is true."""

import json

import numpy as np
import pytest
from dedup_util import blobs, embedded
from fastapi.testclient import TestClient

from index import evidence
from index.duplicates import Duplicates
from index.evidence import Evidence
from index.pool import Pool
from index.service.app import create_app
from index.service.settings import Settings
from jobs.cluster import Width
from jobs.pool_scores import add_pool_scores
from mmfilter.allow import ALL
from mmfilter.errors import DataError
from mmfilter.likeness import read_likeness

EPS = 0.05


def marked(folder, rows, hashes=None, files=None, **fields):
    """(an OUT whose duplicates were looked for, uids)."""
    columns = {"phash": np.array(hashes, np.uint64)} if hashes is not None else {}
    columns |= {"sha256": files} if files is not None else {}
    out, uids = embedded(folder, rows, [len(rows) // 3, len(rows)], **columns)
    fields = {"exact": files is not None, "keep": "score", "score": "s", **fields}
    add_pool_scores([Duplicates(**fields)], out, Width(local=True))
    return out, uids


@pytest.fixture
def rows():
    found = blobs(160, 8, 3)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def mixed(folder, rows, mode):
    """All three kinds: hashes a few bits apart, and files that are the same."""
    rng = np.random.default_rng(4)
    hashes = rng.integers(0, 2**63, len(rows), dtype=np.uint64)
    for at in range(1, len(rows), 3):
        hashes[at] = hashes[at - 1] ^ np.uint64(1 << int(rng.integers(0, 60)))
    files = [f"{i - i % 5 if i % 5 < 2 else i:064x}" for i in range(len(rows))]
    fields = {"model": "b32", "eps": EPS, "k": 2, "hamming": 2, "mode": mode}
    return *marked(folder, rows, hashes, files, **fields), hashes, files


@pytest.mark.parametrize("mode", ["greedy", "groups"])
def test_every_number_is_of_the_two_it_stands_beside(tmp_path, rows, mode):
    out, uids, hashes, files = mixed(tmp_path, rows, mode)
    known = Evidence.open(Pool(out))
    frame = known.pool.read("uid", "duplicate_of", "duplicate_kind", "duplicate_similarity")
    recorded = {row["uid"]: row for row in frame.to_dicts() if row["duplicate_of"]}
    told = known.tell(np.arange(len(known)))
    vectors = known.pool.vectors("b32").take(np.arange(len(rows))).astype(np.float64)
    at = {uid: i for i, uid in enumerate(uids)}

    def check(one, other, numbers):
        i, j = at[one], at[other]
        assert numbers["cosine"] == pytest.approx(float(vectors[i] @ vectors[j]), abs=1e-6)
        assert numbers["bits"] == (int(hashes[i]) ^ int(hashes[j])).bit_count()
        assert numbers["same_file"] == (files[i] == files[j])

    def linked(numbers):
        return numbers["same_file"] or numbers["bits"] <= 2 or numbers["cosine"] > 1 - EPS

    chains = 0
    assert len(told) == len(recorded) > 60 and {one["kind"] for one in told} == {"exact", "perceptual", "semantic"}
    for place, one in enumerate(told):
        uid = uids[known.rows[place]]
        assert (one["of"], one["kind"]) == (recorded[uid]["duplicate_of"], recorded[uid]["duplicate_kind"])
        check(uid, one["of"], one)
        alike = {"exact": one["same_file"], "perceptual": one["bits"] <= 2, "semantic": one["cosine"] > 1 - EPS}
        assert one["direct"] == alike[one["kind"]] and (one["chain"] is None) == one["direct"]
        before = uid
        for step in one["chain"] or []:
            check(before, step["uid"], step)
            assert linked(step) and recorded.get(step["uid"], {"duplicate_of": one["of"]})["duplicate_of"] == one["of"]
            before = step["uid"]
        assert before == (one["of"] if one["chain"] else uid)
        if one["chain"] and mode == "greedy":  # the very link that made it a duplicate
            chains += 1
            first = {"exact": 1.0, "perceptual": 1 - one["chain"][0]["bits"] / 64}.get(
                one["kind"], one["chain"][0]["cosine"]
            )
            assert first == pytest.approx(recorded[uid]["duplicate_similarity"], abs=2e-6)
    assert chains > 10 or mode == "groups"


def turned(*degrees):
    """Unit rows in a plane."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def test_a_chain_of_three_names_the_one_between(tmp_path):
    out, uids = marked(tmp_path, turned(0, 10, 20, 90), model="b32", k=1, eps=1 - np.cos(np.radians(12)))
    known = Evidence.open(Pool(out))
    _, third = known.tell(np.arange(2))
    assert third["of"] == uids[0] and third["similarity"] == pytest.approx(np.cos(np.radians(20)), abs=1e-3)
    assert third["direct"] is False and [step["uid"] for step in third["chain"]] == [uids[1], uids[0]]
    likeness = read_likeness(out, uids[2])
    said = "\n".join(likeness.lines())
    assert "semantic: cosine 0.93" in said and f"joined through {uids[1]} (cosine 0.98" in said
    assert read_likeness(out, uids[0]).stands_for == 2 and not read_likeness(out, uids[3]).lines()


def test_embeddings_that_changed_since_and_large_groups_have_no_chain(tmp_path, monkeypatch, rows):
    out, _, _, _ = mixed(tmp_path / "a", rows, "greedy")
    (tmp_path / "b").mkdir()
    embedded(tmp_path / "b", np.random.default_rng(8).normal(size=rows.shape), [len(rows) // 3, len(rows)])
    known = Evidence.open(Pool(out))
    monkeypatch.setattr(evidence, "CHAIN_MAX", 0)
    assert all(one["chain"] is None for one in known.tell(np.arange(len(known))))
    monkeypatch.undo()
    for name in ("00000000.npz", "00000001.npz"):
        (tmp_path / "b" / name).replace(tmp_path / "a" / name)
    known = Evidence.open(Pool(out, allow=ALL))
    lost = [one for one in known.tell(np.arange(len(known))) if one["kind"] == "semantic" and not one["direct"]]
    assert lost and any(one["chain"] is None for one in lost), "what joined them is not there any more"


def test_the_doubtful_come_first_and_a_kind_alone(tmp_path, rows):
    out, _, _, _ = mixed(tmp_path, rows, "greedy")
    known = Evidence.open(Pool(out, allow=ALL))
    for by in ("doubt", "alike", "size"):
        order = known.order(by)
        assert sorted(order.groups.tolist()) == list(range(len(known.starts)))
        assert sorted(order.places.tolist()) == list(range(len(known)))
    order = known.order("doubt", "semantic")
    first = known.measures.cosine[order.places[order.low]]
    assert (np.diff(first) >= 0).all() and (known.kind[order.places] == 2).all()
    assert known.order("alike", "semantic").groups.tolist() != order.groups.tolist()
    for low, high in zip(order.low, order.high, strict=True):
        assert (np.diff(known.measures.cosine[order.places[low:high]]) >= 0).all()


@pytest.fixture
def client(tmp_path, rows):
    out, _, _, _ = mixed(tmp_path, rows, "greedy")
    with TestClient(create_app([out], Settings(models=False))) as client:
        yield client


def test_the_service_reaches_every_duplicate_of_every_group(client, monkeypatch):
    from index.service import duplicates

    monkeypatch.setattr(duplicates, "SHOWN", 2)
    whole = client.get("/api/duplicates?limit=200").json()
    kinds = whole["kinds"]
    for order, kind in (("size", ""), ("doubt", "semantic"), ("alike", "perceptual")):
        query, seen, offset = f"order={order}&kind={kind}", {}, 0
        while (page := client.get(f"/api/duplicates?{query}&offset={offset}&limit=7").json())["groups"]:
            offset += 7
            for group in page["groups"]:
                for start in range(0, group["size"], 2):
                    of = f"of={group['kept']['uid']}&start={start}"
                    (more,) = client.get(f"/api/duplicates?{query}&{of}").json()["groups"]
                    for hit in more["duplicates"]:
                        assert hit["duplicate"]["of"] == group["kept"]["uid"]
                        assert hit["similarity"] == hit["duplicate"]["similarity"]
                        seen[hit["uid"]] = hit["duplicate"]["kind"]
        expected = kinds[kind]["duplicates"] if kind else sum(part["duplicates"] for part in kinds.values())
        assert len(seen) == expected and (not kind or set(seen.values()) == {kind})
        assert page["total"] == (kinds[kind]["groups"] if kind else whole["total"])
    assert whole["alike"] == {"bits": 2, "cosine": 0.95, "mode": "greedy"}


def test_a_sample_tells_what_it_is_to_the_one_kept(client):
    group = client.get("/api/duplicates?order=doubt&limit=1").json()["groups"][0]
    hit = group["duplicates"][0]
    told = client.get(f"/api/sample/{hit['uid']}").json()
    assert told["duplicate"] == hit["duplicate"] and told["stands_for"] == 0
    kept = client.get(f"/api/sample/{group['kept']['uid']}").json()
    assert kept["duplicate"] is None and kept["stands_for"] >= group["size"]
    for bad in ("order=no", "kind=no", "of=1", "start=-1"):
        assert client.get(f"/api/duplicates?{bad}").status_code == 422
    assert client.get(f"/api/duplicates?of={'0' * 32}").status_code == 404


def test_damaged_embeddings_are_named(tmp_path, rows, mmfilter):
    out, uids, _, _ = mixed(tmp_path, rows, "greedy")
    (tmp_path / "r.yaml").write_text("name: r\nselect: {not_duplicate: {}}\n")
    assert mmfilter("select", tmp_path / "r.yaml", "--out", out)[0] == 0
    (tmp_path / "00000001.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"00000001\.npz: cannot be read as npz"):
        known = Evidence.open(Pool(out, allow=ALL))
        known.tell(np.arange(len(known)))
    said = [mmfilter("explain", uid, "--out", out) for uid in dict.fromkeys(uids[row] for row in known.rows)]
    assert {code for code, _, _ in said} == {0} and any("cannot be compared" in out for _, out, _ in said)
    with TestClient(create_app([out], Settings(models=False, allow=ALL)), raise_server_exceptions=False) as client:
        answer = client.get("/api/duplicates?order=doubt")
        assert answer.status_code == 503 and "00000001.npz" in answer.text, answer.text


def test_explain_says_it_in_plain_words(tmp_path, mmfilter):
    out, uids = marked(tmp_path / "o", turned(0, 10, 20, 90), model="b32", k=1, eps=1 - np.cos(np.radians(12)))
    (tmp_path / "r.yaml").write_text("name: r\nselect: {not_duplicate: {}}\n")
    assert mmfilter("select", tmp_path / "r.yaml", "--out", out)[0] == 0
    code, said, _ = mmfilter("explain", uids[2], "--out", out)
    assert code == 0 and f"alike   duplicate of {uids[0]}" in said and "semantic: cosine 0.93" in said
    assert f"joined through {uids[1]}" in said
    code, said, _ = mmfilter("explain", uids[2], "--out", out, "--json")
    assert json.loads(said)["likeness"]["duplicate"]["chain"][0]["uid"] == uids[1]
    assert "the one that is kept of 3 duplicates" in mmfilter("explain", uids[0], "--out", out)[1]
