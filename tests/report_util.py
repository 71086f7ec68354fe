"""An output folder made by hand from the formats alone, for tests of what reads one."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image, ImageDraw

from mmfilter.report import ReportOptions, build_report

Row = dict[str, Any]
EVIL = "</p><script>alert(1)</script><img src=x onerror=alert(2)> & \u202eright to left\u202c"
TEXTS = ["a red cat on a mat", "dog", EVIL, "القط على السجادة", "", "猫がマットの上に\x00いる", "a b", "one two three"]
SCORES = [0.9, 0.8, 0.7, 0.6, 0.55, 0.4, 0.3, 0.1]
VOID = {"meta", "link", "img", "br", "hr", "input", "path", "rect", "line"}
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


def long_enough(row: Row) -> bool:
    return len(str(row["text"]).split()) >= 2


RULES = [
    Rule("all[0].caption", "at least 2 words", long_enough, ["text"]),
    Rule("all[1].language", "language is en", lambda row: row["language"] == "en", ["language"]),
    Rule("all[2].threshold", "score >= 0.5", lambda row: row["score"] >= 0.5, ["score"], {"score": [0.5]}),
]


def rows_of(folder: Path, stem: str, n: int = 8) -> list[Row]:
    languages = ["en", "en", "en", "ar", "en", "ja", "en", "en"]
    scores = {"score": SCORES[:n], "language": languages[:n], "extra_score": SCORES[:n]}
    return make_rows(folder, stem, TEXTS[:n], scores)


class Page(HTMLParser):
    """Tags must balance; text by element, and what could run or fetch, are gathered."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: dict[str, str] = {}
        self.texts: list[tuple[str, str]] = []
        self._id = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._id = dict(attrs).get("id") or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._id:
            self.ids.setdefault(self._id, data.strip())
        self.texts.append((self.open[-1] if self.open else "", data))
        self._id = ""

    def count(self, tag: str, **attributes: str) -> int:
        return sum(t == tag and all(a.get(k) == v for k, v in attributes.items()) for t, a in self.tags)


def page_of(out: str, **options: object) -> tuple[str, Page]:
    text = Path(build_report(out, "", ReportOptions(**options))).read_text("utf-8")  # type: ignore[arg-type]
    return text, Page(text)
