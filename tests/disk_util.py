"""A run on a disk that fills up, in a mount of its own: `unshare -rm python disk_util.py FOLDER POOL RECIPE`.

FOLDER/out is a tmpfs. At each stage it is filled to the brim, the command is run, room is made, and it is run again;
then it is read-only. Prints one JSON object: stage -> [exit code, message, what is half written or counted].
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from jobs_util import leftovers, results

from jobs import cli


def command(*words):
    """(exit code, stderr) of the command line, in this process."""
    said, sys.argv = io.StringIO(), ["mmfilter", *map(str, words)]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code, said.getvalue()
    return None, said.getvalue()


def fill(folder, leave):
    """Take all room but `leave` bytes."""
    free = shutil.disk_usage(folder).free
    Path(folder, "filler").write_bytes(bytes(max(free - leave, 0)))


def main(folder, pool, recipe):
    out, told = Path(folder, "out"), {}
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(out)], check=True)
    args = ("--pool", pool, "--out", out)

    def full(stage, leave, *words):
        fill(out, leave)
        code, said = command(*words)
        told[stage] = [code, said.splitlines()[-1], [*leftovers(out), *os.listdir(out / "attempts")]]
        (out / "filler").unlink()

    os.mkdir(out / "attempts")
    full("lock", 0, "embed", recipe, *args, "--local")
    full("embed", 60_000, "embed", recipe, *args, "--local")
    assert command("embed", recipe, *args, "--local")[0] == 0
    full("select", 0, "select", recipe, "--out", out, "--name", "t")
    full("reshard", 30_000, "run", recipe, *args, "--local", "--name", "t")
    assert command("run", recipe, *args, "--local", "--name", "t")[0] == 0
    told["results"] = results(out)
    subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
    code, said = command("run", recipe, *args, "--local")
    told["read-only"] = [code, said.splitlines()[-1], []]
    print(json.dumps(told))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", "")
    main(*sys.argv[1:])
