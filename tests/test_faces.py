"""Faces blurred on the way into new shards: what changes, what may not, and what is never let through."""

import io
import json
import tarfile

import numpy as np
import pytest
from embed_util import picture
from PIL import Image
from tars import sample, tar, uid

from mmfilter import faces
from mmfilter.errors import DataError
from mmfilter.faces import blur, blur_faces, face_boxes
from mmfilter.images import DecodeError
from mmfilter.reshard import reshard
from mmfilter.reshard_plan import ReshardOptions, plan_output
from mmfilter.shard_index import index_shard
from mmfilter.subset import Subset

BOX = [0.25, 0.25, 0.5, 0.75]
BLUR = ReshardOptions(blur_faces=True)


def noise(width=80, height=64, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(pixels[..., :3]).convert(mode) if mode != "RGBA" else Image.fromarray(pixels)


def encoded(image, form="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def gaussian(x, sigma):
    """(h, w) float convolved with a Gaussian, edges repeated."""
    at = np.arange(-int(4 * sigma) - 1, int(4 * sigma) + 2)
    kernel = np.exp(-(at**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for _ in range(2):
        x = np.pad(x, ((0, 0), (len(at) // 2,) * 2), "edge")
        x = np.apply_along_axis(lambda row: np.convolve(row, kernel, "valid"), 1, x).T
    return x


def test_it_is_a_gaussian_under_a_blurred_mask():
    image = picture(120, 100, "L")
    x, mask = np.asarray(image, float), np.zeros((100, 120))
    mask[25 - 5 : 75 + 5, 30 - 5 : 60 + 5] = 1  # the box, grown by a tenth of its longer side (50 px)
    weight = gaussian(mask, 5)
    expected = x * (1 - weight) + gaussian(x, 5) * weight
    found = np.asarray(blur(image, ((0.25, 0.25, 0.5, 0.75),)), float)
    assert np.abs(found - expected).max() < 6 and np.abs(found - expected).mean() < 0.5
    assert (found == x)[:, 90:].all() and (found == x)[:4].all()


def test_a_face_goes_and_the_rest_stays_to_the_pixel():
    image = noise()
    found = np.asarray(opened(blur_faces(encoded(image, "PNG"), (tuple(BOX),))), float)
    before = np.asarray(image, float)
    face = (slice(18, 46), slice(22, 38))
    assert found[face].std() < before[face].std() / 4
    assert (found == before)[:, 60:].all()
    whole = np.asarray(opened(blur_faces(encoded(image, "PNG"), ((0.0, 0.0, 1.0, 1.0),))), float)
    assert whole[-1].std() < before[-1].std() / 4 and whole[:, -1].std() < before[:, -1].std() / 4, "to the last row"


@pytest.mark.parametrize(
    ("mode", "form", "becomes"),
    [
        ("RGB", "JPEG", "JPEG"), ("L", "JPEG", "JPEG"), ("CMYK", "JPEG", "JPEG"), ("RGB", "PNG", "PNG"),
        ("RGBA", "PNG", "PNG"), ("P", "PNG", "PNG"), ("1", "PNG", "PNG"), ("LA", "PNG", "PNG"), ("I;16", "PNG", "PNG"),
        ("RGB", "WEBP", "WEBP"), ("RGBA", "WEBP", "WEBP"), ("P", "GIF", "PNG"), ("RGB", "BMP", "PNG"),
        ("RGB", "TIFF", "PNG"),
    ],
)  # fmt: skip
def test_every_format_and_mode(mode, form, becomes):
    data = encoded(picture(60, 40, mode), form)
    once = blur_faces(data, (tuple(BOX),))
    assert once == blur_faces(data, (tuple(BOX),))
    image = opened(once)
    assert image.format == becomes and image.size == (60, 40)
    before, after = (np.asarray(one.convert("L"), float) for one in (opened(data), image))
    if mode != "I;16":  # Pillow clips those where it converts them
        assert np.abs(before - after)[:, 40:].mean() < 8
    assert after.std() > 5


def test_metadata_goes_but_for_the_turn_and_the_profile():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a thumbnail could stand here"
    data = encoded(picture(), exif=exif, icc_profile=b"profile", comment=b"remark")
    image = opened(blur_faces(data, (tuple(BOX),)))
    assert dict(image.getexif()) == {0x0112: 6} and image.info["icc_profile"] == b"profile"
    assert "comment" not in image.info


def test_the_first_frame_alone_is_written():
    frames = [noise(seed=i) for i in range(3)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert opened(data).n_frames == 3 and getattr(opened(blur_faces(data, (tuple(BOX),))), "n_frames", 1) == 1


@pytest.mark.parametrize(
    "boxes",
    [7, [1, 2, 3, 4], [[0, 0, 1]], [[0, 0, 1, "1"]], [[0, 0, 1, None]], [[0, 0, 1, True]], [[0.6, 0, 0.5, 1]],
     [[10, 20, 90, 120]], [[0, 0, 1, float("nan")]], [[0, 0, 1, float("inf")]], [[0, 0, 1, 10**400]]],
)  # fmt: skip
def test_boxes_that_are_none(boxes):
    with pytest.raises(DecodeError) as error:
        face_boxes({"face_bboxes": boxes})
    assert error.value.status == "face_bboxes_malformed"
    assert (
        face_boxes({"face_bboxes": [[-0.1, 0, 1, 1.2]]}) == ((-0.1, 0.0, 1.0, 1.2),)
        and face_boxes({"face_bboxes": []}) == ()
    )


def rows(n, boxes, image=None, more=()):
    image = encoded(noise(seed=n), quality=80) if image is None else image
    return [*sample(n, image=image, **({} if boxes is None else {"face_bboxes": boxes})), *more]


def contents(folder):
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as file:
            found |= {member.name: file.extractfile(member).read() for member in file}
    return found


def write(folder, *samples):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "00000000.tar").write_bytes(tar([row for part in samples for row in part]))
    return [str(folder / "00000000.tar")]


def subset(*numbers):
    return Subset.from_uids([uid(n) for n in numbers])


def test_only_samples_with_faces_are_changed(tmp_path):
    png = encoded(noise(seed=9), "PNG")
    pool = write(
        tmp_path / "pool", rows(0, []), rows(1, [BOX, [0.7, 0.1, 0.8, 0.2]]),
        rows(2, [BOX], more=[("000000002.png", png)]), rows(3, [], image=b"not looked at"), rows(4, [BOX]),
    )  # fmt: skip
    meta = reshard(pool, subset(0, 1, 1, 2, 3), str(tmp_path / "out"), BLUR)
    found = contents(tmp_path / "out")
    assert (meta["output_count"], meta["blurred_count"], meta["missing_count"]) == (5, 3, 0)
    expected = {}
    for n, j in ((0, 0), (1, 0), (1, 1), (2, 0), (3, 0)):
        with tarfile.open(pool[0]) as file:
            here = {
                member.name.split(".")[1]: file.extractfile(member).read()
                for member in file
                if member.name.startswith(f"{n:09d}")
            }
        boxes = face_boxes(json.loads(here["json"]))
        expected |= {
            f"{uid(n)}-{j}.{name}": blur_faces(data, boxes) if boxes and name == "jpg" else data
            for name, data in here.items()
            if name != "png"  # a second image, which training would not read
        }
    assert found == expected
    assert reshard(pool, subset(0, 1, 1, 2, 3), str(tmp_path / "plain"))["output_count"] == 5
    assert contents(tmp_path / "plain")[f"{uid(1)}-0.jpg"] == encoded(noise(seed=1), quality=80)


def test_the_plan_knows_the_bytes_and_workers_give_the_same(tmp_path):
    pool = write(tmp_path / "pool", *(rows(n, [BOX] if n % 3 else []) for n in range(12)))
    options = ReshardOptions(max_bytes=40_000, blur_faces=True)
    everything = subset(*range(12))
    reshard(pool, everything, str(tmp_path / "one"), options)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "one").glob("*.tar"))]
    assert len(sizes) > 2 and max(sizes) <= 40_000
    plan = plan_output([index_shard(pool[0], wanted=everything, blur=True)], everything, options)
    assert [len(shard) for shard in plan.shards] == list(json.loads((tmp_path / "one/sizes.json").read_text()).values())
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "one").glob("*.tar")}
    reshard(pool, everything, str(tmp_path / "one"), options)
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "one").glob("*.tar")}, "skipped"


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (rows(1, [BOX], image=encoded(noise())[:-900]), "truncated_image"),
        (rows(1, [BOX], image=b"<html>"), "not_an_image"),
        (rows(1, None), "face_bboxes_missing"),
        (rows(1, [[3, 4, 50, 60]]), "face_bboxes_malformed"),
    ],
)
def test_what_cannot_be_blurred_is_told_and_never_copied(tmp_path, bad, status):
    pool = write(tmp_path / "pool", rows(0, [BOX]), bad, rows(2, []))
    with pytest.raises(
        DataError, match=rf"1 of 3 wanted uids are not in the pool.*{uid(1)} in .*: {status}, .*--allow-missing"
    ):
        reshard(pool, subset(0, 1, 2), str(tmp_path / "out"), BLUR)
    assert not (tmp_path / "out").exists()
    options = ReshardOptions(blur_faces=True, allow_missing=True)
    meta = reshard(pool, subset(0, 1, 2), str(tmp_path / "out"), options)
    assert (meta["output_count"], meta["missing_count"], meta["blurred_count"]) == (2, 1, 1)
    assert not [name for name in contents(tmp_path / "out") if name.startswith(uid(1))]


def test_another_encoder_on_another_node_is_an_error(tmp_path, monkeypatch):
    pool = write(tmp_path / "pool", rows(0, [BOX]))
    plan = plan_output([index_shard(pool[0], blur=True)], subset(0), BLUR)
    monkeypatch.setattr(faces, "QUALITY", 60)
    from mmfilter.reshard import begin, write_output

    begin(plan, str(tmp_path / "out"))
    with pytest.raises(DataError, match="the same Pillow on every node"):
        write_output(plan.shards[0], str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.tar"))


def test_the_verb_blurs(tmp_path, mmfilter):
    pool = write(tmp_path / "pool", rows(0, [BOX]), rows(1, []))
    subset(0, 1).write(str(tmp_path / "s.npy"))
    words = ("reshard", tmp_path / "s.npy", "--pool", tmp_path / "pool", "--out", tmp_path / "out", "--local")
    code, said, error = mmfilter(*words, "--blur-faces")
    assert code == 0 and said.strip().endswith("; faces blurred in 1"), error
    assert contents(tmp_path / "out")[f"{uid(0)}-0.jpg"] == blur_faces(rows(0, [BOX])[0][1], (tuple(BOX),))
    code, said, error = mmfilter(*words)
    assert code != 0 and "made from something else" in error, "an unblurred folder is another folder"
    assert pool
