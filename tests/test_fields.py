"""Where a sample's image, caption and uid are looked for, one function at a time."""

import json

import pytest
from tars import jpeg, tar, uid

from mmfilter import storage
from mmfilter.errors import UsageError
from mmfilter.fields import ReadOptions, content_uid, hashed_uid, image_rank, is_pickle, key_uid
from mmfilter.records import Failure, Sample
from mmfilter.samples import read_samples


def test_the_bytes_of_a_json_stay_but_for_the_uid(tmp_path):
    from mmfilter.outgoing import with_uid

    for data in (b'{ "a" : 1.50,\n"b":"\\u00e9" }', b"{}", b' {"x": [1e400]}'):
        made = with_uid(data, uid(7))
        assert json.loads(made)["uid"] == uid(7)
        assert made.endswith(data[data.find(b"{") + 1 :])
    assert json.loads(with_uid(b'{"uid": "other", "a": 1}', uid(7))) == {"uid": uid(7), "a": 1}
    assert json.loads(with_uid(b"", uid(7))) == {"uid": uid(7)}


def test_names_of_shards(tmp_path):
    for name in ("flat/00000001.tar", "flat/cc3m.v1.0002.tar", "deep/a/b/1.tar", "[odd] {x}/2.tar"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert list(map(storage.stem, storage.expand(f"{tmp_path}/flat"))) == ["00000001", "cc3m.v1.0002"]
    assert list(map(storage.stem, storage.expand(f"{tmp_path}/flat/*.tar"))) == ["00000001", "cc3m.v1.0002"]
    assert list(map(storage.stem, storage.expand(f"{tmp_path}/deep"))) == ["a__b__1"]
    assert list(map(storage.stem, storage.expand(f"{tmp_path}/*/a/b/1.tar"))) == ["deep__a__b__1"]
    assert storage.expand(f"{tmp_path}/[odd] {{x}}") == [f"{tmp_path}/[odd] {{x}}/2.tar"]
    with pytest.raises(UsageError, match="brace"):
        storage.expand(f"{tmp_path}/a{{b")


def test_uids_of_each_kind(tmp_path):
    picture = jpeg()
    path = tmp_path / "00000003.tar"
    path.write_bytes(tar([("k.jpg", picture), ("k.txt", b"words"), ("k.json", b'{"id": "A-1", "n": 5}')]))

    def uid_of(**options):
        (row,) = read_samples(str(path), ReadOptions(**options))
        return row.uid

    assert uid_of() == key_uid("00000003", "k", "") != uid_of(pool_id="x") == key_uid("00000003", "k", "x")
    assert uid_of(uids="content") == content_uid(picture, "words")
    assert uid_of(uids="json.id") == hashed_uid("A-1") and uid_of(uids="json.n") == hashed_uid("5")
    assert uid_of(uids="json.absent") == uid_of()


def test_equal_pairs_share_a_uid_made_of_the_content(tmp_path):
    path = tmp_path / "0.tar"
    path.write_bytes(tar([m for n in range(2) for m in ((f"{n}.jpg", jpeg()), (f"{n}.txt", b"same"))]))
    first, second = read_samples(str(path), ReadOptions(uids="content"))
    assert isinstance(first, Sample) and isinstance(second, Failure) and second.status == "uid_repeated"


def test_members_by_kind_one_after_the_other(tmp_path):
    """All images, then all captions, then all jsons, as `tar cf x.tar *.jpg *.txt *.json` packs them."""
    count = 200
    rows = [(f"{n}.jpg", jpeg()) for n in range(count)] + [(f"{n}.txt", b"words") for n in range(count)]
    rows += [(f"{n}.json", json.dumps({"uid": uid(n)}).encode()) for n in range(count)]
    path = tmp_path / "0.tar"
    path.write_bytes(tar(rows))
    assert sorted(row.uid for row in read_samples(str(path))) == [uid(n) for n in range(count)]


def test_a_pool_without_jsons_is_not_held_in_memory(tmp_path):
    path = tmp_path / "0.tar"
    path.write_bytes(tar([m for n in range(500) for m in ((f"{n}.jpg", jpeg()), (f"{n}.txt", b"x"))]))
    stream = read_samples(str(path))
    next(stream)
    assert len(stream.gi_frame.f_locals["reader"].open) < 100
    assert len(list(stream)) == 499


def test_which_image_of_several_is_used():
    order = ["jpg", "png", "jpeg", "webp", "image.png", "gif", "mask.png", "seg.jpg"]
    assert sorted(order, key=image_rank)[0] == "jpg"
    assert image_rank("image.png") < image_rank("mask.png") and image_rank("gif") < image_rank("seg.jpg")
    assert is_pickle("pkl") and is_pickle("x.pkl.gz") and is_pickle("PTH") and not is_pickle("npy")


def read(path, data, **options):
    """(valid samples, statuses of the others) of a tar."""
    path.write_bytes(data)
    rows = list(read_samples(str(path), ReadOptions(**options)))
    return [row for row in rows if isinstance(row, Sample)], sorted(r.status for r in rows if isinstance(r, Failure))


def pairs(count, start=0, end=None):
    return [m for n in range(start, start + count) for m in ((f"{n}.jpg", jpeg((n, 1, 2))), (f"{n}.txt", b"words"))]


def test_jsons_or_captions_that_all_stand_at_the_end_belong_to_their_samples(tmp_path):
    count = 150
    jsons = [(f"{n}.json", json.dumps({"uid": uid(n)}).encode()) for n in range(count)]
    valid, failed = read(tmp_path / "0.tar", tar([*pairs(count), *jsons]))
    assert not failed and sorted(row.uid for row in valid) == [uid(n) for n in range(count)]
    images = [m for n in range(count) for m in ((f"{n}.jpg", jpeg()), jsons[n])]
    valid, failed = read(tmp_path / "1.tar", tar([*images, *((f"{n}.txt", b"words") for n in range(count))]))
    assert not failed and {row.text for row in valid} == {"words"} and len(valid) == count


def test_samples_of_one_key_are_counted_without_a_json_too(tmp_path):
    valid, failed = read(tmp_path / "0.tar", tar([*pairs(10), *pairs(5)]))
    assert len(valid) == 10 and failed == ["key_repeated"] * 5
    valid, failed = read(tmp_path / "1.tar", tar([m for n in range(24) for m in (("i.jpg", jpeg()), ("i.txt", b"x"))]))
    assert len(valid) == 1 and failed == ["key_repeated"] * 23


def test_what_a_cut_took_is_not_made_up(tmp_path):
    rows = [
        (f"{n}.{end}", d)
        for n in range(4)
        for end, d in (
            ("jpg", jpeg()),
            ("txt", b"words"),
            ("json", json.dumps({"uid": uid(n), "caption": "other"}).encode()),
        )
    ]
    whole = tar(rows)
    cut = whole[: len(tar(rows[:-1])) - 1024]  # at the last json's header
    valid, failed = read(tmp_path / "0.tar", cut)
    assert [row.uid for row in valid] == [uid(0), uid(1), uid(2)] and failed == ["missing_json"]
    at = len(tar(rows[:4])) - 1024  # the second sample's txt loses its header
    valid, failed = read(tmp_path / "1.tar", whole[:at] + b"\x07" * 300 + whole[at + 300 :])
    assert [row.uid for row in valid] == [uid(0), uid(2), uid(3)] and failed == ["missing_text"]


def test_an_image_that_a_reshard_has_to_decode_fails_where_no_model_does(tmp_path):
    import io

    from PIL import Image

    from mmfilter.feed import Clock, FeedPlan, feed

    out = io.BytesIO()
    Image.effect_noise((200, 150), 80).save(out, "GIF")
    path = tmp_path / "0.tar"
    path.write_bytes(tar([*pairs(3), ("9.gif", out.getvalue()[:-9000]), ("9.txt", b"words")]))
    failures = []
    rows = [
        row
        for fed in feed(str(path), FeedPlan(ReadOptions(), pixels=False), failures, Clock())
        for row in fed.rows["key"]
    ]
    assert rows == ["0", "1", "2"] and [failure.key for failure in failures] == ["9"]


def test_any_value_of_a_uid_is_one(tmp_path):
    values = [7, 7.5, True, ["a", 1], {"b": 2, "a": 1}, "name", "É"]
    rows = [
        m
        for n, value in enumerate(values)
        for m in (
            (f"{n}.jpg", jpeg()),
            (f"{n}.txt", b"words"),
            (f"{n}.json", json.dumps({"uid": value}).encode("utf-8-sig")),
        )
    ]
    valid, failed = read(tmp_path / "0.tar", tar(rows))
    assert not failed and len({row.uid for row in valid}) == len(values)
    assert valid[0].uid == hashed_uid("7") and valid[5].uid == hashed_uid("name")


def test_a_recipe_that_is_no_text_is_a_sentence(tmp_path):
    from mmfilter.recipe import load_recipe

    (tmp_path / "r.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        load_recipe(str(tmp_path / "r.yaml"))
    (tmp_path / "s.yaml").write_text("name: x\nread: {max_pixels: -1}\n")
    with pytest.raises(UsageError, match="below 1"):
        load_recipe(str(tmp_path / "s.yaml"))


def test_bare_names_and_deep_patterns(tmp_path, monkeypatch):
    for name in ("0.tar", "deep/1.tar", "deep/a/b/2.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert storage.expand("*.tar") == storage.expand("0.tar") == ["0.tar"] and storage.expand("nope") == ["nope"]
    assert list(map(storage.stem, storage.expand("deep/**/*.tar"))) == ["1", "a__b__2"]
    with pytest.raises(UsageError, match="narrower"):
        storage.expand("x/{0..9999}/{0..99999999999}.tar")
