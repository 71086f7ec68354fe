"""The query service for a long while under mixed requests, good and bad: its memory, its files, its threads, any 500.

    mmfilter demo --out OUT; mmfilter index OUT --model demo
    python benchmarks/soak_serve.py OUT --minutes 15

Each of `--connections` clients draws one request after the other, seeded: searches by text, uid, picture and vector,
with filters, thumbnails, previews of rules, samples, histograms, clip-retrieval's endpoints, and one in ten that is
damaged. A line a minute, or every ten seconds where there are few minutes; the verdict compares the last third of them
with the third before it.
"""

import argparse
import base64
import http.client
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

WORDS = ["red", "blue", "green", "circle", "square", "striped", "above", "two", "three", "a", "the", "of", "small"]


class Client(threading.Thread):
    """Sends what it draws until `until`, counting answers by status and kind."""

    def __init__(self, address: str, seed: int, until: float, uids: list[str], only: list[str]) -> None:
        super().__init__(daemon=True)
        self.address, self.random, self.until, self.uids = address, random.Random(seed), until, uids
        self.only = only
        self.answers: Counter[tuple[str, int]] = Counter()
        self.picture = b""

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        while time.time() < self.until:
            kind, path, body = self.draw()
            data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            head = {"Content-Type": "application/json"}
            try:
                connection.request("GET" if body is None else "POST", path, data, head)
                answer = connection.getresponse()
                content = answer.read()
                self.answers[kind, answer.status] += 1
                if kind == "image" and answer.status == 200:
                    self.picture = content
            except (OSError, http.client.HTTPException):
                self.answers[kind, 0] += 1
                connection.close()

    def draw(self) -> tuple[str, str, Any]:
        """(kind, path, body: None for GET)."""
        r = self.random
        text, uid = " ".join(r.choices(WORDS, k=r.randint(1, 8))), r.choice(self.uids)
        k, floor = r.choice([1, 10, 40, 500]), r.choice([None, round(r.uniform(-1, 1), 3)])
        among = r.choice([{}, {"kept": r.random() < 0.5}, {"where": f"original_width > {r.randint(0, 500)}"}])
        score = r.choice(["clip_demo_similarity_score", "caption_words"])
        drawn: list[tuple[str, str, Any]] = [
            ("search text", "/api/search", {"text": text, "k": k, "floor": floor, "among": among}),
            ("search uid", "/api/search", {"uid": uid, "k": k, "minus": text, "among": among}),
            ("sample", "/api/search", {"k": k, "seed": r.randint(0, 9), "among": among}),
            ("image", f"/api/image/{uid}?side={r.choice([64, 256])}", None),
            ("preview", "/api/preview", {"select": {"fraction": {"score": score, "keep": round(r.random(), 3)}}}),
            ("histogram", f"/api/histogram/{score}", None),
            ("edge", f"/api/edge/{score}?at={r.uniform(0, 1):.3f}", None),
            ("info", "/api/info", None),
            ("knn-service", "/knn-service", {"text": text, "num_images": k, "indice_name": "demo-image"}),
            ("metrics", "/metrics", None),
            ("one sample", f"/api/sample/{uid}", None),
            ("duplicates", "/api/duplicates", None),
            ("export", "/api/export", {"uids": [uid, uid]}),
        ]
        if self.picture:
            picture = base64.b64encode(self.picture).decode()
            drawn.append(("search image", "/api/search", {"image": picture, "k": k}))
        kind, path, body = r.choice([one for one in drawn if one[0] in self.only] or drawn)
        if r.random() < 0.1 and not self.only:
            junk = r.randbytes(r.randint(0, 4096))
            return "damaged", path + r.choice(["", "/..", "%00", "?k=-1"]), body and r.choice([junk, [body], {"k": 0}])
        return kind, path, body


def held(pid: int) -> dict[str, float]:
    """MiB without mapped files, open files, threads."""
    with open(f"/proc/{pid}/status") as stream:
        status = stream.read()
    anonymous, threads = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("RssAnon", "Threads"))  # type: ignore[index]
    return {"MiB": round(anonymous / 1024, 1), "files": len(os.listdir(f"/proc/{pid}/fd")), "threads": threads}


def watch(address: str, pid: int, asked: argparse.Namespace, uids: list[str]) -> None:
    began = time.time()
    until = began + asked.minutes * 60
    clients = [Client(address, seed, until, uids, asked.only) for seed in range(asked.connections)]
    for client in clients:
        client.start()
    lines, answers = [], Counter[tuple[str, int]]()
    while time.time() < until:
        time.sleep(min(60 if asked.minutes > 5 else 10, max(until - time.time(), 0.1)))
        answers = sum((client.answers for client in clients), Counter())
        lines.append({"minute": round((time.time() - began) / 60, 1), **held(pid), "answers": answers.total()})
        print(json.dumps(lines[-1]), flush=True)
    for client in clients:
        client.join()
    statuses = Counter[int]()
    for (_, status), n in answers.items():
        statuses[status] += n
    third = max(len(lines) // 3, 1)
    last, before = (max(line["MiB"] for line in part) for part in (lines[-third:], lines[-2 * third : -third] or lines))
    said = {
        "answers by status": dict(sorted(statuses.items())),
        "errors of ours": sum(n for status, n in statuses.items() if status == 0 or (status >= 500 and status != 503)),
        "MiB, the last third's most less that before": round(last - before, 1),
    }
    print(json.dumps({**said, "by kind": {f"{kind} {status}": n for (kind, status), n in sorted(answers.items())}}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--only", nargs="*", default=[], metavar="KIND", help="these kinds alone, none damaged")
    asked = parser.parse_args()
    from mmfilter.table import open_table

    uids = open_table(asked.out).read(["uid"])["uid"].to_list()
    command = [sys.executable, "-m", "jobs", "serve", asked.out, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://([^/]+)/", line):
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            watch(found[1], process.pid, asked, uids)  # type: ignore[index]
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
