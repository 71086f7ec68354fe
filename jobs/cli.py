"""`mmfilter`: one command, a verb for everything a person can start."""

import signal
import sys
from importlib import import_module
from types import ModuleType
from typing import Annotated

import typer

from mmfilter.errors import FAILED, INTERRUPTED, NO_ROOM, MMFilterError, cannot_write

MODULES = (  # in the order a person meets their verbs
    *("download", "run", "submit", "status", "inspect", "embed", "score", "select", "reshard", "look"),
    *("subset", "schedule", "compare", "card"),
    *("index", "query", "serve", "dedup", "concepts"),
    "recipe",
    *("synth", "train", "evaluate", "probe", "rank", "leaderboard", "advise", "demo"),
)

app = typer.Typer(
    name="mmfilter",
    help="Turn a pool of image-text pairs into the subset that trains the best CLIP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from mmfilter import __version__

        print(f"mmfilter {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def register() -> None:
    """Add the verbs, in their groups, once. Their modules import nothing heavy."""
    if app.registered_commands:
        return
    from .common import common, takes_pool
    from .groups import example_of, group_of

    for name in MODULES:
        import_module(f".{name}", __package__).add(app)
    for verb in app.registered_commands:
        assert verb.callback is not None
        name = verb.callback.__name__
        verb.rich_help_panel = group_of(name)
        verb.epilog = f"Example: {example_of(name)}"
        if takes_pool(verb.callback):
            verb.context_settings = {"allow_extra_args": True}
        verb.callback = common(verb.callback)


def rooms_are_ours() -> None:
    """`index` and `jobs` are common names: exit if somebody's file hides one of our rooms."""
    import index

    rooms: list[ModuleType] = [index, sys.modules[__package__ or "jobs"]]
    for room in rooms:
        if getattr(room, "ROOM_OF", "") != "mmfilter":
            place = getattr(room, "__file__", "?")
            print(
                f"mmfilter: {place} hides the package's own '{room.__name__}'; rename it, or run elsewhere",
                file=sys.stderr,
            )
            raise SystemExit(1)


class Stopped(BaseException):
    """Ctrl-C or SIGTERM; no KeyboardInterrupt, which the command-line library answers in its own way."""

    def __init__(self, number: int) -> None:
        self.code = INTERRUPTED if number == signal.SIGINT else 128 + number


def _stop(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough; what follows is the way out
    raise Stopped(number)


def main() -> None:
    """The console entry point. Exit codes: 0 well, 1 failed, 2 usage, 3 some set aside, 130 Ctrl-C, 143 SIGTERM."""
    rooms_are_ours()
    register()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app(prog_name="mmfilter")
    except MMFilterError as error:
        print(f"mmfilter: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"mmfilter: {cannot_write(error.filename or 'a file', error)}", file=sys.stderr)
        raise SystemExit(FAILED) from None
    except Stopped as stopped:
        print("mmfilter: stopped; finished shards are kept, and the same command goes on from here", file=sys.stderr)
        raise SystemExit(stopped.code) from None
