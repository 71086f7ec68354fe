"""The command line in this process, as a person calls it: (exit code, stdout, stderr) of its words."""

import contextlib
import io
import signal
import sys
from typing import NamedTuple

from jobs import cli


class Done(NamedTuple):
    code: int
    out: str
    err: str


def plain(*words):
    """Run `mmfilter WORDS` to its end. A traceback is the caller's: it is raised."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    sys.argv = ["mmfilter", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Done(code, out.getvalue(), err.getvalue())
