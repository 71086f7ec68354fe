"""`submit`: `run` on a cluster, through Ray's job API. Submitted again, it attaches or goes on."""

import json
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

from mmfilter.errors import OK, UsageError
from mmfilter.text import uncoloured

from . import job_api
from . import options as o
from .entrypoint import ABSENT, ABSENT_CODE
from .job_api import Job
from .terminal import print

HeadAddress = Annotated[str, typer.Option("--address", help="The head's job server: http://HOST:8265.")]
SomePool = Annotated[
    list[str] | None, typer.Option("--pool", help="Shards, as for run, as the cluster sees them.", metavar="SHARDS")
]
RuntimeEnv = Annotated[
    str | None, typer.Option("--runtime-env", help="A YAML file: Ray's runtime environment for the job.")
]


def add(app: typer.Typer) -> None:
    @app.command()
    def submit(
        recipe: o.RecipeArg,
        address: HeadAddress,
        out: o.Out,
        pool: SomePool = None,
        name: o.Name = None,
        weights: o.Weights = None,
        uids: o.Uids = None,
        pool_id: o.PoolId = None,
        captions: o.Captions = None,
        workers: o.Workers = None,
        gpus: o.Gpus = None,
        threads: o.Threads = None,
        batch_size: o.BatchSize = None,
        decoders: o.Decoders = None,
        patience: o.Patience = 3600,
        redo_changed: o.Redo = False,
        allow_missing: o.AllowMissing = False,
        keep_going: o.KeepGoing = False,
        reshard: o.Reshard = True,
        runtime_env: RuntimeEnv = None,
        follow: Annotated[bool, typer.Option(help="Print the job's log until it ends.")] = True,
        status: Annotated[bool, typer.Option("--status", help="Say how the job is, and submit nothing.")] = False,
        logs: Annotated[bool, typer.Option("--logs", help="Print its log so far, and submit nothing.")] = False,
        stop: Annotated[bool, typer.Option("--stop", help="Stop it. Finished shards are kept.")] = False,
        as_json: o.Json = False,
    ) -> None:
        """`run` on a cluster, by Ray's job API. Submitted twice it attaches; after a failure it goes on."""
        from mmfilter.recipe import load_recipe

        from .check import Request, check_request
        from .outdir import absolute
        from .shards import check_visible

        asked = _asked(stop, logs, status)
        job = Job(load_recipe(recipe, weights).read_as(uids, pool_id, captions), absolute(out))
        if not asked and not pool:
            raise UsageError("--pool: say which shards; they are read on the cluster, so a URL or a shared folder")
        if not asked:
            check_visible(pool or [], allow_missing)
            check_request(job.recipe, Request("submit", job.out, name=name or job.recipe.name))
        words = _words(job, pool or [], name, reshard, redo_changed)
        words += _flags(workers=workers, gpus=gpus, threads=threads, batch_size=batch_size, decoders=decoders)
        words += _flags(patience=patience) + _switches(allow_missing=allow_missing, keep_going=keep_going)
        job = replace(job, words=tuple(words), runtime_env=job_api.read_env(runtime_env))
        with job_api.answers(address) as client:
            code = _look(client, job, asked, as_json) if asked else _start(client, job, follow, as_json)
        raise typer.Exit(code)


def _asked(stop: bool, logs: bool, status: bool) -> str:
    """Which of the three is asked for; "" for none. Raises UsageError for two."""
    if status + logs + stop > 1:
        raise UsageError("--status, --logs and --stop: one at a time")
    return "stop" if stop else "logs" if logs else "status" if status else ""


def _start(client: Any, job: Job, follow: bool, as_json: bool) -> int:
    submission, new = job_api.start(client, job)
    print(f"{submission} {'submitted' if new else 'runs already'}", file=sys.stderr)
    code = job_api.follow(client, submission) if follow else OK
    _tell(client, submission, as_json)
    return code


def _words(job: Job, pool: list[str], name: str | None, reshard: bool, redo: bool) -> list[str]:
    """`run ...` as the head runs it, in a folder that holds the recipe alone."""
    from mmfilter.patterns import split

    from .outdir import absolute

    words = ["run", job_api.RECIPE]
    words += [word for pattern in pool for word in ("--pool", "::".join(map(absolute, split(pattern))))]
    words += ["--out", job.out, "--address", "auto"]
    words += ["--name", name] if name else []
    return words + ([] if reshard else ["--no-reshard"]) + (["--redo-changed"] if redo else [])


def _flags(**given: float | None) -> list[str]:
    return [word for flag, n in given.items() if n is not None for word in (f"--{flag.replace('_', '-')}", str(n))]


def _switches(**given: bool) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name, on in given.items() if on]


def _look(client: Any, job: Job, what: str, as_json: bool) -> int:
    """--status, --logs, --stop: of the last submission."""
    before = job_api.earlier(client, job.name)
    if not before:
        raise UsageError(f"--{what}: no job {job.name} on this cluster; it is made from the recipe and --out")
    submission = before[-1].submission_id
    if what == "logs":
        print(uncoloured(client.get_job_logs(submission)), end="")
        return OK
    if what == "stop":
        client.stop_job(submission)
    _tell(client, submission, as_json)
    return OK


def _tell(client: Any, submission: str, as_json: bool) -> None:
    info = client.get_job_info(submission)
    message = ABSENT if info.driver_exit_code == ABSENT_CODE else (info.message or "").split("\n")[0]
    said = {"job": submission, "status": str(info.status.value), "message": message}
    said |= {"out": (info.metadata or {}).get("out", ""), "exit_code": info.driver_exit_code}
    print(json.dumps(said, indent=1) if as_json else f"{said['job']} {said['status']}  {said['message']}")
