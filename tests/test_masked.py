"""T-MARS: text found and painted over, and the score beside the embedding, later, and on nothing."""

import io
import json

import numpy as np
import polars as pl
import pytest
from embed_util import picture
from jobs_util import results
from PIL import Image, ImageDraw
from tars import sample, tar

from jobs.cluster import Width
from jobs.embed import embed_pool
from mmfilter import errors
from mmfilter.embed import load
from mmfilter.errors import MissingDependency
from mmfilter.ocr import Found, paint_over
from mmfilter.recipe import parse_recipe
from mmfilter.scores import build_score
from mmfilter.scores.clip_similarity import cosine
from mmfilter.weights import ModelSpec

pytestmark = pytest.mark.slow  # together, not each

LOCAL = Width(local=True)
COLUMNS = ["masked_b32_similarity_score", "text_boxes", "text_area"]


def quad(left, top, right, bottom):
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def test_a_box_becomes_the_mean_colour_around_it():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30], pixels[:, 30:] = (200, 10, 40), (90, 60, 30)
    pixels[10:20, 5:20] = 255  # text in the left half, its surroundings all of one colour
    found, area = paint_over(Image.fromarray(pixels), np.stack([quad(5, 10, 19, 19)]))
    expected = pixels.copy()
    expected[10:20, 5:20] = (200, 10, 40)
    assert (np.asarray(found) == expected).all() and area == 150 / 2400


def test_the_surroundings_are_the_plain_mean_and_hold_no_other_text():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    quads = np.stack([quad(10, 5, 49, 24), quad(10, 27, 49, 36)])
    text = np.zeros((40, 60), bool)
    text[5:25, 10:50] = text[27:37, 10:50] = True
    around = np.zeros((40, 60), bool)
    around[1:28, 6:53] = True  # a fifth of the shorter side, 19 px, on each side
    mean = np.floor(pixels[around & ~text].mean(axis=0) + 0.5).tolist()
    found, area = paint_over(Image.fromarray(pixels), quads)
    assert np.asarray(found)[12, 12].tolist() == mean and area == text.mean(dtype=float)
    assert (np.asarray(found)[~text] == pixels[~text]).all()
    backwards, _ = paint_over(Image.fromarray(pixels), quads[::-1])
    assert (np.asarray(backwards) == np.asarray(found)).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_an_image_that_is_all_text_becomes_one_colour(mode):
    image = picture(30, 20, mode)
    before = image.tobytes()
    found, area = paint_over(image, np.stack([quad(-5, -5, 40, 40)]))
    assert area == 1 and len(set(found.get_flattened_data())) == 1 and found.mode == "RGB" and image.tobytes() == before


def test_a_box_is_text_when_it_reads_as_letters():
    quads = np.stack([quad(i, 0, i + 1, 1) for i in range(5)])
    found = Found(quads, ("SALE", "a1", "+++", "日本語", ""), np.array([0.9, 0.9, 0.99, 0.8, 0.9]))
    assert found.words(0.8, 3)[:, 0, 0].tolist() == [0, 3] and found.words(0.85, 2)[:, 0, 0].tolist() == [0, 1]
    assert len(found.words(0, 0)) == 5 and len(found.words(1, 0)) == 0


def test_without_the_extra_the_command_is_told(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    score = build_score({"masked_similarity": {"model": "m", "side": 33}}, "x")
    monkeypatch.setattr(errors.importlib, "import_module", absent)
    with pytest.raises(MissingDependency, match=r"Run: pip install 'mmfilter\[ocr\]'"):
        score.look({"image": [picture()], "threads": 1, "embedder:m": None})


@pytest.fixture
def extra():
    pytest.importorskip("rapidocr", reason="pip install 'mmfilter[ocr]'")


def words(size=(120, 90), text="SALE"):
    image = picture(*size)
    ImageDraw.Draw(image).text((8, 20), text, "white", font_size=36, stroke_width=2, stroke_fill="black")
    return image


def jpeg(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92)
    return stream.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Nine samples in a shard of seven and one of two, the first of each with text; and an empty one."""
    folder = tmp_path_factory.mktemp("text")
    images = [words() if i in (0, 4, 7) else picture(64, 48, seed=i) for i in range(9)]
    for number, rows in enumerate((range(7), range(7, 9), ())):
        members = [member for i in rows for member in sample(i, text=f"picture {i}", image=jpeg(images[i]))]
        (folder / f"{number:08d}.tar").write_bytes(tar(members))
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def recipe(tiny_model, *scores, **fields):
    masked = {"masked_similarity": {"model": "b32", "side": 128, **fields}}
    source = {"name": "t", "embed": {"b32": {"model": tiny_model}}, "scores": [*scores, masked]}
    return parse_recipe(json.dumps(source), "recipe t")


CLIP = {"clip_similarity": {"model": "b32"}}


def test_it_is_scored_beside_the_embedding(extra, shards, tmp_path, tiny_model):
    counts = embed_pool(recipe(tiny_model, CLIP), shards, str(tmp_path), LOCAL)
    table = pl.concat([pl.read_parquet(path) for path in sorted(tmp_path.glob("metadata/*.parquet"))])
    assert counts.ok == 9 and set(COLUMNS) < set(table.columns)
    assert [table[c].dtype for c in COLUMNS] == [pl.Float32, pl.Int32, pl.Float32]
    assert table["text_boxes"].to_list() == [1, 0, 0, 0, 1, 0, 0, 1, 0]
    plain = table.filter(pl.col("text_boxes") == 0)
    assert (plain[COLUMNS[0]] == plain["clip_b32_similarity_score"]).all() and (plain["text_area"] == 0).all()
    text = table.filter(pl.col("text_boxes") == 1)
    assert (text[COLUMNS[0]] != text["clip_b32_similarity_score"]).all() and text["text_area"].is_between(
        0.05, 0.9
    ).all()
    npz = np.load(tmp_path / "metadata/00000001.npz")
    assert sorted(npz.files) == ["b32_img", "b32_txt", "uid"], "what was looked at is not kept"
    embedder = load("b32", ModelSpec(model=tiny_model))
    from mmfilter.ocr import read_text

    image = Image.open(io.BytesIO(jpeg(words())))
    painted, _ = paint_over(image, read_text(image, 128).words(0.9, 3))
    rows = embedder.images(np.stack([embedder.prepare(painted)]))
    assert cosine(rows, npz["b32_txt"][:1])[0] == table[COLUMNS[0]][7]


def test_added_later_it_embeds_nothing_anew_and_gives_the_same(extra, shards, tmp_path, tiny_model):
    once, later = tmp_path / "once", tmp_path / "later"
    embed_pool(recipe(tiny_model, CLIP), shards, str(once), LOCAL)
    plain = {"name": "t", "embed": {"b32": {"model": tiny_model}}, "scores": [CLIP]}
    embed_pool(parse_recipe(json.dumps(plain), "recipe t"), shards, str(later), LOCAL)
    embed_pool(recipe(tiny_model, CLIP), shards, str(later), LOCAL)
    assert results(later) == results(once)
    made = [json.loads((folder / "metadata/00000000.json").read_text()) for folder in (once, later)]
    assert made[0]["models"] == made[1]["models"] and made[0]["parts"] == made[1]["parts"]
    before = {path: path.stat().st_mtime_ns for path in later.glob("metadata/*")}
    embed_pool(recipe(tiny_model, CLIP), shards, str(later), LOCAL)
    assert before == {path: path.stat().st_mtime_ns for path in later.glob("metadata/*")}


def test_threads_give_the_same_bytes(extra, shards, tmp_path, tiny_model):
    for name, width in (("local", LOCAL), ("threads", Width(local=True, threads=3))):
        embed_pool(recipe(tiny_model), shards, str(tmp_path / name), width)
    assert results(tmp_path / "local") == results(tmp_path / "threads")


def test_a_wrong_model_is_told():
    with pytest.raises(errors.UsageError, match="no model 'b23' in embed; did you mean 'b32'"):
        build_score({"masked_similarity": {"model": "b23"}}, "x", ["b32"])
