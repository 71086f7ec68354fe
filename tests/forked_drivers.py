"""Drivers to be killed, each forked from a process that has loaded much and started no thread yet.

    python forked_drivers.py RECIPE POOL...

For a line `OUT SECONDS` a driver runs the recipe into OUT and gets SIGKILL after so long; answers with its exit status
and how long it lasted.
"""

import importlib
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

import jobs.look
import jobs.pool_scores
import jobs.reshard
import jobs.select
import mmfilter.embed
import mmfilter.shard
from jobs.cluster import Width
from jobs.run import RunOptions, run_recipe
from mmfilter.recipe import parse_recipe

LOADED = (torch, jobs.pool_scores, jobs.reshard, jobs.select, mmfilter.embed, mmfilter.shard)
with suppress(ImportError):
    importlib.import_module("pandas")  # pyarrow loads it where it is


def drive(recipe, pool, out):
    """In the child; it ends here. The report, which is no result, is what would take longest."""
    jobs.look.report_run = lambda *_, **__: ""
    run_recipe(parse_recipe(Path(recipe).read_text(), "t"), pool, RunOptions(out, "t", Width(local=True)))
    os._exit(0)


def killed(driver, seconds):
    """(exit status, seconds) of the child `driver`."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        done, status = os.waitpid(driver, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), time.monotonic() - began
        time.sleep(0.002)
    os.kill(driver, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(driver, 0)[1]), time.monotonic() - began


def main(recipe, *pool):
    for line in sys.stdin:
        out, seconds = line.split()
        driver = os.fork()
        if driver == 0:
            drive(recipe, pool, out)
        print(*killed(driver, float(seconds)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
