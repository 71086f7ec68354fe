"""A set beside the pool: images, captions, or another pool, to be compared with or to be near to."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mmfilter import storage
from mmfilter.errors import ConflictError, DataError, MMFilterError, UsageError, is_of_machine
from mmfilter.folders import is_tar
from mmfilter.images import decode
from mmfilter.member_names import split_name
from mmfilter.overrides import named_paths, with_path
from mmfilter.scores.phash import phash
from mmfilter.sidecar import read_commit
from mmfilter.tar import WHOLE, Gap, members
from mmfilter.tar_entries import UNREAD
from mmfilter.uids import format_uids
from mmfilter.weights import ModelSpec

from .inputs import files, is_pool
from .pool import Pool
from .vectors import Vectors, unit

ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff")
BATCH = 64
DATACOMPS = {"b32": ("ViT-B-32", 512), "l14": ("ViT-L-14", 768)}  # array -> OpenAI's model, its dimensions


@dataclass(frozen=True)
class Reference:
    """m items: their `names`, and by what was asked for `sha256` (m,) str, `phash` (m,) uint64 and rows.

    `rows` is float16 (m, d), or a pool's Vectors that are read where they lie. `bad` counts what could
    not be decoded; such images have a name and a sha256, a row of zeros, and no hash (`hashed` False).
    """

    names: list[str]
    sha256: list[str]
    phash: np.ndarray
    hashed: np.ndarray
    rows: np.ndarray | Vectors
    bad: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def block(self, start: int, stop: int) -> np.ndarray:
        """float32 unit rows (., d) from `start` to `stop`."""
        if isinstance(self.rows, Vectors):
            return self.rows.take(np.arange(start, min(stop, len(self))))
        return unit(self.rows[start:stop])


@dataclass(frozen=True)
class Asked:
    """What is wanted of a set's images: a row of `model` (as `pool` was embedded), a hash."""

    pool: Pool
    model: str | None = None
    modality: str = "image"
    hash: bool = False


def read_reference(path: str, asked: Asked) -> Reference:
    """A set by what is found at `path`: an embedded OUT, a .txt (a caption a line), or images: a folder, a wds
    set, a tar. Raises UsageError for nothing usable, ConflictError where weights are not those of the pool.
    """
    if is_pool(path):
        return _of_pool(path, asked)
    if path.endswith(".txt") and os.path.isfile(path):
        texts = [line.strip() for line in storage.read_bytes(path).decode().split("\n") if line.strip()]
        if not texts or not asked.model:
            raise UsageError(f"{path}: a list of texts needs a model and a line of text; give both")
        empty = np.zeros(len(texts), np.uint64)
        return Reference(texts, [""] * len(texts), empty, empty > 0, embedder(asked).texts(texts))
    return _of_images(path, asked)


def _of_pool(path: str, asked: Asked) -> Reference:
    other = Pool(path)
    names = format_uids(other.uids)
    sha = (
        other.read("sha256")["sha256"].fill_null("").to_list() if "sha256" in other.table.columns else [""] * len(names)
    )
    hashes, hashed = np.zeros(len(names), np.uint64), np.zeros(len(names), bool)
    if asked.hash:
        column = other.read("phash")["phash"]
        hashes, hashed = column.cast(pl.UInt64).fill_null(0).to_numpy(), column.is_not_null().to_numpy()
    rows: np.ndarray | Vectors = np.zeros((len(names), 0), np.float16)
    if asked.model:
        rows = other.vectors(asked.model, asked.modality)
        mine, theirs = _weights(asked.pool, asked.model), _weights(other, asked.model)
        if mine and theirs and mine != theirs:
            raise ConflictError(
                f"{path}: '{asked.model}' has other weights there ({theirs[:12]}) than in {asked.pool.out} "
                f"({mine[:12]}); cosines between them mean nothing, so embed one of the two again"
            )
    return Reference(names, sha, hashes, hashed, rows)


def _weights(pool: Pool, model: str) -> str:
    return str(_part(pool, model).get("weights") or "")


def _part(pool: Pool, model: str) -> dict[str, Any]:
    """What the commits say of a model; {} for a foreign folder."""
    stems = pool.table.stems
    commit = read_commit(pool.out, stems[0]) if stems else None
    return dict((commit or {"parts": {}})["parts"].get(f"embed:{model}") or {})


def given_weights(pools: Sequence[Pool], words: Sequence[str]) -> dict[str, str]:
    """Model -> path of `--weights NAME=PATH`, for models that one of the pools was embedded with. Raises UsageError."""
    if not words:
        return {}
    models = {
        name.removeprefix("embed:")
        for pool in pools
        for commit in [read_commit(pool.out, stem) for stem in pool.table.stems[:1]]
        for name in (commit["parts"] if commit else [f"embed:{model}" for model in DATACOMPS])
        if name.startswith("embed:")
    }
    return named_paths(words, sorted(models), ", ".join(pool.out for pool in pools))


def _datacomps(pool: Pool, model: str) -> dict[str, Any]:
    """DataComp's metadata has no commits; its `b32` and `l14` are OpenAI's. {} for any other array."""
    name, dim = DATACOMPS.get(model, ("", 0))
    stems = pool.table.stems
    if not name or not stems or read_commit(pool.out, stems[0]) is not None or pool.vectors(model).dim != dim:
        return {}
    return {"model": name, "pretrained": "openai"}


def _file_of(pool: Pool, model: str) -> str | None:
    """The file of weights that the newest run on OUT was given for the model; a commit knows it by its hash alone."""
    path = storage.join(pool.out, "run.json")
    try:
        node = json.loads(storage.read_bytes(path))["recipe"]["embed"][model]
        file = node.get("weights")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return file if isinstance(file, str) and os.path.isfile(os.path.expanduser(file)) else None


def embedder(asked: Asked) -> Any:
    """The model that embedded the pool. Raises UsageError, ConflictError, or what loading raises."""
    from mmfilter.embed import load

    assert asked.model
    part = _part(asked.pool, asked.model) or _datacomps(asked.pool, asked.model)
    if not part:
        raise UsageError(
            f"{asked.pool.out}: nothing here says what model '{asked.model}' is, so words and pictures cannot be "
            "embedded; name samples by uid, or embed the pool with a recipe (another set: as an OUT of its own)"
        )
    weights, given = part.pop("weights", ""), asked.pool.weights.get(asked.model)
    node = with_path(part, asked.model, given) if given else {**part, "weights": _file_of(asked.pool, asked.model)}
    try:
        found = load(asked.model, ModelSpec(**node))
    except ValueError as error:  # its weights were a file, which the commit knows by its hash alone
        raise UsageError(
            f"model '{asked.model}' was read from a file of weights that is not where it was; give it by --weights "
            f"{asked.model}=PATH, or embed the other set with it, as an OUT of its own"
        ) from error
    if weights and found.found.sha256 != weights:
        raise ConflictError(
            f"model '{asked.model}': its weights hash to {found.found.sha256[:12]}, the pool's were {weights[:12]}; "
            "put those back"
        )
    return found


def images(path: str) -> Iterator[tuple[str, bytes]]:
    """(name, image file) of a folder of images, a wds set (`test/0.tar`), a folder of tars or a tar.

    Raises UsageError where there is none, DataError on a damaged tar: a set that is read in part would
    pass for clean.
    """
    found = [p for p in files(path) if os.path.isfile(path) or p.lower().endswith((".tar", *ENDINGS))]
    tars = [p for p in found if is_tar(p)]
    if not found:
        raise UsageError(f"{path}: no image and no tar is here; give a folder of images, a wds set, or an embedded OUT")
    for file in tars or found:
        name = os.path.relpath(file, path) if file != path else os.path.basename(file)
        if not is_tar(file):
            yield name, storage.read_bytes(file)
            continue
        with storage.open_read(file) as stream:
            for member in members(stream, lambda name: WHOLE * (split_name(name)[1] in ENDINGS)):
                if isinstance(member, Gap) and member.status not in ("no_end", "trailing_garbage", "zero_blocks"):
                    raise DataError(f"{file}: {member.error} (at byte {member.offset}); fetch it again")
                if isinstance(member, Gap) or split_name(member.name)[1] not in ENDINGS:
                    continue
                if member.kind in UNREAD:
                    raise DataError(f"{file}: {member.name!r} {UNREAD[member.kind][1]}")
                if member.kind == "file":
                    yield f"{name}/{member.name}", member.data


def _of_images(path: str, asked: Asked) -> Reference:
    model = embedder(asked) if asked.model else None
    names: list[str] = []
    sha: list[str] = []
    hashes: list[int | None] = []
    parts: list[np.ndarray] = []
    batch: list[np.ndarray] = []
    where: list[int] = []
    bad = 0
    for name, data in images(path):
        names.append(name)
        sha.append(hashlib.sha256(data).hexdigest())
        hashes.append(None)
        try:
            image = decode(data, asked.pool.limits) if asked.hash or model else None
            if image is not None and asked.hash:
                hashes[-1] = phash(image)
            if image is not None and model:
                batch.append(model.prepare(image))
                where.append(len(names) - 1)
        except Exception as error:  # whatever a picture raises
            if is_of_machine(error):
                raise
            bad += 1
        if model and len(batch) == BATCH:
            parts.append(model.images(np.stack(batch)))
            batch = []
    if not names:
        raise UsageError(f"{path}: no image is in it; give a folder of images, a wds set, or an embedded OUT")
    if bad == len(names):
        raise MMFilterError(f"{path}: none of its {bad:,} images can be decoded; is it the right place?")
    rows = np.zeros((len(names), model.dim if model else 0), np.float16)
    if model and batch:
        parts.append(model.images(np.stack(batch)))
    if parts:
        rows[where] = np.concatenate(parts)
    hashed = np.array([value is not None for value in hashes], bool)
    return Reference(names, sha, np.array([v or 0 for v in hashes], np.uint64), hashed, rows, bad)
