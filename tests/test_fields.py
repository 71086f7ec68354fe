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
