"""Random names, headers, jsons, captions and pictures through every reader of a pool: each costs its sample alone."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_content import FIELDS, NAMES, VALUES, entry, pax, pictures, sample, shard, sound
from tars import uid

from index.service.images import jpeg
from mmfilter.images import decode
from mmfilter.inspect import inspect_shard
from mmfilter.pairs import Source
from mmfilter.recipe import parse_recipe
from mmfilter.records import Failure
from mmfilter.report.sheet import small
from mmfilter.reshard import reshard
from mmfilter.reshard_plan import ReshardOptions
from mmfilter.samples import read_samples
from mmfilter.shard import process_shard
from mmfilter.sidecar import read_failures, read_stored
from mmfilter.subset import Subset
from mmfilter.tasks.embedding import embed_items
from mmfilter.tasks.sets import class_label, open_set, read_set
from mmfilter.uids import parse_uids
from mmfilter.work import plan_work

pytestmark = pytest.mark.slow

RECIPE = parse_recipe('{"name": "t", "scores": ["phash", "caption", "image_size", "language"]}', "t")
SOUND = 4
PICTURES = list(pictures().values())
FEW = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

TEXT = st.text(st.characters(codec=None), max_size=20)  # half surrogate pairs among them
NUMBER = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(10**4000), 1 << 63]))
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, TEXT, st.sampled_from(VALUES)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
META = st.dictionaries(st.one_of(st.sampled_from(FIELDS), TEXT), VALUE, max_size=6).map(
    lambda m: json.dumps(m).encode()
)
RAW = st.dictionaries(TEXT, TEXT, max_size=3).map(
    lambda m: json.dumps(m, ensure_ascii=False).encode("utf-8", "surrogatepass")
)
BYTES = TEXT.map(lambda text: text.encode("utf-8", "surrogatepass"))
UTF16 = TEXT.map(lambda text: f"{text}x".encode("utf-16", "surrogatepass"))
NAME = st.one_of(st.sampled_from(NAMES), st.binary(min_size=1, max_size=120), UTF16)


@st.composite
def picture(draw):
    """A file of any mode and format, as it is or with some bytes changed; or bytes."""
    data = bytearray(draw(st.one_of(st.sampled_from(PICTURES), st.binary(max_size=40))))
    if data and draw(st.booleans()):
        for at, byte in draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)):
            data[int(at * min(len(data), 600))] = byte
    return bytes(data)


@st.composite
def odd(draw):
    """The entries of a sample, some behind a PAX header that has odd records."""
    meta = draw(st.one_of(st.none(), META, RAW, st.binary(max_size=30)))
    text = draw(st.one_of(BYTES, st.binary(max_size=30)))
    ending = draw(st.sampled_from([b"jpg", b"JPG", b"tif", b"png", b"x\xe9.jpg", b"caf\xe9"]))
    key = draw(st.one_of(st.sampled_from([b"path", b"size", b"mtime", b"hdrcharset"]), st.binary(max_size=8)))
    value = draw(st.one_of(st.binary(max_size=30), st.just(b"9" * 5000), st.just(b"-1"), st.just("\u0663".encode())))
    record = pax(key, value) if draw(st.booleans()) and not (key == b"size" and value.isdigit()) else b""
    return record + sample(draw(NAME), meta, text, draw(picture()), ending)


class Pixels:
    """What stands in for a model where a set is read."""

    batch, dim = 4, 3

    def prepare(self, image):
        return np.asarray(image.convert("RGB").resize((4, 4)))

    def submit(self, pixels):
        return lambda: np.tile(np.array([1, 0, 0], np.float16), (len(pixels), 1))


@FEW
@given(st.lists(odd(), min_size=1, max_size=4))
def test_no_content_costs_more_than_its_sample(entries):
    whole = {uid(n) for n in range(SOUND)}
    with tempfile.TemporaryDirectory() as folder:
        out, half = Path(folder, "out"), SOUND // 2
        path = shard(Path(folder, "00000000.tar"), sound(half), *entries, sound(SOUND - half, half))

        found = inspect_shard(path)
        assert whole <= {item.uid for item in read_samples(path) if not isinstance(item, Failure)}
        report = process_shard(path, plan_work(RECIPE, str(out), {}), {})
        table = read_stored(str(out), "00000000").table
        failures = read_failures(str(out), "00000000")
        assert report.read == table.num_rows + len(failures) == found.samples + sum(found.failed.values())
        assert whole <= set(table["uid"].to_pylist())
        assert all(failure.error.isprintable() for failure in failures)

        data = Path(path).read_bytes()
        for offset, size in zip(table["offset"].to_pylist(), table["size"].to_pylist(), strict=True):
            assert small(data[offset : offset + size]) and jpeg(decode(data[offset : offset + size]), 64)

        subset = Subset(np.sort(parse_uids(table["uid"].to_pylist())))
        meta = reshard([path], subset, f"{folder}/new", ReshardOptions(max_samples=100))
        again = list(read_samples(f"{folder}/new/00000000.tar"))
        assert meta["output_count"] == len(again) == table.num_rows
        assert not [item for item in again if isinstance(item, Failure)]

        source = Source([path], 8)
        assert whole <= {pair.uid for pair in source}
        assert all(isinstance(status, str) for status in source.failed.values())


@FEW
@given(st.lists(st.tuples(NAME, picture(), st.one_of(st.binary(max_size=12), BYTES)), max_size=4))
def test_no_content_costs_more_than_its_sample_in_an_evaluation_set(entries):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test").mkdir()
        Path(folder, "test/nshards.txt").write_text("1")
        odd = [entry(name + b".png", data) + entry(name + b".cls", label) for name, data, label in entries]
        good = [entry(b"good%d.png" % n, PICTURES[0]) + entry(b"good%d.cls" % n, b"1") for n in range(SOUND)]
        shard(Path(folder, "test/0.tar"), *good, *odd)
        failures = []
        items = read_set(open_set(folder), ("cls",))
        rows, labels = embed_items(Pixels(), items, lambda item: class_label(item.parts["cls"], 3), failures)
        assert len(rows) == len(labels) >= SOUND
        assert all(failure.error.isprintable() for failure in failures)
