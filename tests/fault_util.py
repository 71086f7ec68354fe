"""Faults of disks and mounts, injected where this process asks its system: the n-th call of a kind below a folder."""

import builtins
import contextlib
import os
from types import SimpleNamespace

FOREVER = 1 << 30
CALLS = {"stat": "stat", "list": "listdir", "fsync": "fsync", "rename": "replace", "unlink": "unlink"}


class Failing:
    """An unbuffered file whose reads and writes are counted, and fail where that was asked for."""

    def __init__(self, file, path, met):
        self.file, self.path, self.met = file, path, met

    def __getattr__(self, name):
        return getattr(self.file, name)

    def readinto(self, buffer):
        self.met("read", self.path)
        return self.file.readinto(buffer)

    def readall(self):
        self.met("read", self.path)
        return self.file.readall()

    def write(self, data):
        self.met("write", self.path)
        return self.file.write(data)


@contextlib.contextmanager
def fault(monkeypatch, kind, below, number, n=1, times=1):
    """Calls `kind` (open, read, write, or one of CALLS) on paths that begin with `below`, from the n-th on and so many
    times, raise OSError `number`. Yields what was met: `calls` of the kind, and `failed`.
    """
    told = SimpleNamespace(calls=0, failed=0)

    def met(what, path):
        if what == kind and str(path).startswith(str(below)):
            told.calls += 1
            if n <= told.calls < n + times:
                told.failed += 1
                raise OSError(number, os.strerror(number))

    def opened(file, mode="r", *args, **kwargs):
        if isinstance(file, (str, os.PathLike)):
            met("open", file)
        found = real_open(file, mode, *args, **kwargs)
        return Failing(found, os.fspath(file), met) if kwargs.get("buffering") == 0 else found

    def wrapped(what, real):
        def call(path=".", *args, **kwargs):
            met(what, os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path))
            return real(path, *args, **kwargs)

        return call

    real_open = builtins.open
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        if kind in CALLS:
            patch.setattr(os, CALLS[kind], wrapped(kind, getattr(os, CALLS[kind])))
        yield told
