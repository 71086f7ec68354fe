"""The shell command that Ray's job supervisor runs: mmfilter by the interpreter that the cluster's workers have."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

# The supervisor runs it with /bin/sh in its own environment. Where Ray was started from a virtual environment that
# is not activated, neither `mmfilter` nor the right `python` is on PATH. Which interpreter starts the workers stands in
# the command line of the raylet, the parent of the supervisor ($PPID is the supervisor).
SCRIPT = r"""set -- {words}
raylet=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$PPID/status 2>/dev/null)
worker=$(tr '\000' '\n' 2>/dev/null </proc/$raylet/cmdline | sed -n 's/^--python_worker_command=//p')
case $worker in '"'*) worker=${{worker#?}}; worker=${{worker%%\"*}};; *) worker=${{worker%% *}};; esac
for python in {interpreters}; do
if [ -n "$python" ] && "$python" -c 'import jobs.cli' >/dev/null 2>&1; then exec "$python" -m mmfilter "$@"; fi
done
if command -v mmfilter >/dev/null; then exec mmfilter "$@"; fi
echo {absent} >&2
exit {code}"""
ABSENT = (
    "mmfilter: it is not installed for the interpreter that this cluster's workers have. Install it there on every "
    "node, or send it with --runtime-env (pip: [mmfilter])"
)
ABSENT_CODE = 127
MANAGED = ("pip", "uv", "conda")  # of a runtime environment: then the workers' interpreter is the first on PATH


def entrypoint(words: Sequence[str], runtime_env: Mapping[str, Any]) -> str:
    """The command for `mmfilter WORDS`; it exits with ABSENT_CODE where no interpreter has mmfilter."""
    path = ["python3", "python"]
    found = [*path, '"$worker"'] if any(name in runtime_env for name in MANAGED) else ['"$worker"', *path]
    return SCRIPT.format(
        words=shlex.join(words), interpreters=" ".join(found), absent=shlex.quote(ABSENT), code=ABSENT_CODE
    )
