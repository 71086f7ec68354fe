"""A small embedded pool with its indices, exact search to compare with, and the service over real HTTP."""

import contextlib
import socket
import threading
import time

import numpy as np

from index.vectors import open_vectors

RECIPE = """
name: demo
embed: {demo: {model: demo}}
scores: [clip_similarity: {model: demo}, language: {}, caption: {}, phash: {}]
select:
  then:
    - language: {is: en}
    - caption: {min_words: 3, min_chars: 6}
    - image: {min_side: 96, max_aspect: 2.5}
    - fraction: {score: clip_demo_similarity_score, keep: 0.65}
"""  # no duplicates, no concepts: what they bring comes later, while the service runs


class ExactIndex:
    """What `index.knn.KnnIndex` does, by brute force."""

    def __init__(self, out, name):
        self.name = name
        self.model, _, self.modality = name.rpartition("-")
        self.vectors = open_vectors(out, self.model, self.modality)
        self.dim, self.uids = self.vectors.dim, self.vectors.all_uids()
        self.info = {"name": name, "recall": {"image": 1.0}, "rows": len(self.uids)}
        self.rows = np.concatenate([rows for _, rows in self.vectors.blocks()])

    def __len__(self):
        return len(self.uids)

    def positions(self, uids):
        where = {uid.tobytes(): i for i, uid in enumerate(self.uids)}
        return np.array([where.get(uid.tobytes(), -1) for uid in uids], np.int64)

    def search(self, queries, k, among=None, exact=True):
        similarity = queries @ self.rows.T
        if among is not None:
            similarity[:, ~among] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(similarity, order, axis=1)
        return np.where(np.isfinite(found), order, -1), found

    def above(self, query, floor, limit, among=None):
        positions, similarity = self.search(query[None], limit, among)
        there = (positions[0] >= 0) & (similarity[0] >= floor)
        return positions[0][there], similarity[0][there]


@contextlib.contextmanager
def serving(app):
    """The application over real HTTP on a free port; gives its URL."""
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)


def build(out, name, fresh=False):
    """The index MODEL-MODALITY, as `mmfilter index --allow-missing` builds it."""
    from index.build import IndexOptions, build_index
    from mmfilter.allow import Allow

    model, _, modality = name.rpartition("-")
    build_index(
        str(out),
        IndexOptions(model, modality, fresh=fresh, allow=Allow(missing=True)),
        lambda function, tasks: [function(task) for task in tasks],
    )


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u2028&\u202e"


def shared_out(tmp_path_factory):
    """`make_out`, once for all tests of a session: those that change it work on a copy."""
    root = tmp_path_factory.getbasetemp() / "serve_shared"
    if not root.exists():
        root.mkdir()
        make_out(root)
    return root / "out"


def copied_out(tmp_path_factory):
    """A copy of `shared_out`, to be changed."""
    import shutil

    return shutil.copytree(shared_out(tmp_path_factory), tmp_path_factory.mktemp("served") / "out")


def make_out(root):
    """A run's folder with both indices: 240 generated samples, and one whose caption is a script."""
    import subprocess
    import sys

    from tars import sample, tar

    pool, out, recipe = root / "pool", root / "out", root / "demo.yaml"
    recipe.write_text(RECIPE)
    jobs = [sys.executable, "-m", "jobs"]
    subprocess.run([*jobs, "synth", pool, "--samples", "240", "--per-shard", "120"], check=True, capture_output=True)
    (pool / "00000009.tar").write_bytes(tar([*sample(7, HOSTILE), *sample(8, "a quiet red square here")]))
    done = subprocess.run([*jobs, "run", recipe, "--pool", pool, "--out", out, "--local"], capture_output=True)
    assert done.returncode in (0, 3), done.stderr
    for side in ("image", "text"):
        build(out, f"demo-{side}")
