"""open_clip's own training code, in a process of its own: `python -m mmfilter.open_clip_run JOB.json [WORD ...]`.

JOB.json is what `mmfilter.engine` wrote: the model's configuration, the words for `open_clip_train.main`,
and with a schedule the shards of each epoch. Further words come after those (`--resume latest`).
Started by torchrun there is one such process a GPU; open_clip finds its rank in the environment.
"""

import json
import sys
from typing import Any


def main(words: list[str]) -> int:
    """Train; the exit code."""
    import open_clip
    from open_clip_train import main as theirs

    with open(words[0], encoding="utf-8") as stream:
        job = json.load(stream)
    open_clip.add_model_config(job["config"])
    if job["device"] == "cpu":
        _ddp_on_cpu()
    if job["epochs"]:
        _scheduled(theirs, job["epochs"])
    return 1 if theirs.main([*job["arguments"], *words[1:]]) == -1 else 0


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
