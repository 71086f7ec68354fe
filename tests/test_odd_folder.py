"""A whole small job in a folder that is named like a pattern comes to what it comes to in a plain one.

Beside it stand folders that its name would match, were it read as a pattern.
"""

import html
import inspect
import json
import re
import shlex
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args

import polars as pl
import pytest
import typer
from command import command
from markupsafe import escape
from sets_util import labelled, write_set
from url_util import write_list

from jobs import cli
from mmfilter.engine import joined
from mmfilter.weights import DEMO

cli.register()
COMMANDS = typer.main.get_command(cli.app).commands
ODD = "it's [v1] {a,b} *? %20#~"
MATCHED = ("it's v {a,b} xx %20#~", "it's 1 a yy %20#~")
BYTES = {".parquet", ".npz", ".npy", ".tar", ".faiss", ".safetensors", ".gz"}
WORDS = {
    *("name", "uids", "pool_id", "captions", "address", "url_col", "caption_col", "uid_col", "keep", "members", "kind"),
    *("column", "hard", "modality", "license", "pretty", "factory", "host", "allow_host", "cors", "token", "mode"),
    *("levels", "device", "engine", "more", "only", "split", "scale", "metric", "text", "where", "minus", "minus_uid"),
    *("score", "uid", "index", "progress", "proxy"),
}
"""Parameters that hold text and no path."""
NAMES = {("evaluate", "pretrained")} | {(verb, "model") for verb in ("compare", "index", "dedup", "cluster", "probe")}
"""Parameters that are a path in other verbs, and here a name."""


def session(f, uid):
    """Command lines in the folder `f`, in order, as (verb, parameters): all that are paths are below `f`.

    A parameter's name is the command's own, so that the table of what is tried is this one. True is a flag.
    """
    yield from filtering(f, uid)
    yield from exploring(f)
    yield from training(f)


def filtering(f, uid):
    pool, run, labels = f"{f}/pool", f"{f}/run", f"{f}/pool/labels/labels.parquet"
    one, kept, all_ = f"{f}/one.npy", f"{run}/subsets/demo.npy", f"{run}/subsets/no_filter.npy"
    here = {"local": True}
    yield "run", {"recipe": "demo", "pool": pool, "out": run, "labels": labels, **here}
    yield "recipe copy", {"name": "demo", "to": f"{f}/mine.yaml"}
    yield "recipe copy", {"name": "basic_filter", "to": f"{f}/basic.yaml"}
    yield "embed", {"recipe": f"{f}/mine.yaml", "pool": f"{pool}/*.tar", "out": f"{f}/embedded", **here}
    yield "score", {"recipe": f"{f}/mine.yaml", "out": f"{f}/scored", "metadata": f"{f}/embedded/metadata", **here}
    yield "score", {"recipe": "basic_filter", "out": run, **here}
    yield "select", {"recipe": f"{f}/basic.yaml", "out": f"{f}/bare", "metadata": f"{f}/embedded/metadata"}
    yield "select", {"recipe": "no_filter", "out": run}
    named = f"{pool}/{{00000000..00000001}}.tar"
    yield "reshard", {"subset": all_, "pool": named, "out": f"{f}/new", **here}
    yield "report", {"out": run, "name": "demo", "labels": labels}
    yield "report", {"out": f"{f}/bare", "metadata": f"{f}/embedded/metadata"}
    yield "card", {"out": run, "name": "demo"}
    yield "card", {"out": f"{f}/bare", "metadata": f"{f}/embedded/metadata"}
    yield "explain", {"uid": uid, "out": run, "name": "demo"}
    yield "explain", {"uid": uid, "out": f"{f}/bare", "metadata": f"{f}/embedded/metadata"}
    yield "subset", {"words": [all_, "-", f"{kept}"], "write": one, "out": run}
    yield "schedule", {"out": run, "kind": "rs2", "epochs": 2, "keep": 0.5, "subset": one}
    yield "schedule", {"out": f"{f}/bare", "kind": "rs2", "epochs": 2, "metadata": f"{f}/embedded/metadata"}
    yield "index", {"out": run, "model": "demo", **here}
    yield "index", {"out": f"{f}/scored", "model": "demo", "metadata": f"{f}/embedded/metadata", **here}


def exploring(f):
    pool, run, labels = f"{f}/pool", f"{f}/run", f"{f}/pool/labels/labels.parquet"
    one, all_, here = f"{f}/one.npy", f"{run}/subsets/no_filter.npy", {"local": True}
    images = f"{f}/pictures"
    yield "query", {"text": "a red square", "out": run, "like": one, "among": all_, "write": f"{f}/found.npy"}
    yield "query", {"image": images, "out": run, "metadata": f"{run}/metadata"}
    beside = {"weights": f"demo={f}/packaged", **here}
    target = {"target": images, "page": f"{f}/page.html", "metadata": f"{run}/metadata"}
    yield "compare", {"subsets": [one, "no_filter"], "out": run, "model": "demo", **target, **beside}
    yield "dedup", {"out": run, "against": images, "model": "demo", **beside}
    yield "dedup", {"out": f"{f}/embedded", "against": run, "metadata": f"{f}/embedded/metadata", **here}
    yield "cluster", {"out": f"{f}/embedded", "model": "demo", "k": 4, "metadata": f"{f}/embedded/metadata", **here}
    labelled_by = {"labels": labels, "column": "kind", "metadata": f"{run}/metadata"}
    yield "probe", {"out": run, "model": "demo", **labelled_by}
    yield "status", {"out": run}
    yield "inspect", {"pool": pool}
    yield "inspect", {"out": run}


def training(f):
    pool, run, one, here = f"{f}/pool", f"{f}/run", f"{f}/one.npy", {"local": True}
    weights = f"demo={f}/model"
    small = {"samples": 16, "batch_size": 8}
    yield "train", {"out": f"{f}/model", "pool": pool, "subset": one, **small}
    scheduled = {"schedule": f"{run}/schedules/rs2.schedule.json", "batch_size": 4}
    yield "train", {"out": f"{f}/again", "pool": pool, "model": f"{f}/model", **scheduled}
    opened = {"engine": "open_clip", "workers": 0, "prepare": True, "subset": one, **small}
    pretrained = {"model": f"{f}/model/open_clip_config.json", "pretrained": f"{f}/model/open_clip_model.safetensors"}
    yield "train", {"out": f"{f}/opened", "pool": pool, **pretrained, **opened}
    yield "run", {"recipe": f"{f}/mine.yaml", "pool": pool, "out": f"{f}/weighed", "weights": weights, **here}
    yield "embed", {"recipe": f"{f}/mine.yaml", "pool": pool, "out": f"{f}/weighed", "weights": weights, **here}
    yield "score", {"recipe": f"{f}/mine.yaml", "out": f"{f}/weighed", "weights": weights, **here}
    yield "select", {"recipe": f"{f}/mine.yaml", "out": f"{f}/weighed", "weights": weights}
    again = {"recipe": f"{f}/mine.yaml", "pool": pool, "weights": weights}
    yield "verify", {"out": f"{f}/weighed", "repair": True, **again, **here}
    yield "index", {"out": f"{f}/weighed", "model": "demo", **here}
    yield "query", {"text": "a red square", "out": f"{f}/weighed", "weights": weights}
    yield "serve", {"outs": f"{f}/weighed", "weights": weights, "port": 0}
    yield "evaluate", {"model": f"{f}/model", "tasks": f"{f}/tasks", "out": f"{f}/evaluated"}
    other = {"model": "ViT-S-32", "weights": f"{f}/model/open_clip_model.safetensors"}
    yield "evaluate", {**other, "tasks": f"{f}/tasks", "out": f"{f}/refused"}
    ranked = {"scale": "micro", "samples": 32, "seeds": 1, "tasks": f"{f}/tasks", "model": f"{f}/micro.json"}
    yield "rank", {"subsets": one, "pool": pool, "out": f"{f}/ranked", **ranked, **here}
    yield "leaderboard", {"outs": f"{f}/ranked", "page": f"{f}/board.html"}
    advised = {"budget": "1e7", "bucket_size": 1000000, "page": f"{f}/advice.html"}
    yield "advise", {"results": f"{f}/results.csv", "out": f"{f}/advised", **advised}
    yield "serve", {"outs": f"{f}/embedded", "metadata": f"{f}/embedded/metadata", "port": 0}
    fetched = {"out": f"{f}/fetched", "allow_private": True, "retries": 0, **here}
    yield "download", {"urls": f"{f}/urls.parquet", "uid_col": "uid", "caption_col": "text", **fetched}
    yield "demo", {"out": f"{f}/demo", "samples": 50, **here}
    sent = {"weights": weights, "runtime_env": f"{f}/env.yaml", "address": "http://127.0.0.1:9"}
    yield "submit", {"recipe": f"{f}/mine.yaml", "pool": f"{pool}/*.tar", "out": f"{f}/sent", **sent}
    yield "synth", {"out": f"{f}/made", "samples": 20}


TRIED = {
    (verb, name) for verb, given in session("FOLDER", "") for name, value in given.items() if "FOLDER" in str(value)
}


def text_parameters(verb):
    """Names of a verb's parameters that hold text."""
    callback = next(c.callback for c in cli.app.registered_commands if (c.name or c.callback.__name__) == verb)
    for name, parameter in inspect.signature(callback).parameters.items():
        kind = str((get_args(parameter.annotation) or [parameter.annotation])[0])
        if "str" in kind and not name.endswith("_"):  # `out_` is the other way to give OUT
            yield name


@pytest.mark.parametrize("verb", sorted(set(COMMANDS) - {"recipe"}))
def test_every_parameter_that_is_a_path_is_tried(verb):
    """A new option stands in `session` with a path, or among WORDS."""
    untried = {n for n in text_parameters(verb) if n not in WORDS and not {(verb, n)} & (TRIED | NAMES)}
    assert not untried


def words(verb, given):
    """The command line of a step."""
    parts = verb.split()
    params = {p.name: p for p in (COMMANDS["recipe"].commands if parts[1:] else COMMANDS)[parts[-1]].params}
    flags, positional = [], []
    for name, value in given.items():
        if params[name].param_type_name == "argument":
            positional += value if isinstance(value, list) else [value]
        elif value is True:
            flags.append(params[name].opts[0])
        else:
            flags += [params[name].opts[0], value]
    return [*parts, *positional, *flags]


def prepare(folder, first, uid_list):
    """What a session starts from, of one pool, dates kept: identities hold them."""
    folder.mkdir()
    for name in ("pool", "pictures", "tasks"):
        shutil.copytree(first / name, folder / name)
    shutil.copytree(DEMO, folder / "packaged")
    (folder / "results.csv").write_text(
        "bucket,samples_seen,error\n"
        + "".join(f"{b},{s:g},{e}\n" for b in "ab" for s, e in ((1e6, 0.5), (2e6, 0.4), (4e6, 0.35)))
    )
    (folder / "env.yaml").write_text("env_vars: {A: b}\n")
    shutil.copy2(uid_list, folder / "urls.parquet")
    (folder / "micro.json").write_text(json.dumps(MICRO))


MICRO = {
    "model_cfg": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
        "text_cfg": {"context_length": 32, "vocab_size": 600, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"resize_mode": "squash"},
}


def plain_text(data, folder):
    """The text of a file without its folder, in all the forms that it takes, and without numbers."""
    text, root = re.sub(r"\n +", " ", data.decode()), str(folder)  # YAML folds long lines
    forms = {root, joined([root]), shlex.quote(root).strip("'")}
    forms |= {json.dumps(form)[1:-1] for form in forms}
    forms |= {str(escape(form)) for form in forms} | set(map(html.escape, forms))
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "ROOT")
    text = re.sub(r"<tr data-stage=.*?</tr>", "", text, flags=re.DOTALL)  # in the order of the seconds that they took
    text = re.sub(r"(?:'|&#39;)?ROOT([\w/.*-]*)(?:'|&#39;)?", r"ROOT\1", text)
    text = re.sub(r'"check": "[0-9a-f]{8}"', '"check": ""', text)
    return re.sub(r"[0-9a-f]{12,}|[\d.,]+", "0", text)


def same(path, folder, other):
    a, b = (folder / path).read_bytes(), (other / path).read_bytes()
    if a == b:
        return True
    if "columns" in path.parts:  # the footers hold fingerprints of files' times and names
        return pl.read_parquet(folder / path, glob=False).equals(pl.read_parquet(other / path, glob=False))
    if "fetched" in path.parts and path.suffix == ".tar":  # whose headers hold the time
        return len(a) == len(b)
    return path.suffix not in BYTES and plain_text(a, folder) == plain_text(b, other)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def pictures(tmp_path):
    """A web server of a folder's files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "first" / "pictures"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.slow
def test_a_folder_named_like_a_pattern_gives_what_a_plain_one_gives(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    first = tmp_path / "first"
    assert command("synth", first / "pool", "--samples", 60, "--per-shard", 30, "--size", 64).code == 0
    write_set(first / "tasks" / "small", labelled(12))
    (first / "pictures").mkdir()
    (first / "pictures" / "a.png").write_bytes(labelled(1)[0]["png"])
    urls = write_list(first / "urls.parquet", [f"{pictures}/a.png"])
    uid = pl.read_parquet(first / "pool/00000000.parquet")["uid"][0]
    said = {}
    for name in ("plain", ODD):
        prepare(tmp_path / name, first, urls)
        monkeypatch.chdir(tmp_path / name)  # where a word would leave something
        said[name] = [(verb, given, command(*words(verb, given))) for verb, given in session(tmp_path / name, uid)]
        for other in MATCHED if name == "plain" else ():
            shutil.copytree(tmp_path / name, tmp_path / other)
    for (verb, given, plain), (_, _, odd) in zip(said["plain"], said[ODD], strict=True):
        fails = verb == "submit" or "refused" in str(given)
        assert plain.code == fails and "Traceback" not in plain.err, (verb, given, plain.err)
        assert odd.code == plain.code, (verb, given, odd.err)
        lines = [plain_text(done.out.encode(), tmp_path / n) for done, n in ((plain, "plain"), (odd, ODD))]
        assert lines[0] == lines[1], verb
    plain, odd = tmp_path / "plain", tmp_path / ODD
    files = {n: {p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*") if p.is_file()} for n in ("plain", ODD)}
    assert files["plain"] == files[ODD]
    assert [str(path) for path in sorted(files[ODD]) if not same(path, plain, odd)] == []
