"""uids as text (32 hex digits) and as DataComp stores them: two uint64, in one structured value."""

import binascii
from collections.abc import Iterable

import numpy as np
import polars as pl

from .errors import DataError

DTYPE = np.dtype("u8,u8")
HALVES = ("uid_hi", "uid_lo")
DIGITS = frozenset("0123456789abcdefABCDEF")


def parse_uids(strings: Iterable[str | None]) -> np.ndarray:
    """(n,) of DTYPE from 32-digit hex strings: a list, or a polars series.

    f0 = int(uid[:16], 16), f1 = int(uid[16:], 16). Raises DataError on anything else, naming the first.
    Safe in a forked process, where polars' threads are not.
    """
    strings = list(strings)
    try:
        if any(len(uid or "") != 32 for uid in strings):
            raise ValueError
        pairs = np.frombuffer(binascii.unhexlify("".join(strings)), ">u8").reshape(-1, 2)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        row, uid = next((i, uid) for i, uid in enumerate(strings) if not _sound(uid))
        raise DataError(f"uid {uid!r} in row {row} is not 32 hexadecimal digits") from error
    uids = np.empty(len(pairs), DTYPE)
    uids["f0"], uids["f1"] = pairs[:, 0], pairs[:, 1]
    return uids


def _sound(uid: object) -> bool:
    return isinstance(uid, str) and len(uid) == 32 and DIGITS.issuperset(uid)


def halves() -> list[pl.Expr]:
    """`uid_hi` and `uid_lo` (uint64) of the column `uid`, and `uid_odd` (bool): whether it is no uid at all."""
    uid = pl.col("uid")
    hi, lo = (uid.str.slice(at, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False) for at in (0, 16))
    odd = (uid.str.len_bytes() != 32) | uid.str.contains("+", literal=True)  # to_integer would take '+' for a sign
    return [
        hi.alias("uid_hi"),
        lo.alias("uid_lo"),
        (odd | hi.is_null() | lo.is_null()).fill_null(True).alias("uid_odd"),
    ]


def taken_apart(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The halves of a frame that `halves` made, each (n,) uint64. Raises DataError naming the first odd uid."""
    if frame["uid_odd"].any():
        row = int(frame["uid_odd"].arg_max() or 0)
        named = f"{frame['uid'][row]!r} " if "uid" in frame.columns else ""
        raise DataError(f"uid {named}in row {row} is not 32 hexadecimal digits")
    return frame["uid_hi"].to_numpy(), frame["uid_lo"].to_numpy()


def format_uids(uids: np.ndarray) -> list[str]:
    """32 lower-case hex digits for each of (n,) DTYPE."""
    return [f"{hi:016x}{lo:016x}" for hi, lo in zip(uids["f0"].tolist(), uids["f1"].tolist(), strict=True)]
