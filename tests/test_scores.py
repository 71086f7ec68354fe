import io
import math
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from embed_util import picture
from PIL import Image, ImageDraw, ImageEnhance

from mmfilter.errors import UsageError
from mmfilter.plugs import PoolScore, Score
from mmfilter.scores import SCORES, build_score
from mmfilter.scores.phash import hamming, phash

HEAD = Path(tempfile.mkdtemp()) / "head.npz"
FIELDS = {  # for scores that cannot do without
    "clip_similarity": {"model": "m"},
    "masked_similarity": {"model": "m", "side": 96, "min_score": 0.3, "min_chars": 2},
    "head": {"name": "h", "file": str(HEAD), "model": "m", "activation": "silu", "output": "sigmoid"},
}
CAPTIONS = [
    "a dog runs on the grass",
    "",
    "Zwei Kinder spielen",
    "one\ntwo",
    "日本語の説明文です",
    "x" * 3000,
]
N = 12


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="module", autouse=True)
def head():
    rng = np.random.default_rng(7)
    shapes = {"0.weight": (9, 16), "0.bias": (9,), "2.weight": (1, 9)}
    np.savez(HEAD, **{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    yield
    shutil.rmtree(HEAD.parent)


@pytest.fixture(scope="module")
def batch():
    modes = ["RGB", "L", "CMYK", "RGB", "RGB", "RGB"]
    files = [encoded(picture(40 + 7 * i, 90 - 5 * i, modes[i % 6], seed=i)) for i in range(N)]
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, N, 16))
    rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float16)
    images = [Image.open(io.BytesIO(data)) for data in files]
    ImageDraw.Draw(images[3]).text((2, 20), "SALE", "white", font_size=24)
    return {
        "uid": [f"{i:032x}" for i in range(N)],
        "key": [str(i) for i in range(N)],
        "text": (CAPTIONS * N)[:N],
        "url": [""] * N,
        "sha256": [f"{i:064x}" for i in range(N)],
        "original_width": np.arange(1, N + 1),
        "original_height": np.arange(N, 0, -1),
        "bytes": files,
        "image": images,
        "img_emb:m": rows[0],
        "txt_emb:m": rows[1],
        "embedder:m": Embedder(),
        "threads": 2,
    }


def take(batch, rows):
    whole = {k: v for k, v in batch.items() if not isinstance(v, (np.ndarray, list))}
    return whole | {
        k: v[rows] if isinstance(v, np.ndarray) else [v[i] for i in rows] for k, v in batch.items() if k not in whole
    }


class Embedder:
    """Embeds an image as 16 of its pixels, each row by itself."""

    dim = 16

    def prepare(self, image):
        return np.asarray(image.convert("L").resize((4, 4)))

    def images(self, pixels):
        rows = pixels.reshape(len(pixels), 16) + 1.0
        return (rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True))).astype(np.float16)


def run(score, batch):
    given = {name: batch[name] for name in score.needs}  # nothing is there that was not asked for
    found = score({**given, **score.look(given)})
    assert set(found) == set(score.columns)
    return found


ALONE = [name for name in SCORES.table() if issubclass(SCORES.get(name), Score)]  # the rest: test_pool_scores.py


def test_every_score_is_of_one_of_two_kinds():
    assert all(issubclass(SCORES.get(name), PoolScore) for name in set(SCORES.table()) - set(ALONE))


@pytest.mark.parametrize("name", ALONE)
class TestEveryScore:
    @pytest.fixture
    def score(self, name):
        if name == "masked_similarity":
            pytest.importorskip("rapidocr", reason="pip install 'mmfilter[ocr]'")
        return build_score({name: FIELDS.get(name, {})}, "recipe t.yaml: scores[0]")

    def test_gives_one_finite_value_a_sample(self, score, batch):
        assert isinstance(score, Score) and isinstance(score.columns, tuple) and isinstance(score.needs, frozenset)
        for values in run(score, batch).values():
            assert values.shape == (N,) and values.dtype.kind in "fiubU"
            assert values.dtype.kind != "f" or np.isfinite(values).all()

    def test_does_not_care_how_the_batch_is_split(self, score, batch):
        whole = run(score, batch)
        parts = [run(score, take(batch, rows)) for rows in (range(5), range(5, 6), range(6, N))]
        for name, values in whole.items():
            joined = np.concatenate([part[name] for part in parts])
            assert joined.dtype.kind == values.dtype.kind and joined.tolist() == values.tolist()

    def test_does_not_care_about_the_order(self, score, batch):
        order = np.random.default_rng(1).permutation(N)
        for name, values in run(score, take(batch, order)).items():
            assert values.tolist() == run(score, batch)[name][order].tolist()

    def test_takes_an_empty_batch(self, score, batch):
        assert all(values.shape == (0,) for values in run(score, take(batch, [])).values())

    def test_answers_alike_from_many_threads(self, score, batch):
        expected = {name: values.tolist() for name, values in run(score, batch).items()}
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: run(score, batch), range(8)):
                assert {name: values.tolist() for name, values in found.items()} == expected


def test_clip_similarity_is_the_exact_cosine_of_the_stored_rows(batch):
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(2, 500, 512))
    rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float16)
    found = build_score({"clip_similarity": {"model": "l14"}}, "")({"img_emb:l14": rows[0], "txt_emb:l14": rows[1]})
    scores = found["clip_l14_similarity_score"]
    exact = [np.float32(math.fsum(map(float, row))) for row in rows[0].astype(np.float64) * rows[1]]
    assert scores.dtype == np.float32 and scores.tolist() == [float(x) for x in exact]


def test_image_size_reads_the_file_not_the_meta(batch):
    found = build_score("image_size", "")({"bytes": batch["bytes"]})
    assert found["image_width"].tolist() == [image.width for image in batch["image"]]
    assert found["image_aspect"][0] == np.float32(90 / 40)
    assert found["image_bytes"].tolist() == [len(data) for data in batch["bytes"]]


def test_caption_counts_words_as_datacomp_does():
    found = build_score("caption", "")({"text": ["", "  a  b\tc\n", "日本語 x", "🙂"]})
    assert found["caption_words"].tolist() == [0, 3, 2, 1] and found["caption_chars"].tolist() == [0, 9, 5, 1]
    assert found["caption_words"].dtype == np.int32


def test_language_knows_its_languages():
    texts = ["a dog runs over the grass", "ein Hund läuft über die Wiese", "un chien\ncourt dans l'herbe", "", " \n"]
    odd = ["\0", "a\ud800b", "ABC", "x" * 100_000]
    found = build_score("language", "")({"text": texts + odd})
    assert found["language"][:5].tolist() == ["en", "de", "fr", "", ""]
    assert (found["language_score"][:3] > 0.7).all() and (found["language_score"][3:5] == 0).all()
    assert ((found["language_score"] >= 0) & (found["language_score"] <= 1)).all()


def test_phash_stays_near_when_an_image_is_reencoded():
    originals = [picture(224, 160, seed=i) for i in range(12)]
    hashes = np.array([phash(image) for image in originals], dtype=np.uint64)
    changes = [
        lambda image: Image.open(io.BytesIO(encoded(image, quality=30))),
        lambda image: image.resize((112, 80), Image.Resampling.BICUBIC),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    ]
    for change in changes:
        changed = np.array([phash(change(image)) for image in originals], dtype=np.uint64)
        assert hamming(hashes, changed).max() <= 8
    far = hamming(hashes[:, None], hashes[None])[~np.eye(12, dtype=bool)]
    assert np.median(far) > 20


def test_phash_is_what_its_docstring_says():
    image = picture(70, 50, "RGBA")
    grey = np.asarray(image.convert("RGB").convert("L").resize((32, 32), Image.Resampling.LANCZOS)).tolist()
    cos = [[round(2**14 * math.cos(math.pi * (2 * x + 1) * u / 64)) for x in range(32)] for u in range(8)]
    low = [
        sum(cos[u][y] * grey[y][x] * cos[v][x] for y in range(32) for x in range(32))
        for u in range(8)
        for v in range(8)
    ]
    middle = sum(sorted(low)[31:33])
    assert phash(image) == int("".join("1" if 2 * c > middle else "0" for c in low), 2)
    assert phash(image, 3) < 2**9 and phash(Image.new("L", (9, 9), 255)) == 1 << 63


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ("phsh", "scores[1]: no score is called 'phsh'; did you mean 'phash'?"),
        ({"phash": {"size": 9}}, "scores[1].phash.size: Input should be less than or equal to 8 (it is 9)"),
        ({"phash": {"sise": 8}}, "scores[1].phash.sise: unknown field; did you mean 'size'?"),
        ({"clip_similarity": {}}, "scores[1].clip_similarity.model: Field required"),
        (
            {"clip_similarity": {"model": "l41"}},
            "scores[1].clip_similarity.model: no model 'l41' in embed; did you mean 'l14'?",
        ),
        ({"caption": [1]}, "scores[1].caption: a mapping of fields is wanted"),
        ({"caption": {}, "phash": {}}, "scores[1]: one at a time, not caption and phash"),
        (7, "scores[1]: a one-key mapping is wanted"),
    ],
)
def test_a_wrong_recipe_is_told_where_and_what(node, says):
    with pytest.raises(UsageError) as error:
        build_score(node, "recipe x.yaml: scores[1]", ["b32", "l14"])
    assert str(error.value).startswith("recipe x.yaml: " + says)


def test_a_bare_name_is_a_score_with_its_defaults():
    assert build_score("phash", "") == build_score({"phash": None}, "") == build_score({"phash": {"size": 8}}, "")
