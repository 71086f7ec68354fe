"""Train with open_clip's own code: prepare the job, run it, follow its log, and write the model's folder."""

import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from . import checkpoint, engine, pairs
from .engine import Engine, Job
from .errors import MMFilterError, need
from .hub import nothing_fetched
from .model_folder import begun
from .schedule import load_schedule
from .start import configuration, merges_for, vocabulary
from .storage import write_atomic
from .train import check, held_out_auc, sources, worked_out
from .train_identity import made_from
from .train_options import Row, TrainOptions, TrainReport
from .train_record import record

LINE = re.compile(r"Train Epoch: (\d+) \[\s*(\d+)/(\d+) .*?([\d.e+]+)/s,.*\bLoss: ([\w.+-]+)")
"""open_clip's progress: epoch from 0, pairs of the epoch so far, pairs of an epoch, pairs/s, loss."""
PR_SET_PDEATHSIG = 1  # of prctl(2)


class Prepared:
    """A training that can be started: its job file, and what the model's folder will say of it."""

    def __init__(
        self, options: TrainOptions, wide: Engine, resume: bool = False, copy: engine.Copy = engine.copy_here
    ) -> None:
        """Learn the vocabulary, copy shards where that is needed, write the job. Raises as `train_with_open_clip`."""
        self.options, self.engine = asked(options, wide)
        self.config, weights = configuration(options.model, options.pretrained)
        self.source, self.held = sources(self.options, self.config["preprocess_cfg"])
        self.folder = os.path.join(options.out, engine.FOLDER)
        self.path, self.resume = os.path.join(self.folder, "job.json"), resume
        self.made = made_from(self.options, self.source.paths)
        os.makedirs(self.folder, exist_ok=True)
        merges = merges_for(options.vocabulary, self.config["model_cfg"], weights)
        self.options = replace(self.options, vocabulary=merges)
        vocabulary(merges, options.out, self.config["model_cfg"], self.source)
        data, epochs = engine.shards(self.options, self.engine, self.source, copy)
        words = engine.arguments(self.options, self.engine, self.config["preprocess_cfg"], weights, data)
        job = Job(self._registered(), self.options.device, words, epochs, self.made)
        engine.write_job(self.path, job, resume)
        self.arguments = words

    def _registered(self) -> str:
        """The configuration as open_clip registers it: the vocabulary's path is absolute there."""
        path = os.path.join(self.folder, f"{engine.NAME}.json")
        cfg = json.loads(json.dumps(self.config["model_cfg"]))
        checkpoint.resolve_vocabulary(cfg["text_cfg"], self.options.out)
        write_atomic(path, json.dumps(cfg, indent=1).encode())
        return path

    def command(self) -> list[str]:
        """What starts it."""
        return [*engine.command(self.path, self.engine.processes), *(["--resume", "latest"] if self.resume else [])]

    @property
    def latest(self) -> str:
        """The last checkpoint's path."""
        return os.path.join(self.folder, "run", "checkpoints", engine.LATEST)

    def complete(self) -> bool:
        """Whether the last checkpoint is that of the last epoch: a training by one's own torchrun is only exported."""
        import torch

        if not os.path.exists(self.latest):
            return False
        kept = torch.load(self.latest, map_location="cpu", weights_only=True, mmap=True)
        return bool(kept["epoch"] >= self.engine.epochs)


def asked(options: TrainOptions, wide: Engine) -> tuple[TrainOptions, Engine]:
    """Both with what a schedule says filled in, checked. Raises UsageError, DataError."""
    options = worked_out(replace(options, out=os.path.abspath(options.out)))
    if options.schedule:
        wide = replace(wide, epochs=len(load_schedule(options.schedule)))
    check(options)
    engine.check(options, wide)
    return options, wide


def planned(options: TrainOptions, wide: Engine) -> str:
    """The command and the words of a training, for a person. Writes and fetches nothing. Raises as Prepared."""
    options, wide = asked(options, wide)
    with nothing_fetched():
        config, weights = configuration(options.model, options.pretrained)
    folder = os.path.join(options.out, engine.FOLDER)
    source, _ = sources(options, config["preprocess_cfg"])
    copied = [os.path.join(folder, "shards", "*.tar")]
    data = engine.own_shards(options, source) or copied
    data = data if len(data) <= 4 else [data[0], f"({len(data) - 2} more)", data[-1]]
    words = engine.arguments(options, wide, config["preprocess_cfg"], weights, data)
    start = shlex.join(engine.command(os.path.join(folder, "job.json"), wide.processes))
    number = engine.steps(options, wide) * wide.epochs
    what = f"{number:,} steps of {options.batch:,} pairs in {wide.epochs} epochs" + (
        "; the pairs are copied to new shards first" if data == copied else ""
    )
    return f"{what}\n{start}\nwhich calls open_clip_train with\n{shlex.join(words)}"


def train_with_open_clip(
    options: TrainOptions,
    wide: Engine = Engine(),
    resume: bool = False,
    say: Callable[[dict[str, Any]], None] = lambda row: None,
    copy: engine.Copy = engine.copy_here,
) -> TrainReport:
    """`mmfilter.train.train`, by open_clip_train: on GPUs, on several of them, and resumable after each epoch.

    Writes the same model folder, and `open_clip/` in it with the job, the log and the checkpoints.
    Trains on the `txt` of each sample. Raises UsageError, DataError, MissingDependency, ConflictError when the
    folder holds another training, MMFilterError with open_clip's last words when it fails.
    """
    started = time.perf_counter()
    need("pandas", "mmfilter[train]")  # open_clip_train imports it: now, and not after the shards are copied
    with begun(options.out):
        prepared = Prepared(options, wide, resume, copy)
        if not prepared.complete():
            _run(prepared, say)
        return _export(prepared, started)


def _run(prepared: Prepared, say: Callable[[dict[str, Any]], None]) -> None:
    tail: deque[str] = deque(maxlen=15)
    env = {**os.environ, "OMP_NUM_THREADS": str(prepared.options.threads), "PYTHONUNBUFFERED": "1"}
    words = prepared.command()
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, preexec_fn=_ends_with_parent
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                tail.append(line)
                row = _row(line, prepared)
                if row:
                    say(row)
        except BaseException:  # stopped: else the end of the block waits for the whole training
            process.terminate()
            raise
    if process.returncode:
        raise MMFilterError(
            f"open_clip_train ended with {process.returncode}; its log is {prepared.folder}/run/out.log. "
            f"Its last words:\n{''.join(tail)}Run again: {shlex.join(words)}"
        )


def _ends_with_parent() -> None:
    """In the child: a worker of `rank` that is killed does not leave its training behind. The command line blocks
    signals (jobs/stopping.py), and a process starts with its parent's mask."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _row(line: str, prepared: Prepared) -> dict[str, Any] | None:
    """A row of progress from a line of the log; None for any other line."""
    found = LINE.search(line)
    if not found:
        return None
    epoch, seen = int(found[1]), int(found[2])
    per_epoch = engine.steps(prepared.options, prepared.engine)
    return {
        "step": epoch * per_epoch + seen // prepared.options.batch,
        "steps": per_epoch * prepared.engine.epochs,
        "loss": round(float(found[5]), 4),
        "pairs_per_second": round(float(found[4]), 1),
    }


def loss_curve(prepared: Prepared) -> list[Row]:
    """(step, pairs seen, loss) from the log, earlier parts of a resumed training included."""
    with open(os.path.join(prepared.folder, "run", "out.log"), encoding="utf-8", errors="replace") as stream:
        rows = [row for row in (_row(line, prepared) for line in stream) if row]
    curve = {row["step"]: row["loss"] for row in rows}  # the later one, where a part was done again
    return [(step, step * prepared.options.batch, curve[step]) for step in sorted(curve)]


def _export(prepared: Prepared, started: float) -> TrainReport:
    """The last checkpoint as a model folder, and how it came about."""
    options = prepared.options
    cfg = json.loads(json.dumps(prepared.config["model_cfg"]))
    model = checkpoint.build_model(cfg)
    checkpoint.load_weights(model, prepared.latest)
    checkpoint.save(options.out, model, prepared.config)
    measured = held_out_auc(options.out, prepared.held) if prepared.held else None
    curve = loss_curve(prepared)
    count = sum(weight.numel() for weight in model.parameters())
    seconds = round(time.perf_counter() - started, 1)
    report = TrainReport(options.out, curve[-1][0], count, seconds, curve, measured, pairs.counted(prepared.source))
    told = {**asdict(prepared.engine), "command": shlex.join(prepared.command()), "arguments": prepared.arguments}
    record(report, options, prepared.source, engine=told, made_from=prepared.made)
    return report
