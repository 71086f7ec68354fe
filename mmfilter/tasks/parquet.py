"""Sets that are no tars: the parquet files that Hugging Face's `datasets` writes, images inside as {bytes, path}."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import storage
from ..errors import DataError
from ..records import Failure
from .sets import Item, MissingSet, lines_of


def parquet_files(root: str) -> list[str]:
    """The folder's files, sorted. Raises MissingSet."""
    found = storage.list_files(root, ".parquet")
    if not found:
        raise MissingSet(f"{root}: no parquet file; docs/evaluate.md tells how they are written")
    return found


def rows(root: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each row once, in order, with ``key``: its file and place. Raises DataError on files of another kind."""
    for path in parquet_files(root):
        try:
            remote = storage.is_remote(path)
            file = pq.ParquetFile(io.BytesIO(storage.read_bytes(path)) if remote else storage.open_read(path))
            lacks = sorted(set(columns) - set(file.schema_arrow.names))
            if lacks:
                raise DataError(f"{path}: no column {', '.join(lacks)}; it has: {', '.join(file.schema_arrow.names)}")
            place = 0
            for batch in file.iter_batches(batch_size=16, columns=list(columns)):
                for row in batch.to_pylist():
                    yield {**row, "key": f"{storage.stem(path)} {place}"}
                    place += 1
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())[:200]})") from error


def image_bytes(cell: Any) -> bytes | None:
    """The file of an image cell; None where it holds no bytes (a path alone is not followed)."""
    found = cell.get("bytes") if isinstance(cell, dict) else None
    return found if isinstance(found, bytes) and found else None


def caption_items(root: str) -> Iterator[Item | Failure]:
    """Items with ``txt`` of columns `image` and `caption` (a list), as retrieval wants them."""
    for row in rows(root, ("image", "caption")):
        image, told = image_bytes(row["image"]), row["caption"]
        if image is None:
            yield Failure(row["key"], "", "image_empty", "the image has no bytes; write the files with images inside")
            continue
        texts = [told] if isinstance(told, str) else told or []
        lines = "\n".join(" ".join(lines_of(str(text))) for text in texts)
        yield Item(row["key"], image, {"txt": lines.encode()})
