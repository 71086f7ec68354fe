"""A worker of `download`: img2dataset's own downloader, resizer and writer on one piece of a list.

The shard is made in a temporary folder and handed to OUT whole, its stats last: OUT may be an object
store, and a worker that dies leaves nothing half-made.
"""

import contextlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from mmfilter import storage
from mmfilter.download_rows import rows_in_tar
from mmfilter.errors import need
from mmfilter.images import ImageLimits
from mmfilter.url_lists import read_piece

from . import polite
from .download import DIGITS, PATIENCE, Fetching

UNWRITTEN = "downloaded and not written to the tar"
QUIET = {"NO_ALBUMENTATIONS_UPDATE": "1"}  # it asks its maker for news when it is imported


def prepare(out: str, fetching: Fetching) -> Callable[[int], tuple[int, int]]:
    """fetch(number) -> (rows, successes), with this process's `urlopen` bounded."""
    pixels = str(ImageLimits().max_pixels)
    os.environ.update({**QUIET, "OPENCV_IO_MAX_IMAGE_PIXELS": pixels})  # before OpenCV is loaded: no bomb is decoded
    need("img2dataset", "mmfilter[download]")
    polite.install(fetching.max_bytes, PATIENCE * fetching.timeout, fetching.allow_private)
    return lambda number: fetch_piece(out, number, fetching)


def fetch_piece(out: str, number: int, fetching: Fetching) -> tuple[int, int]:
    """Make shard `number`; returns (rows, successes)."""
    piece, name = read_piece(out, number), f"{number:0{DIGITS}d}"
    with tempfile.TemporaryDirectory(prefix="mmfilter-") as folder:
        feather = os.path.join(folder, "piece.arrow")
        with pa.OSFile(feather, "wb") as sink, pa.ipc.new_file(sink, piece.schema) as writer:
            writer.write_table(piece)
        with contextlib.redirect_stdout(sys.stderr):
            downloader(folder, piece, fetching).download_shard((number, feather))
        held = len(rows_in_tar(os.path.join(folder, f"{name}.tar"), number))
        correct_stats(os.path.join(folder, f"{name}_stats.json"), held)
        for ending in (".tar", ".parquet", "_stats.json"):
            with (
                open(os.path.join(folder, name + ending), "rb") as source,
                storage.open_atomic(storage.join(out, name + ending)) as to,
            ):
                shutil.copyfileobj(source, to, 1 << 20)
    return len(piece), held


def correct_stats(path: str, held: int) -> None:
    """Make the stats say `held` successes. img2dataset counts a sample before it writes it, and goes on without it."""
    with open(path, encoding="utf-8") as stream:
        stats = json.load(stream)
    if stats["successes"] == held:
        return
    lost = stats["successes"] - held
    answers = {**stats["status_dict"], "success": held, **({UNWRITTEN: lost} if lost > 0 else {})}
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({**stats, "successes": held, "status_dict": answers}, stream, indent=4)


def downloader(folder: str, piece: pa.Table, fetching: Fetching) -> Any:
    """img2dataset's Downloader as DataComp sets it up (github.com/mlfoundations/datacomp, download_upstream.py)."""
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    resizer = Resizer(
        image_size=fetching.image_size,
        resize_mode="keep_ratio_largest",
        resize_only_if_bigger=True,
    )
    return Downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=resizer,
        thread_count=fetching.threads,
        save_caption=True,
        extract_exif=True,
        output_folder=folder,
        column_list=piece.column_names,
        timeout=fetching.timeout,
        number_sample_per_shard=10 ** max(4, math.ceil(math.log10(max(1, len(piece))))),  # keys of 12 digits
        oom_shard_count=DIGITS,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        retries=fetching.retries,
        user_agent_token=None,
        disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
    )
