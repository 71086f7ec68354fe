"""Ctrl-C and SIGTERM: noted when they arrive, raised where that is safe.

An exception raised from a signal handler inside Ray's compiled code ends in a SystemError or a crash. So while Ray's
code runs (`held_back`) the handler only notes the signal, and the end of that block raises `Stopped`. Elsewhere the
handler raises it at once. A thread watches both: a second signal, or a stop that takes longer than `GRACE_S`, ends the
process without further ado; nothing is lost by that, as results are renamed into place when they are complete.
"""

import atexit
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SENTENCE = "mmfilter: stopped; finished shards are kept. Run the same command again to resume\n"
GRACE_S = 8.0  # for a clean stop; `docker stop` kills after 10 s
REPEAT_S = 0.7  # within it a second signal is the same one: `timeout` signals the process, and then its group


class Stopped(BaseException):
    """Ctrl-C or SIGTERM; no KeyboardInterrupt, which the command-line library answers in its own way."""

    def __init__(self, number: int) -> None:
        self.code = exit_code(number)


class _State:
    """`number` is the first signal's; `depth` counts the blocks that hold it back; `raised`: somebody was told."""

    installed = raised = said = False
    number = depth = 0


STATE = _State()
NOTES: list[Callable[[], None]] = []
"""Called where the process ends by force: quick, and on this machine's disk (`OUT/progress.json`)."""


def exit_code(number: int) -> int:
    """What a shell reports for a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


def noted() -> bool:
    """Whether a signal has arrived."""
    return STATE.number != 0


def check() -> None:
    """Raise Stopped where a signal was noted and not raised yet."""
    if STATE.number and not STATE.raised and not STATE.depth:
        STATE.raised = True
        raise Stopped(STATE.number)


@contextmanager
def held_back() -> Iterator[None]:
    """Within the block a signal is only noted. Its end raises Stopped, also in place of another error: where a
    signal goes to the whole process group, Ray's processes may end before this one."""
    STATE.depth += 1
    try:
        yield
    finally:
        STATE.depth -= 1
        check()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Within the block nobody else sets a handler: `ray.init` sets one for SIGTERM that exits with code 1."""
    if not STATE.installed:
        yield
        return
    real: Any = signal.signal

    def keep(number: int, handler: Any) -> Any:
        return on_signal if number in SIGNALS else real(number, handler)

    signal.signal = keep  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = real


@contextmanager
def handed_over() -> Iterator[None]:
    """Within the block somebody else handles signals (uvicorn), in as much time as that takes."""
    watch = signal.set_wakeup_fd(-1) if STATE.installed else -1
    try:
        yield
    finally:
        if watch != -1:
            signal.set_wakeup_fd(watch, warn_on_full_buffer=False)


@contextmanager
def stoppable() -> Iterator[None]:
    """The whole of a command. One that is stopped ends with one sentence on stderr, and 130 or 143.

    After the block, while Ray stops and the interpreter ends, a signal is only noted; `_last` then gives the exit code.
    """
    if STATE.installed:
        yield
        return
    _install()
    try:
        try:
            yield
            check()
        finally:
            STATE.depth += 1
    except SystemExit:
        if STATE.number and not STATE.raised:
            _say()
            raise SystemExit(exit_code(STATE.number)) from None
        STATE.said |= STATE.raised  # whoever caught Stopped has said what there was to say
        raise
    except BaseException:
        if not STATE.number:
            raise
        _say()
        raise SystemExit(exit_code(STATE.number)) from None


def on_signal(number: int, _: Any) -> None:
    """The handler of both signals, in the main thread."""
    if not STATE.number:
        STATE.number = number
    check()


def _install() -> None:
    STATE.installed = True
    atexit.register(_last)  # the first that is registered is the last that is called, after Ray's
    os.register_at_fork(after_in_child=_forked)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    threading.Thread(target=_watch, args=(reads,), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, on_signal)
    before = sys.unraisablehook

    def unraisable(lost: Any) -> None:
        if isinstance(lost.exc_value, Stopped):
            STATE.raised = False  # raised in a finalizer, which cannot pass it on: the next check raises it again
        else:
            before(lost)

    sys.unraisablehook = unraisable


def _forked() -> None:
    """A child has its own life: it does not write to this process's pipe, and a signal ends it without a word."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _watch(reads: int) -> None:
    """Waits for the first signal, then for a second one or the end of the grace."""
    number = _read(reads)
    first = time.monotonic()
    while (left := first + GRACE_S - time.monotonic()) > 0:
        if select.select([reads], [], [], left)[0]:
            _read(reads)
            if time.monotonic() - first > REPEAT_S:
                break
    STATE.number = STATE.number or number
    _end()


def _read(reads: int) -> int:
    """The next of our signals; the pipe carries those of other handlers too."""
    while True:
        for number in os.read(reads, 64):
            if number in SIGNALS:
                return number


def _last() -> None:
    """Not through the interpreter's end where a signal arrived: threads may still run in compiled code."""
    if STATE.number:
        _end()


def _end() -> None:
    _say()
    for note in NOTES:
        note()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # closed, or nobody reads it
    os._exit(exit_code(STATE.number))


def _say() -> None:
    """The sentence, once."""
    said, STATE.said = STATE.said, True
    if not said:
        try:
            os.write(2, SENTENCE.encode())
        except OSError:
            pass
