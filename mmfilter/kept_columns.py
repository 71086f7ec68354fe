"""Columns of a list of urls as json and parquet can both hold them, whatever type the list gives them."""

import base64
from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from .errors import UsageError

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def plain_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column as numbers, text, true and false, lists and structs of these; what is so already stays as it is.

    Dates, times and decimals become text, durations seconds, bytes base64 text, maps lists of key and value,
    dictionaries their values, NaN and infinities null. Raises UsageError for a type that json has no form for.
    """
    chunks = [plain_array(chunk, name) for chunk in column.chunks]
    return pa.chunked_array(chunks) if chunks else pa.chunked_array([plain_array(pa.array([], column.type), name)])


def plain_array(array: pa.Array, name: str) -> pa.Array:
    """`plain_column` for one array."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain_array(array.storage, name)
    for is_kind, convert in SCALARS:
        if is_kind(kind):
            return convert(array)
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        decoded = array.dictionary_decode() if kinds.is_dictionary(kind) else pc.run_end_decode(array)
        return plain_array(decoded, name)
    if kinds.is_struct(kind) and len({field.name for field in kind}) == kind.num_fields:
        fields = [plain_array(field, f"{name}.{kind[i].name}") for i, field in enumerate(array.flatten())]
        return pa.StructArray.from_arrays(fields, [field.name for field in kind], mask=array.is_null())
    if kinds.is_map(kind):
        pairs = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
        return _listed(array, array.offsets, pairs, name)
    if any(is_list(kind) for is_list in LISTS):
        if kinds.is_list_view(kind) or kinds.is_large_list_view(kind):
            array = pa.array(array.to_pylist(), pa.list_(kind.value_type))  # Arrow's cast of a slice is wrong
        elif not kinds.is_list(kind):
            array = array.cast(pa.list_(kind.value_type))
        return _listed(array, array.offsets, array.values, name)
    raise UsageError(
        f"--keep {name}: a {kind} has no form in json; keep another column, or write this one as text or numbers"
    )


def _listed(array: pa.Array, offsets: pa.Array, values: pa.Array, name: str) -> pa.Array:
    """A list array of plain values that is null where `array` is."""
    offsets = pa.array(offsets.to_numpy(), pa.int32())  # of its own: a slice's offsets take no mask
    return pa.ListArray.from_arrays(offsets, plain_array(values, name), mask=array.is_null())


def _same(array: pa.Array) -> pa.Array:
    return array


def _text(array: pa.Array) -> pa.Array:
    return array.cast(pa.string())


def _timestamp(array: pa.Array) -> pa.Array:
    """In UTC, marked by a Z, where the column has a time zone."""
    return _text(array.cast(pa.timestamp(array.type.unit, "UTC")) if array.type.tz else array)


def _date(array: pa.Array) -> pa.Array:
    return _text(array.cast(pa.date32()))


def _seconds(array: pa.Array) -> pa.Array:
    return pc.divide(array.cast(pa.int64()).cast(pa.float64()), UNITS[array.type.unit])


def _base64(array: pa.Array) -> pa.Array:
    values = (value.as_py() for value in array)
    return pa.array([None if v is None else base64.b64encode(v).decode("ascii") for v in values], pa.string())


def _finite(array: pa.Array) -> pa.Array:
    array = array.cast(pa.float32()) if kinds.is_float16(array.type) else array
    finite = pc.is_finite(array)
    if pc.all(finite).as_py() is False:
        return pc.if_else(finite, array, pa.scalar(None, array.type))
    return array


def _is_binary(kind: pa.DataType) -> bool:
    forms = (kinds.is_binary, kinds.is_large_binary, kinds.is_fixed_size_binary, kinds.is_binary_view)
    return any(is_form(kind) for is_form in forms)


def _is_plain(kind: pa.DataType) -> bool:
    return kinds.is_integer(kind) or kinds.is_boolean(kind) or kinds.is_string(kind) or kinds.is_null(kind)


SCALARS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]], ...] = (
    (_is_plain, _same),
    (kinds.is_floating, _finite),
    (lambda kind: kinds.is_large_string(kind) or kinds.is_string_view(kind), _text),
    (kinds.is_timestamp, _timestamp),
    (kinds.is_date, _date),
    (lambda kind: kinds.is_time(kind) or kinds.is_decimal(kind), _text),
    (kinds.is_duration, _seconds),
    (_is_binary, _base64),
)
LISTS = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list, kinds.is_list_view, kinds.is_large_list_view)


def common_types(found: Iterable[tuple[str, dict[str, pa.DataType]]]) -> dict[str, pa.DataType]:
    """Column -> the type that holds its values of all lists, of (path, column -> type) of each.

    Numbers widen, and a column that is empty in one list has the type of the others. Raises UsageError otherwise.
    """
    types: dict[str, pa.DataType] = {}
    first: dict[str, str] = {}
    for path, own in found:
        for name, kind in own.items():
            try:
                both = [pa.schema([(name, each)]) for each in (types.get(name, kind), kind)]
                types[name] = pa.unify_schemas(both, promote_options="permissive").field(0).type
            except pa.ArrowException as error:
                raise UsageError(
                    f"--keep {name}: it is {types[name]} in {first[name]} and {kind} in {path}; make the lists alike, "
                    "or download them into folders of their own"
                ) from error
            first.setdefault(name, path)
    return types
