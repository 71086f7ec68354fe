"""Pools of rows as they come from an embedding, and the plainest dedup."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def here(function, tasks):
    """`Run` in this process."""
    return [function(task) for task in tasks]


def blobs(n=120, d=12, seed=0):
    """Rows around few centres at many distances, some of them the same."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(n // 8, 1), d))
    rows = centres[rng.integers(0, len(centres), n)] + rng.normal(size=(n, d)) * rng.choice([0, 0.05, 0.2], (n, 1))
    return rows


POOLS = {
    "random": lambda: np.random.default_rng(1).normal(size=(60, 3)),
    "blobs": blobs,
    "ties": lambda: np.random.default_rng(2).integers(-1, 2, (150, 3)).astype(float),
    "equal": lambda: np.ones((70, 5)),
    "one": lambda: np.ones((1, 4)),
    "odd": lambda: np.array([[0, 0], [np.nan, 1], [1, 0], [1, 0.01], [np.inf, 1], [0, 0], [-1, 0]], float),
    "nothing": lambda: np.zeros((9, 4)),
    "empty": lambda: np.zeros((0, 4)),
}


def embedded(folder, rows, ends, order=None, texts=None, **columns):
    """A folder as DataComp's metadata: shards that end at `ends`; (folder, uids of the rows in `rows`' order).

    `rows` are the images' embeddings and `texts`, where they are given, the captions'.
    """
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(9)
    uids = [bytes(b).hex() for b in rng.integers(0, 256, (len(rows), 16), dtype=np.uint8)]
    uids = sorted(uids)
    columns = {"uid": uids, "s": np.linspace(1, 0, len(rows)).round(1), **columns}
    order = np.arange(len(rows)) if order is None else order
    start = 0
    for i, end in enumerate(ends):
        here = order[start : min(end, len(rows))]
        start = max(start, min(end, len(rows)))
        table = {name: [values[j] for j in here] for name, values in columns.items()}
        types = {"uid": pa.string(), "s": pa.float64()}
        arrays = {name: pa.array(values, types.get(name)) for name, values in table.items()}
        pq.write_table(pa.table(arrays), folder / f"{i:08d}.parquet")
        sides = {"b32_img": rows} | ({} if texts is None else {"b32_txt": texts})
        np.savez(folder / f"{i:08d}.npz", **{side: np.asarray(all, np.float16)[here] for side, all in sides.items()})
    return str(folder), uids


def greedy_oracle(rows, cluster, key, uids, eps):
    """uid -> (uid of the nearest before it, cosine): per cluster, in order of (key, uid), one row after the other."""
    found = {}
    for c in set(cluster.tolist()) - {-1}:
        member = sorted(np.flatnonzero(cluster == c), key=lambda i: (key[i], uids[i]))
        x = rows[member].astype(np.float64)
        for j in range(1, len(member)):
            cosines = x[:j] @ x[j]
            if cosines.max() > 1 - eps:
                found[uids[member[j]]] = (uids[member[cosines.argmax()]], cosines.max())
    return found


def grouped_oracle(rows, cluster, key, uids, eps):
    """uid -> (uid of the first of its connected group, cosine to it)."""
    found = {}
    for c in set(cluster.tolist()) - {-1}:
        member = sorted(np.flatnonzero(cluster == c), key=lambda i: (key[i], uids[i]))
        x, places = rows[member].astype(np.float64), range(len(member))
        cosines = x @ x.T
        group = list(places)
        for _ in member:
            group = [min(group[i] for i in places if i == j or cosines[i, j] > 1 - eps) for j in places]
        for j, first in enumerate(group):
            if first != j:
                found[uids[member[j]]] = (uids[member[first]], cosines[j, first])
    return found


def pairs_of(hashes, rank, bits, missing):
    """j -> [(similarity, i before it in rank)] over every pair."""
    found = {}
    for j in range(len(hashes)):
        for i in range(len(hashes)):
            apart = (int(hashes[i]) ^ int(hashes[j])).bit_count()
            if rank[i] < rank[j] and apart <= bits and missing not in (i, j):
                found.setdefault(j, []).append((1 - apart / 64, i))
    return found


def groups(pairs, n):
    """The connected groups of pairs, as sets."""
    group = list(range(n))
    for _ in range(n):
        for pair in pairs:
            low = min(group[i] for i in pair)
            for i in pair:
                group[i] = low
    return {frozenset(i for i in range(n) if group[i] == g) for g in set(group)}
