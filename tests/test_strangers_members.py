"""What strangers put into a pool beside pictures and captions never reaches a trainer, whichever way shards come."""

import contextlib
import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from tars import sample, tar, uid

from mmfilter.fields import is_pickle
from mmfilter.open_clip_run import is_trained_on
from mmfilter.samples import read_samples
from mmfilter.subset import Subset

NAMES = ("pyd", "PYD", "pickle", "Pickle", "pth", "pkl", "x.pkl", "pyd.gz", "pickle.gz", "a.b.pyd", "pth.gz")

READ = """
import sys
from mmfilter.open_clip_run import only_pairs
if sys.argv[1] == "guarded":
    only_pairs()
from open_clip_train.data import get_wds_dataset
from open_clip_train.params import parse_args
args = parse_args(["--train-data", sys.argv[2], "--train-num-samples", "4", "--batch-size", "1", "--workers", "1"])
args.rank, args.world_size, args.distributed = 0, 1, False
import numpy
loader = get_wds_dataset(args, numpy.asarray, is_train=True, tokenizer=lambda text: [text]).dataloader
print(sorted(texts[0] for _, texts in loader))
"""


class Bomb:
    """Creates a file where it is un-pickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def hostile(folder):
    """Path of a tar of four samples, each with every kind of pickle beside it, and of the file that one would make."""
    owned, rows = folder / "owned", []
    bomb = pickle.dumps(Bomb(str(owned)))
    for number in range(4):
        rows += sample(number, f"a caption {number}")
        key = rows[-1][0].partition(".")[0]
        rows += [(f"{key}.{name}", gzip.compress(bomb) if name.endswith("gz") else bomb) for name in NAMES]
        rows.append((f"{key}.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"))
    path = folder / "00000000.tar"
    path.write_bytes(tar(rows))
    return path, owned


def trained_on(path, how):
    """The captions that open_clip's loader hands to training, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", READ, how, path], capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_open_clips_trainer_unpickles_no_member_of_the_pools_own_shards(tmp_path):
    path, owned = hostile(tmp_path)
    assert trained_on(path, "guarded") == str([f"a caption {number}" for number in range(4)])
    assert not owned.exists()
    trained_on(path, "as it comes")
    assert owned.exists(), "the pool would have run code: that is what is kept from it"


@pytest.mark.slow
def test_the_trainers_own_process_drops_them(tmp_path):
    path, owned = hostile(tmp_path)
    config = {
        "embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }  # fmt: skip
    (tmp_path / "mmfilter_model.json").write_text(json.dumps(config))
    words = ["--train-data", str(path), "--dataset-type", "webdataset", "--train-num-samples", "4", "--batch-size", "2"]
    words += ["--model", "mmfilter_model", "--epochs", "1", "--workers", "1", "--device", "cpu", "--precision", "fp32"]
    words += ["--logs", str(tmp_path / "logs"), "--dataset-resampled"]
    job = {"config": str(tmp_path / "mmfilter_model.json"), "device": "cpu", "arguments": words, "epochs": []}
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "mmfilter.open_clip_run", tmp_path / "job.json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "2"}
    )
    assert not done.returncode, done.stderr[-2000:]
    assert not owned.exists()


def test_new_shards_hold_no_pickle_under_any_name(tmp_path, mmfilter):
    (tmp_path / "pool").mkdir()
    path, owned = hostile(tmp_path / "pool")
    subset = tmp_path / "s.npy"
    Subset.from_uids([one.uid for one in read_samples(str(path))]).write(str(subset))
    out = tmp_path / "new"
    assert mmfilter("reshard", subset, "--pool", path.parent, "--out", out, "--members", "eps,npy")[0] == 0
    with tarfile.open(out / "00000000.tar") as file:
        endings = {name.split(".", 1)[1] for name in file.getnames()}
    assert endings == {"jpg", "txt", "json", "eps"} and not owned.exists()
    for name in (*NAMES, "pt.zst", "x.PKL.lz4", "pkl.", "model.ckpt", "joblib"):
        code, _, err = mmfilter("reshard", subset, "--pool", path.parent, "--out", tmp_path / "n", "--members", name)
        assert code == 2 and "is never copied" in err and "Traceback" not in err, name


def test_names_of_members():
    assert all(map(is_pickle, NAMES)) and not any(map(is_pickle, ("npy", "txt", "cls", "mask.png", "pointer")))
    assert is_trained_on("a.b/0.JPG") and is_trained_on("0.txt") and is_trained_on("./0.webp")
    assert not any(is_trained_on(f"0.{name}") for name in (*NAMES, "json", "cls", "jpg.gz", "x.jpg", "eps", ""))


def test_what_may_be_named_runs_nothing_in_plain_webdataset(tmp_path):
    """The other side of `--members`: of all that webdataset decodes, what is not refused runs no code."""
    from webdataset.autodecode import Decoder, decoders

    bomb, stream = pickle.dumps(Bomb(str(tmp_path / "owned"))), io.BytesIO()
    np.save(stream, np.array([Bomb(str(tmp_path / "owned"))], object), allow_pickle=True)
    several = io.BytesIO()
    np.savez(several, np.array([Bomb(str(tmp_path / "owned"))], object))
    (tmp_path / "owned").unlink(missing_ok=True)
    named = [name for name in (*decoders, "gz", "npy.gz", "h5", "bin") if not is_pickle(name)]
    assert {"npy", "npz", "ten", "mp"} <= set(named) and not {"pyd", "pickle", "pth"} & set(named)
    for name in named:
        for data in (bomb, stream.getvalue(), several.getvalue()):
            with contextlib.suppress(Exception):
                Decoder([]).decode({"__key__": "0", name: gzip.compress(data) if name.endswith("gz") else data})
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("head", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6" + bytes(26)])
def test_a_picture_that_starts_a_program_is_not_passed_on(tmp_path, mmfilter, head):
    (tmp_path / "pool").mkdir()
    rows = [*sample(0), *sample(1, image=head + b"%%BoundingBox: 0 0 9 9\n" * 50)]
    (tmp_path / "pool" / "0.tar").write_bytes(tar(rows))
    subset = tmp_path / "s.npy"
    Subset.from_uids([uid(0), uid(1)]).write(str(subset))
    words = ("reshard", subset, "--pool", tmp_path / "pool", "--out", tmp_path / "new")
    code, _, err = mmfilter(*words)
    assert code == 1 and "Ghostscript" in err and "Traceback" not in err
    assert mmfilter(*words, "--allow-missing")[0] in (0, 3)
    with tarfile.open(tmp_path / "new/00000000.tar") as file:
        assert {name[:32] for name in file.getnames()} == {uid(0)}
