"""A small pool that one recipe embeds and another scores, with columns of each kind."""

import json
from pathlib import Path

from command import command
from tars import jpeg, sample, tar

FIRST = {"name": "first", "embed": {"demo": {"model": "demo"}}, "scores": ["phash"]}
RULES = {
    "embeddings": {"fraction": {"score": "clip_demo_similarity_score", "keep": 0.5}},
    "text": {"threshold": {"score": "caption_words", "min": 3}},
    "pool": {"not_duplicate": {}},
    "pool-embeddings": {"threshold": {"score": "centroid_similarity", "min": 0.7}},
}
COLUMNS = {
    "embeddings": "clip_demo_similarity_score",
    "text": "caption_words",
    "pool": "duplicate_of",
    "pool-embeddings": "centroid_similarity",
}
SCORES = [
    "phash",
    {"clip_similarity": {"model": "demo"}},
    "caption",
    {"duplicates": {"hamming": 4}},
    {"clusters": {"model": "demo", "k": 2}},
]


def write(path, **fields):
    Path(path).write_text(json.dumps(fields))


def shard(folder, number, first=0, words=4):
    """Five samples of their own colours and captions."""
    numbers = range(first or 5 * number, (first or 5 * number) + 5)
    members = [
        member
        for n in numbers
        for member in sample(n, " ".join(["word"] * (words + n % 3)), jpeg((n * 37 % 256, n * 71 % 256, 9)))
    ]
    (folder / f"{number:08d}.tar").write_bytes(tar(members))


def said(*words, code=0):
    done = command(*words)
    assert done.code == code, (done.code, done.out, done.err)
    return done.out + done.err


def score_pool(here):
    """Pool, recipes and OUT, embedded, scored and selected, in the working directory `here`."""
    (here / "pool").mkdir()
    for number in range(3):
        shard(here / "pool", number)
    write("first.yaml", **FIRST)
    write("all.yaml", **{**FIRST, "name": "all", "scores": SCORES})
    for name, rule in RULES.items():
        write(f"{name}.yaml", **{**FIRST, "name": name, "scores": SCORES, "select": {"all": [rule]}})
    make_out("out", "pool")


def make_out(out, pool):
    """Embed, score, select by each of the recipes."""
    said("embed", "first.yaml", "--pool", pool, "--out", out, "--local")
    said("score", "all.yaml", "--out", out, "--local")
    for name in RULES:
        said("select", f"{name}.yaml", "--out", out)
