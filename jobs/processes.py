"""The processes that this one started, and those that they started: Ray's, and open_clip's trainings.

From /proc, so on Linux; elsewhere nothing is found, and Ray's own watchers end its processes.
"""

import glob
import os
import signal


def descendants() -> dict[int, str]:
    """Process -> when it started, which tells it from a later one of the same number."""
    parents: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        pid = int(path.split("/")[2])
        fields = _stat(pid)
        if fields:
            parents.setdefault(int(fields[1]), []).append(pid)
            started[pid] = fields[19]
    processes, young = {}, [os.getpid()]
    while young:
        young = [child for parent in young for child in parents.get(parent, [])]
        processes.update({child: started[child] for child in young})
    return processes


def kill(processes: dict[int, str]) -> None:
    """SIGKILL to those that still run."""
    for pid, started in processes.items():
        fields = _stat(pid)
        if fields and fields[19] == started:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # it has just ended, or is another user's


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name; empty where the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rsplit(")", 1)[1].split()
    except OSError:
        return []
