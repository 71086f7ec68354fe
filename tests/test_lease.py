"""The lease on a run's folder on an object store: one driver at a time, a dead one's runs out (FAULT 46)."""

import time

import pytest
from store_util import served, store

from jobs import lease as leases
from jobs.outdir import only_driver
from mmfilter import storage
from mmfilter.errors import ConflictError

__all__ = ["served", "store"]  # fixtures


@pytest.fixture
def quick(monkeypatch):
    for name, value in (("BEAT", 0.1), ("LEASE", 0.8), ("LOOK", 0.05)):
        monkeypatch.setattr(leases, name, value)


def test_fault_46_two_drivers_on_a_store(store, quick):
    out = f"{store.root}/out"
    with only_driver(out):
        time.sleep(0.3)
        with pytest.raises(ConflictError, match="another mmfilter is working"), only_driver(out):
            pass
        assert storage.exists(f"{out}/.lock")
    assert not storage.exists(f"{out}/.lock")
    with only_driver(out):
        pass


def test_a_dead_drivers_lease_runs_out(store, quick, monkeypatch):
    out = f"{store.root}/out"
    storage.write_atomic(f"{out}/.lock", b'{"owner": "killed"}')
    started = time.monotonic()
    with only_driver(out):
        assert time.monotonic() - started >= leases.LEASE
        assert b"killed" not in storage.read_bytes(f"{out}/.lock")
    assert not storage.exists(f"{out}/.lock")


def test_who_loses_the_lease_is_stopped(store, quick, monkeypatch):
    out, signals = f"{store.root}/out", []
    monkeypatch.setattr(leases.os, "kill", lambda pid, number: signals.append(number))
    with only_driver(out):
        storage.write_atomic(f"{out}/.lock", b'{"owner": "another"}')
        time.sleep(0.4)
    assert signals == [leases.signal.SIGTERM]
    assert b"another" in storage.read_bytes(f"{out}/.lock")
