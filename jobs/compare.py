"""`compare`: subsets side by side, before anyone trains on them."""

import json
from dataclasses import replace
from typing import Annotated, Any

import typer

from mmfilter.allow import Allow, sentences
from mmfilter.errors import UsageError

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def compare(
        subsets: Annotated[
            list[str], typer.Argument(help="Subset files, or names of OUT's subsets.", metavar="SUBSETS")
        ],
        out: Annotated[
            str | None,
            typer.Option("--out", help="The pool they are of: what they hold, how far apart.", metavar="OUT"),
        ] = None,
        weights: o.Weights = None,
        metadata: o.Metadata = None,
        model: Annotated[str, typer.Option(help="Whose embeddings (default: the only model there is).")] = "",
        modality: Annotated[str, typer.Option(help="image or text: whose embeddings.")] = "image",
        target: Annotated[
            str, typer.Option(help="A set to be near to: a folder of images, a wds set, a .txt, an OUT.")
        ] = "",
        sample: Annotated[int, typer.Option(min=2, help="Rows of each set where pairs are looked at.")] = 2000,
        seed: Annotated[int, typer.Option(min=0, help="Of that sample.")] = 0,
        allow: Allow = Allow(),
        page: Annotated[str | None, typer.Option(help="The page to write (default: OUT/compare.html).")] = None,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        as_json: o.Json = False,
    ) -> None:
        """Subsets side by side: what they share, what they are made of, how far they are from other sets."""
        from .outdir import absolute

        asked = {"model": model, "modality": modality, "target": target, "sample": sample, "seed": seed}
        width = o.width(address, workers, None, None, None, local)
        pool = out and given_pool(absolute(out), metadata and absolute(metadata), weights or [], allow)
        found = compare_subsets(subsets, pool or None, asked, width)
        written = write(found, out and absolute(out), page)
        print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else "\n".join([*lines(found), *written]))


def given_pool(out: str, metadata: str | None, weights: list[str], allow: Allow) -> Any:
    """The pool in OUT, with the models' weights where `--weights` names them. Raises UsageError."""
    from index.pool import Pool
    from index.reference import given_weights

    pool = Pool(out, metadata, allow=allow)
    return replace(pool, weights=given_weights([pool], weights))


def compare_subsets(words: list[str], pool: Any, asked: dict[str, Any], width: Any) -> Any:
    """The comparison as plain values; without a pool what subsets share alone. Raises UsageError, DataError."""
    from mmfilter.subset import Subset

    out = pool.out if pool else None
    paths = named(words, out)
    subsets = {name: Subset.read(path) for name, path in paths.items()}
    found: dict[str, Any] = {"subsets": paths, "pool": out, "sha256": {name: _digest(p) for name, p in paths.items()}}
    if not out:
        from mmfilter.overlaps import overlaps

        return found | {"absent": None, "overlap": overlaps(subsets), "composition": None, "measures": None}
    from index.compare import Wanted
    from index.compare import compare as side_by_side

    from . import choice
    from .pool_scores import mapper

    width = choice.choose(replace(width, gpus=0), choice.rows(pool.table))
    return found | side_by_side(subsets, pool, Wanted(**asked), mapper(width, "compare"))


def _digest(path: str) -> str:
    """What tells the report that the subset is still the one that was measured."""
    import hashlib

    from mmfilter import storage

    return hashlib.sha256(storage.read_bytes(path)).hexdigest()


def find_subset(word: str, out: str | None) -> str:
    """The path of a .npy file, or of a subset of OUT that is given by its name. Raises UsageError."""
    from mmfilter import storage
    from mmfilter.errors import nearest

    inside = storage.join(out, "subsets", f"{word}.npy") if out else ""
    if inside and not word.endswith(".npy") and storage.exists(inside):
        return inside
    if storage.exists(word):
        return word
    known = [storage.stem(p) for p in storage.list_files(storage.join(out, "subsets"), ".npy")] if out else []
    place = f" in {out}" if out else ""
    raise UsageError(
        f"{word}: no such subset{place}{nearest(word, known)} Give .npy files, or names of --out's subsets"
    )


def named(words: list[str], out: str | None) -> dict[str, str]:
    """A short name for each subset -> its path. Raises UsageError."""
    from mmfilter import storage

    paths = [find_subset(word, out) for word in words]
    stems = [storage.stem(path) for path in paths]
    names = [stem if stems.count(stem) == 1 else path for stem, path in zip(stems, paths, strict=True)]
    if len(set(names)) < len(names):
        raise UsageError(f"{', '.join(words)}: the same subset is given twice; each once is enough")
    return dict(zip(names, paths, strict=True))


def write(found: dict[str, Any], out: str | None, page: str | None) -> list[str]:
    """OUT/compare.json and the page; returns lines that say where."""
    from mmfilter import storage
    from mmfilter.own_files import check_replaceable, is_json_with, is_page, write_page
    from mmfilter.report.comparison import comparison_page

    path = page or (storage.join(out, "compare.html") if out else "")
    if path:
        check_replaceable(path, is_page, "a page")
    if out:
        record, text = (
            storage.join(out, "compare.json"),
            json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True),
        )
        check_replaceable(record, is_json_with("overlap", "measures"), "a comparison")
        storage.write_atomic(record, text.encode())
    if path:
        write_page(path, comparison_page(found))
    return [f"page    {path}"] if path else []


def lines(found: dict[str, Any]) -> list[str]:
    """The comparison for a person: what is shared, and each measure."""
    overlap = found["overlap"]
    names, wide = overlap["names"], max(len(name) for name in [*overlap["names"], "subset"])
    said = [f"{'subset':<{wide}} {'samples':>14}  " + "  ".join(f"in {name}" for name in names)]
    for name, samples, row in zip(names, overlap["samples"], overlap["containment"], strict=True):
        shares = "  ".join(f"{_told(share):>{len(other) + 3}}" for share, other in zip(row, names, strict=True))
        said.append(f"{name:<{wide}} {samples:>14,}  {shares}")
    for name, n in (found["absent"] or {}).items():
        said += [f"  {n:,} samples of {name} are not in the pool"] if n else []
    if found["measures"]:
        said += measured(found["measures"])
    return said + [f"  {sentence}" for sentence in sentences(found)]


def measured(measures: dict[str, Any]) -> list[str]:
    """A line for each set: its diversity, and its distances."""
    said = [f"by {measures['model']} ({measures['modality']}), distances over up to {measures['sample']:,} rows a set"]
    wide = max(len(name) for name in measures["sets"])
    for name, row in measures["sets"].items():
        said.append(f"  {name:<{wide}} {row['rows']:>12,} rows  Vendi {_number(row['vendi'])}")
        for other, apart in row["to"].items():
            told = "  ".join(f"{label} {_number(apart[key])}" for key, label in APART.items())
            said.append(f"  {'':<{wide}}   to {other:<8} {told}")
    return said


APART = {"fid": "FID", "mmd": "MMD²", "mmd_cosine": "MMD² cosine", "sinkhorn": "Sinkhorn"}


def _told(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
