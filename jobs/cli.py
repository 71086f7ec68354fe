"""`mmfilter`: one command, a verb for everything a person can start."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Annotated

import typer

from mmfilter.errors import FAILED, MMFilterError, NoFile, is_of_environment, of_environment

from .stopping import stoppable
from .terminal import print

MODULES = (  # in the order a person meets their verbs
    *("download", "run", "submit", "status", "inspect", "embed", "score", "select", "reshard", "look"),
    *("subset", "schedule", "compare", "card"),
    "verify",
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


def run(words: list[str]) -> int:
    """Run one command line in this process and return its exit code. What went wrong is a sentence on stderr."""
    register()
    try:
        app(args=words, prog_name="mmfilter")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED if end.code else 0
    except MMFilterError as error:
        print(f"mmfilter: {error}", file=sys.stderr)
        return error.exit_code
    except NoFile as error:
        print(f"mmfilter: {error.filename}: {error.strerror}; give a file", file=sys.stderr)
        return FAILED
    except (OSError, MemoryError) as error:
        if not is_of_environment(error) or isinstance(error, BrokenPipeError):
            raise
        print(f"mmfilter: {of_environment(error, 'a file')}", file=sys.stderr)
        return FAILED
    return 0


def main() -> None:
    """The console entry point. Exit codes: 0 well, 1 failed, 2 usage, 3 some set aside, 130 Ctrl-C, 143 SIGTERM."""
    with stoppable():
        rooms_are_ours()
        raise SystemExit(run(sys.argv[1:]))
