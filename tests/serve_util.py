"""A small embedded pool with an exact index in the place of FAISS, and the service over real HTTP."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np

from index.vectors import open_vectors

MADE = []  # the run that every test's copy is of


class ExactIndex:
    """What `index.knn.KnnIndex` is to the service, by brute force."""

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


def _made(factory):
    if MADE:
        return MADE[0]
    folder = factory.mktemp("serve")
    for words in (["synth", "pool", "--samples", "240", "--per-shard", "120"], ["run", "demo", "--pool", "pool"]):
        more = ["--out", "out", "--local", "--no-reshard"] if words[0] == "run" else []
        subprocess.run([sys.executable, "-m", "jobs", *words, *more], cwd=folder, check=True, capture_output=True)
    for name in ("demo-image", "demo-text"):
        index_folder(folder / "out", name)
    MADE.append(folder / "out")
    return MADE[0]


def embedded(factory):
    """A copy of a run over 240 synthetic samples in two shards, with two indices; made once."""
    out = factory.mktemp("served") / "out"
    return shutil.copytree(_made(factory), out)


def index_folder(out, name):
    """What tells the service that there is an index."""
    folder = out / "index" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text(json.dumps({"name": name}))


def stand_in(monkeypatch):
    """Put `ExactIndex` in the place of `index.knn`."""
    monkeypatch.setitem(sys.modules, "index.knn", SimpleNamespace(open_index=ExactIndex))
