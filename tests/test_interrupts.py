"""Ctrl-C and SIGTERM: one sentence, 130 or 143, nothing left behind (all moments: benchmarks/interrupts.py)."""

import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from jobs_util import descendants, leftovers, recipe_text, results
from tars import write_pool

from jobs import stopping
from jobs.cluster import Width
from jobs.crew import Crew
from jobs.run import RunOptions, run_recipe
from mmfilter.recipe import parse_recipe

TEXT = recipe_text("x", embed={}, scores=["phash", "language"], select={"language": {"is": "en"}})
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Command:
    """`mmfilter ...` in a process group of its own."""

    def __init__(self, *words):
        command = [sys.executable, "-m", "jobs", *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        env = {**os.environ, "MMFILTER_PROGRESS": "json"}
        self.process = subprocess.Popen(command, **pipes, env=env, start_new_session=True)

    def wait_for(self, pattern):
        """Until a file is there."""
        until = time.monotonic() + 120
        folder, pattern = pattern
        while not list(Path(folder).glob(pattern)) and time.monotonic() < until and self.process.poll() is None:
            time.sleep(0.01)

    def stop(self, number, group=False, again=()):
        """Send the signal; (exit code, what stderr says beside the lines of progress, processes that are left)."""
        started = descendants(self.process.pid)
        os.killpg(self.process.pid, number) if group else self.process.send_signal(number)
        for seconds in again:
            time.sleep(seconds)
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
        said = self.process.communicate(timeout=60)[1]
        until = time.monotonic() + 20
        while (left := [pid for pid in started if Path(f"/proc/{pid}").exists()]) and time.monotonic() < until:
            time.sleep(0.1)
        return self.process.returncode, [line for line in said.splitlines() if not line.startswith("{")], left


@pytest.fixture
def job(tmp_path):
    """The words of a run over forty shards, without --workers or --local."""
    write_pool(tmp_path / "pool", 40, 9)
    (tmp_path / "t.yaml").write_text(TEXT)
    return ["run", tmp_path / "t.yaml", "--pool", tmp_path / "pool", "--out", tmp_path / "out"]


@pytest.mark.slow
@pytest.mark.parametrize("number, group", [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)])
def test_fault_38_a_run_on_ray_is_interrupted_in_mid_shard(job, tmp_path, number, group):
    command = Command(*job, "--workers", "2")
    command.wait_for((tmp_path / "out", "metadata/*.json"))
    code, said, left = command.stop(number, group)
    assert code == CODES[number] and said == [stopping.SENTENCE.strip()] and left == []
    if not group:
        return  # once is enough for what follows
    recipe = parse_recipe(TEXT, "t")
    pool = sorted(map(str, (tmp_path / "pool").glob("*.tar")))
    for out in ("out", "whole"):
        run_recipe(recipe, pool, RunOptions(str(tmp_path / out), "t", Width(local=True)))
    assert results(tmp_path / "out") == results(tmp_path / "whole") and leftovers(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_ray_starts(job, tmp_path, number):
    """A second one, seconds later, ends it at once."""
    command = Command(*job, "--workers", "2")
    command.wait_for((tmp_path / "out", ".progress"))
    time.sleep(1)
    code, said, left = command.stop(number, again=(1.0,))
    assert code == CODES[number] and said == [stopping.SENTENCE.strip()] and left == []


@pytest.mark.slow
def test_a_pool_score_on_ray_is_interrupted(job, tmp_path):
    run_recipe(
        parse_recipe(TEXT, "t"),
        sorted(map(str, (tmp_path / "pool").glob("*.tar"))),
        RunOptions(str(tmp_path / "out"), "t", Width(local=True)),
    )
    command = Command("dedup", tmp_path / "out", "--hamming", "2", "--workers", "2")
    time.sleep(4)
    code, said, left = command.stop(signal.SIGINT, group=True)
    assert code in (0, 130) and left == []
    assert code == 0 or said == [stopping.SENTENCE.strip()]


@pytest.mark.parametrize("number", CODES)
def test_without_ray_a_signal_stops_at_once(job, tmp_path, number):
    command = Command(*job, "--local")
    command.wait_for((tmp_path / "out", "metadata/*.json"))
    began = time.monotonic()
    code, said, _ = command.stop(number)
    assert code == CODES[number] and said == [stopping.SENTENCE.strip()]
    assert time.monotonic() - began < 5


def test_a_signal_while_the_command_line_is_imported():
    command = Command("embed", "--help")
    time.sleep(0.25)
    code, said, _ = command.stop(signal.SIGINT)
    assert (code, said) == (130, [stopping.SENTENCE.strip()]) or code == 0


def test_control_c_at_a_terminal(job, tmp_path):
    """The terminal sends it to all of the foreground's processes; the bar of progress is there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "jobs", *map(str, job)])
    shown, sent, until = b"", False, time.monotonic() + 120
    while time.monotonic() < until:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not sent and list((tmp_path / "out").glob("metadata/*.json")):
            os.write(terminal, b"\x03")
            sent = True
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert sent and code == 130 and b"Traceback" not in shown, shown.decode()
    assert shown.decode().count("mmfilter: stopped;") == 1


def test_a_signal_that_was_told_of_does_not_keep_workers_from_being_heard(monkeypatch):
    """What still runs after Stopped waits for its workers, in place of asking without end."""
    monkeypatch.setattr(stopping, "STATE", stopping._State())
    with pytest.raises(stopping.Stopped):
        stopping.on_signal(signal.SIGINT, None)
    assert not stopping.pending()
    waits = []

    def wait(calls, **options):
        waits.append(options)
        return calls, []

    crew = SimpleNamespace(calls={"call": None}, ray=SimpleNamespace(wait=wait))
    assert Crew._wait(crew) == ["call"] and len(waits) == 1


def test_held_back_raises_at_its_end_in_place_of_another_error(monkeypatch):
    monkeypatch.setattr(stopping, "STATE", stopping._State())
    with pytest.raises(stopping.Stopped) as stopped, stopping.held_back():
        stopping.on_signal(signal.SIGTERM, None)
        raise ValueError("Ray's processes are gone")
    assert stopped.value.code == 143
    with stopping.held_back():
        stopping.on_signal(signal.SIGINT, None)
    stopping.check()  # once is enough


def test_a_reader_of_the_progress_that_ends_does_not_end_the_job(tmp_path):
    write_pool(tmp_path / "pool", 4, 10)
    recipe = tmp_path / "x.yaml"
    recipe.write_text(TEXT)
    heard, told = os.pipe()
    os.close(heard)
    words = ["run", recipe, "--pool", tmp_path / "pool", "--out", tmp_path / "o", "--local", "--progress", "json"]
    done = subprocess.run([sys.executable, "-m", "jobs", *map(str, words)], stdout=subprocess.PIPE, stderr=told)
    os.close(told)
    assert done.returncode == 0 and b"kept 40" in done.stdout
