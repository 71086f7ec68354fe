"""Flags that verbs share: where (pool, out, address) and how wide; never what (that is the recipe)."""

from typing import Annotated

import typer

from mmfilter.errors import UsageError

from .cluster import Width

RecipeArg = Annotated[
    str, typer.Argument(help="A packaged recipe's name, or the path of a YAML file.", metavar="RECIPE")
]
OutArg = Annotated[str, typer.Argument(help="The folder of a run.", metavar="OUT")]
Pool = Annotated[
    list[str],
    typer.Option(
        "--pool", help="Shards: 'shards/{000..007}.tar', a glob, a folder, s3://... Repeatable.", metavar="SHARDS"
    ),
]
PoolArg = Annotated[
    list[str], typer.Argument(help="Shards: a folder, a glob, a brace pattern, s3://...", metavar="POOL")
]
Out = Annotated[str, typer.Option("--out", help="Where everything is written.", metavar="OUT")]
Name = Annotated[str | None, typer.Option("--name", help="The subset's name (default: the recipe's).")]
OnlyName = Annotated[str | None, typer.Option("--name", help="The subset (default: the only one there is).")]
Address = Annotated[str | None, typer.Option("--address", help="A running Ray cluster; without it Ray starts here.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="CPU workers (default: one a core).")]
Gpus = Annotated[int | None, typer.Option("--gpus", min=0, help="GPUs to use, a worker each (default: all).")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Decoding threads a worker.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images a step (CPU 64, GPU 256).")]
Decoders = Annotated[
    int | None,
    typer.Option("--decoders", min=0, help="Decoders on cores of their own (default: on nodes without GPU)."),
]
Patience = Annotated[
    float, typer.Option("--patience", min=0, help="Seconds after which a worker that hangs is killed; 0: never.")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Go on without named shards that do not exist; nothing is recorded.")
]
Local = Annotated[bool, typer.Option("--local", help="In this process, without Ray.")]
Redo = Annotated[bool, typer.Option("--redo-changed", help="Do shards again whose tar, model or scores changed.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def width(
    address: str | None,
    workers: int | None,
    gpus: int | None,
    threads: int | None,
    batch_size: int | None,
    local: bool,
    decoders: int | None = None,
    patience: float = 0.0,
) -> Width:
    """The flags as one value. Raises UsageError where there is nothing for a decoder to be on."""
    if decoders and local:
        raise UsageError("--decoders: they are Ray's tasks; leave out --local")
    return Width(address, workers, gpus, threads, batch_size, local, decoders, patience)
