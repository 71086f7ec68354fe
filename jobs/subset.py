"""`subset`: the algebra of subset files."""

from typing import Annotated

import typer

from mmfilter.errors import UsageError


def add(app: typer.Typer) -> None:
    @app.command()
    def subset(
        words: Annotated[
            list[str], typer.Argument(help="A.npy, or A.npy '&' B.npy '|' C.npy '-' D.npy, from left to right.")
        ],
        write: Annotated[str, typer.Option("--write", help="Write the result here.")] = "",
        sort: Annotated[bool, typer.Option("--sort", help="Accept an unsorted file.")] = False,
        unique: Annotated[bool, typer.Option("--unique", help="Each uid once.")] = False,
        show: Annotated[int, typer.Option(min=0, help="Print so many uids.")] = 0,
    ) -> None:
        """Count, combine and sort subsets: & is the smaller count, | the larger, - the difference."""
        from mmfilter import storage
        from mmfilter.subset import Subset, load

        def read(path: str) -> Subset:
            if not storage.exists(path):
                raise UsageError(f"{path}: no such subset")
            return Subset(load(storage.read_bytes(path), path)) if sort else Subset.read(path)

        if len(words) % 2 == 0:
            raise UsageError(
                "give files with '&', '|' or '-' between them (quoted, so that the shell leaves them alone)"
            )
        result = read(words[0])
        for sign, path in zip(words[1::2], words[2::2], strict=True):
            if sign not in ("&", "|", "-"):
                raise UsageError(f"'{sign}' stands where '&', '|' or '-' should")
            other = read(path)
            result = result & other if sign == "&" else result | other if sign == "|" else result - other
        result = result.unique() if unique else result
        print(f"{len(result):,} uids, {len(result.unique()):,} different")
        for uid in result.strings()[:show]:
            print(uid)
        if write:
            result.write(write)
            print(write)
