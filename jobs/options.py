"""Flags that verbs share: where (pool, out, address) and how wide; never what (that is the recipe)."""

from typing import Annotated

import typer

from mmfilter.errors import UsageError

from .cluster import Width

WIDE, RESULT, READ = "How wide", "What is printed", "How samples are read"  # panels of a verb's --help


def complete_recipe(typed: str) -> list[str]:
    """Recipes whose names begin so, for shell completion."""
    from mmfilter.recipe import known_recipes

    return [name for name in known_recipes() if name.startswith(typed)]


RecipeArg = Annotated[
    str,
    typer.Argument(
        help="A recipe's name (`mmfilter recipe list`), or the path of a YAML file.",
        metavar="RECIPE",
        autocompletion=complete_recipe,
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        help="Where a model, by its name in the recipe, is: a file of weights, or its folder. Repeatable.",
        metavar="NAME=PATH",
    ),
]
OutArg = Annotated[str, typer.Argument(help="The folder of a run.", metavar="OUT")]
OutsArg = Annotated[list[str], typer.Argument(help="Run folders; the first is the default one.", metavar="OUT")]
Metadata = Annotated[
    str | None,
    typer.Option("--metadata", help="A folder of DataComp's metadata, in place of OUT/metadata.", metavar="DIR"),
]
Pool = Annotated[
    list[str],
    typer.Option(
        "--pool", help="Shards: 'shards/{000..007}.tar', a glob, a folder, s3://... Repeatable.", metavar="SHARDS"
    ),
]
PoolArg = Annotated[
    list[str] | None, typer.Argument(help="Shards: a folder, a glob, a brace pattern, s3://...", metavar="POOL")
]
Out = Annotated[str, typer.Option("--out", help="Where everything is written.", metavar="OUT")]
Name = Annotated[str | None, typer.Option("--name", help="The subset's name (default: the recipe's).")]
OnlyName = Annotated[str | None, typer.Option("--name", help="The subset (default: the only one there is).")]
Address = Annotated[
    str | None,
    typer.Option("--address", rich_help_panel=WIDE, help="A running Ray cluster."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", rich_help_panel=WIDE, min=1, help="CPU workers, on Ray (default: one a core)."),
]
Gpus = Annotated[
    int | None, typer.Option("--gpus", rich_help_panel=WIDE, min=0, help="GPUs to use, a worker each (default: all).")
]
Threads = Annotated[
    int | None, typer.Option("--threads", rich_help_panel=WIDE, min=1, help="Decoding threads a worker.")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", rich_help_panel=WIDE, min=1, help="Images a step (CPU 64, GPU 256).")
]
Decoders = Annotated[
    int | None,
    typer.Option(
        "--decoders",
        rich_help_panel=WIDE,
        min=0,
        help="Decoders on cores of their own (default: on nodes without GPU).",
    ),
]
Patience = Annotated[
    float,
    typer.Option(
        "--patience", rich_help_panel=WIDE, min=0, help="Seconds after which a worker that hangs is killed; 0: never."
    ),
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Go on without named shards that do not exist; nothing is recorded.")
]
WithoutMissing = Annotated[
    bool,
    typer.Option("--allow-missing", help="Go on without shards of the run that lack files; the result says which."),
]
WithStale = Annotated[
    bool,
    typer.Option("--allow-stale", help="Read columns that were computed from other content; the result says which."),
]
KeepGoing = Annotated[
    bool,
    typer.Option("--keep-going", help="Start though none of the first samples has a usable form."),
]
Uids = Annotated[
    str | None,
    typer.Option(
        "--uids",
        rich_help_panel=READ,
        metavar="HOW",
        help="What uids are made of where the json has none: key (default), content, or json.FIELD.",
    ),
]
PoolId = Annotated[
    str | None,
    typer.Option(
        "--pool-id", rich_help_panel=READ, metavar="WORD", help="Part of uids made of the key: another pool, others."
    ),
]
Captions = Annotated[
    str | None,
    typer.Option(
        "--captions",
        rich_help_panel=READ,
        metavar="'A;B'",
        help="Members or json fields that hold the caption; the first that a sample has counts.",
    ),
]
Reshard = Annotated[bool, typer.Option("--reshard/--no-reshard", help="Write the subset's shards.")]
Labels = Annotated[
    str | None, typer.Option("--labels", help="Known labels (parquet: uid, kind, match), to report against.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it would cost.")]
Local = Annotated[bool, typer.Option("--local", rich_help_panel=WIDE, help="In this process, without Ray.")]
ModelName = Annotated[
    str | None, typer.Option("--model", help="A model's short name in OUT (default: the only one that is there).")
]
Redo = Annotated[bool, typer.Option("--redo-changed", help="Do shards again whose tar, model or scores changed.")]
RedoColumns = Annotated[
    bool, typer.Option("--redo-changed", help="Replace columns of the same names that were made otherwise.")
]
Json = Annotated[bool, typer.Option("--json", rich_help_panel=RESULT, help="Print the result as JSON.")]


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
