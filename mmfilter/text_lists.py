"""Lists of urls that are text: csv, tsv and txt, read line by line, with the type of a column taken of all its values.

csv has quotes; tsv has none, as files of captions are written without; txt has a url a line.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from .errors import DataError

BATCH = 1 << 16  # rows at once
MAX_CHARS = 1 << 20  # of a line or a value; more is an open quote, or no list
URL = re.compile(r"\s*https?://", re.IGNORECASE)
KINDS = (pa.null(), pa.int64(), pa.bool_(), pa.float64(), pa.string())  # a column has the first that holds all of it
NULLS = pa.array(arrow_csv.ConvertOptions().null_values)


def text_tables(stream: BinaryIO, kind: str, url: str, path: str) -> Iterator[pa.Table]:
    """Tables of text columns of a `csv`, `tsv` or `txt` (one column, `url`). Raises DataError with the line's number.

    A line feed may stand in a quoted value of a csv. Refused are an open quote, a row that has other columns than the
    first line, NUL characters (UTF-16 has them), and rows of a csv that a quote which is not closed makes one value:
    several lines in one row, of which more than one has a web address where the column `url` is.
    """
    if kind == "txt":
        lines = _lines(io.TextIOWrapper(stream, "utf-8-sig", "replace"), path)
        urls = filter(None, (line.strip() for line in lines))
        while part := list(islice(urls, BATCH)):
            yield pa.table({"url": pa.array(part, pa.string())})
        return
    lines = _lines(io.TextIOWrapper(stream, "utf-8-sig", newline=""), path)
    records = _csv_records(lines, url, path) if kind == "csv" else _tsv_records(lines, path)
    header = next(records, None)
    if header is None:
        raise DataError(f"{path}: is empty; its first line should name the columns")
    while rows := list(islice(records, BATCH)):
        columns = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
        yield pa.Table.from_arrays(columns, names=header)


def _lines(stream: io.TextIOWrapper, path: str) -> Iterator[str]:
    """The lines of `stream` with their ends. Raises DataError for what is no line of text."""
    number = 0
    try:
        while line := stream.readline(MAX_CHARS):
            number += 1
            if "\0" in line:
                raise DataError(f"{path}: line {number} has NUL characters; write the list as text in UTF-8")
            if len(line) == MAX_CHARS:
                raise DataError(f"{path}: line {number} has more than {MAX_CHARS:,} characters; is it a list of urls?")
            yield line
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: after line {number} it is no text in UTF-8 ({error.reason}); write it in UTF-8"
        ) from (error)


def _tsv_records(lines: Iterator[str], path: str) -> Iterator[list[str]]:
    """The rows of a tsv, the header first: what stands between tabs, as it is."""
    columns = 0
    for number, line in enumerate(lines, 1):
        plain = line.rstrip("\r\n")
        if plain:
            row = plain.split("\t")
            columns = columns or len(row)
            yield _of_width(row, columns, f"{path}: line {number}")


def _csv_records(lines: Iterator[str], url: str, path: str) -> Iterator[list[str]]:
    """The rows of a csv, the header first."""
    taken: list[str] = []  # the lines of the row that is being read

    def noted() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    csv.field_size_limit(MAX_CHARS)
    reader = csv.reader(noted(), strict=True)
    columns = place = 0
    first = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{path}: the row that begins on line {first} cannot be read as csv ({error}). A value that begins "
                'with a quote ends with one, and has any other twice (""). Mend the row, or give a parquet or tsv'
            ) from error
        if row is None:
            return
        if row:
            where = f"{path}: line {first}"
            if not columns:
                columns, place = len(row), row.index(url) if url in row else 0
            elif len(taken) > 1 and sum(_has_url(line, place, columns) for line in taken) > 1:
                raise DataError(
                    f"{where}: {len(taken)} lines are one row here, as the first opens a quote and the last closes "
                    "one, but more than one has a url of its own: a quote is missing, or one too many. Mend the row, "
                    "or give a parquet or tsv"
                )
            yield _of_width(row, columns, where)
        taken.clear()
        first = reader.line_num + 1


def _has_url(line: str, place: int, columns: int) -> bool:
    """Whether a web address stands at `place` of a line, counted from its start or, of `columns`, from its end."""
    cells = line.split(",")
    return any(URL.match(cell.lstrip('"')) for cell in (*cells[place : place + 1], *cells[place - columns :][:1]))


def _of_width(row: list[str], columns: int, where: str) -> list[str]:
    """The row. Raises DataError where it has not as many values as there are columns."""
    if len(row) != columns:
        raise DataError(f"{where}: {columns} columns are named in the first line, and {len(row)} values stand here")
    return row


def column_types(tables: Iterable[pa.Table], names: Sequence[str]) -> dict[str, pa.DataType]:
    """Column -> the first of KINDS that holds every one of its values, read to the end."""
    left = {name: list(KINDS) for name in names}
    for table in tables:
        for name in names:
            left[name] = [kind for kind in left[name] if _holds(kind, table[name])]
    return {name: kinds[0] for name, kinds in left.items()}


def _holds(kind: pa.DataType, column: pa.ChunkedArray) -> bool:
    try:
        typed(column, kind)
    except pa.ArrowInvalid:
        return False
    return True


def typed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Text as values of `kind`; text stays as it stands. Otherwise empty cells and NA, null and the like are null.

    Raises ArrowInvalid for a value that is none.
    """
    if pa.types.is_string(kind):
        return column
    plain = pc.utf8_trim_whitespace(column)
    values = pc.if_else(pc.is_in(plain, NULLS), pa.scalar(None, pa.string()), plain)
    if values.null_count == len(values):
        return pa.chunked_array([pa.nulls(len(values), kind)])
    if pa.types.is_null(kind):
        raise pa.ArrowInvalid("not empty")
    return values.cast(kind)
