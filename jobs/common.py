"""What every verb has: --out beside a positional OUT, --progress, --quiet, --verbose; and how the rest is checked.

A verb that reads OUT as a pool has a parameter `allow`: it becomes --allow-missing and --allow-stale.
"""

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer

from mmfilter.allow import Allow
from mmfilter.errors import MMFilterError, UsageError
from mmfilter.folders import is_tar

from . import progress
from .options import RESULT, WithoutMissing, WithStale
from .terminal import print

OutOption = Annotated[str | None, typer.Option("--out", help="The same as a positional OUT.", metavar="OUT")]
OutsOption = Annotated[
    list[str] | None, typer.Option("--out", help="The same as a positional OUT. Repeatable.", metavar="OUT")
]
Mode = Annotated[
    progress.Mode | None,
    typer.Option(
        "--progress",
        help="How far it is, on stderr (default: bar on a terminal, else plain; or MMFILTER_PROGRESS).",
        rich_help_panel=RESULT,
        show_choices=True,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="The result alone: --progress none.", rich_help_panel=RESULT)
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="A line for each unit done, and where an error arose.", rich_help_panel=RESULT
    ),
]
KEYWORD = inspect.Parameter.KEYWORD_ONLY


def common(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb with the options that all verbs have. One whose OUT is positional takes --out OUT as well."""
    signature = inspect.signature(verb)
    name = next((p.name for p in signature.parameters.values() if _is_out(p)), "")
    reads_pool = "allow" in signature.parameters

    @functools.wraps(verb)
    def wrapped(
        ctx: typer.Context, progress_: progress.Mode | None, quiet: bool, verbose: bool, **arguments: Any
    ) -> Any:
        progress.choose(progress_, quiet, verbose)
        _check_extra(ctx)
        if reads_pool:
            arguments["allow"] = Allow(arguments.pop("allow_missing"), arguments.pop("allow_stale"))
        if name:
            arguments[name] = _one(ctx, arguments[name], arguments.pop("out_"), signature.parameters[name].default)
        _check_out(arguments.get(name or "out"), arguments.get("pool"))
        try:
            return verb(**arguments)
        except MMFilterError:
            if verbose:
                print(traceback.format_exc(), file=sys.stderr)
            raise

    parameters = [p.replace(kind=KEYWORD) for p in signature.parameters.values() if p.name != "allow"]
    if name:
        at = next(i for i, parameter in enumerate(parameters) if parameter.name == name)
        parameters[at] = _optional(parameters[at])
        option = OutOption if get_args(signature.parameters[name].annotation)[0] is str else OutsOption
        parameters.append(inspect.Parameter("out_", KEYWORD, default=None, annotation=option))
    flags = {"allow_missing": WithoutMissing, "allow_stale": WithStale} if reads_pool else {}
    parameters += [inspect.Parameter(flag, KEYWORD, default=False, annotation=kind) for flag, kind in flags.items()]
    parameters += [
        inspect.Parameter("progress_", KEYWORD, default=None, annotation=Mode),
        inspect.Parameter("quiet", KEYWORD, default=False, annotation=Quiet),
        inspect.Parameter("verbose", KEYWORD, default=False, annotation=Verbose),
        inspect.Parameter("ctx", KEYWORD, annotation=typer.Context),
    ]
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def takes_pool(verb: Callable[..., Any]) -> bool:
    """Whether it has --pool, whose pattern a shell may have expanded into many words."""
    return "pool" in inspect.signature(verb).parameters


def _check_extra(ctx: typer.Context) -> None:
    """Raise UsageError for words that no parameter takes."""
    if ctx.args:
        more = f" and {len(ctx.args) - 1:,} more" if len(ctx.args) > 1 else ""
        tars = all(is_tar(word) for word in ctx.args)
        hint = " Quote the pattern, so that the shell does not expand it: --pool 'shards/*.tar'" if tars else ""
        raise UsageError(f"{ctx.command.name}: unexpected argument {ctx.args[0]}{more}.{hint}\n{ctx.get_usage()}")


def _is_out(parameter: inspect.Parameter) -> bool:
    """Whether it is a positional OUT."""
    return any(
        type(more).__name__ == "ArgumentInfo" and more.metavar == "OUT" for more in get_args(parameter.annotation)[1:]
    )


def _optional(parameter: inspect.Parameter) -> inspect.Parameter:
    """The positional OUT, no longer required: --out may give it."""
    kind, *more = get_args(parameter.annotation)
    return parameter.replace(default=None, annotation=Annotated[kind | None, *more])


def _one(ctx: typer.Context, positional: Any, option: Any, default: Any) -> Any:
    """OUT, given in one of two ways. Raises UsageError where it is given in both, or not at all."""
    if positional and option:
        shown = positional if isinstance(positional, str) else " ".join(positional)
        raise UsageError(f"{ctx.command.name}: OUT is given twice, as {shown} and as --out; give it once")
    arguments = positional or option
    if arguments:
        return arguments
    if default is inspect.Parameter.empty:
        raise UsageError(
            f"{ctx.command.name}: OUT is missing. Give the folder as `mmfilter {ctx.command.name} OUT`, or as --out OUT"
            f"\n{ctx.get_usage()}"
        )
    return default


def _check_out(out: str | list[str] | None, pool: list[str] | None) -> None:
    """Raise UsageError where OUT lies in or is a file, or is the folder that the pool's shards are in."""
    from mmfilter import storage

    for folder in [out] if isinstance(out, str) else out or []:
        if storage.is_remote(folder):
            continue
        nearest_existing = os.path.abspath(folder)
        while not os.path.lexists(nearest_existing):
            nearest_existing = os.path.dirname(nearest_existing)
        if not os.path.isdir(nearest_existing):
            raise UsageError(f"{folder}: OUT is a folder, and {nearest_existing} is a file; give another OUT")
        for pattern in pool or []:
            if os.path.abspath(folder) == os.path.abspath(pattern if os.path.isdir(pattern) else _folder(pattern)):
                raise UsageError(
                    f"{folder}: the pool's shards are in this folder, and OUT would write between them; give another "
                    "OUT, such as runs/NAME"
                )


def _folder(pattern: str) -> str:
    return os.path.dirname(pattern) or "."
