"""The query service under load, over loopback, on generated vectors; the clients share its cores. One table.

    python benchmarks/bench_serve.py --rows 1000000
    python benchmarks/bench_serve.py --out OUT        # a pool that is there, with an index 'b32-image'

Vectors are of unit length around 4,000 centres, fp16, beside captions of 1 to 20 words, a similarity score and a
cluster. Without --out the pool and its index (`mmfilter index`, at its defaults) are made first, in a temporary
folder. The load: queries by embedding, held out from the pool, each over one of `--connections` kept-alive
connections. "at RATE/s" sends on a clock, whatever the answers do (so that a stall is felt by all that wait);
"as fast as it goes" sends the next when the answer is there. "cpu" is the
service's own processor time a query. Then single calls of what looks at every row.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.build import IndexOptions, build_index

ROWS, DIM, CENTRES = 10_000, 512, 4_000
WORDS = ["photo", "of", "the", "red", "dog", "vintage", "leather", "bag", "new", "2015", "in", "women's", "steel"]
SCORE = "clip_b32_similarity_score"


def around(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(float32 (n, DIM) of unit rows, (n,) which centre)."""
    centres = np.random.default_rng(1).standard_normal((CENTRES, DIM), np.float32)
    which = rng.integers(0, CENTRES, n)
    rows = centres[which] + 0.9 * rng.standard_normal((n, DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), which


def generate(out: str, rows: int) -> None:
    """OUT/metadata as an embedding leaves it, and a subset."""
    os.makedirs(os.path.join(out, "metadata"))
    for number in range(-(-rows // ROWS)):
        rng, n = np.random.default_rng([2, number]), min(ROWS, rows - number * ROWS)
        halves = rng.integers(0, 2**63, (n, 2), dtype=np.uint64)
        vectors, which = around(rng, n)
        columns = {
            "uid": [f"{hi:016x}{lo:016x}" for hi, lo in halves.tolist()],
            "url": [f"https://images.invalid/{number}/{i}.jpg" for i in range(n)],
            "text": [" ".join(rng.choice(WORDS, 1 + i % 20)) for i in range(n)],
            "original_width": rng.integers(50, 1500, n),
            "original_height": rng.integers(50, 1500, n),
            SCORE: rng.normal(0.2, 0.06, n).astype(np.float32),
            "cluster_id": which.astype(np.int32),
        }
        stem = os.path.join(out, "metadata", f"{number:08d}")
        pq.write_table(pa.table(columns), f"{stem}.parquet", compression="zstd")
        uids = np.empty(n, "u8,u8")
        uids["f0"], uids["f1"] = halves[:, 0], halves[:, 1]
        np.savez(f"{stem}.npz", uid=uids, b32_img=vectors.astype(np.float16))


@contextmanager
def served(out: str) -> Iterator[tuple[str, int]]:
    """The service in a process of its own: (host:port, pid)."""
    command = [sys.executable, "-m", "jobs", "serve", out, "--port", "0", "--no-models", "--concurrency", "256"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"http://([^/]+)/", line):
                yield found[1], process.pid
                return
        raise SystemExit("the service did not start")
    finally:
        process.terminate()
        process.wait(20)


def requests(path: str, queries: np.ndarray, k: int) -> list[bytes]:
    """Each query as the bytes of an HTTP request."""
    made = []
    for query in queries:
        vector = [round(float(x), 6) for x in query]
        theirs = {"embedding_input": vector, "num_images": k, "modality": "image", "indice_name": "b32-image"}
        body = json.dumps(theirs if path == "/knn-service" else {"vector": vector, "k": k}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        made.append(head.encode() + b"\r\n" + body)
    return made


async def answer(reader: asyncio.StreamReader) -> int:
    """The status of an answer, read to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
    await reader.readexactly(length)
    return int(head[9:12])


async def load(address: str, bodies: list[bytes], connections: int, rate: float, seconds: float) -> dict[str, float]:
    """Queries a second, p50 and p99 in ms (from when a query was due), and how many failed."""
    host, port = address.rsplit(":", 1)
    times: list[float] = []
    failed, sent, started = 0, 0, time.perf_counter()

    async def client() -> None:
        nonlocal failed, sent
        reader, writer = await asyncio.open_connection(host, int(port))
        while True:
            mine, sent = sent, sent + 1
            due = started + mine / rate if rate else time.perf_counter()
            if due > started + seconds or time.perf_counter() > started + 2 * seconds:
                break
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            writer.write(bodies[mine % len(bodies)])
            status = await answer(reader)
            times.append(time.perf_counter() - due)
            failed += status != 200
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    took = time.perf_counter() - started
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return {"n": len(times), "qps": len(times) / took, "p50": p50, "p99": p99, "failed": failed}


def memory(pid: int) -> float:
    """GiB that the process holds, without the files it maps."""
    with open(f"/proc/{pid}/status") as stream:
        status = stream.read()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 2**20  # type: ignore[index]


def processor(pid: int) -> float:
    """Seconds of processor that the process has spent, which a busy machine hardly touches."""
    with open(f"/proc/{pid}/stat") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def single(address: str, path: str, body: Any = None) -> tuple[float, float]:
    """Milliseconds of the first call and of the second."""
    took = []
    for _ in range(2):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{address}{path}", data, {"Content-Type": "application/json"})
        started = time.perf_counter()
        urllib.request.urlopen(request, timeout=60).read()
        took.append((time.perf_counter() - started) * 1000)
    return took[0], took[1]


SINGLES: list[tuple[str, str, Any]] = [
    ("info", "/api/info", None),
    ("histogram", f"/api/histogram/{SCORE}", None),
    ("edge", f"/api/edge/{SCORE}?at=0.28", None),
    ("preview of a threshold", "/api/preview", {"select": {"threshold": {"score": SCORE, "min": 0.28}}}),
    ("preview of a fraction", "/api/preview", {"select": {"fraction": {"score": SCORE, "keep": 0.3}}}),
    ("preview of captions", "/api/preview", {"select": {"caption": {"min_words": 3}}}),
    ("random sample, where", "/api/search", {"k": 60, "among": {"where": f"{SCORE} > 0.28"}}),
]


def report(out: str, asked: argparse.Namespace) -> None:
    queries, _ = around(np.random.default_rng(3), 500)
    with served(out) as (address, pid):
        info = json.load(urllib.request.urlopen(f"http://{address}/api/info", timeout=60))
        print(f"{info['samples']:,} rows, {os.cpu_count()} cores (clients included), {platform.machine()}")
        print(f"index: {info['indices'][0]}")
        print(f"{'load':<44}{'queries/s':>10}{'p50, ms':>10}{'p99, ms':>10}{'cpu, ms':>9}{'failed':>8}{'GiB':>7}")
        for path, k in (("/api/search", 10), ("/knn-service", 10), ("/api/search", 40)):
            bodies = requests(path, queries, k)
            asyncio.run(load(address, bodies, 8, 0, 3))  # warm
            for rate in (asked.rate, 0):
                before = processor(pid)
                found = asyncio.run(load(address, bodies, asked.connections, rate, asked.seconds))
                spent = (processor(pid) - before) / found["n"] * 1000
                name = f"{path}, k = {k}, " + (f"at {rate:g}/s" if rate else "as fast as it goes")
                print(f"{name:<44}{found['qps']:>10.0f}{found['p50']:>10.1f}{found['p99']:>10.1f}", end="")
                print(f"{spent:>9.2f}{found['failed']:>8.0f}{memory(pid):>7.2f}", flush=True)
        print(f"\n{'a single call':<44}{'first, ms':>10}{'then, ms':>10}")
        for name, path, body in SINGLES:
            first, then = single(address, path, body)
            print(f"{name:<44}{first:>10.0f}{then:>10.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", help="a pool with an index, in place of a generated one")
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = asked.out or os.path.join(folder, "out")
        if not os.path.isdir(out):
            generate(out, asked.rows)
            build_index(out, IndexOptions("b32"), lambda function, tasks: [function(task) for task in tasks])
        report(out, asked)


if __name__ == "__main__":
    main()
