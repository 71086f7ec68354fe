"""An output folder made by hand from the formats alone, for tests of what reads one."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image, ImageDraw

Row = dict[str, Any]
COLORS = ["#b4513d", "#3d7ab4", "#4f8f4a", "#c9a33b", "#6d5a9c", "#3a8f8a"]


@dataclass
class Rule:
    """A leaf rule: `keep` judges a row."""

    path: str
    text: str
    keep: Callable[[Row], bool]
    columns: list[str] = field(default_factory=list)
    thresholds: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Made:
    """What was made: rows by shard, failures by shard, and who dropped each uid ("" = kept)."""

    out: str
    shards: dict[str, list[Row]]
    failures: dict[str, list[Row]]
    dropped_by: dict[str, str]


def picture(number: int, size: tuple[int, int] = (64, 48)) -> bytes:
    image = Image.new("RGB", size, COLORS[number % len(COLORS)])
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill="#f4efe4")
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    return stream.getvalue()


def make_rows(folder: Path, stem: str, texts: list[str], scores: dict[str, list[Any]]) -> list[Row]:
    """A tar of small images with their captions, and its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with tarfile.open(folder / f"{stem}.tar", "w") as tar:
        for i, text in enumerate(texts):
            key, data = f"{stem}{i:04d}", picture(i)
            for name, content in ((f"{key}.jpg", data), (f"{key}.txt", text.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            uid = hashlib.md5(key.encode()).hexdigest()
            row: Row = {"uid": uid, "key": key, "text": text, "url": f"http://x/{key}", "sha256": _sha(data)}
            row |= {"original_width": 64, "original_height": 48, "size": len(data), "face_bboxes": []}
            rows.append(row | {name: values[i] for name, values in scores.items()})
    with tarfile.open(folder / f"{stem}.tar") as tar:
        for row in rows:
            row["offset"] = tar.getmember(f"{row['key']}.jpg").offset_data
    return rows


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_out(
    out: Path, tars: Path, shards: dict[str, list[Row]], rules: list[Rule], failures: dict[str, list[Row]] | None = None
) -> Made:
    """Write metadata, failures and the subset "kept" (its record and its decisions)."""
    failures = failures or {}
    for folder in ("metadata", "failures", "subsets/kept"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    dropped_by = {}
    for stem, rows in shards.items():
        _metadata(out, str(tars / f"{stem}.tar"), stem, rows, failures.get(stem, []))
        verdicts = [[rule.keep(row) for rule in rules] for row in rows]
        blame = [next((r.path for r, ok in zip(rules, v, strict=True) if not ok), "") for v in verdicts]
        columns = {rule.path: pl.Series([v[i] for v in verdicts], dtype=pl.Boolean) for i, rule in enumerate(rules)}
        base = {"uid": _strings(r["uid"] for r in rows), "keep": pl.Series([b == "" for b in blame], dtype=pl.Boolean)}
        frame = pl.DataFrame({**base, "dropped_by": _strings(blame), **columns})
        frame.write_parquet(out / "subsets/kept" / f"{stem}.parquet")
        dropped_by |= dict(zip((r["uid"] for r in rows), blame, strict=True))
    _record(out, shards, rules, failures, dropped_by)
    return Made(str(out), shards, failures, dropped_by)


def _strings(values: Any) -> pl.Series:
    return pl.Series(list(values), dtype=pl.String)


def _metadata(out: Path, tar: str, stem: str, rows: list[Row], failed: list[Row]) -> None:
    schema: dict[str, Any] = dict.fromkeys(("uid", "url", "text"), pl.String)
    schema |= dict.fromkeys(("original_width", "original_height"), pl.Int64)
    schema |= {"face_bboxes": pl.List(pl.List(pl.Float64)), "sha256": pl.String, "key": pl.String}
    schema |= dict.fromkeys(("offset", "size"), pl.Int64)
    pl.DataFrame(rows, schema=schema if not rows else None, infer_schema_length=None, schema_overrides=schema).select(
        [*schema, *sorted(set(rows[0] if rows else []) - set(schema))]
    ).write_parquet(out / "metadata" / f"{stem}.parquet")
    if failed:
        pl.DataFrame(failed).select("key", "uid", "status", "error").write_parquet(out / "failures" / f"{stem}.parquet")
    by_status = dict(Counter(row["status"] for row in failed))
    commit = {
        "shard": stem,
        "path": tar,
        "counts": {"read": len(rows) + len(failed), "ok": len(rows), "failed": by_status},
        "seconds": {"read": 0.5, "decode": 2.0, "embed_images": 8.0},
        "parts": {"read": {"derive_uids": False}},
        "models": {"b32": {"model": "ViT-B-32", "weights_sha256": "ab" * 32, "decoder": "pillow"}},
        "versions": {"mmfilter": "0.1.0", "torch": "2.15.0", "pillow": "13.0.0"},
        "notes": {},
    }
    (out / "metadata" / f"{stem}.json").write_text(json.dumps(commit))


def _record(
    out: Path, shards: dict[str, list[Row]], rules: list[Rule], failures: dict[str, list[Row]], blame: dict[str, str]
) -> None:
    rows = [row for shard in shards.values() for row in shard]
    lost = Counter(row["status"] for shard in failures.values() for row in shard)
    left, steps = len(rows), []
    for rule in rules:
        dropped = sum(path == rule.path for path in blame.values())
        step = {"path": rule.path, "rule": rule.path.rsplit(".")[-1], "text": rule.text, "in": left, "dropped": dropped}
        alone = sum(not rule.keep(row) for row in rows)
        steps.append(step | {"alone": alone, "columns": rule.columns, "thresholds": rule.thresholds})
        left -= dropped
    failed = sum(lost.values())
    counts = {"in": len(rows) + failed, "kept": left, "dropped": len(rows) - left, "failed": failed}
    recipe = {"name": "made-by-hand", "select": {"all": [{rule.path.rsplit(".")[-1]: {}} for rule in rules]}}
    record = {"name": "kept", "rule": recipe["select"], "counts": counts, "failed": dict(lost), "steps": steps}
    record |= {"seconds": 0.1, "recipe": recipe, "versions": {"mmfilter": "0.1.0"}}
    (out / "subsets" / "kept.json").write_text(json.dumps(record))
