"""How wide a job is on what there is: workers, their cores, and decoders beside them."""

import os

import pytest

from jobs.cluster import Width, settle, with_decoders
from jobs.driver import drive

HEAD, CPUS, GPUS = {"CPU": 0.0}, {"CPU": 32.0}, {"CPU": 16.0, "GPU": 2.0}


def test_a_worker_a_gpu_with_its_share_of_its_own_node():
    """Cores of nodes without a GPU are not shared out: a worker that wanted them would never start."""
    shape = settle(Width(address="auto"), 1000, [HEAD, GPUS, {"CPU": 8.0, "GPU": 2.0}, CPUS])
    assert (shape.workers, shape.cpus, shape.threads, shape.lanes) == (4, 4, 4, 2)
    waits = settle(Width(address="auto", gpus=8, threads=6), 1000, [HEAD, CPUS])
    assert (waits.workers, waits.cpus, waits.device) == (8, 6, "cuda"), "its machines are still to come"


def test_a_core_a_worker_without_gpus():
    nodes = [HEAD, CPUS, {"CPU": 8.0}]
    assert settle(Width(address="auto"), 1000, nodes).workers == 40
    assert settle(Width(address="auto"), 7, nodes).workers == 7
    assert settle(Width(address="auto", workers=99), 1000, nodes).workers == 99, "a cluster may grow"
    assert settle(Width(workers=99), 1000, [{"CPU": 2.0}]).workers == 2, "this machine does not"


def test_decoders_are_lanes_beside_a_workers_own():
    shape = settle(Width(address="auto", decoders=6), 1000, [GPUS, GPUS, CPUS])
    assert (shape.workers, shape.own, shape.fed, shape.lanes, shape.decoder_cpus) == (4, 2, 3, 5, 4)
    few = settle(Width(address="auto", decoders=6), 9, [GPUS, GPUS, CPUS])
    assert (few.own, few.fed) == (2, 1), "no worker has more shards at a time than leaves another without"
    one = settle(Width(decoders=1), 1000, [{"CPU": 2.0}])
    assert (one.workers, one.own, one.fed, one.decoder_cpus) == (1, 1, 2, 1), "the decoder has the other core"
    assert settle(Width(address="auto", decoders=4), 1000, [GPUS, {"CPU": 2.0}]).decoder_cpus == 2


@pytest.mark.parametrize(
    ("nodes", "width", "decoders"),
    [
        ([HEAD, GPUS, CPUS, CPUS], Width(address="auto"), 16),
        ([HEAD, GPUS], Width(address="auto"), 0),
        ([HEAD, CPUS], Width(address="auto"), 0),
        ([HEAD, GPUS, CPUS], Width(address="auto", gpus=0), 0),
        ([HEAD, GPUS, CPUS], Width(address="auto", decoders=3), 3),
        ([HEAD, GPUS, CPUS], Width(local=True), 0),
    ],
)
def test_decoders_are_by_default_where_nodes_without_a_gpu_stand_beside_those_with(nodes, width, decoders, monkeypatch):
    monkeypatch.setattr("jobs.cluster.start_ray", lambda address: None)
    monkeypatch.setattr("jobs.cluster.machines", lambda ray: nodes)
    assert with_decoders(width).decoders == decoders


class Doubles:
    """Two times a task, by which worker."""

    def __call__(self, setup):
        return lambda task: (2 * int(task), os.getpid())


def test_a_job_starts_with_the_workers_that_find_room(ray_here, monkeypatch):
    """Five are asked for where two fit; and what is sent never waits in a worker's queue."""
    sent = []
    monkeypatch.setattr("jobs.beat.sent", sent.append)
    tasks, seen = [str(n) for n in range(40)], {}
    for task, (twice, worker) in drive(tasks, Doubles(), Width(address="auto", workers=5, gpus=0)):
        seen[task] = (twice, worker)
        assert len(sent) - len(seen) <= 5
    assert {task: twice for task, (twice, _) in seen.items()} == {str(n): 2 * n for n in range(40)}
    assert len({worker for _, worker in seen.values()}) <= int(ray_here.cluster_resources()["CPU"])
