"""The process that works out `where` expressions for the service: `python -m index.service.where_process`.

It reads requests from its input: the length of an expression, the expression, the length of a table, the table as an
Arrow IPC stream; lengths are 8 bytes. It answers each with a byte, a length and as many bytes: `+` and the mask, or
`!` and a sentence. It has a limit on its memory, and ends when its input does or its parent is gone.
"""

import io
import os
import resource
import sys
import threading
import time
from typing import BinaryIO

MEMORY = 4 << 30  # bytes of data


def main() -> int:
    """Answer until the input ends."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    answers.write(b"+" + bytes(8))  # ready
    answers.flush()
    while (sql := _read(requests)) is not None:
        table = _read(requests)
        if table is None:
            break
        status, data = _answer(sql.decode("utf-8", "surrogatepass"), table)
        answers.write(status + len(data).to_bytes(8, "little") + data)
        answers.flush()
    return 0


def _answer(sql: str, table: bytes) -> tuple[bytes, bytes]:
    import polars as pl

    from mmfilter.rules.where import evaluate_here

    try:
        return b"+", evaluate_here(sql, pl.read_ipc_stream(io.BytesIO(table))).tobytes()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # polars also panics, which is no Exception
        lines = str(error).splitlines() or [type(error).__name__]
        return b"!", lines[0][:300].encode("utf-8", "replace")


def _read(stream: BinaryIO) -> bytes | None:
    """The next length and its bytes; None at the end."""
    length = stream.read(8)
    if len(length) < 8:
        return None
    data = stream.read(int.from_bytes(length, "little"))
    return data


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
