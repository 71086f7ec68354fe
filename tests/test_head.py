"""Heads over stored embeddings: against torch, whatever the batch; files that are no heads; and a whole run."""

import hashlib
import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from tars import write_pool

from jobs.cluster import Width
from jobs.embed import embed_pool
from jobs.score import score_pool
from mmfilter.errors import ConflictError, DataError, UsageError
from mmfilter.heads import Layer, apply_head, linear, read_head
from mmfilter.recipe import load_recipe, parse_recipe
from mmfilter.scores import build_score


def unit(n, d, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def score(file, **fields):
    return build_score({"head": {"name": "a", "file": str(file), "model": "m", **fields}}, "x")


def run(file, rows, **fields):
    one = score(file, **fields)
    return one(dict.fromkeys(one.needs, rows))["a_score"]


def predictor(widths, seed=0):
    """LAION's MLP layout: linear layers at 0, 2, 4, 6, 7, dropout between them."""
    import torch

    torch.manual_seed(seed)
    linears = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
    parts = [part for one in linears[:3] for part in (one, torch.nn.Dropout(0.2))]
    model = torch.nn.Module()
    model.layers = torch.nn.Sequential(*parts, *linears[3:]).eval()
    return model


@pytest.mark.real
@pytest.mark.parametrize(("name", "d"), [("sa_0_4_vit_b_32_linear.pth", 512), ("sa_0_4_vit_l_14_linear.pth", 768)])
def test_laions_aesthetic_heads_match_torch(data, name, d):
    import torch

    rows = unit(300, d)
    plain = torch.nn.Linear(d, 1)
    plain.load_state_dict(torch.load(data / "heads" / name, weights_only=True))
    exact = rows.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    expected = plain.double()(torch.from_numpy(exact)).detach().numpy()[:, 0]
    assert np.abs(run(data / "heads" / name, rows) - expected).max() < 1e-6
    assert expected.std() > 0.01


@pytest.mark.real
def test_the_recipe_pins_laions_file(data):
    (one,) = load_recipe("laion_aesthetic").scores
    path = data / "heads" / "sa_0_4_vit_l_14_linear.pth"
    assert one.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and one.file.endswith(f"/{path.name}")
    rows = {"img_emb:l14": unit(3, 768)}
    assert np.isfinite(one.model_copy(update={"file": str(path)})(rows)["aesthetic_score"]).all()


def test_the_mlp_predictor_loads_and_matches_torch(tmp_path):
    import torch

    model = predictor([768, 1024, 128, 64, 16, 1])
    torch.save(model.state_dict(), tmp_path / "h.pth")
    rows = unit(40, 768)
    exact = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    expected = model.layers.double()(torch.from_numpy(exact)).detach().numpy()[:, 0]
    assert [name for name in model.state_dict() if "weight" in name][-1] == "layers.7.weight"
    assert np.abs(run(tmp_path / "h.pth", rows) - expected).max() < 1e-6


@pytest.mark.parametrize("activation", ["none", "relu", "silu", "tanh"])
def test_every_format_gives_the_same_bits(tmp_path, activation):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(3)
    state = {f"{i}.{part}": torch.randn(shape) for i, shape in ((2, (5, 24)), (10, (3, 5))) for part in ("weight",)}
    state |= {"2.bias": torch.randn(5), "10.bias": torch.randn(3)}
    torch.save(state, tmp_path / "a.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "b.bin")
    save_file(state, tmp_path / "c.safetensors")
    np.savez(tmp_path / "d.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    rows, fields = unit(50, 24), {"activation": activation, "output": "softmax:2"}
    found = [run(path, rows, **fields).tolist() for path in sorted(tmp_path.iterdir())]
    act = {"none": lambda x: x, "relu": torch.relu, "silu": torch.nn.functional.silu, "tanh": torch.tanh}[activation]
    x = torch.nn.functional.normalize(torch.from_numpy(rows).double(), dim=1)
    x = act(x @ state["2.weight"].double().T + state["2.bias"]) @ state["10.weight"].double().T + state["10.bias"]
    assert found[0] == found[1] == found[2] == found[3]
    assert np.abs(np.array(found[0]) - torch.softmax(x, 1)[:, 2].numpy()).max() < 1e-6


def test_a_rows_value_does_not_hang_on_its_batch(tmp_path):
    rng = np.random.default_rng(1)
    layers = [
        Layer(rng.normal(size=s).astype(np.float32).astype(float), rng.normal(size=s[0])) for s in ((33, 96), (1, 33))
    ]
    rows = unit(257, 96).astype(np.float64)
    whole = apply_head(rows, tuple(layers), "tanh")
    for size in (1, 2, 7, 64, 200):
        parts = [apply_head(rows[i : i + size], tuple(layers), "tanh") for i in range(0, 257, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    order = rng.permutation(257)
    assert apply_head(rows[order], tuple(layers), "tanh").tobytes() == whole[order].tobytes()


def test_a_layer_is_a_matrix_product_over_any_range_of_weights():
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(4, 1000)) * 10.0 ** rng.integers(-6, 4, (4, 1000))
    x = rng.normal(size=(20, 1000)) * 10.0 ** rng.integers(-3, 9, (20, 1))
    found, expected = linear(x, Layer(weight, np.ones(4))), x @ weight.T + 1
    assert np.abs(found - expected).max(axis=None) <= 1e-6 * np.abs(x).max() * np.abs(weight).max()
    assert (linear(np.zeros((2, 1000)), Layer(weight, np.ones(4))) == 1).all()
    assert linear(x, Layer(np.zeros((2, 1000)), np.ones(2))).tolist() == [[1, 1]] * 20


def test_rows_without_a_direction_have_no_score_and_hurt_none_beside_them(tmp_path):
    np.save(tmp_path / "w.npy", np.arange(8.0))
    rows = unit(6, 8)
    alone = run(tmp_path / "w.npy", rows)
    rows[2], rows[4] = 0, np.nan
    found = run(tmp_path / "w.npy", rows)
    assert np.isnan(found[[2, 4]]).all() and found[[0, 1, 3, 5]].tolist() == alone[[0, 1, 3, 5]].tolist()
    assert run(tmp_path / "w.npy", rows, normalize=False)[2] == 0
    assert run(tmp_path / "w.npy", rows[:0]).shape == (0,) and run(tmp_path / "w.npy", rows[:1]).shape == (1,)
    assert run(tmp_path / "w.npy", rows[:1] * np.float16(0.5), modality="text") == alone[0], "normalised again"


def test_files_that_are_no_heads_say_what_they_are(tmp_path):
    import torch

    def refused(name, what, error=DataError, **fields):
        with pytest.raises(error, match=what):
            run(tmp_path / name, unit(3, 8), **fields)

    (tmp_path / "h.pth").write_bytes(b"not a file of torch's")
    refused("h.pth", r"h\.pth: it does not hold plain arrays")
    torch.save(torch.nn.Linear(8, 1), tmp_path / "whole.pth")
    refused("whole.pth", "Pickled objects are never loaded")
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    refused("o.npy", "plain arrays")
    np.savez(tmp_path / "gap.npz", **{"0.weight": np.ones((4, 8)), "1.weight": np.ones((1, 5))})
    refused("gap.npz", r"0\.weight \(4, 8\), 1\.weight \(1, 5\)")
    np.savez(tmp_path / "norm.npz", **{"0.weight": np.ones((1, 8)), "running_mean": np.ones(8)})
    refused("norm.npz", "running_mean.*Fold")
    np.savez(tmp_path / "none.npz")
    refused("none.npz", "It holds nothing")
    np.save(tmp_path / "nan.npy", np.full((1, 8), np.nan))
    refused("nan.npy", "not finite")
    np.save(tmp_path / "wide.npy", np.ones((1, 9)))
    refused("wide.npy", "takes 9 numbers, an embedding of 'm' has 8")
    np.save(tmp_path / "two.npy", np.ones((2, 8)))
    refused("two.npy", "it has 2 outputs; 'output: softmax:INDEX'")
    refused("two.npy", "'softmax:2' is not there", output="softmax:2")
    refused("away.npy", "no such file", UsageError)
    refused("two.npy", "the recipe wants 0000", ConflictError, sha256="0" * 64)
    refused("nsfw.h5", "kernel, transposed", UsageError)
    refused("two.npy", "output", UsageError, output="softmax")


def test_a_replaced_file_is_read_again(tmp_path):
    np.save(tmp_path / "w.npy", np.ones(8))
    first = read_head(str(tmp_path / "w.npy"))
    np.save(tmp_path / "w.npy", np.ones(8, np.float32))
    assert first is not read_head(str(tmp_path / "w.npy"))


@pytest.fixture
def embedded(tmp_path, tiny_model):
    paths = write_pool(tmp_path / "pool", 2, 6)
    plain = parse_recipe(json.dumps({"name": "t", "embed": {"m": {"model": tiny_model}}}), "recipe t")
    embed_pool(plain, paths, str(tmp_path / "out"), Width(local=True))
    np.save(tmp_path / "w.npy", np.random.default_rng(0).normal(size=(1, 24)))
    rules = {"then": [{"threshold": {"score": "a_score", "min": -9}}, {"fraction": {"score": "a_score", "keep": 0.5}}]}
    heads = {"head": {"name": "a", "file": str(tmp_path / "w.npy"), "model": "m"}}
    text = json.dumps({"name": "t", "embed": {"m": {"model": tiny_model}}, "scores": [heads], "select": rules})
    return tmp_path, paths, text


def test_score_adds_a_head_to_an_embedded_pool_and_select_cuts_by_it(embedded, mmfilter):
    folder, _, text = embedded
    (folder / "t.yaml").write_text(text)
    code, said, error = mmfilter("score", folder / "t.yaml", "--out", folder / "out", "--local")
    assert code == 0 and "a_score" in said, error
    code, said, error = mmfilter("select", folder / "t.yaml", "--out", folder / "out", "--json")
    assert code == 0 and json.loads(said)["counts"]["kept"] == 6, said + error
    npz = np.load(folder / "out/metadata/00000001.npz")
    found = pl.read_parquet(folder / "out/columns/a_score/00000001.parquet")
    assert found["a_score"].to_list() == run(folder / "w.npy", npz["m_img"]).tolist()


def test_another_file_is_another_score(embedded):
    folder, paths, text = embedded
    recipe, out = parse_recipe(text, "recipe t"), str(folder / "out")
    digest = hashlib.sha256((folder / "w.npy").read_bytes()).hexdigest()
    score_pool(recipe, out)
    made = pl.read_parquet(folder / "out/columns/a_score/00000000.parquet")
    (folder / "moved.npy").write_bytes((folder / "w.npy").read_bytes())
    moved = parse_recipe(text.replace("w.npy", "moved.npy"), "recipe t")
    assert score_pool(moved, out)["columns"] == [] and embed_pool(moved, paths, out, Width(local=True)).ok == 12
    np.save(folder / "w.npy", np.ones((1, 24)))
    for again in (lambda: score_pool(recipe, out), lambda: embed_pool(recipe, paths, out, Width(local=True))):
        with pytest.raises(ConflictError, match=digest):
            again()
    score_pool(recipe, out, redo=True)
    assert not made.equals(pl.read_parquet(folder / "out/columns/a_score/00000000.parquet"))
    (folder / "w.npy").unlink()
    with pytest.raises(UsageError, match=r"w\.npy: cannot be read \(No such file.*'a_score' wants it"):
        score_pool(recipe, out)
