"""What goes wrong where Ray is started or joined: looked for before, bounded in time, and said in a sentence.

Ray itself waits for minutes where nothing listens at an address, cannot be interrupted while it does, and ends in a
traceback where it has no short temporary folder or no shared memory.
"""

import atexit
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmfilter.errors import MMFilterError, UsageError

from . import processes, stopping

START_S = 55.0  # that Ray may take to start or to be joined; on two busy cores it takes up to 20
VARIABLE = "MMFILTER_RAY_START_S"
CONNECT_S = 5.0  # for a connection, and to ask again where one is refused: a head may have just been started
ANSWER_S = 10.0
SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes of a unix socket's path at most
LONGEST = SOCKET_PATH - len("/ray/session_2026-12-01_10-42-19_276057_1234567/sockets/plasma_store")  # of a folder
SHARED = "/dev/shm"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # how a gRPC client begins
SETTINGS = 4  # the type of the frame that an HTTP/2 server answers with
REMOVED_AT_EXIT: list[str] = []  # temporary folders
LOCAL = "a Ray on this machine"
FORM = "an address is HOST:PORT, as `ray start --head` prints it, or auto"
INSTEAD = "--local runs the job in one process without Ray"


def look_for_cluster(address: str) -> str:
    """What messages call the cluster at `address`.

    Raises MMFilterError where no head answers there, UsageError where it is no address.
    """
    place = _place(address, address)
    found = _endpoint(address, place)
    if found is None:
        return place
    place = _place(address, found)
    host, _, port = found.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UsageError(f"{place}: {FORM}")
    try:
        with _connected(host.strip("[]"), int(port)) as connection:
            answers = "RAY_USE_TLS" in os.environ or _is_grpc(connection)
    except OSError as error:
        raise MMFilterError(
            f"{place}: nothing answers there ({error.strerror or error}). Look whether the head runs and whether this "
            f"is its address: `ray start --head` prints it, with port 6379 by default. {INSTEAD}"
        ) from error
    if not answers:
        raise MMFilterError(
            f"{place}: what listens there is no Ray head. The address is the one that `ray start --head` prints, with "
            "port 6379 by default; `mmfilter submit` takes the dashboard's, http://HOST:8265"
        )
    return place


def _place(address: str, found: str) -> str:
    if address != "auto":
        return f"the cluster at {address}"
    if given := os.environ.get("RAY_ADDRESS"):
        return f"the cluster at {given} (RAY_ADDRESS, which --address auto takes)"
    return f"the cluster at {found} (which --address auto found)"


def _endpoint(address: str, place: str) -> str | None:
    """HOST:PORT that Ray would connect to, as Ray itself finds it; None where it would look no further."""
    if address.startswith("ray://"):
        return address
    from ray._private import services

    try:
        return services.canonicalize_bootstrap_address(address)
    except ConnectionError as error:
        raise MMFilterError(
            "--address auto: no Ray runs on this machine that could be joined. Start one (`ray start --head`), give "
            f"its HOST:PORT, or leave --address out to start one for this job. {INSTEAD}"
        ) from error
    except ValueError as error:
        raise UsageError(f"{place}: {FORM}") from error
    except OSError as error:  # a host's name that nobody knows
        raise MMFilterError(f"{place}: the host is not known ({error.strerror or error})") from error
    except AttributeError:
        return None  # a Ray that has it elsewhere


def _connected(host: str, port: int) -> socket.socket:
    until = time.monotonic() + CONNECT_S
    while True:
        try:
            return socket.create_connection((host, port), CONNECT_S)
        except ConnectionRefusedError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.5)


def _is_grpc(connection: socket.socket) -> bool:
    """Whether the other side speaks HTTP/2, as Ray's head does."""
    connection.settimeout(ANSWER_S)
    try:
        connection.sendall(HTTP2)
        head = b""
        while len(head) < 9 and (part := connection.recv(9 - len(head))):
            head += part
    except OSError:
        return False
    return len(head) == 9 and head[3] == SETTINGS


def local_options() -> dict[str, Any]:
    """What `ray.init` is told for a local Ray on this machine: where its files lie, if not where Ray would put them.

    The path of a unix socket is short, so a long TMPDIR is left for /tmp. Ray's shared memory is left for a folder
    where /dev/shm cannot be written. Raises MMFilterError where no folder can be.
    """
    options: dict[str, Any] = {"include_dashboard": False}
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(folder)) > LONGEST or not _is_writable(folder):
        folder = options["_temp_dir"] = _short_folder(folder)
    if os.path.isdir(SHARED) and not _is_writable(SHARED):
        options["_plasma_directory"] = folder
    return options


def _short_folder(instead_of: str) -> str:
    for parent in ("/tmp", "/var/tmp", SHARED):
        if _is_writable(parent):
            REMOVED_AT_EXIT.append(tempfile.mkdtemp(prefix="mmfilter-ray-", dir=parent))
            return REMOVED_AT_EXIT[-1]
    raise MMFilterError(
        f"{instead_of}: Ray cannot keep its sockets there (the path is too long, or cannot be written), nor in /tmp. "
        f"Set RAY_TMPDIR to a folder that can be written, of at most {LONGEST} characters. {INSTEAD}"
    )


def _is_writable(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def sentence(place: str, error: BaseException) -> str:
    """Why Ray could not be started or joined, and what to do."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    token = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, the same as on the cluster"
    if "Version mismatch" in text:
        told = " ".join(line.strip() for line in str(error).splitlines()[:5])
        return f"{place}: {told} Install the cluster's versions here, or send the job with `mmfilter submit`"
    if kind == "AuthenticationError" or "nauthenticated" in text or "authentication" in text.lower():
        return f"{place} wants another token ({text[:200]}); {token}"
    if text.startswith("Failed to connect to Ray cluster"):
        return (
            f"{place}: Ray answers there and refuses this process. Its token may be another: {token}. "
            "Or it is another of Ray's ports than the head's, 6379 by default"
        )
    verb = "start" if place == LOCAL else "join"
    return f"cannot {verb} {place}: {text[:400].rstrip('.') or kind}. {_advice(place)}"


def _advice(place: str) -> str:
    if "ray://" in place:
        return f"A ray:// address has the port of the head's client server, 10001 by default. {INSTEAD}"
    if place != LOCAL:
        return f"Look at gcs_server.out in /tmp/ray/session_latest/logs on the head. {INSTEAD}"
    return (
        "Look at the logs in ray/session_latest/logs of its temporary folder (/tmp), and whether this machine has "
        f"memory, processes (ulimit -u) and room in {SHARED} and /tmp left. {INSTEAD}"
    )


@contextmanager
def bounded(place: str) -> Iterator[None]:
    """The block that starts or joins Ray at `place`. What it raises is an MMFilterError, and no process of it is left.

    A command ends where the block takes longer than START_S: Ray's compiled code hears neither a signal nor an
    exception.
    """
    before = processes.descendants()
    over = threading.Event()
    limit = _limit()
    if stopping.STATE.installed:
        threading.Thread(target=_watch, args=(over, limit, place), name="ray start", daemon=True).start()
    try:
        yield
    except MMFilterError:
        raise
    except Exception as error:
        _end_since(before)
        raise MMFilterError(sentence(place, error)) from error
    finally:
        over.set()


def _limit() -> float:
    try:
        return float(os.environ.get(VARIABLE) or START_S)
    except ValueError:
        raise UsageError(f"{VARIABLE}: seconds are wanted, not '{os.environ[VARIABLE]}'") from None


def _watch(over: threading.Event, limit: float, place: str) -> None:
    if not over.wait(limit):
        verb = "started" if place == LOCAL else "joined"
        stopping.give_up(
            f"{place} could not be {verb} within {limit:g} s. {_advice(place)}. {VARIABLE} sets the seconds to wait"
        )


def _end_since(before: dict[int, str]) -> None:
    """End what was started after `before`: Ray leaves its servers running where its start fails."""
    processes.kill({pid: start for pid, start in processes.descendants().items() if before.get(pid) != start})


def _tidy() -> None:
    for folder in REMOVED_AT_EXIT:
        shutil.rmtree(folder, ignore_errors=True)


atexit.register(_tidy)  # before Ray is imported, so that Ray has ended when it is called
