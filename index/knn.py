"""`KnnIndex`: a pool's nearest neighbours, from FAISS's candidates ranked again by the stored embeddings."""

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mmfilter import storage
from mmfilter.allow import Allow
from mmfilter.errors import ConflictError, DataError, UsageError, nearest
from mmfilter.file_record import sha256_file
from mmfilter.json_file import COUNT, read_object
from mmfilter.run_file import is_file_name
from mmfilter.run_pool import SHOWN
from mmfilter.subset import search_sorted, sort_order

from .nearest import best, merge
from .parts import INDEX, check_local, read_mapped
from .vectors import Vectors, open_vectors, unit

FEW = 50_000  # rows to be searched among: so few are all looked at, exactly
TOGETHER = 64  # queries that are searched at once
MOST = 16_384  # candidates of a query
HELD = 1 << 17  # candidates whose embeddings are held at once: 256 MiB of 512 numbers each
CURE = "build the index again: `mmfilter index OUT --model NAME --fresh`"
SHAPE = {
    **dict.fromkeys(("name", "model", "modality", "factory"), str),
    **dict.fromkeys(("dim", "rows", "left_out", "lists", "nprobe", "rerank"), COUNT),
    "seed": int,
    "on_disk": bool,
    "target": float,
    "files": {str: {"bytes": COUNT, "sha256?": str}},
    "shards": [{"shard": str, "rows": COUNT}],
    "recall?": {"k": int, "queries": int, "image?": float, "text?": float},
    "met?": bool,
    "seconds?": float,
}
TUNED = 11  # neighbours that `recall.tune` asks for


def open_index(out: str, name: str | None = None, metadata: str | None = None, allow: Allow = Allow()) -> "KnnIndex":
    """The newest version of OUT/index/NAME (default: the only index there is), read: it answers also when later
    versions have taken its files away.

    Raises UsageError where there is none, DataError for a file that is not what index.json says, ConflictError
    where the pool's embeddings are not those it was built from.
    """
    check_local(out)
    name = name or _only(out)
    while True:
        folder = version_folder(out, name)
        try:
            found = peek_index(out, name, metadata, allow)
            _ = found.faiss  # read here, while it is there
        except (DataError, OSError):  # of a version that was taken away while it was opened
            if version_folder(out, name) == folder:
                raise
        else:
            return found


def peek_index(out: str, name: str, metadata: str | None = None, allow: Allow = Allow()) -> "KnnIndex":
    """`open_index`, with FAISS's file checked and not read until it is asked for; two versions later it is gone."""
    folder = version_folder(out, name)
    info = read_info(folder)
    for file, was in info["files"].items():
        _check_file(os.path.join(folder, file), was)
    vectors = open_vectors(out, info["model"], info["modality"], metadata, allow)
    return KnnIndex(folder, info, reordered(vectors, info["shards"], out, name))


def names(out: str) -> list[str]:
    """The indices of a run's folder."""
    folder = storage.join(out, "index")
    return sorted(n for n in (os.listdir(folder) if os.path.isdir(folder) else []) if _current(out, n))


def version_folder(out: str, name: str) -> str:
    """OUT/index/NAME/vNNNN that `current` names. Raises UsageError, DataError."""
    version = _current(out, name)
    if not version:
        have = names(out)
        known = f"{nearest(name, have)} It has: {', '.join(have)}." if have else "."
        raise UsageError(f"{out}: no index '{name}'{known} `mmfilter index {out} --model NAME` builds one")
    return storage.join(out, "index", name, version)


def _only(out: str) -> str:
    have = names(out)
    if len(have) != 1:
        known = f"has {', '.join(have)}: name one" if have else "has no index; `mmfilter index` builds one"
        raise UsageError(f"{out}: {known}")
    return have[0]


def _current(out: str, name: str) -> str:
    path = storage.join(out, "index", name, "current")
    if not os.path.isfile(path):
        return ""
    version = storage.read_bytes(path).decode("ascii", "replace").strip()
    if not (version.startswith("v") and version[1:].isdigit()):
        raise DataError(f"{path}: it should name a version, and says {version[:40]!r}; build the index again")
    return version


def read_info(folder: str) -> dict[str, Any]:
    """A version's index.json. Raises DataError, ConflictError."""
    path = os.path.join(folder, "index.json")
    try:
        info = read_object(path, CURE, SHAPE)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; {CURE}") from error
    if INDEX not in info["files"] or not all(map(is_file_name, info["files"])):
        raise DataError(f"{path}: is damaged (its files are {', '.join(info['files'])[:200]!r}); {CURE}")
    return info


def holds_files(folder: str, info: dict[str, Any]) -> bool:
    """Whether a version's files are there, with the sizes that its index.json records."""
    return all(
        (storage.identity_or_none(os.path.join(folder, file)) or {}).get("bytes") == was["bytes"]
        for file, was in info["files"].items()
    )


def _check_file(path: str, was: dict[str, Any]) -> None:
    """Raise DataError unless the file is the one that was written: FAISS trusts what it reads."""
    size = storage.size(path) if storage.exists(path) else -1
    if size != was["bytes"]:
        raise DataError(f"{path}: {size} bytes where {was['bytes']} were written; build the index again")
    if "sha256" in was and sha256_file(path) != was["sha256"]:
        raise DataError(f"{path}: not the file that was written (its sha256 differs); build the index again")


def reordered(vectors: Vectors, shards: list[dict[str, Any]], out: str, name: str) -> Vectors:
    """The pool's embeddings in the index's order of shards; later shards of the pool are left out.

    Raises ConflictError where a shard is gone or was made anew.
    """
    here = {shard["shard"]: shard for shard in vectors.identity}
    other = {stem: "was made anew" if stem in here else "is gone" for stem in changed(here, shards)}
    if other:
        named = ", ".join(f"shard {stem} {what}" for stem, what in list(other.items())[:SHOWN])
        more = f" and {len(other) - SHOWN:,} more shards changed" if len(other) > SHOWN else ""
        raise ConflictError(
            f"{out}: {named}{more} since index '{name}' was built; run `mmfilter index` again, which brings it up"
        )
    stems, counts = (tuple(shard[key] for shard in shards) for key in ("shard", "rows"))
    return replace(vectors, table=vectors.table.some(stems), counts=counts)


def changed(here: Mapping[str, dict[str, Any]], shards: list[dict[str, Any]]) -> list[str]:
    """The shards of an index whose embeddings are others than `here`, the pool's by shard, has, or that it lacks."""
    return [shard["shard"] for shard in shards if here.get(shard["shard"]) != shard]


class KnnIndex:
    """Thread-safe. A row's position is its place in `vectors`, which lists the shards in the index's order."""

    def __init__(self, folder: str, info: dict[str, Any], vectors: Vectors) -> None:
        self.folder, self.info, self.vectors = folder, info, vectors
        self.name, self.model, self.modality, self.dim = info["name"], info["model"], info["modality"], info["dim"]
        self.uids: np.ndarray = np.load(os.path.join(folder, "uids.npy"), mmap_mode="r", allow_pickle=False)
        self._faiss: Any = None
        self._plain: Any = None
        self._order = np.empty(0, np.int64)
        self._sorted: np.ndarray | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def lacks(self) -> list[str]:
        """Shards of the pool that came since the index was built."""
        return sorted(set(self.vectors.table.pool) - set(self.vectors.stems))

    @property
    def faiss(self) -> Any:
        """The FAISS index, read when it is first asked for."""
        with self._lock:
            if self._faiss is None:
                import faiss

                path = os.path.join(self.folder, INDEX)
                try:
                    self._plain = read_mapped(path) if self.info["on_disk"] else faiss.read_index(path)
                except RuntimeError as error:
                    raise DataError(f"{self.folder}/knn.faiss: FAISS cannot read it ({str(error)[-200:]})") from error
                self._faiss = self._plain
                if isinstance(self._plain, faiss.IndexIVFPQ) and self._plain.pq.nbits == 4 and not self.info["on_disk"]:
                    self._faiss = faiss.IndexIVFPQFastScan(self._plain)  # the same codes, laid out for registers
                    self._plain.reset()  # it still owns the centroids
            return self._faiss

    def positions(self, uids: np.ndarray) -> np.ndarray:
        """(m,) int64 of (m,) `uids.DTYPE`; -1 where the index has no such row."""
        with self._lock:
            if self._sorted is None:
                self._order = sort_order(self.uids)
                self._sorted = self.uids[self._order]
        at = search_sorted(self._sorted, uids)
        there = at < len(self)
        at = np.where(there, at, 0)
        there &= self._sorted[at] == uids if len(self) else False
        return np.where(there, self._order[at] if len(self) else -1, -1).astype(np.int64)

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None, exact: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of float32 (q, d): positions int64 (q, k), similarity float32 (q, k), descending.

        Past the last there are -1 and -inf. `among`: positions (int64) or a mask (n,) bool to choose from, by
        FAISS's selectors, so that an answer comes back short only where `among` is short. `exact` ranks FAISS's
        candidates again by the stored embeddings. Raises UsageError for another dimension.
        """
        queries = self._checked(queries)
        chosen = None if among is None else _positions(among)
        if k < 1 or not len(queries) or (chosen is not None and not len(chosen)):
            return best(np.empty((len(queries), 0)), np.empty(0, np.int64), max(k, 0))
        if chosen is not None and len(chosen) <= FEW:
            return self.scan(queries, k, chosen)
        step = max(1, min(TOGETHER, HELD // self._candidates(k, exact)))
        parts = [self._search(queries[at : at + step], k, chosen, exact) for at in range(0, len(queries), step)]
        return np.concatenate([p for p, _ in parts]), np.concatenate([s for _, s in parts])

    def scan(self, queries: np.ndarray, k: int, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`search` by looking at every row of `among` (m,) int64: exact, and m reads."""
        parts = [best(np.empty((len(queries), 0)), np.empty(0, np.int64), k)]
        for at in range(0, len(among), FEW):
            here = np.sort(among[at : at + FEW])
            rows = self.vectors.take(here)
            parts.append(best(queries @ rows.T, np.where(rows.any(axis=1), here, -1), k))
        return merge(parts, k)

    def above(
        self, query: np.ndarray, floor: float, limit: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Up to `limit` rows of similarity `floor` or more to float32 (d,): (positions (m,), similarity (m,))."""
        k = min(max(limit, 1), 64)
        while True:
            found, near = self.search(query[None], k, among)
            enough = (near[0] < floor).any() or k >= min(limit, len(self))
            if enough:
                keep = (near[0] >= floor) & (found[0] >= 0)
                return found[0][keep], near[0][keep]
            k = min(4 * k, limit)

    def _checked(self, queries: np.ndarray) -> np.ndarray:
        queries = np.atleast_2d(np.asarray(queries, np.float32))
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise UsageError(f"index {self.name}: a query has {self.dim} numbers, not {queries.shape[-1]}")
        return unit(queries)

    def _candidates(self, k: int, exact: bool) -> int:
        """How many candidates FAISS is asked for, to be ranked again."""
        return min(max(k, k * self.info["rerank"]) if exact else k, max(MOST, k))

    def _search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None, exact: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        wide = self._candidates(k, exact)
        of: Any = faiss  # whose stubs do not know its Python wrappers
        lists = self.info["lists"]
        probes = min(lists, -(-self.info["nprobe"] * max(k, TUNED) // TUNED))  # more neighbours lie in more lists
        selector = None
        if among is not None:
            mask = np.zeros(len(self), bool)
            mask[among] = True
            selector = of.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
            probes = min(lists, -(-probes * len(self) // len(among)))  # as many of the chosen are met as of all before
        wanted = min(k, len(among) if among is not None else self.info["rows"])
        while True:
            parameters = of.SearchParametersIVF(nprobe=probes, sel=selector)
            near, found = self.faiss.search(queries, min(wide, len(self)), params=parameters)
            if probes >= lists or ((found >= 0).sum(axis=1) >= wanted).all():
                break
            probes = min(lists, 4 * probes)  # the lists looked at do not hold k: look at more
        return self._ranked(queries, found, k) if exact and self.info["rerank"] > 1 else best(near, found, k)

    def _ranked(self, queries: np.ndarray, found: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best of candidates (q, c) by the stored embeddings."""
        needed, where = np.unique(found, return_inverse=True)
        rows, where = self.vectors.take(np.maximum(needed, 0)), where.reshape(found.shape)
        return best(np.stack([rows[w] @ query for w, query in zip(where, queries, strict=True)]), found, k)


def _positions(among: np.ndarray) -> np.ndarray:
    among = np.asarray(among)
    return np.flatnonzero(among) if among.dtype == bool else np.unique(among[among >= 0]).astype(np.int64)
