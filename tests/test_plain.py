"""Every verb once as a person calls it: its plain output and its exit code, in one process."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from command import command
from tars import jpeg

from jobs import cli
from mmfilter.subset import Subset

DONE: set[str] = set()


def call(verb, *words):
    """`mmfilter VERB WORDS`, noted as tried."""
    DONE.add(verb)
    return command(verb, *words)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a pool of 120 scenes, and what `run` made of it."""
    folder = tmp_path_factory.mktemp("plain")
    made = call("synth", folder / "pool", "--samples", 120, "--per-shard", 60)
    assert made.code == 0 and made.out.startswith("120 samples in 2 shards") and "clean" in made.out
    done = call("run", "demo", "--pool", folder / "pool", "--out", folder / "run", "--local")
    assert done.code == 0 and done.out.startswith("in 120 = kept ") and "\nreport  " in done.out, done.err
    assert "embed 2/2 shards, 120 samples, " in done.err and "{" not in done.err
    return folder


def test_prepare(place, tmp_path):
    done = call("inspect", place / "pool")
    assert done.code == 0 and "120 samples are well, 0 are not" in done.out and "nothing to complain of" in done.out
    assert call("inspect", "--out", place / "run").out == done.out
    done = call("reshard", place / "run/subsets/demo.npy", "--pool", place / "pool", "--out", tmp_path / "new")
    assert done.code == 0 and f"samples in 1 shards in {tmp_path / 'new'}" in done.out
    done = call("schedule", place / "run", "--kind", "rs2", "--epochs", 2)
    assert done.code == 0 and done.out.startswith("2 epochs out of 120 samples") and "rs2.schedule.json" in done.out


def test_filter(place, tmp_path):
    done = call("embed", "no_filter", "--pool", place / "pool", "--out", tmp_path, "--local")
    assert (done.code, done.out) == (0, "read 120 = ok 120 + failed 0 (2 shards)\n")
    done = call("score", "basic_filter", "--out", tmp_path)
    assert done.code == 0 and done.out == "2 shards, columns: language, language_score\n"
    done = call("select", "basic_filter", "--out", tmp_path)
    assert done.code == 0 and done.out.startswith("in 120 = kept ") and "subset  " in done.out
    done = call("status", tmp_path)
    assert done.code == 0 and done.out.startswith("done  ") and "shards  2 = done 2 + set aside 0 + left 0" in done.out
    done = call("verify", tmp_path, "--deep")
    assert done.code == 0 and done.out.endswith("all as written (every byte was read)\n"), done
    done = call("subset", "demo", "&", place / "run/subsets/demo.npy", "--out", place / "run")
    assert done.code == 0 and done.out.endswith("different\n")
    done = call("demo", tmp_path / "demo", "--samples", 50, "--local", "--quiet")
    assert done.code == 0 and "against the known labels: " in done.out and done.err == ""
    done = call("submit", "demo", "--address", "http://127.0.0.1:9", "--pool", place / "pool", "--out", tmp_path / "s")
    assert done.code == 1 and done.err.startswith("mmfilter: http://127.0.0.1:9: ")


def test_explore(place):
    run = place / "run"
    assert call("report", run) == (0, f"{run / 'report.html'}\n", "")
    assert call("card", run) == (0, f"{run / 'subsets/demo.md'}\n", "")
    kept = Subset.read(str(run / "subsets/demo.npy")).strings()[0]
    done = call("explain", kept, "--out", run)
    assert done.code == 0 and done.out.startswith(f"{kept}: kept\n  subset  demo\n") and "then[0].language" in done.out
    done = call("compare", "demo", "--out", run, "--local")
    assert done.code == 0 and done.out.startswith("subset ") and f"page    {run / 'compare.html'}" in done.out
    done = call("cluster", run, "--local")
    assert done.code == 0 and done.out.startswith("120 samples in ") and "columns cluster_id, " in done.out


def test_search(place, monkeypatch):
    run = place / "run"
    done = call("query", "a red square", "--out", run)
    assert (done.code, done.out) == (2, "") and "has no index; `mmfilter index` builds one" in done.err
    done = call("index", run, "--local")
    assert done.code == 0 and done.out.startswith("index demo-image built in ") and "recall@10" in done.out
    done = call("query", "a red square", "--out", run, "-k", 3)
    assert done.code == 0 and len(done.out.splitlines()) == 4 and done.out.splitlines()[3].startswith("3 samples")
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    done = call("serve", run, "--port", 0)
    assert (done.code, done.out) == (0, "") and done.err.startswith("mmfilter: http://127.0.0.1:")
    done = call("dedup", run, "--local")
    assert done.code == 1 and "hamming 2, now null" in done.err and "--redo-changed" in done.err
    done = call("dedup", place / "run", "--hamming", 2, "--mode", "groups", "--local")
    assert done.code == 0 and done.out.startswith("120 samples, ") and "columns duplicate_of, " in done.out


@pytest.mark.slow
def test_train_and_measure(place, tmp_path):
    done = call("train", tmp_path / "m", "--pool", place / "pool", "--samples", 8, "--batch-size", 4)
    assert done.code == 0 and "parameters, 2 steps, " in done.out and "train step 2" in done.err
    done = call("evaluate", "demo", "--tasks", "scenes", "--only", "scenes/shape", "--out", tmp_path / "e")
    assert done.code == 0 and "Scenes: shape: acc1, 360 samples" in done.out, done.err
    done = call("probe", place / "run", "--column", "language")
    assert done.code == 0 and done.out.startswith("language of ") and "probe_knn" in done.out
    words = ("--scale", "micro", "--samples", 32, "--seeds", 1, "--local")
    done = call("rank", place / "run/subsets/demo.npy", "--pool", place / "pool", "--out", tmp_path / "r", *words)
    assert done.code == 0 and done.out.startswith("32 pairs seen (micro, ") and "page  " in done.out, done.err
    done = call("leaderboard", tmp_path / "r")
    assert done.code == 0 and done.out.startswith("32 pairs seen (micro, ")
    rows = [f"{b},{s},{e}" for b, e in (("a", 0.5), ("b", 0.6)) for s, e in ((1e6, e), (2e6, e - 0.1), (4e6, e - 0.15))]
    (tmp_path / "r.csv").write_text("\n".join(["bucket,samples_seen,error", *rows]))
    done = call("advise", tmp_path / "r.csv", "--budget", "1e7", "--bucket-size", 1000000, "--out", tmp_path)
    assert done.code == 0 and done.out.startswith("keep ") and (tmp_path / "advice.html").is_file()
    assert json.loads((tmp_path / "advice.json").read_text())["keep"] in (1, 2)


class Pictures(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        data = jpeg(size=(64, 64)) if "good" in self.path else b"no"
        self.send_response(200 if "good" in self.path else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.mark.slow
def test_download_in_plain_output(tmp_path):
    """It ended in KeyError: 'kind', and its own progress.json was a finding that img2dataset stumbles over."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    rows = "".join(f"{url}/good-{n},a caption\n" for n in range(3))
    (tmp_path / "urls.csv").write_text("url,text\n" + rows)
    words = ("download", tmp_path / "urls.csv", "--local", "--allow-private", "--retries", 0)
    done = call(*words, "--out", tmp_path / "a")
    assert (done.code, done.out) == (0, f"rows 3 = ok 3 + failed 0 (1 shards in {tmp_path / 'a'})\n"), done.err
    assert sorted(p.name for p in (tmp_path / "a").glob("*.json")) == ["00000000_stats.json"]
    (tmp_path / "urls.csv").write_text("url,text\n" + rows + f"{url}/bad,a caption\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "stray.json").write_text("{}")
    done = call(*words, "--out", tmp_path / "b")
    server.shutdown()
    assert done.code == 3 and "rows 4 = ok 3 + failed 1" in done.out
    assert "  inspect: warning stray_json: stray.json in " in done.out
    assert call("status", tmp_path / "b").code == 2, "it is no run"


@pytest.mark.slow  # with the slow tests of this file, or verbs are left out
def test_no_verb_is_left_out():
    if len(DONE) > 1:  # not where this test is run alone
        cli.register()
        every = {verb.name or verb.callback.__name__ for verb in cli.app.registered_commands}
        assert every - DONE == set()
