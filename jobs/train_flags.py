"""The options of `train`."""

from typing import Annotated

import typer

Out = Annotated[str, typer.Argument(help="The model's folder.", metavar="OUT")]
Model = Annotated[
    str, typer.Option(help="An open_clip name, a JSON config; to go on from: a model folder, hf-hub:owner/name.")
]
Pretrained = Annotated[str, typer.Option(help="Weights to begin with: a tag of open_clip's, or a file.")]
Subset = Annotated[str, typer.Option(help="Only the uids of this .npy, each as often as it stands there.")]
Schedule = Annotated[str, typer.Option(help="NAME.schedule.json: a subset for each epoch.")]
OneCaption = Annotated[bool, typer.Option("--one-caption", help="A sample's text alone, not its json's captions.")]
Holdout = Annotated[float, typer.Option(help="Part of the pool kept for measuring an AUC.")]
Samples = Annotated[
    int | None, typer.Option(min=4, help="Pairs seen, repeats included (100000; with a schedule one pass).")
]
BatchSize = Annotated[int, typer.Option(min=2, help="Pairs a step, of all processes; the others are the negatives.")]
Lr = Annotated[float, typer.Option(help="Peak learning rate.")]
Vocabulary = Annotated[int, typer.Option(min=0, help="Merges to learn from captions (0: the model's own).")]
Flip = Annotated[bool, typer.Option("--flip", help="Mirror half of the pictures.")]
Crop = Annotated[float, typer.Option(help="Smallest part of a side that a crop keeps.")]
Jitter = Annotated[float, typer.Option(help="Largest change of brightness and contrast.")]
Seed = Annotated[int, typer.Option(help="Everything random.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; part of what the bytes depend on.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="bfloat16 autocast.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Engine = Annotated[str, typer.Option(help="own: our loop, here. open_clip: its training code, on several GPUs.")]
Processes = Annotated[int, typer.Option(min=1, help="open_clip: one a GPU, by torchrun.")]
Workers = Annotated[int, typer.Option(min=0, help="open_clip: loader workers of each process.")]
Epochs = Annotated[int, typer.Option(min=1, help="open_clip: parts of the training, a checkpoint after each.")]
Resume = Annotated[bool, typer.Option("--resume", help="open_clip: go on from the last checkpoint in OUT.")]
More = Annotated[str, typer.Option(help="open_clip: further words for open_clip_train; they win over ours.")]
Prepare = Annotated[bool, typer.Option("--prepare", help="open_clip: write shards and job, print what starts it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
