"""Ray's job API as `submit` uses it: what a job is called, whether it runs already, how it is sent and followed."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmfilter.errors import FAILED, OK, SET_ASIDE, MMFilterError, UsageError, need
from mmfilter.text import uncoloured

from .entrypoint import entrypoint
from .terminal import print

RECIPE = "recipe.yaml"
LIVE = ("PENDING", "RUNNING")
NO_AGENT = "No available agent"
NO_AGENT_SAYS = (
    "the job server answers, but its node has no agent that takes jobs. The agent has died, or another Ray on that "
    "machine has its port (52365). On the head, look at dashboard_agent.log in /tmp/ray/session_latest/logs, or start "
    "Ray again with `ray start --head --dashboard-agent-listen-port PORT`"
)
AGENT_WAIT_S = 30  # an agent is there within seconds of its head
CONNECT_S, ANSWER_S = 5.0, 15.0  # that a job server may take
TRIES, PAUSE = 6, 0.5  # to be connected again: after 1, 2, 4, 8 and 16 s


@dataclass(frozen=True)
class Job:
    """What is submitted: `words` after `mmfilter`, the recipe beside them, and where it writes."""

    recipe: Any
    out: str
    words: tuple[str, ...] = ()
    runtime_env: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The same for the same recipe and OUT; a second, third, ... submission adds -2, -3, ..."""
        from mmfilter.provenance import fingerprint

        return f"mmfilter-{self.recipe.name}-{fingerprint([self.out, self.recipe.source])[:12]}"


def read_env(path: str | None) -> dict[str, Any]:
    """A runtime environment's YAML. Raises UsageError; `working_dir` is ours, as the recipe travels in it."""
    from mmfilter import storage
    from mmfilter.yaml_file import parse_yaml

    if path is None:
        return {}
    try:
        env = parse_yaml(storage.read_bytes(path).decode(), path) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(env, dict) or not isinstance(env.get("env_vars") or {}, dict):
        raise UsageError(f"{path}: a runtime environment is a mapping, and so are its env_vars")
    if "working_dir" in env:
        raise UsageError(f"{path}: working_dir: the recipe is sent in it; send code of your own as py_modules")
    return env


@contextmanager
def answers(address: str) -> Iterator[Any]:
    """Ray's client for the job server at `address`. What it raises becomes an MMFilterError with what to do.

    With RAY_AUTH_MODE=token it sends the token of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
    """
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"--address {address}: a job server's begins with http:// or https://; `run` joins Ray itself")
    for module in ("requests", "aiohttp"):
        need(module, "mmfilter[cluster]")
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # Ray would take these in place of the address that was given
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    _look_for_server(address)
    try:
        client = JobSubmissionClient(address)
        yield client
    except AuthenticationError as error:
        why = str(error).splitlines()[0]
        raise MMFilterError(
            f"{address}: the cluster wants another token ({why}); set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH, the same as on the cluster"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:  # requests' errors are OSErrors
        why = ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1]
        raise MMFilterError(
            f"{address}: {why.strip()} (the job server answered before, so the address is right; look whether the head "
            "still runs)"
        ) from error


def _look_for_server(address: str) -> None:
    """Raise MMFilterError where no job server answers at `address`; Ray's client would wait without end."""
    requests = need("requests", "mmfilter[cluster]")
    advice = "Give the address of the head's dashboard, http://HOST:8265 by default, and look whether the head runs"
    try:
        answer = requests.get(f"{address.rstrip('/')}/api/version", timeout=(CONNECT_S, ANSWER_S))
        told = {} if answer.status_code in (401, 403) else answer.json()  # the client says what a token lacks
        found = isinstance(told, dict) and ("ray_version" in told or not told)
    except requests.exceptions.JSONDecodeError:
        found = False
    except requests.exceptions.InvalidURL as error:
        raise UsageError(f"--address {address}: this is no address ({error}). {advice}") from error
    except OSError as error:  # all others of requests
        timeout = isinstance(error, requests.exceptions.Timeout)
        why = f"no answer within {ANSWER_S:.0f} s" if timeout else _innermost(error)
        raise MMFilterError(f"{address}: no job server answers there ({why}). {advice}") from error
    if not found:
        raise MMFilterError(f"{address}: what answers there is no job server of Ray's. {advice}")


def _innermost(error: BaseException) -> str:
    """The reason that the network gives, below what each library puts around it."""
    while inner := getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, Exception)), None):
        if not isinstance(inner, BaseException):
            break
        error = inner
    told = getattr(error, "strerror", None) or getattr(error.__cause__, "strerror", None) or str(error)
    return str(told)[:200]


def earlier(client: Any, name: str) -> list[Any]:
    """Submissions of this job on the cluster, first to last."""
    numbered = {}
    for info in client.list_jobs():
        base, _, number = (info.submission_id or "").removeprefix(name).partition("-")
        if (info.submission_id or "").startswith(name) and not base and (number.isdigit() or not number):
            numbered[int(number or 1)] = info
    return [numbered[number] for number in sorted(numbered)]


def start(client: Any, job: Job) -> tuple[str, bool]:
    """(submission id, whether it is new). A live submission of the same job is attached to."""
    before = earlier(client, job.name)
    if before and before[-1].status in LIVE:
        return before[-1].submission_id, False
    number = int(before[-1].submission_id.removeprefix(job.name).lstrip("-") or 1) + 1 if before else 1
    submission = job.name if number == 1 else f"{job.name}-{number}"
    env_vars = {**(job.runtime_env.get("env_vars") or {}), "MMFILTER_JOB": submission}
    with tempfile.TemporaryDirectory(prefix="mmfilter-") as folder:
        Path(folder, RECIPE).write_text(recipe_text(job.recipe), encoding="utf-8")
        try:
            _when_ready(
                partial(
                    client.submit_job,
                    entrypoint=entrypoint(job.words, job.runtime_env),
                    submission_id=submission,
                    runtime_env={**job.runtime_env, "env_vars": env_vars, "working_dir": folder},
                    metadata={"out": job.out, "recipe": job.recipe.name},
                )
            )
        except RuntimeError:
            if any(info.submission_id == submission for info in client.list_jobs()):
                return submission, False  # somebody else was quicker with the same
            raise
    return submission, True


def _when_ready(submit: Callable[[], Any]) -> None:
    """Submit; again for AGENT_WAIT_S while a head that has just started has no agent that takes jobs.

    Each answer "No available agent" itself takes the server ten seconds. Raises MMFilterError.
    """
    until = time.monotonic() + AGENT_WAIT_S
    while True:
        try:
            submit()
            return
        except RuntimeError as error:
            if NO_AGENT not in str(error):
                raise
            if time.monotonic() >= until:
                raise MMFilterError(NO_AGENT_SAYS) from error
        print(
            f"mmfilter: the job server answers, but its node has no agent that takes jobs yet; trying again for "
            f"{max(0, until - time.monotonic()):.0f} s",
            file=sys.stderr,
        )
        time.sleep(PAUSE * 2)


def recipe_text(recipe: Any) -> str:
    """The recipe as it is sent: its model folders by their full paths, as it leaves the folder it lay in."""
    source = dict(recipe.source)
    for name, spec in recipe.embed.items():
        given = source["embed"][name]
        given = {"model": given} if isinstance(given, str) else given
        source["embed"] = {**source["embed"], name: {**given, "model": spec.model}}
    return json.dumps(source, indent=1)  # JSON is YAML


def follow(client: Any, submission: str) -> int:
    """Print the log until the job ends; returns its exit code. Ctrl-C leaves the job alone.

    A connection that breaks is made again, and the log goes on where it was. Raises what the last of TRIES raises.
    """
    import asyncio

    from .stopping import Stopped

    printed = failures = 0
    try:
        while True:
            try:
                for text in _ahead_of(client, submission, asyncio.Runner(), printed):
                    print(uncoloured(text), end="", flush=True, file=sys.stderr)
                    printed, failures = printed + len(text), 0
                info = client.get_job_info(submission)
                if info.status not in LIVE:
                    break
            except (OSError, RuntimeError, need("aiohttp", "mmfilter[cluster]").ClientError):
                failures += 1
                if failures == TRIES:
                    raise
            time.sleep(PAUSE * 2**failures)
    except Stopped as stopped:
        print(f"\nmmfilter: {submission} goes on; --stop stops it, --status asks after it", file=sys.stderr)
        raise SystemExit(stopped.code) from None
    if info.status == "SUCCEEDED":
        return OK
    return SET_ASIDE if info.driver_exit_code == SET_ASIDE else FAILED


def _ahead_of(client: Any, submission: str, runner: Any, printed: int) -> Iterator[str]:
    """The log's pieces as they come, from the character `printed` on: Ray sends it from the start."""
    pieces = client.tail_job_logs(submission)

    async def piece_or_none() -> str | None:
        return await anext(pieces, None)

    with runner:
        while (piece := runner.run(piece_or_none())) is not None:
            text, printed = piece[printed:], max(0, printed - len(piece))
            if text:
                yield text
