"""A process that runs short of memory or file handles goes on with half as many threads that decode, and half again.

What comes of a shard hangs on its batches, never on the threads, so the bytes stay the same.
"""

import gc
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import CURES, SHORT, ShortageError

T = TypeVar("T")

PAUSE = 1.0  # seconds before it is tried again
OF_MEMORY = ("allocate memory", "not enough memory")  # in torch's RuntimeErrors
_lock = threading.Lock()


class _State:
    """Of this process: how often it was halved, and the most threads that were asked for."""

    halved, widest = 0, 1


def threads(wanted: int) -> int:
    """How many of the `wanted` threads this process may have now."""
    _State.widest = max(_State.widest, wanted)
    return max(1, wanted >> _State.halved)


def narrow() -> bool:
    """Halve the threads from now on; False where there is one already."""
    with _lock:
        if _State.widest >> _State.halved <= 1:
            return False
        _State.halved += 1
        return True


def is_shortage(error: BaseException) -> bool:
    """Whether too much was asked of the machine at a time."""
    if isinstance(error, OSError):
        return error.errno in SHORT
    told = isinstance(error, RuntimeError) and any(mark in str(error) for mark in OF_MEMORY)
    return told or isinstance(error, (MemoryError, ShortageError))


def with_less(call: Callable[[], T], what: str) -> T:
    """`call()`, again with half the threads for as long as the machine is short of what it takes, and once more with
    one. Raises ShortageError.
    """
    alone = False
    while True:
        try:
            return call()
        except Exception as error:
            if not is_shortage(error):
                raise
            if alone:
                raise _shortage(what, error) from error
        alone = not narrow()
        gc.collect()  # of what the error held
        time.sleep(PAUSE)


def _shortage(what: str, error: Exception) -> ShortageError:
    if isinstance(error, ShortageError):
        return error
    told = f"{type(error).__name__}: {str(error)[:120]}".rstrip(": ")
    return ShortageError(
        f"{what}: this machine has no memory left for it ({told}), with one thread neither. That says nothing about "
        f"the data, and nothing was recorded; {CURES[ShortageError]}, then run the same command again"
    )
