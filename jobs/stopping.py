"""Ctrl-C and SIGTERM: waited for by a thread, raised in the main one where that is safe.

Both signals are blocked, so that no handler ever runs for them: `ray.init` sets one for SIGTERM that exits with code 1
and another, from compiled code, that prints a stack. A thread takes them with `sigwait`, notes them and wakes the main
thread, which raises `Stopped`: at once, or, as an exception raised inside Ray's compiled code ends in a SystemError or
a crash, at the end of the block that holds it back (`held_back`). A second signal, or a stop that takes longer than the
grace, ends the process as it is; nothing is lost by that, as results are renamed into place when they are complete.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmfilter.errors import FAILED

from . import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WAKE = signal.SIGURG  # what the thread sends to the main one; ignored by whoever does not know it
SENTENCE = "mmfilter: stopped; finished shards are kept. Run the same command again to resume\n"
GRACE_S = 8.0  # for a clean stop; `docker stop` kills after 10 s
START_GRACE_S = 3.0  # while Ray starts, which cannot be interrupted and has nothing to lose
REPEAT_S = 0.7  # within it a second signal is the same one: `timeout` signals the process, and then its group


class Stopped(BaseException):
    """Ctrl-C or SIGTERM; no KeyboardInterrupt, which the command-line library answers in its own way."""

    def __init__(self, number: int) -> None:
        self.code = exit_code(number)


class _State:
    """`number` is the first signal's; `depth` counts the blocks that hold it back; `raised`: somebody was told."""

    installed = raised = sentence_written = handed = starting = False
    number = depth = 0
    grace = GRACE_S

    def __init__(self) -> None:
        self.started: dict[int, str] = {}  # processes that this one had started when the signal arrived


STATE = _State()
NOTES: list[Callable[[], None]] = []
"""Called where the process ends by force: quick, and on this machine's disk (`OUT/.progress`)."""


def exit_code(number: int) -> int:
    """What a shell reports for a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


def pending() -> bool:
    """Whether a signal has arrived and `Stopped` was not raised for it yet."""
    return STATE.number != 0 and not STATE.raised


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
def starting() -> Iterator[None]:
    """Within the block Ray is started: its processes get a group of their own, out of reach of a terminal's Ctrl-C."""
    STATE.starting, STATE.grace = sys.platform == "linux", START_GRACE_S  # elsewhere Ray itself needs them in this one
    try:
        yield
    finally:
        STATE.starting, STATE.grace = False, GRACE_S


@contextmanager
def handed_over() -> Iterator[None]:
    """Within the block somebody else handles signals (uvicorn), in as much time as that takes."""
    if not STATE.installed:
        yield
        return
    STATE.handed = True
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        STATE.handed = False


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
        STATE.sentence_written |= STATE.raised  # whoever caught Stopped has said what there was to say
        raise
    except BaseException:
        if not STATE.number:
            raise
        _say()
        raise SystemExit(exit_code(STATE.number)) from None


def on_signal(number: int, _: Any) -> None:
    """The handler of both signals where they are not blocked."""
    STATE.number = STATE.number or number
    check()


def _install() -> None:
    STATE.installed = True
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # in all threads: each starts with the mask of its parent
    atexit.register(_last)  # the first that is registered is the last that is called, after Ray's
    os.register_at_fork(after_in_child=_forked)
    for number in SIGNALS:
        signal.signal(number, on_signal)
    signal.signal(WAKE, lambda *_: check())
    threading.Thread(target=_watch, args=(threading.get_ident(),), name="signals", daemon=True).start()
    before = sys.unraisablehook

    def unraisable(lost: Any) -> None:
        if isinstance(lost.exc_value, Stopped):
            STATE.raised = False  # raised in a finalizer, which cannot pass it on: the next check raises it again
        else:
            before(lost)

    sys.unraisablehook = unraisable


def _forked() -> None:
    """A child takes signals as usual, and ends without a word. This runs for a subprocess where it has a preexec_fn."""
    for number in (*SIGNALS, WAKE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if STATE.starting:
        os.setpgrp()


def _watch(main: int) -> None:
    """Waits for the first signal, then for a second one or the end of the grace."""
    number = signal.sigwait(SIGNALS)
    while STATE.handed:
        signal.pthread_kill(main, number)
        number = signal.sigwait(SIGNALS)
    first = time.monotonic()
    STATE.number = STATE.number or number
    signal.pthread_kill(main, WAKE)
    STATE.started = processes.descendants()
    while time.monotonic() - first < STATE.grace:
        if signal.sigtimedwait(SIGNALS, 0.1) and time.monotonic() - first > REPEAT_S:
            break
    _end()


def _last() -> None:
    """Not through the interpreter's end where a signal arrived: threads may still run in compiled code."""
    if STATE.number:
        _end()


def give_up(sentence: str) -> None:
    """End the process with `sentence` on stderr and exit code 1, where the main thread is in compiled code that hears
    no exception. What it started is killed."""
    STATE.sentence_written = True
    os.write(2, f"mmfilter: {sentence}\n".encode())
    _end(FAILED)


def _end(code: int | None = None) -> None:
    """End the process as it is, with the code of the signal that arrived where no other is given."""
    _say()
    for note in NOTES:
        note()
    processes.kill({**STATE.started, **processes.descendants()})
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # closed, or nobody reads it
    os._exit(exit_code(STATE.number) if code is None else code)


def _say() -> None:
    """The sentence, once."""
    sentence_written, STATE.sentence_written = STATE.sentence_written, True
    if not sentence_written:
        try:
            os.write(2, SENTENCE.encode())
        except OSError:
            pass
