"""Small files of pictures of moderate size that would take a decoder minutes or the memory."""

import json
import re

import pytest
from odd_content import exif_pieces, picture, sample, scans, shard, sound, strips, tiles
from tars import uid

from mmfilter.images import MAX_EXIF, MAX_SCANS, DecodeError, ImageLimits, decode, probe

BOMBS = {
    "scans of a JPEG": (scans(MAX_SCANS), "corrupt_image"),
    "EXIF in pieces": (exif_pieces(MAX_EXIF + 1), "corrupt_image"),
    "strips of a TIFF": (strips(20), "corrupt_image"),
    "tiles of a TIFF": (tiles(2048), "too_many_pixels"),
}
LIMITS = ImageLimits(max_pixels=1 << 16)


@pytest.mark.parametrize("name", BOMBS)
def test_fault_21_work_without_measure_is_refused_before_it_is_done(name):
    data, status = BOMBS[name]
    for read in (probe, decode):
        with pytest.raises(DecodeError) as refused:
            read(data, LIMITS)
        assert refused.value.status == status


def test_what_is_within_the_limits_is_decoded():
    marks = b"\xff\xfe" + (2 + 2 * 500).to_bytes(2) + b"\xff\xda" * 500  # a comment: no scans
    jpeg = scans(50)
    for data in (jpeg, jpeg[:2] + marks + jpeg[2:], jpeg + b"\xff\xda\0\x02" * 500, exif_pieces(2)):
        assert decode(data, LIMITS).mode == "L"
    assert decode(strips(2)).size == decode(tiles(256)).size == decode(picture("RGB", "TIFF")).size[:1] * 2
    for how in ({"compression": "jpeg"}, {"compression": "tiff_lzw"}, {}):
        assert decode(picture("RGB", "TIFF", (70, 50), **how)).size == (70, 50)


def test_a_run_counts_it_and_goes_on(tmp_path, mmfilter):
    entries = [sample(b"bomb%d" % i, {"uid": uid(100 + i)}, image=data) for i, (data, _) in enumerate(BOMBS.values())]
    shard(tmp_path / "00000000.tar", sound(2), *entries, sound(2, 2))
    recipe = tmp_path / "r.json"
    recipe.write_text(json.dumps({"name": "t", "scores": ["phash"], "select": {"everything": {}},
                                  "read": {"max_pixels": 1 << 16}}))  # fmt: skip
    code, out, err = mmfilter("run", recipe, "--pool", tmp_path / "00000000.tar", "--out", tmp_path / "out", "--local")
    assert code == 3 and "in 8 = kept 4 (50.0%) + dropped 0 + failed 4" in out, out + err
    assert all(re.search(line, out) for line in (r"corrupt_image +3\n", r"too_many_pixels +1\n")), out
