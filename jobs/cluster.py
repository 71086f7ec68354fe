"""Ray: start a local one or join a cluster, and say how wide a job is."""

import logging
import os
import secrets
import sys
import tempfile
from dataclasses import dataclass, replace
from typing import Any

from . import ray_start
from .stopping import held_back, starting

DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")  # of CUDA, ROCm, and CUDA on WSL
LOCAL_THREADS = 4  # that decode, where one process does everything: beside a model on one core
DECODER_CPUS = 4
"""Cores of a decoder that feeds a GPU: reading a tar is one thread's work, some 20,000 samples/s of it."""


@dataclass(frozen=True)
class Width:
    """How wide a job is. None means: as wide as the machines allow.

    `local` runs everything in this process, without Ray. `workers` are CPU workers; with GPUs there
    is one worker a GPU. `threads` decode ahead of each worker's model. `decoders` read and decode
    shards for the workers on cores of their own, for verbs that decode. `patience` is after how many
    seconds a worker that does not come back with its task is killed; 0: never.
    """

    address: str | None = None
    workers: int | None = None
    gpus: int | None = None
    threads: int | None = None
    batch_size: int | None = None
    local: bool = False
    decoders: int | None = None
    patience: float = 0.0


@dataclass(frozen=True)
class Shape:
    """A width settled against what there is: `workers` actors, each with `cpus` and `gpus`.

    `own` are the shards in flight that a worker decodes itself: on a GPU two, so that one reads while
    the other's last batch runs. `fed` are those that decoders of `decoder_cpus` feed it besides:
    one more than there are decoders, which waits for the first core that is free while others are written.
    """

    workers: int
    cpus: float
    gpus: int
    threads: int
    batch_size: int
    own: int = 1
    fed: int = 0
    decoder_cpus: int = 0

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def lanes(self) -> int:
        """Shards in flight a worker."""
        return self.own + self.fed


def start_ray(address: str | None) -> Any:
    """Join the cluster at `address`, or start Ray on this machine. Returns the ray module.

    The workers' working directory is set to an empty folder: otherwise Ray puts the driver's current
    folder on their path, and a file there called `index.py` or `jobs.py` would hide ours. Raises MMFilterError within
    a minute where there is no cluster to join, or Ray cannot be started.
    """
    with held_back(), starting():
        return _started(address)


def _started(address: str | None) -> Any:
    if address is None:
        _ask_for_a_token()
    import ray

    if ray.is_initialized():
        return ray
    empty = tempfile.mkdtemp(prefix="mmfilter-")
    ray_start.REMOVED_AT_EXIT.append(empty)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a submitted job's environment is added to, not refused
    place = ray_start.look_for_cluster(address) if address else ray_start.LOCAL
    options = {} if address else ray_start.local_options()
    with ray_start.bounded(place):
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"working_dir": empty, "env_vars": {"OMP_NUM_THREADS": "1"}},
            **options,
        )
    return ray


def _ask_for_a_token() -> None:
    """Ray's ports are open to the network and run what they are sent: let ours want a token (Ray 2.52 or newer).

    Ray reads the setting when it is imported; RAY_AUTH_MODE that is set already counts.
    """
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def machines(ray: Any) -> list[dict[str, float]]:
    """The resources of each node that is alive."""
    with held_back():
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def settle(width: Width, tasks: int, nodes: list[dict[str, float]] | None = None) -> Shape:
    """The shape for `tasks` tasks on a cluster's `nodes` (None: this process alone)."""
    if nodes is None:
        here = {"CPU": float(os.cpu_count() or 1), "GPU": 0.0 if width.gpus == 0 else float(local_gpus())}
        gpus = int(here["GPU"] if width.gpus is None else min(width.gpus, here["GPU"]))
        nodes = [here]
    else:
        there = int(sum(node.get("GPU", 0) for node in nodes))
        gpus = there if width.gpus is None else width.gpus
    if gpus:
        workers, share = max(1, min(gpus, tasks)), _share(nodes, width.threads or 1)
        shape = Shape(workers, share, 1, width.threads or share, width.batch_size or 256, own=2)
    else:
        cpus = int(sum(node.get("CPU", 0) for node in nodes)) - (width.decoders or 0)
        workers = cpus if width.workers is None else width.workers
        if width.address is None and not width.local:  # a worker that this machine has no core for would never start
            workers = min(workers, cpus)
        threads = width.threads or (max(1, min(cpus - 1, LOCAL_THREADS)) if width.local else 1)
        shape = Shape(max(1, min(workers, tasks)), 1, 0, threads, width.batch_size or 64)
    each = max(1, -(-tasks // shape.workers))  # more shards at a time would leave another worker without
    own = min(shape.own, each)
    fed = min(-(-width.decoders // shape.workers) + 1 if width.decoders else 0, each - own)
    return replace(shape, own=own, fed=fed, decoder_cpus=_decoder_cpus(nodes) if fed else 0)


def _share(nodes: list[dict[str, float]], unknown: int) -> int:
    """Cores for each GPU, so that each node has room for a worker a GPU; `unknown` where no node is there yet."""
    shares = [int(node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU", 0)]
    return max(1, min(shares, default=unknown))


def _decoder_cpus(nodes: list[dict[str, float]]) -> int:
    """`DECODER_CPUS` or as many as a node without a GPU has; where there is none with a GPU, a worker's one."""
    if not any(node.get("GPU", 0) for node in nodes):
        return 1
    return max(1, min([DECODER_CPUS, *(int(node["CPU"]) for node in nodes if _only_cpus(node))]))


def _only_cpus(node: dict[str, float]) -> bool:
    return node.get("CPU", 0) >= 1 and not node.get("GPU", 0)


def with_decoders(width: Width) -> Width:
    """`width` with as many decoders as there is room for on nodes without a GPU, beside workers that have one.

    None where nothing has a GPU: there a core is as well off with a worker.
    """
    if width.local or width.decoders is not None or width.gpus == 0:
        return replace(width, decoders=width.decoders or 0)
    nodes = machines(start_ray(width.address))
    each = _decoder_cpus(nodes)
    room = sum(int(node["CPU"] // each) for node in nodes if _only_cpus(node))
    return replace(width, decoders=room if any(node.get("GPU", 0) for node in nodes) else 0)


def device_of(width: Width) -> str:
    """The kind of device that models run on in a job of this width: cuda or cpu."""
    if width.gpus is not None:
        return "cuda" if width.gpus else "cpu"
    if width.address is not None and not width.local:
        return "cuda" if any(node.get("GPU", 0) for node in machines(start_ray(width.address))) else "cpu"
    return "cuda" if local_gpus() else "cpu"


def local_gpus() -> int:
    """GPUs of this machine. Where no driver shows a device, torch, whose import takes seconds, is not asked."""
    if sys.platform == "linux" and not any(map(os.path.exists, DEVICES)):
        return 0
    import torch

    return torch.cuda.device_count()
