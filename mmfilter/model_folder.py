"""The folder that a training writes: begun with a mark, so that no other file of these names is replaced."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from . import checkpoint, storage
from .errors import ConflictError

MARK = ".training"
WRITTEN = (checkpoint.CONFIG, checkpoint.WEIGHTS, checkpoint.VOCABULARY, "recipe.yaml", "open_clip")


@contextmanager
def begun(out: str) -> Iterator[None]:
    """Make the folder, and mark it as a training's until the block has ended well.

    Raises ConflictError where it holds files of a training's names, and neither a mark nor a train.json.
    """
    names = set(os.listdir(out)) if os.path.isdir(out) else set()
    others = [name for name in WRITTEN if name in names]
    earlier = os.path.exists(os.path.join(out, "open_clip", "job.json"))
    if others and not earlier and not names & {MARK, "train.json"}:
        raise ConflictError(
            f"{out}: its {others[0]} is not of `mmfilter train`, and is not replaced; give another --out"
        )
    existed = os.path.isdir(out)
    storage.write_atomic(os.path.join(out, MARK), b"")
    try:
        yield
    except BaseException:
        new = set(os.listdir(out)) - names
        if new <= {MARK, checkpoint.VOCABULARY}:  # no model was begun: it was a wrong path or option
            for name in new:
                storage.remove(os.path.join(out, name))
            if not existed:
                os.rmdir(out)
        raise
    storage.remove(os.path.join(out, MARK))
