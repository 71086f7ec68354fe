import json
import threading
import time

import numpy as np
import open_clip
import pytest
import torch
from embed_util import MODELS, TEXT, VISION, picture, tiny_folder
from pydantic import ValidationError

from mmfilter import hub
from mmfilter.embed import Embedder, bad_rows, load
from mmfilter.errors import ConflictError, DataError, MMFilterError, UsageError
from mmfilter.flops import flops
from mmfilter.preprocess import Unpreparable, draft, preparation, prepare
from mmfilter.weights import ModelSpec, Resolved, build, resolve

pytestmark = pytest.mark.slow  # together, not each: its fixtures take seconds

TEXTS = [
    "a dog",
    "",
    "two children play in a fountain",
    "red",
    "word " * 200,
    "naïve café 日本語 🙂",
    "x\0y",
    "a\ud800b",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny_folder(root / kind, kind) for kind in MODELS}


@pytest.fixture(scope="module")
def clip(folders):
    return load("tiny", ModelSpec(model=folders["clip"]), batch=4)


def pictures(n=6):
    return [picture(57 + 5 * i, 41 + 9 * (i % 3), seed=i) for i in range(n)]


def prepared(embedder, images):
    return np.stack([embedder.prepare(image) for image in images])


def cosines(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("kind", MODELS)
def test_the_embeddings_are_open_clips_own(folders, kind):
    embedder = load("m", ModelSpec(model=folders[kind]), batch=3)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folders[kind]}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folders[kind]}")
    texts = TEXTS[:-1]
    with torch.inference_mode():
        images = model.eval().encode_image(torch.stack([transform(i) for i in pictures()]), normalize=True).numpy()
        captions = model.encode_text(tokenizer(texts), normalize=True).numpy()
    ours = embedder.images(prepared(embedder, pictures())), embedder.texts(texts)
    for rows, theirs in zip(ours, (images, captions), strict=True):
        assert rows.dtype == np.float16 and rows.shape == (len(theirs), embedder.dim)
        assert cosines(rows, theirs).min() > 1 - 1e-5
        assert np.abs(rows - theirs).max() < 2**-11  # half of fp16's last bit below 1
    assert embedder.text_tower.trims == (kind != "bidirectional")


@pytest.mark.parametrize("kind", ["clip", "custom_text", "custom_eos"])
def test_cutting_the_padding_off_changes_nothing(folders, kind):
    tower = load("m", ModelSpec(model=folders[kind])).text_tower
    tokens = tower.tokens(TEXTS)
    lengths = tower.lengths(tokens)
    assert lengths.min() == 2 and lengths.max() == 77
    with torch.inference_mode():
        full = tower(torch.from_numpy(tokens))
        for row, length in enumerate(lengths):
            cut = tower(torch.from_numpy(tokens[row : row + 1, :length]))
            torch.testing.assert_close(cut[0], full[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "CMYK", "I;16", "1", "YCbCr"])
@pytest.mark.parametrize(
    "preprocess",
    [{}, {"resize_mode": "longest", "fill_color": 7}, {"resize_mode": "squash", "interpolation": "bilinear"}],
    ids=["shortest", "longest", "squash"],
)
def test_prepare_is_the_models_own_transform(mode, preprocess):
    config = open_clip.transform.PreprocessCfg(size=32, **preprocess)
    transform = open_clip.transform.image_transform_v2(config, is_train=False)
    how = preparation(transform)
    for width, height in [(57, 41), (1, 1), (8, 400), (300, 9), (32, 32)]:
        image = picture(width, height, mode)
        pixels = prepare(image, how)
        assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
        ours = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        ours = (ours - torch.tensor(how.mean).view(3, 1, 1)) / torch.tensor(how.std).view(3, 1, 1)
        torch.testing.assert_close(ours, transform(image), atol=0, rtol=0)


def test_models_that_prepare_alike_share_a_key(folders, tmp_path, clip):
    same = load("m", ModelSpec(model=folders["custom_text"]))
    other = load("m", ModelSpec(model=tiny_folder(tmp_path / "squash", resize_mode="squash")))
    padded = [tiny_folder(tmp_path / str(c), resize_mode="longest", fill_color=c) for c in (0, 9)]
    keys = {load("m", ModelSpec(model=folder)).prepare_key for folder in padded}
    fast = load("m", ModelSpec(model=folders["clip"], decoder="fast"))
    assert same.prepare_key == clip.prepare_key
    assert len({clip.prepare_key, other.prepare_key, fast.prepare_key} | keys) == 5


def test_a_sliver_is_refused_before_it_fills_the_memory(clip):
    with pytest.raises(Unpreparable, match="1 x 200000 pixels") as error:
        clip.prepare(picture(1, 200_000))
    assert error.value.status == "aspect_too_extreme"
    assert clip.prepare(picture(8, 4000)).shape == (32, 32, 3)


@pytest.mark.parametrize("preprocess", [{}, {"resize_mode": "squash"}, {"resize_mode": "longest"}])
def test_the_fast_decoder_agrees_to_a_thousandth(tmp_path, preprocess):
    folder = tiny_folder(tmp_path / "m", **preprocess)
    exact, fast = (load("m", ModelSpec(model=folder, decoder=d)) for d in ("pillow", "fast"))
    images = [picture(w, h, mode) for w, h in [(90, 61), (33, 200), (32, 32), (9, 12)] for mode in ("RGB", "P", "L")]
    a, b = (e.images(prepared(e, images)) for e in (exact, fast))
    assert np.abs(prepared(exact, images).astype(int) - prepared(fast, images)).max() <= 2
    assert cosines(a, b).min() > 1 - 1e-3
    assert exact.info()["decoder"] == "pillow" and fast.info()["decoder"] == "fast"


def test_draft_shrinks_large_jpegs_only():
    import io

    def jpeg(width, height, mode="RGB"):
        stream = io.BytesIO()
        picture(width, height, mode).save(stream, "JPEG", quality=90)
        return stream.getvalue()

    assert draft(jpeg(640, 512), 64).size == (160, 128)
    assert draft(jpeg(640, 512), 128).size == (320, 256)
    for nothing in (jpeg(640, 511), jpeg(200, 100), jpeg(640, 512, "L"), jpeg(640, 512)[:-300], b"", b"GIF89a"):
        assert draft(nothing, 128) is None


def test_the_answer_is_the_same_from_any_thread_and_in_any_order(clip):
    pixels, texts = prepared(clip, pictures(8)), TEXTS
    expected = clip.images(pixels), clip.texts(texts)
    found = {}

    def work(i):
        found[i] = clip.images(pixels), clip.texts(texts)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pair in found.values():
        assert all(a.tobytes() == b.tobytes() for a, b in zip(pair, expected, strict=True))
    back = clip.texts(texts[::-1])[::-1]
    assert np.abs(back.astype(float) - expected[1]).max() < 2e-3
    assert clip.texts([]).shape == (0, clip.dim) and clip.images(pixels[:0]).shape == (0, clip.dim)


def test_endless_captions_do_not_hang(clip):
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    long = ["a" * 1_000_000, "".join(map(chr, rng.integers(97, 123, 500_000))), " \n" * 500_000 + "a dog"]
    rows = clip.texts([*long, "a dog"])
    assert time.perf_counter() - start < 10
    assert not bad_rows(rows).any()
    np.testing.assert_array_equal(rows[2], rows[3])


def test_fault_42_out_of_memory_halves_the_batch(folders, monkeypatch):
    embedder = load("m", ModelSpec(model=folders["clip"]), batch=8)
    pixels = prepared(embedder, pictures(10))
    expected = embedder.images(pixels)
    encode, seen = embedder.model.encode_image, []

    def small(x):
        seen.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(x)

    monkeypatch.setattr(embedder.model, "encode_image", small)
    np.testing.assert_allclose(embedder.images(pixels), expected, atol=1e-3)
    assert seen == [8, 4, 2, 2, 2, 2, 2] and embedder.halved == 2

    def none(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(embedder.model, "encode_image", none)
    with pytest.raises(MMFilterError, match="one sample does not fit"):
        embedder.images(pixels)


def test_info_is_plain_and_names_the_weights(clip, folders):
    info = json.loads(json.dumps(clip.info()))
    assert info["sha256"] == weights_sha(folders["clip"]) and info["weights"] == "open_clip_model.safetensors"
    assert info["precision"] == "fp32" and info["dim"] == 24 and info["image_size"] == [32, 32]
    assert "Resize(size=32" in info["preprocessing"] and set(info["versions"]) == {"torch", "open_clip", "pillow"}


def weights_sha(folder):
    import hashlib

    with open(f"{folder}/open_clip_model.safetensors", "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def test_fault_33_other_weights_than_the_recipes_are_refused(folders):
    sha = weights_sha(folders["clip"])
    assert resolve(ModelSpec(model=folders["clip"], sha256=sha)).sha256 == sha
    with pytest.raises(ConflictError, match=f"sha256 is {sha}, the recipe wants {'0' * 64}"):
        resolve(ModelSpec(model=folders["clip"], sha256="0" * 64))


@pytest.mark.parametrize("model", [{"model": "ViT-B-32", "pretrained": "openai"}, {"model": "hf-hub:some/where"}])
def test_offline_says_what_to_fetch_and_where_to_put_it(model, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MMFilterError) as error:
        resolve(ModelSpec(**model))
    text = str(error.value)
    repo = "timm/vit_base_patch32_clip_224.openai" if "pretrained" in model else "some/where"
    assert f"hf download {repo}" in text and str(tmp_path) in text
    assert ("`weights: /path/to/open_clip_model.safetensors`" if "pretrained" in model else "model: /path/to") in text


def test_a_missing_network_is_noticed_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    start = time.perf_counter()
    with pytest.raises(MMFilterError, match="refused"):
        hub.fetch_hub("some/where")
    assert time.perf_counter() - start < 2


def test_fault_32_pickled_weights_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "bomb.pt"
    torch.save({"state_dict": Bomb()}, path)
    spec = ModelSpec(model="RN50", weights=str(path))
    with pytest.raises(DataError, match=r"bomb\.pt: not the weights of RN50, or not plain tensors"):
        build(spec, resolve(spec))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"model": "ViT-B-33", "pretrained": "openai"}, "no model 'ViT-B-33' in open_clip; did you mean 'ViT-B-32'"),
        ({"model": "ViT-B-32", "pretrained": "openia"}, "no weights 'openia' for ViT-B-32; did you mean 'openai'"),
        ({"model": "ViT-B-32", "weights": "/nowhere/w.safetensors"}, "/nowhere/w.safetensors: no such file"),
        ({"model": "ViT-B-32", "weights": "/etc/passwd"}, "weights are read from .safetensors"),
        ({"model": "/nowhere/model"}, "not a model folder"),
    ],
)
def test_what_does_not_exist_is_named_with_its_neighbour(spec, says):
    with pytest.raises(UsageError) as error:
        resolve(ModelSpec(**spec))
    assert says in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "ViT-B-32"},
        {"model": "ViT-B-32", "pretrained": "random"},
        {"model": "ViT-B-32", "pretrained": "openai", "seed": 1},
        {"model": "hf-hub:a/b", "pretrained": "openai"},
        {"model": "ViT-B-32", "pretrained": "openai", "device": "cuda"},
        {"model": "ViT-B-32", "pretrained": "openai", "sha256": "abc"},
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(fields):
    with pytest.raises(ValidationError):
        ModelSpec(**fields)


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny-registered.json"
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}))
    open_clip.add_model_config(path)
    return "tiny-registered"


def test_random_weights_come_from_their_seed(registered):
    def weights(seed):
        spec = ModelSpec(model=registered, pretrained="random", seed=seed)
        state = torch.get_rng_state()
        embedder = load("m", spec)
        assert torch.equal(torch.get_rng_state(), state)
        return embedder.texts(["a dog"]).tobytes()

    assert weights(1) == weights(1) != weights(2)


def test_a_tags_activation_is_the_models(registered):
    spec = ModelSpec(model=registered, pretrained="random", seed=0)

    def layers(tag):
        model, _, _ = build(spec, Resolved(registered, "", "", tag))
        return {type(layer).__name__ for layer in model.modules()}

    assert "QuickGELU" in layers({"quick_gelu": True}) and "QuickGELU" not in layers({})


def test_bad_rows_are_found():
    rows = np.zeros((6, 4), np.float16)
    rows[:, 0] = [1, np.nan, np.inf, 0, 0.5, -1]
    assert bad_rows(rows).tolist() == [False, True, True, True, True, False]


def test_weights_that_are_not_finite_give_bad_rows(registered):
    spec = ModelSpec(model=registered, pretrained="random", seed=0)
    model, transform, tokenizer = build(spec, resolve(spec))
    model.text_projection.data[0, 0] = float("nan")
    embedder = Embedder("m", spec, resolve(spec), (model, transform, tokenizer))
    assert bad_rows(embedder.texts(["a dog", "a cat"])).all()
    assert not bad_rows(embedder.images(prepared(embedder, pictures(2)))).any()


def test_flops_are_those_of_the_published_models():
    counted = flops(ModelSpec(model="ViT-B-32", pretrained="openai"))
    assert counted.image == pytest.approx(2 * 4.41e9, rel=0.01)
    assert counted.caption(77) == pytest.approx(2 * 2.98e9, rel=0.01) == counted.caption(500)
    # 12 layers of width 512: 2 * 12 * 512**2 operations a token and layer in the projections
    assert counted.caption(20) - counted.caption(19) == pytest.approx(12 * 24 * 512**2, rel=0.02)


def test_flops_of_a_folder_and_of_a_hubs_model_need_no_weights(folders, monkeypatch, tmp_path):
    import shutil

    counted = flops(ModelSpec(model=folders["clip"]))
    snapshot = tmp_path / "models--some--where" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    shutil.copy(f"{folders['clip']}/open_clip_config.json", snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert flops(ModelSpec(model="hf-hub:some/where")) == counted
    shutil.copy(f"{folders['clip']}/open_clip_model.safetensors", snapshot)
    hub_model = load("m", ModelSpec(model="hf-hub:some/where", sha256=weights_sha(folders["clip"])))
    assert hub_model.images(prepared(hub_model, pictures(1))).shape == (1, 24)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", MODELS)
def test_a_gpu_agrees_with_the_processor(folders, kind):
    spec = ModelSpec(model=folders[kind])
    cpu, gpu = load("m", spec), load("m", spec, device="cuda", batch=4)
    images = pictures()
    assert cosines(cpu.images(prepared(cpu, images)), gpu.images(prepared(gpu, images))).min() > 1 - 1e-3
    assert cosines(cpu.texts(TEXTS), gpu.texts(TEXTS)).min() > 1 - 1e-3
    assert gpu.info()["precision"] == "bf16"
