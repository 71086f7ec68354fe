"""A job on a machine that Ray takes to be short of memory from 5 GiB more than is used now: `python memory_util.py
OUT MARKS POOL`. Prints what the job came to; what it says of memory goes to stderr. Ray counts what the whole machine
uses: the job itself needs 2 GiB, the rest is for what else comes and goes on it meanwhile.
"""

import json
import os
import sys
from dataclasses import replace
from glob import glob

from jobs_util import Blow, recipe_text
from ray._private.utils import get_system_memory, get_used_memory


def main(out, marks, pool):
    limit = (get_used_memory() + (5 << 30)) / get_system_memory()
    os.environ |= {"RAY_memory_usage_threshold": f"{limit:.4f}", "RAY_memory_monitor_refresh_ms": "100"}
    from jobs.cluster import Width
    from jobs.counts import summary
    from jobs.embed import embed_pool
    from mmfilter.recipe import parse_recipe

    recipe = parse_recipe(recipe_text("x", embed={}, scores=[], select="everything"), "t")
    recipe = replace(recipe, scores=(Blow(marks=marks),))
    counts = embed_pool(recipe, sorted(glob(f"{pool}/*.tar")), out, Width(workers=2, gpus=0))
    print(json.dumps({**summary(counts), "aside": counts.set_aside}))


if __name__ == "__main__":
    main(*sys.argv[1:])
