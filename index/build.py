"""Build an index of a pool's embeddings: train, fill parts side by side, merge, measure, publish."""

import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfilter import storage
from mmfilter.allow import Allow
from mmfilter.errors import UsageError
from mmfilter.file_record import record_of
from mmfilter.json_file import FORMAT, encode
from mmfilter.plugs import Run
from mmfilter.provenance import fingerprint
from mmfilter.uids import DTYPE
from mmfilter.versions import versions

from . import kmeans, knn, recall
from .factory import Factory, choose, given, memory_here
from .nearest import BLOCK, NONE, best, merge
from .parts import INDEX, LISTS, TOP, Part, check_local, cut, exact, fill, join, skipped, write_index
from .vectors import SIDES, Vectors, open_vectors

VERSION, BUILDING = re.compile(r"v\d{4,}"), re.compile(r"building-[0-9a-f]{12}")
PART_FILE = re.compile(r"part-\d{5,}\.(faiss|npz)(\.[0-9a-f]{8}\.tmp)?")
INDEX_FILE = re.compile(
    rf"{PART_FILE.pattern}|(knn\.faiss|trained\.faiss|lists\.bin|uids\.npy|index\.json)(\.[0-9a-f]{{8}}\.tmp)?"
)
"""Names of files that a build writes: no other is removed."""


@dataclass(frozen=True)
class IndexOptions:
    """What is asked of an index. `memory` is bytes (None: what is free), `factory` FAISS's string ("": chosen)."""

    model: str
    modality: str = "image"
    name: str = ""
    factory: str = ""
    target: float = 0.95
    memory: float | None = None
    seed: int = 0
    metadata: str | None = None
    fresh: bool = False
    allow: Allow = Allow()


@dataclass(frozen=True)
class _Base:
    """What new rows are added to: the current version, if any, which holds the first `done` shards of `vectors`."""

    current: knn.KnnIndex | None
    vectors: Vectors
    done: int
    factory: Factory

    @property
    def left_out(self) -> int:
        return int(self.current.info["left_out"]) if self.current else 0


def build_index(out: str, options: IndexOptions, run: Run) -> dict[str, Any]:
    """Bring OUT/index/NAME up to the pool; returns its index.json with `did`: built, added, tuned or nothing.

    Shards that came since are added to what is there; where shards changed or left, or with `fresh`, the index is
    built anew. A killed build goes on with the parts that are there, and ends with the same bytes.
    Raises UsageError, DataError.
    """
    check_local(out)
    started = time.perf_counter()
    name = options.name or f"{options.model}-{options.modality}"
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"--name {name}: an index's name is letters, digits, '-' and '_'; it becomes a folder")
    vectors = open_vectors(out, options.model, options.modality, options.metadata, options.allow)
    home = os.path.join(out, "index", name)
    for i in range(len(vectors.stems)):
        if vectors.record(i) is None:
            vectors.compare_uids(i)
    was = None if options.fresh else _current(home, out, name, vectors, options)
    before = knn.read_info(knn.version_folder(out, name)) if was is not None else {}
    if was is not None and len(was.stems) == len(vectors.stems) and before["target"] == options.target:
        return {**before, "did": "nothing"}
    made = [_order(vectors, was).identity, options.factory, options.seed, before.get("files")]
    building = os.path.join(home, f"building-{fingerprint(made)[:12]}")
    os.makedirs(building, exist_ok=True)
    base = _base(out, name, vectors, was, building, options)
    queries, own = _queries(out, base.vectors, options)
    parts = cut(building, base.vectors, base.done, queries)
    run(fill, parts)
    info = _assemble(building, base, parts, options, name)
    truth = recall.Truth(queries, *_exact(base, parts, queries), own)
    info |= recall.tune(knn.KnnIndex(building, info, base.vectors), truth, base.factory.lossy, options.target)
    info["seconds"] = round(time.perf_counter() - started, 2)
    _publish(home, building, info)
    return {**info, "did": "built" if not base.done else "added" if parts else "tuned"}


def _current(home: str, out: str, name: str, vectors: Vectors, options: IndexOptions) -> Vectors | None:
    """The pool as the current version has it, when it can be added to: the same kind, no shard changed or gone, no file
    gone or cut short.
    """
    if not os.path.isfile(os.path.join(home, "current")):
        return None
    info = knn.read_info(knn.version_folder(out, name))
    if (info["model"], info["modality"]) != (options.model, options.modality):
        raise UsageError(f"{home}: holds {info['model']} {info['modality']} embeddings; give this one another --name")
    if options.factory and options.factory != info["factory"]:
        return None
    if not knn.holds_files(knn.version_folder(out, name), info):
        return None
    here = {shard["shard"]: shard for shard in vectors.identity}
    if knn.changed(here, info["shards"]):
        return None
    return knn.reordered(vectors, info["shards"], out, name)


def _order(vectors: Vectors, was: Vectors | None) -> Vectors:
    """The pool with the shards of the index first, in its order, and then the others."""
    if was is None:
        return vectors
    rows = dict(zip(vectors.stems, vectors.counts, strict=True))
    stems = (*was.stems, *(stem for stem in vectors.stems if stem not in set(was.stems)))
    return Vectors(
        vectors.table.some(stems),
        vectors.model,
        vectors.modality,
        tuple(rows[stem] for stem in stems),
        vectors.dim,
    )


def _base(out: str, name: str, vectors: Vectors, was: Vectors | None, building: str, options: IndexOptions) -> _Base:
    memory = memory_here() if options.memory is None else options.memory
    trained = os.path.join(building, "trained.faiss")
    if was is not None:
        current = knn.peek_index(out, name, options.metadata, options.allow)
        factory = given(current.info["factory"], len(vectors), vectors.dim, memory)
        shutil.copyfile(os.path.join(current.folder, "trained.faiss"), trained)
        return _Base(current, _order(vectors, was), len(was.stems), factory)
    chosen = given(options.factory, len(vectors), vectors.dim, memory) if options.factory else None
    factory = chosen or choose(len(vectors), vectors.dim, memory)
    if not os.path.exists(trained):
        write_index(_train(vectors, factory, options.seed), trained)
    return _Base(None, vectors, 0, factory)


def _train(vectors: Vectors, factory: Factory, seed: int) -> Any:
    """An empty index trained on the rows whose uids hash lowest; on a GPU where there is one."""
    import faiss

    index: Any = faiss.index_factory(vectors.dim, factory.text, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed + 1
    index.cp.min_points_per_centroid = 1
    if hasattr(index, "pq"):
        index.pq.cp.min_points_per_centroid = 1
        index.pq.cp.seed = seed + 1
    uids = vectors.all_uids()
    rows = vectors.take(np.sort(kmeans.sample(uids, min(len(uids), factory.training), seed)))
    rows = rows[rows.any(axis=1)]
    if not len(rows):
        raise UsageError(f"{vectors.table.metadata}: no embedding '{vectors.array}' has a direction; nothing to index")
    if faiss.get_num_gpus():
        index.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(vectors.dim))
    index.train(np.ascontiguousarray(rows))
    if faiss.get_num_gpus():
        index.clustering_index = None
    return index


def _queries(out: str, vectors: Vectors, options: IndexOptions) -> tuple[np.ndarray, np.ndarray]:
    """(float32 (q, d), own positions (q,)): held-out queries of both modalities, as far as they are there.

    Of its own modality each query's row is in the index and is left aside when recall is counted; of the other
    none is. Drawn by uid hash, with a seed that is not training's.
    """
    uids = vectors.all_uids()
    chosen = np.sort(kmeans.sample(uids, min(recall.QUERIES, len(uids)), options.seed + 1))
    rows, own = [vectors.take(chosen)], [chosen]
    other = next(side for side in SIDES if side != options.modality)
    try:
        across = open_vectors(out, options.model, other, options.metadata, options.allow)
    except UsageError:
        return rows[0], own[0]
    counts = dict(zip(across.stems, across.counts, strict=True))
    across = Vectors(vectors.table, options.model, other, tuple(counts[s] for s in vectors.stems), across.dim)
    if across.dim == vectors.dim:
        rows.append(across.take(chosen))
        own.append(np.full(len(chosen), -1))
    return np.concatenate(rows), np.concatenate(own)


def _assemble(building: str, base: _Base, parts: list[Part], options: IndexOptions, name: str) -> dict[str, Any]:
    """Write the merged index and the uids into `building`; returns index.json's values, not tuned yet."""
    lists_file = os.path.join(building, LISTS) if base.factory.on_disk else ""
    paths = [os.path.join(base.current.folder, INDEX)] if base.current else []
    paths += [f"{part.path}.faiss" for part in parts]
    whole = join(os.path.join(building, "trained.faiss"), paths, lists_file)
    write_index(whole, os.path.join(building, INDEX))
    uids = np.concatenate([np.empty(0, DTYPE), *(base.vectors.uids(i) for i in range(len(base.vectors.stems)))])
    with storage.open_atomic(os.path.join(building, "uids.npy")) as stream:
        np.save(stream, uids, allow_pickle=False)
    files = {file: _record(os.path.join(building, file)) for file in (INDEX, "trained.faiss", "uids.npy")}
    if lists_file:
        files[LISTS] = {"bytes": os.path.getsize(lists_file)}
    left_out = base.left_out + sum(skipped(part) for part in parts)
    return {
        "format": FORMAT,
        "name": name,
        "model": options.model,
        "modality": options.modality,
        "dim": base.vectors.dim,
        "rows": len(base.vectors) - left_out,
        "left_out": left_out,
        "factory": base.factory.text,
        "lists": base.factory.lists,
        "on_disk": base.factory.on_disk,
        "seed": options.seed,
        "target": options.target,
        "files": files,
        "shards": base.vectors.identity,
        **base.vectors.table.gaps(),
        "versions": versions(),
        "nprobe": 1,
        "rerank": 1,
    }


def _exact(base: _Base, parts: list[Part], queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The queries' exact neighbours: those found while the parts were filled, and those of the rows before."""
    answers = [exact(part) for part in parts]
    for at, rows in base.vectors.blocks(BLOCK, 0, int(base.vectors.starts[base.done])):
        positions = np.where(rows.any(axis=1), np.arange(at, at + len(rows)), NONE)
        answers.append(best(queries @ rows.T, positions, TOP))
    return merge(answers, TOP)


def _record(path: str) -> dict[str, Any]:
    return record_of(path)


def _publish(home: str, building: str, info: dict[str, Any]) -> None:
    """Turn the build into the next version, and let `current` name it; readers keep the one they have open."""
    storage.write_atomic(os.path.join(building, "index.json"), encode(info))
    for file in filter(PART_FILE.fullmatch, os.listdir(building)):
        os.unlink(os.path.join(building, file))
    before = sorted(filter(VERSION.fullmatch, os.listdir(home)))
    version = f"v{int(before[-1][1:]) + 1 if before else 1:04d}"
    os.rename(building, os.path.join(home, version))
    storage.write_atomic(os.path.join(home, "current"), version.encode())
    for old in [*before[:-1], *filter(BUILDING.fullmatch, os.listdir(home))]:
        _remove_version(os.path.join(home, old))


def _remove_version(folder: str) -> None:
    """Remove an index's files, and the folder unless it holds others."""
    if os.path.islink(folder):
        return
    with suppress(OSError):  # another build may have been faster
        for file in filter(INDEX_FILE.fullmatch, os.listdir(folder)):
            os.unlink(os.path.join(folder, file))
        os.rmdir(folder)
