"""The kinds of files in a run, what takes their place, and the verbs that may read them: for tests/damage.py."""

from pathlib import Path

SHARD, FAILING, ASIDE = "00000001", "00000000", "00000003"
EXTRA, SECOND = "look_score", "second"
NO_EFFECT, REDONE, NAMED, UNNAMED, SILENT, TRACEBACK = "no effect", "redone", "named", "unnamed", "SILENT", "TRACEBACK"
VERDICTS = (NO_EFFECT, REDONE, NAMED, UNNAMED, SILENT, TRACEBACK)
REPAIRED, LISTED, NOT_VOUCHED_FOR, OTHER = "repaired", "cannot be made again", "not vouched for", "OTHER BYTES"
REPAIRS = (NO_EFFECT, REPAIRED, LISTED, NOT_VOUCHED_FOR, OTHER, TRACEBACK)
INDEX = "index/demo-image/vN"

ARTEFACTS = {
    "run.json": "run.json",
    "commit": f"metadata/{SHARD}.json",
    "metadata parquet": f"metadata/{SHARD}.parquet",
    "npz": f"metadata/{SHARD}.npz",
    "failures": f"failures/{SHARD}.parquet",
    "failures of a shard set aside": f"failures/{ASIDE}.parquet",
    "attempts": f"attempts/{ASIDE}.json",
    "column": f"columns/{EXTRA}/{SHARD}.parquet",
    "pool column": f"columns/duplicate_of/{SHARD}.parquet",
    "cluster column": f"columns/cluster_id/{SHARD}.parquet",
    "subset npy": "subsets/demo.npy",
    "subset json": "subsets/demo.json",
    "decisions": f"subsets/demo/{SHARD}.parquet",
    "current": "index/demo-image/current",
    "index.json": f"{INDEX}/index.json",
    "knn.faiss": f"{INDEX}/knn.faiss",
    "trained.faiss": f"{INDEX}/trained.faiss",
    "index uids": f"{INDEX}/uids.npy",
    "concepts json": "concepts/demo/concepts.json",
    "centroids": "concepts/demo/centroids.npy",
    "schedule json": "schedules/rs2.schedule.json",
    "epoch npy": "schedules/rs2/epoch-0001.npy",
    "tar": "shards/demo/00000000.tar",
    "tar's stats": "shards/demo/00000000_stats.json",
    "plan": "shards/demo/reshard.plan",
    "sizes.json": "shards/demo/sizes.json",
    "meta.json": "shards/demo/meta.json",
    "sample_ids": "shards/demo/sample_ids.npy",
    "report": "report.html",
    "card": "subsets/demo.md",
}
"""Kind of file -> one of it, below OUT; `vN` is the version that `current` names."""

NOT_VOUCHED = ("report", "card")
"""Files that are written for people and read by no verb: nothing records what they hold."""

OTHERS = {
    "run.json": f"metadata/{SHARD}.json",
    "failures": f"failures/{FAILING}.parquet",
    "failures of a shard set aside": f"failures/{FAILING}.parquet",
    "attempts": f"metadata/{FAILING}.json",
    "column": f"columns/{EXTRA}/{FAILING}.parquet",
    "subset npy": f"subsets/{SECOND}.npy",
    "subset json": f"subsets/{SECOND}.json",
    "decisions": f"subsets/{SECOND}/{SHARD}.parquet",
    "current": "run.json",
    "index.json": "schedules/rs2.schedule.json",
    "knn.faiss": f"{INDEX}/trained.faiss",
    "trained.faiss": f"{INDEX}/knn.faiss",
    "index uids": "subsets/demo.npy",
    "concepts json": "schedules/rs2.schedule.json",
    "centroids": f"{INDEX}/uids.npy",
    "schedule json": "concepts/demo/concepts.json",
    "epoch npy": "schedules/rs2/epoch-0000.npy",
    "tar": f"shards/{SECOND}/00000000.tar",
    "tar's stats": f"shards/{SECOND}/00000000_stats.json",
    "plan": f"shards/{SECOND}/reshard.plan",
    "sizes.json": f"shards/{SECOND}/sizes.json",
    "meta.json": f"shards/{SECOND}/meta.json",
    "sample_ids": f"shards/{SECOND}/sample_ids.npy",
    "report": "subsets/demo.md",
    "card": "report.html",
}
"""Kind of file -> the file of another shard, subset or column that takes its place (default: of another shard)."""

VERBS = {
    "run": "run {r} --pool {p} --out {o} --local",
    "embed": "embed {r} --pool {p} --out {o} --local",
    "score": "score {e} --out {o} --local",
    "select": "select {r} --out {o}",
    "report": "report {o} --name demo",
    "card": "card {o} --name demo",
    "explain": "explain {kept} --out {o} --name demo",
    "explain, dropped": "explain {dropped} --out {o} --name demo",
    "query": "query --uid {kept} --out {o} -k 3",
    "index": "index {o} --local",
    "cluster": "cluster {o} --k 4 --local",
    "dedup": "dedup {o} --hamming 2 --mode groups --local",
    "schedule": "schedule {o} --kind rs2 --epochs 2 --keep 0.3",
    "schedule, of a subset": "schedule {o} --kind rs2 --epochs 2 --keep 0.3 --subset {o}/subsets/demo.npy --name other",
    "compare": "compare demo second --out {o} --local",
    "subset": "subset demo & second --out {o}",
    "probe": "probe {o} --column language",
    "reshard": "reshard {o}/subsets/demo.npy --pool {p} --out {o}/shards/demo --local",
    "reshard, of a schedule": "reshard {o}/schedules/rs2.schedule.json --pool {p} --out {o}/shards/rs2 --local",
    "status": "status {o}",
    "verify": "verify {o}",
    "verify --deep": "verify {o} --deep",
}
READERS = {
    "index": ("query", "index", "compare"),
    "concepts": ("run", "report", "card", "cluster", "compare"),
    "schedules": ("schedule", "reshard, of a schedule"),
    "shards": ("run", "reshard", "report", "card"),
    "report.html": ("run", "report"),
}
"""First part of a path -> the verbs that may read it; of others all verbs. `status` and `verify` read everything."""
MAKERS = {
    "metadata": ("run", "embed"),
    "failures": ("run", "embed"),
    f"columns/{EXTRA}": ("score",),
    "columns/duplicate_of": ("run", "dedup"),
    "columns/cluster_id": ("cluster",),
    "subsets": ("run", "select"),
    "index": ("index",),
    "concepts": ("cluster",),
    "schedules": ("schedule",),
    "shards": ("run", "reshard"),
}
"""Beginning of a path -> the verbs that make it: done before, they may not pass over a file that is gone or cut."""
ALWAYS = ("status", "verify", "verify --deep")

MAKING = ("embed", "score", "cluster", "run", "index", "schedule", "card", "report")
"""The verbs that make the folder, in this order; then the second subset and its shards."""

SHARDS = "tar|tar's stats|plan|sizes.json|meta.json|sample_ids"
KNOWN: tuple[tuple[str, str, str, str], ...] = (
    ("attempts", "deleted", ".*", "deleting it is how a person asks for another try"),
    ("run.json", "deleted", "report|card", "a folder that was embedded from Python has none; `verify` names it"),
    ("npz", "flipped", "query|report|explain.*", "single rows are read without a checksum (docs/integrity.md)"),
    ("failures of a shard set aside", "flipped|of another|older", ".*", "no commit vouches for it"),
)
"""(kind of file, damage, verb, why): expressions that match what is known, and is not silent by mistake."""


def spoil(tar: Path) -> None:
    """Overwrite the first image in a tar, so that its sample fails."""
    data = bytearray(tar.read_bytes())
    at = data.index(b"\xff\xd8\xff")
    data[at : at + 3] = b"<!-"
    tar.write_bytes(data)
