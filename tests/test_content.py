"""Content is a sample's own: whatever its name, header, json or picture is, it costs no more than the sample."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from odd_content import FIELDS, NAMES, RAW_JSONS, VALUES, entry, pax, picture, pictures, sample, shard, sound, tiff16
from tars import uid

from index.service.images import jpeg as service_jpeg
from mmfilter.faces import blur_faces
from mmfilter.fields import ReadOptions
from mmfilter.images import DecodeError, ImageLimits, decode, displayed, to_png
from mmfilter.pairs import Source, square
from mmfilter.records import Failure, failure_of
from mmfilter.report.sheet import small
from mmfilter.samples import read_samples
from mmfilter.text import cut, one_line, printable, valid_text

RECIPE = json.dumps(
    {"name": "t", "scores": ["phash", "caption", "image_size"], "select": {"caption": {"min_words": 2}}}
)
HALF = b'{"uid": "%s", "url": "https://x/\\ud83d.jpg"}'
CONTROLS = {chr(n) for n in (*range(32), 127, *range(128, 160))} - {"\n"}


def odd_samples():
    """Name -> the entries of one odd sample (or of none)."""
    found = {f"name {name[:9]!r}": sample(name, {"uid": uid(100 + i)}) for i, name in enumerate(NAMES)}
    found |= {f"no caption {name[:9]!r}": entry(name + b"f.jpg", b"x") for name in NAMES}
    number = 1000
    for field in FIELDS:
        for value in VALUES:
            number += 1
            name = b"n%d" % number
            found[f"{field}={str(value)[:9]}"] = sample(name, {"uid": uid(number), field: value})
    for i, data in enumerate(RAW_JSONS):
        found[f"json {data[:9]!r}"] = sample(b"r%d" % i, data)
    found["half in a url"] = sample(b"half", HALF % uid(1).encode())
    found["half in a key"] = entry(b"halfkey.jpg", b"x") + entry(b"halfkey.json", b'{"\\ud83d": 1}')
    found["ending"] = entry(b"odd.caf\xe9", b"x") + entry(b"odd.json", b"{}")
    found["NUL in a caption"] = sample(b"nul", {"uid": uid(90)}, b"a\0b")
    found["half in a caption"] = sample(b"halftext", {"uid": uid(91)}, b"x\xed\xa0\xbd")
    found["pax NUL"] = pax(b"path", b"a\0b.jpg") + entry(b"p.jpg", b"x")
    found["pax Latin-1"] = pax(b"path", b"p\xe9.jpg") + entry(b"p.jpg", b"x")
    found["pax without a name"] = pax(b"path", b"") + entry(b"p.jpg", b"x")
    found["pax size of 5,000 digits"] = pax(b"size", b"9" * 5000) + entry(b"q.jpg", b"x")
    found["pax size below 0"] = pax(b"size", b"-5") + entry(b"r.jpg", b"x")
    found["pax length of 5,000 digits"] = pax(b"", b"", b"9" * 5000 + b" path=x.jpg\n") + entry(b"s.jpg", b"x")
    found["pax key"] = pax(b"\xff", b"\xff") + entry(b"t.jpg", b"x")
    for i, (name, data) in enumerate(pictures().items()):
        found[f"picture {name}"] = sample(b"picture%d" % i, {"uid": uid(5000 + i)}, image=data)
    return found


ODD = odd_samples()


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """(pool, OUT) of one `mmfilter run` on a shard of all odd samples among sound ones, and one of sound ones."""
    from command import command

    folder = tmp_path_factory.mktemp("odd")
    shard(folder / "pool" / "00000000.tar", sound(3), *ODD.values(), sound(3, 3))
    shard(folder / "pool" / "00000001.tar", sound(3, 6))
    (folder / "t.yaml").write_text(RECIPE)
    pool, out = str(folder / "pool/*.tar"), folder / "out"
    done = command("run", folder / "t.yaml", "--pool", pool, "--out", out, "--local")
    assert done.code == 3, done.err
    return pool, out, done


def test_an_odd_sample_costs_no_other_and_its_strings_are_valid(tmp_path):
    for name, entries in ODD.items():
        found = list(read_samples(shard(tmp_path / "0.tar", sound(1), entries, sound(1, 1))))
        assert {uid(0), uid(1)} <= {item.uid for item in found if not isinstance(item, Failure)}, name
        for item in found:
            strings = (item.key, item.uid, item.error if isinstance(item, Failure) else item.text + item.url)
            assert all(text == valid_text(text) for text in strings), name
            assert not isinstance(item, Failure) or item.error.isprintable(), name


@pytest.mark.slow
def test_a_run_of_odd_samples_counts_each_and_sets_no_shard_aside(odd_run):
    _, out, done = odd_run
    result = json.loads((out / "run.json").read_text())
    failures = pl.read_parquet(out / "failures/00000000.parquet")
    rows = pl.read_parquet(out / "metadata/00000000.parquet")
    assert "shard_set_aside" not in failures["status"].to_list() and "content_error" not in failures["status"].to_list()
    assert {uid(n) for n in range(6)} <= set(rows["uid"])
    counts = json.loads((out / "subsets/t.json").read_text())["counts"]
    assert counts["in"] == counts["kept"] + counts["dropped"] + counts["failed"] == rows.height + failures.height + 3
    assert result and not CONTROLS & set(done.out + done.err)


@pytest.mark.slow
def test_every_verb_takes_what_was_kept_of_odd_samples(odd_run, mmfilter, tmp_path):
    pool, out, _ = odd_run
    for words in (["report", out], ["card", out], ["status", out]):
        assert mmfilter(*words)[0] == 0, words
    code, shown, err = mmfilter("reshard", out / "subsets/t.npy", "--pool", pool, "--out", tmp_path / "re", "--local")
    assert code == 0, err
    kept = json.loads((out / "subsets/t.json").read_text())["counts"]["kept"]
    again = [item for path in sorted((tmp_path / "re").glob("*.tar")) for item in read_samples(str(path))]
    assert len(again) == kept and not [item for item in again if isinstance(item, Failure)]
    for row in pl.read_parquet(out / "metadata/00000000.parquet").filter(pl.col("key").str.contains("red|caf"))["uid"]:
        code, shown, _ = mmfilter("explain", row, "--out", out)
        assert code == 0 and not CONTROLS & set(shown)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_inspect_shows_names_escaped(tmp_path, mmfilter, as_json):
    path = shard(tmp_path / "0.tar", sound(1), entry(b"\x1b[31mred\x9b\n.jpg", b"x"))
    _, shown, err = mmfilter("inspect", path, "--local", *as_json)
    assert not CONTROLS & set(shown + err) and "[31mred" in shown


@pytest.mark.slow
def test_the_service_shows_every_picture_that_was_kept(odd_run):
    from fastapi.testclient import TestClient

    from index.service.app import create_app
    from index.service.settings import Settings

    out = odd_run[1]
    with TestClient(create_app([str(out)], Settings(models=False)), raise_server_exceptions=False) as client:
        for uid_ in pl.read_parquet(out / "metadata/00000000.parquet")["uid"]:
            assert client.get(f"/api/image/{uid_}", params={"side": 64}).status_code == 200
            assert client.get(f"/api/sample/{uid_}").status_code == 200


def test_a_picture_that_decodes_is_taken_by_every_stage():
    for name, data in pictures().items():
        try:
            image = decode(data)
        except DecodeError:
            assert name.startswith(("cut", "of no width", "tiff")), name
            continue
        assert displayed(image).mode in ("RGB", "RGBA"), name
        assert small(data) and service_jpeg(image, 64) and to_png(data)
        assert square(data, 32, False).shape == (32, 32, 3)
        try:
            blur_faces(data, ((0.1, 0.1, 0.5, 0.5),))
        except DecodeError as error:
            assert error.status == "not_encodable", name


def test_avif_that_a_run_allowed_is_trained_on_and_shown(tmp_path):
    data = picture("RGB", "AVIF")
    if data is None:
        pytest.skip("Pillow without AVIF")
    path = shard(tmp_path / "0.tar", sound(1), sample(b"avif", {"uid": uid(9)}, image=data, ending=b"avif"))
    allowed = Source([path], 8, options=ReadOptions(limits=ImageLimits(avif=True)))
    assert [pair.uid for pair in allowed] == [uid(0), uid(9)]
    assert [pair.uid for pair in Source([path], 8)] == [uid(0)]
    assert small(data)


def test_both_byte_orders_of_deep_grey_look_alike():
    little, big = (np.asarray(displayed(decode(tiff16(order)))).astype(int) for order in "<>")
    assert little.max() > 200 and big.max() > 200 and little.std() > 20 and big.std() > 20
    values = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 300
    from PIL import Image

    assert np.array_equal(np.asarray(displayed(Image.fromarray(values)))[..., 0], values // 256)


def test_what_the_machine_lacks_is_no_fault_of_a_sample(tmp_path, monkeypatch):
    for error in (MemoryError(), OSError(28, "No space left on device"), RuntimeError("CUDA out of memory")):
        with pytest.raises(type(error)):
            failure_of("k", "", error)
    assert failure_of("k", "", OSError("image file is truncated")).status == "content_error"
    assert failure_of("k", "", DecodeError("corrupt_image", "x")).status == "corrupt_image"
    monkeypatch.setattr("mmfilter.samples.parse_json", lambda data: 1 / 0)
    assert [item.status for item in read_samples(shard(tmp_path / "0.tar", sound(2)))] == ["content_error"] * 2

    def short(data):
        raise MemoryError

    monkeypatch.setattr("mmfilter.samples.parse_json", short)
    with pytest.raises(MemoryError):
        list(read_samples(str(tmp_path / "0.tar")))


def test_a_decoder_that_is_short_of_memory_is_asked_whether_the_machine_is(monkeypatch):
    from PIL.ImageFile import ImageFile

    load, data, left = ImageFile.load, picture("RGB", "PNG"), [1]

    def short(self):
        left[0] -= 1
        if left[0] >= 0:
            raise MemoryError
        return load(self)

    monkeypatch.setattr(ImageFile, "load", short)
    assert decode(data).size, "it was for a moment"
    left[0] = 9
    with pytest.raises(MemoryError):
        decode(data)  # nor is there any for a sound picture
    monkeypatch.setattr(ImageFile, "load", lambda self: short(self) if self.format == "PNG" else load(self))
    left[0] = 9
    with pytest.raises(DecodeError, match="more memory than such a picture takes") as raised:
        decode(data)
    assert raised.value.status == "corrupt_image"
    monkeypatch.setattr("mmfilter.images.bytearray", lambda size: short(None), raising=False)
    with pytest.raises(MemoryError):
        decode(data)
    assert ImageLimits().max_pixels


def test_a_header_states_its_size_in_octal_digits_alone(tmp_path):
    for stated in (b"-0000000005", b"+0000000005", b"0o17", b"1_0"):
        found = list(
            read_samples(shard(tmp_path / "0.tar", sound(1), entry(b"odd.jpg", b"x", size=stated), sound(1, 1)))
        )
        assert {uid(0), uid(1)} <= {sample.uid for sample in found}


def test_printed_text():
    assert printable("a\nb\tc\x1b[31m\u202e\ud83d\x9b") == "a\nb\tc\\u001b[31m\\u202e\\ud83d\\u009b"
    assert json.loads(printable(json.dumps({"a": "\x9b\u2028"}, ensure_ascii=False))) == {"a": "\x9b\u2028"}
    assert one_line("a\nb") == "a\\u000ab"
    assert cut("x" * 300) == "x" * 200 + "…" and cut("a\x1b\n") == "a\\x1b\\n"


def test_commands_print_through_one_function():
    for path in Path(__file__).parent.parent.glob("jobs/*.py"):
        text = path.read_text()
        prints = any(line.lstrip().startswith("print(") for line in text.splitlines())
        assert not prints or path.name == "terminal.py" or "from .terminal import print\n" in text, path.name


@pytest.mark.slow
def test_a_report_and_a_card_hold_no_control_characters(odd_run, mmfilter):
    out = odd_run[1]
    for words, path in ((["report", out], "report.html"), (["card", out], "subsets/t.md")):
        assert mmfilter(*words)[0] == 0
        assert not CONTROLS & set((out / path).read_text("utf-8")), path


def test_a_stream_that_lacks_a_character_gets_its_escape():
    from jobs.terminal import print as shown

    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    shown("caf\u00e9 \x1b[31m\n\ud83d", file=stream, flush=True)
    assert stream.buffer.getvalue() == b"caf\\xe9 \\u001b[31m\n\\ud83d\n"
