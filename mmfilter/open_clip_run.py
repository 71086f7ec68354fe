"""open_clip's own training code, in a process of its own: `python -m mmfilter.open_clip_run JOB.json [WORD ...]`.

JOB.json is what `mmfilter.engine` wrote: the model's configuration, the words for `open_clip_train.main`,
and with a schedule the shards of each epoch. Further words come after those (`--resume latest`).
Started by torchrun there is one such process a GPU; open_clip finds its rank in the environment.

A pool's own shards are read here, with all that strangers put into them. webdataset decodes every member by its name,
which un-pickles some, so all but captions and pictures are dropped as they are read.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from .engine import OPEN_CLIP_READS
from .images import FORMATS

TRAINED_ON = OPEN_CLIP_READS | {"txt"}
"""Extensions of the members that a trainer is given."""


def main(words: list[str]) -> int:
    """Train; the exit code."""
    import open_clip
    from open_clip_train import main as theirs

    only_pairs()
    with open(words[0], encoding="utf-8") as stream:
        job = json.load(stream)
    open_clip.add_model_config(job["config"])
    if job["device"] == "cpu":
        _ddp_on_cpu()
    if job["epochs"]:
        _scheduled(theirs, job["epochs"])
    return 1 if theirs.main([*job["arguments"], *words[1:]]) == -1 else 0


def only_pairs() -> None:
    """Let webdataset hand on and decode captions and pictures alone, in this process and its loaders.

    Members of other names never become part of a sample. Were one to, no decoder is left for it; and Pillow opens
    the formats that run no other program, whatever a picture's name says.
    """
    import PIL.Image
    from open_clip_train import data
    from webdataset import autodecode, tariterators

    for module in (data, tariterators):  # the one that training reads with, and the one of --val-data
        module.tar_file_expander = _selecting(module.tar_file_expander)
    decoders = autodecode.decoders
    for extension in [name for name in decoders if name not in TRAINED_ON]:
        del decoders[extension]
    autodecode.default_pre_handlers.clear()  # unpacks x.pyd.gz and goes on
    autodecode.IMAGE_EXTENSIONS[:] = sorted(OPEN_CLIP_READS)
    PIL.Image.init()
    PIL.Image.ID[:] = [name for name in PIL.Image.ID if name in FORMATS]


def _selecting(expand: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *words, **named: expand(*words, **{**named, "select_files": is_trained_on})


def is_trained_on(name: str) -> bool:
    """Whether a tar's member becomes part of a sample, by what follows the first dot of its file name."""
    return name.rpartition("/")[2].partition(".")[2].lower() in TRAINED_ON


def _ddp_on_cpu() -> None:
    """open_clip always names a device to DistributedDataParallel, which torch forbids for modules on a CPU."""
    import torch

    class OnCpu(torch.nn.parallel.DistributedDataParallel):
        def __init__(self, module: Any, device_ids: Any = None, **more: Any) -> None:
            super().__init__(module, **more)

    torch.nn.parallel.DistributedDataParallel = OnCpu  # type: ignore[misc, assignment]


def _scheduled(theirs: Any, epochs: list[str]) -> None:
    """Give each epoch a loader over its own shards: open_clip builds one loader for all epochs."""
    get_data, train_one_epoch = theirs.get_data, theirs.train_one_epoch
    made: dict[str, Any] = {}

    def keep(args: Any, preprocess: Any, **named: Any) -> Any:
        made.update(preprocess=preprocess, named=named)
        return get_data(args, preprocess, **named)

    def train(model: Any, data: Any, loss: Any, epoch: int, *rest: Any, **named: Any) -> Any:
        args = rest[4]  # after optimizer, scaler, scheduler and the distillation's model
        args.train_data = epochs[epoch]
        fresh = get_data(args, made["preprocess"], **{**made["named"], "epoch": epoch})
        return train_one_epoch(model, {**data, "train": fresh["train"]}, loss, epoch, *rest, **named)

    theirs.get_data, theirs.train_one_epoch = keep, train


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
