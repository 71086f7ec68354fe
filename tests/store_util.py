"""An S3 on loopback (moto's), and weather for it: refusals, lost answers, answers cut short or told short, slowness."""

import logging
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

BUSY = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


class Weather:
    """WSGI around the store. `chance` of each request meets one of `kinds`; `seen` counts what was met."""

    def __init__(self, app):
        self.app, self.random, self.lock = app, random.Random(0), threading.Lock()
        self.asked = []
        self.calm()

    def calm(self):
        self.chance, self.kinds, self.seen = 0.0, (), Counter()
        self.asked.clear()

    def storm(self, chance, *kinds):
        self.calm()
        self.chance, self.kinds = chance, kinds

    def __call__(self, environ, start):
        get = environ["REQUEST_METHOD"] == "GET"
        ranged = get and "HTTP_RANGE" in environ
        with self.lock:
            self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE")))
            kind = self.random.choice(self.kinds) if self.random.random() < self.chance else None
        if kind in ("cut", "short") and not ranged:
            kind = None
        self.seen.update([kind] if kind else [])
        if kind == "busy":
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(BUSY)))])
            return [BUSY]
        if kind == "hang":
            time.sleep(3)
        told = []
        body = b"".join(self.app(environ, lambda status, headers, *_: told.extend([status, headers])))
        status, headers = told
        if kind == "lost":  # done, but the answer never comes
            start("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if kind == "short":
            body = body[: len(body) // 2]
            headers = [(k, v) for k, v in headers if not k.lower().startswith(("content-length", "x-amz-checksum"))]
            headers.append(("Content-Length", str(len(body))))
        start(status, headers)
        if kind == "cut":
            return [body[: len(body) // 2]]
        return self._slow(body) if kind == "slow" else [body]

    def _slow(self, body):
        step = max(1, len(body) // 4)
        for at in range(0, len(body), step):
            time.sleep(0.01)
            yield body[at : at + step]


class Store:
    """A bucket; `root` is its URL, `weather` what it suffers."""

    root = "s3://pictures"

    def __init__(self):
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.weather = Weather(DomainDispatcherApplication(create_backend_app))
        self.server = make_server("127.0.0.1", 0, self.weather, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def env(self):
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        return {**keys, "AWS_ENDPOINT_URL": self.url, "AWS_EC2_METADATA_DISABLED": "true"}

    def put(self, folder, under):
        """A local folder's files as objects."""
        from mmfilter import storage

        for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
            storage.write_atomic(f"{self.root}/{under}/{path.relative_to(folder)}", path.read_bytes())

    def get(self, under, folder):
        """The objects below `under` as a local folder's files."""
        from mmfilter import listings, storage

        base = f"{self.root}/{under}/"
        for path in listings.find(base):
            to = Path(folder) / path.removeprefix(base)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(storage.read_bytes(path))
        return folder


@pytest.fixture(scope="module")
def served():
    """A store for the module. Skips where moto or s3fs is not installed."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 's3fs'")
    pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server,s3]'")
    import s3fs

    from mmfilter import remote

    s3fs.S3FileSystem.clear_instance_cache()  # the store of the module before is gone, and its address with it
    here, patch = Store(), pytest.MonkeyPatch()
    for name, value in here.env.items():
        patch.setenv(name, value)
    patch.setattr(remote, "BOTO", {"retries": {"mode": "standard", "total_max_attempts": 1}})
    patch.setattr(remote, "FIRST_WAIT", 0.005)
    patch.setattr(remote, "MAX_WAIT", 0.02)
    fs = remote.filesystem(here.root)
    if not fs.exists(here.root):  # moto's buckets are the process's
        fs.mkdir(here.root)
    yield here
    patch.undo()
    here.server.shutdown()


@pytest.fixture
def store(served):
    """The module's store, emptied, in calm weather."""
    from mmfilter import remote

    served.weather.calm()
    fs = remote.filesystem(served.root)
    for path in fs.find(served.root):
        fs.rm_file(path)
    return served
