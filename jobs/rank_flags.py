"""The options of `rank`."""

from typing import Annotated

import typer

Subsets = Annotated[list[str], typer.Argument(help="Subsets' .npy files.", metavar="SUBSETS")]
Out = Annotated[str, typer.Option("--out", help="Where trials are written.", metavar="OUT")]
ScaleName = Annotated[str, typer.Option("--scale", help="micro, tiny, small, medium, large or xlarge.")]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings of each subset; two at least to compare.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--tasks", help="'scenes', a set, or a folder of sets. Repeatable.", metavar="FOLDER"),
]
Samples = Annotated[int, typer.Option(min=0, help="Pairs seen in each training (0: the scale's).")]
LrScale = Annotated[float, typer.Option(help="The learning rate, as a part of the scale's: proxy runs.")]
Model = Annotated[str, typer.Option(help="Another model than the scale's.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads a training.")]
Processes = Annotated[int, typer.Option(min=1, help="open_clip: one a GPU of a training, by torchrun.")]
Loaders = Annotated[int, typer.Option(min=0, help="open_clip: loader workers of each process.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print each arm's command; write nothing.")]
