"""Ray: start a local one or join a cluster, and say how wide a job is."""

import atexit
import logging
import os
import secrets
import shutil
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from mmfilter.errors import MMFilterError


@dataclass(frozen=True)
class Width:
    """How wide a job runs. None means: as wide as the machines allow.

    `local` runs everything in this process, without Ray. `workers` are CPU workers; with GPUs there
    is one worker a GPU. `threads` decode ahead of each worker's model.
    `patience` is after how many seconds a worker that does not come back with its task is killed; 0: never.
    """

    address: str | None = None
    workers: int | None = None
    gpus: int | None = None
    threads: int | None = None
    batch_size: int | None = None
    local: bool = False
    patience: float = 0.0


@dataclass(frozen=True)
class Shape:
    """A width settled against what there is: `workers` actors, each with `cpus` and `gpus`."""

    workers: int
    cpus: float
    gpus: int
    threads: int
    batch_size: int

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def overlap(self) -> int:
        """Shards in flight a worker: on a GPU two, so that one reads while the other's last batch runs."""
        return 2 if self.gpus else 1


def start_ray(address: str | None) -> Any:
    """Join the cluster at `address`, or start Ray on this machine. Returns the ray module.

    The workers' working directory is set to an empty folder: otherwise Ray puts the driver's current
    folder on their path, and a file there called `index.py` or `jobs.py` would hide ours.
    """
    if address is None:
        _ask_for_a_token()
    import ray

    if ray.is_initialized():
        return ray
    empty = tempfile.mkdtemp(prefix="mmfilter-")
    atexit.register(shutil.rmtree, empty, ignore_errors=True)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a submitted job's environment is added to, not refused
    options: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"working_dir": empty, "env_vars": {"OMP_NUM_THREADS": "1"}},
            **options,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = f"the cluster at {address}" if address else "a local Ray"
        raise MMFilterError(
            f"cannot start {place}: {error}. --local runs the job in one process without Ray"
        ) from error
    return ray


def _ask_for_a_token() -> None:
    """Ray's ports are open to the network and run what they are sent: let ours want a token (Ray 2.52 or newer).

    Ray reads the setting when it is imported; RAY_AUTH_MODE that is set already counts.
    """
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def settle(width: Width, tasks: int, resources: dict[str, float] | None = None) -> Shape:
    """The shape for `tasks` tasks on a cluster's `resources` (None: this process alone)."""
    if resources is None:
        cpus, gpus = float(os.cpu_count() or 1), 0 if width.gpus == 0 else _local_gpus()
    else:
        cpus, gpus = resources.get("CPU", 1.0), int(resources.get("GPU", 0))
    gpus = gpus if width.gpus is None else min(width.gpus, gpus) if resources is None else width.gpus
    if gpus:
        workers = max(1, min(gpus, tasks))
        share = max(1.0, cpus // gpus)
        return Shape(workers, share, 1, width.threads or int(share), width.batch_size or 256)
    workers = max(1, min(width.workers or int(cpus), tasks))
    return Shape(workers, 1, 0, width.threads or 1, width.batch_size or 64)


def _local_gpus() -> int:
    import torch

    return torch.cuda.device_count()
