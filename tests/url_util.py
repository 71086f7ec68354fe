"""A list of urls as a parquet file."""

import polars as pl
from tars import uid


def write_list(path, urls, **columns):
    n = len(urls)
    pl.DataFrame(
        {"uid": [uid(i) for i in range(n)], "url": urls, "text": [f"picture {i}" for i in range(n)], **columns}
    ).write_parquet(path)
    return str(path)
