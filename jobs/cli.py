"""`mmfilter`: one command, a verb for everything a person can start."""

import sys
from importlib import import_module
from types import ModuleType

import typer

from mmfilter.errors import FAILED, NO_ROOM, MMFilterError, cannot_write

from .stopping import stoppable

MODULES = (  # in the order a person meets their verbs
    *("download", "run", "submit", "status", "inspect", "embed", "score", "select", "reshard", "look"),
    *("subset", "schedule", "compare", "card"),
    *("index", "query", "serve", "dedup", "concepts"),
    *("synth", "train", "evaluate", "probe", "rank", "leaderboard", "advise", "demo"),
)

app = typer.Typer(
    name="mmfilter",
    help="Turn a pool of image-text pairs into the subset that trains the best CLIP.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register() -> None:
    """Add the verbs. Their modules import nothing heavy."""
    for name in MODULES:
        import_module(f".{name}", __package__).add(app)


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


def main() -> None:
    """The console entry point. Exit codes: 0 well, 1 failed, 2 usage, 3 some set aside, 130 Ctrl-C, 143 SIGTERM."""
    with stoppable():
        rooms_are_ours()
        register()
        _answer()


def _answer() -> None:
    try:
        app()
    except MMFilterError as error:
        print(f"mmfilter: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"mmfilter: {cannot_write(error.filename or 'a file', error)}", file=sys.stderr)
        raise SystemExit(FAILED) from None
