"""The command line in this process: what a person sees of it, and its exit code."""

import functools

import typer
from click.testing import CliRunner

from jobs import cli
from mmfilter.errors import MMFilterError


@functools.cache
def command():
    """All verbs; built once, as that takes longer than most of what is tested."""
    if not cli.app.registered_commands:
        cli.register()
    return typer.main.get_command(cli.app)


def invoke(*words):
    """(exit code, stdout, stderr), with an MMFilterError as `cli.main` prints it."""
    result = CliRunner().invoke(command(), [str(word) for word in words])
    if isinstance(result.exception, MMFilterError):
        return result.exception.exit_code, result.stdout, f"{result.stderr}mmfilter: {result.exception}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr
